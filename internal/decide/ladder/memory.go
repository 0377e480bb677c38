package ladder

import (
	"encoding/json"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// memory is what is known of a process beyond the life of one monitor. It is
// the value of its Keep, as JSON, and is changed in place.
type memory struct {
	Boot   string         `json:"boot,omitempty"` // boot id that the instants and start ids below belong to
	Hard   hard           `json:"hard,omitzero"`
	Cure   cure           `json:"cure,omitzero"`
	Window window         `json:"window,omitzero"`
	Done   bool           `json:"done,omitempty"`   // it ended well and is not started again in this boot
	Fell   bool           `json:"fell,omitempty"`   // it ended while it was not watched
	Start  ha.StartID     `json:"start,omitempty"`  // the newest start known
	Stop   ha.StartID     `json:"stop,omitempty"`   // the start whose stop was ordered
	Ready  ha.StartID     `json:"ready,omitempty"`  // the start that was ready
	More   ha.Instant     `json:"more,omitempty"`   // until when the newest start may take to become ready, or to end, because it asked
	Starts uint64         `json:"starts,omitempty"` // counted for ever
	Rest   ha.Instant     `json:"rest,omitempty"`   // since when it rests: given up, stopped, down or done
	Strays []ha.StartID   `json:"strays,omitempty"` // copies that nobody ordered, until they are gone
	Last   *ha.ExitStatus `json:"last,omitempty"`
	owned
}

// owned is by whose right the newest start runs.
type owned struct {
	Of    ha.Group   `json:"of,omitempty"`
	Taken ha.StartID `json:"taken,omitempty"` // the start that ran before there was a right; see foundling
}

// hard is the part of the memory that an operator was promised, or that must not
// be forgotten by a crash of the machine: a change of it is kept with fsync.
type hard struct {
	Locked     bool          `json:"locked,omitempty"`
	Disabled   bool          `json:"disabled,omitempty"` // given up, until lock and unlock
	Halted     bool          `json:"halted,omitempty"`   // stopped by an operator, until start or the next boot
	Asked      bool          `json:"asked,omitempty"`    // started by an operator although autostart is off
	Recovery   ha.Recovery   `json:"recovery,omitempty"` // set by hand over the manifest's; unset: the manifest's
	Escalation ha.Escalation `json:"escalation,omitempty"`
	Rebooting  bool          `json:"rebooting,omitempty"` // its recovery ordered a reboot
	Lock       lock          `json:"lock,omitzero"`
	// Who set what stands over the manifest.
	RecoveryBy   lock `json:"recovery_by,omitzero"`
	EscalationBy lock `json:"escalation_by,omitzero"`
}

// lock is since when something is locked or set by hand, and by whom, for showing. It is empty
// if a request did not say when it came.
type lock struct {
	At int64  `json:"at,omitempty"` // wall time, in milliseconds since 1970
	By string `json:"by,omitempty"`
}

// lockedBy is the lock that a request asks for.
func lockedBy(in ha.Request) lock {
	if in.Wall.IsZero() {
		return lock{}
	}
	return lock{in.Wall.UnixMilli(), in.By}
}

// stage is how far a recovery has come. Idle with a fault means that the
// program was started again and has yet to show that it works.
type stage string

const (
	idle      stage = ""
	examining stage = "examining" // evidence is being taken
	failing   stage = "failing"   // a failover was asked for
	rebooting stage = "rebooting" // a reboot was ordered
	ending    stage = "ending"    // the faulty copy is to be stopped, then started
	waiting   stage = "waiting"   // for the pause before the next start
)

// mode is what follows the answer of a failover.
type mode string

const (
	thenRestart   mode = "restart"
	thenReboot    mode = "reboot"
	thenEscReboot mode = "escalated-reboot"
	thenEscaped   mode = "escalated-failover"
)

// cure is a recovery under way.
type cure struct {
	Fault  ha.Fault            `json:"fault,omitempty"` // the alarm that stands
	Stage  stage               `json:"stage,omitempty"`
	Mode   mode                `json:"mode,omitempty"`
	Due    ha.Instant          `json:"due,omitempty"`    // end of examining or of waiting
	Paid   ha.Instant          `json:"paid,omitempty"`   // the entry of the node's budget
	Rule   manifest.ExitAction `json:"rule,omitempty"`   // exit action that overrides the recovery
	Start  ha.StartID          `json:"start,omitempty"`  // the faulty start
	Detail string              `json:"detail,omitempty"` // what the detector said
}

// load reads a kept value; an empty one leaves to untouched.
func load(value string, to any) error {
	if value == "" {
		return nil
	}
	return json.Unmarshal([]byte(value), to)
}

// save prints a value to be kept. The types are ours and cannot fail.
func save(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}

// rebooted forgets what belonged to the boot before: who was stopped by hand,
// what was done, which restarts were counted. Locks, settings and what was given
// up stay.
func (m *memory) rebooted() {
	m.Hard.Halted, m.Hard.Asked, m.Hard.Rebooting = false, false, false
	m.Done, m.Fell = false, false
	m.Stop, m.Ready, m.More, m.Rest, m.Strays, m.Taken = 0, 0, 0, 0, nil, 0
	m.Window = window{}
	m.Cure.Stage, m.Cure.Mode, m.Cure.Due, m.Cure.Paid, m.Cure.Rule = idle, "", 0, 0, ""
}
