package ladder

import (
	"fmt"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// State is the word for what a process does, as status shows it.
type State string

// The states. A lock and "given up while it runs" are told beside them.
const (
	stateWaiting   State = "waiting" // for what it needs, or for the facts of adoption
	stateStarting  State = "starting"
	stateRampUp    State = "ramp-up" // started, not yet judged
	stateRunning   State = "running"
	stateExamining State = "examining"
	stateStopping  State = "stopping"
	stateDelayed   State = "delayed" // a restart is due later
	stateMoving    State = "failing-over"
	stateRebooting State = "rebooting"
	stateStopped   State = "stopped" // not wanted
	stateDone      State = "done"    // ended well
	stateGivenUp   State = "given-up"
	stateDown      State = "down" // ended while it was not watched
	stateStuck     State = "stuck"
	stateStandby   State = "standby"   // its group is active elsewhere
	stateElsewhere State = "elsewhere" // its on: does not name this node
	stateSeeking   State = "seeking"
)

// View is the picture of one process.
//
//budget:fields it is what status shows
type View struct {
	Name         ha.Process
	State        State
	Reason       string // why it is in this state, one sentence
	Locked       bool
	Disabled     bool          // given up, or nothing of the node is watched any more
	Fault        ha.Fault      // of the alarm that stands
	Recovery     ha.Recovery   // in force
	Escalation   ha.Escalation // in force
	Overlay      bool          // one of them was set by hand over the manifest's
	Start        ha.StartID    // of the running copy; zero for none
	PID          int
	Since        ha.Instant // of the state
	Started      ha.Instant // of the running copy
	Starts       uint64     // counted since Gemel's first start
	Window       int        // restarts counted in the window now
	Last         *ha.ExitStatus
	Lock         LockView
	RecoveryBy   LockView // who set it by hand; empty: nobody, or it is not known
	EscalationBy LockView
}

// LockView is since when something is locked, and by whom; zero if it is not, or
// if that is not known.
type LockView struct {
	Since time.Time // wall time
	By    string
}

func (l lock) view() LockView {
	if l == (lock{}) {
		return LockView{}
	}
	return LockView{time.UnixMilli(l.At).UTC(), l.By}
}

// CheckView is the picture of one check.
type CheckView struct {
	Name     ha.Check
	Locked   bool
	Disabled bool   // nothing of the node is watched any more
	State    string // passing, failing, waiting, off, elsewhere
	Failures int    // failing verdicts in a row
	Detail   string // what it said last
	Last     ha.Instant
	Lock     LockView
}

// NodeView is the picture of the node.
type NodeView struct {
	Locked   bool
	Disabled bool // the budget was exceeded
	Role     ha.Role
	Stopping bool
	Budget   []ha.Instant // reboots and failovers that still count
	Lock     LockView
}

// Processes returns the picture of each process, sorted by name.
func (m *Machine) Processes() []View {
	views := make([]View, 0, len(m.list))
	for _, p := range m.list {
		state, reason := describe(p)
		v := View{Name: p.name, State: state, Reason: reason, Locked: p.mem.Hard.Locked, Disabled: p.mem.Hard.Disabled || m.node.hard.Disabled,
			Fault: p.mem.Cure.Fault, Recovery: p.recovery(), Escalation: p.escalation(),
			Overlay: p.mem.Hard.Recovery != ha.RecoveryUnset || p.mem.Hard.Escalation != ha.EscalationUnset,
			Since:   p.since, Starts: p.mem.Starts, Window: p.mem.Window.count(m.now, p.cfg.Restarts), Last: p.mem.Last, Lock: p.mem.Hard.Lock.view(),
			RecoveryBy: p.mem.Hard.RecoveryBy.view(), EscalationBy: p.mem.Hard.EscalationBy.view()}
		if p.alive() {
			v.Start, v.PID, v.Started = p.run.start, p.run.pid, p.run.began
		}
		views = append(views, v)
	}
	return views
}

// Checks returns the picture of each check, sorted by name.
func (m *Machine) Checks() []CheckView {
	views := make([]CheckView, 0, len(m.checks))
	for _, c := range m.checks {
		v := CheckView{Name: c.cfg.Name, Locked: c.mem.Locked, Disabled: m.node.hard.Disabled, State: "passing",
			Failures: c.fails, Detail: c.detail, Last: c.last, Lock: c.mem.Lock.view()}
		switch {
		case c.elsewhere():
			v.State = string(stateElsewhere)
		case !c.on:
			v.State = "off"
		case !c.known:
			v.State = "waiting"
		case c.fails > 0:
			v.State = "failing"
		}
		views = append(views, v)
	}
	return views
}

// Node returns the picture of the node.
func (m *Machine) Node() NodeView {
	return NodeView{Locked: m.node.hard.Locked, Disabled: m.node.hard.Disabled, Role: m.node.role,
		Stopping: m.node.quitting, Budget: m.node.spent(), Lock: m.node.hard.Lock.view()}
}

// word notes since when the process is in its state.
func word(p *proc) {
	s, _ := describe(p)
	if s == p.state {
		return
	}
	known := p.state == "" && p.mem.Rest != 0
	p.state, p.since = s, p.m.now
	switch s {
	case stateGivenUp, stateStopped, stateDown, stateDone, stateElsewhere:
		if known {
			p.since = p.mem.Rest // the monitor before saw it come to rest
		}
		p.mem.Rest = p.since
	default:
		p.mem.Rest = 0
	}
}

// describe says what the process does and why.
func describe(p *proc) (State, string) {
	switch p.mem.Cure.Stage {
	case examining:
		return stateExamining, "evidence of its fault is being taken: " + p.mem.Cure.Detail
	case failing:
		return stateMoving, "it waits for the answer of the failover"
	case rebooting:
		return stateRebooting, "a reboot of this machine was ordered"
	}
	switch p.run.phase {
	case seeking:
		return stateSeeking, "it looks for the program of its attach rule"
	case starting:
		return stateStarting, "its start was ordered"
	case stopping:
		if p.mem.More > p.m.now {
			return stateStopping, p.run.stop.Text + "; it asked for more time"
		}
		return stateStopping, p.run.stop.Text
	case stuck:
		return stateStuck, "it is still there after SIGKILL; no other copy is started"
	case up:
		return running(p)
	}
	return resting(p)
}

// running describes a copy that runs.
func running(p *proc) (State, string) {
	switch {
	case p.mem.Hard.Locked:
		return stateRunning, "it is locked: it runs and is not watched"
	case p.mem.Hard.Disabled:
		return stateGivenUp, "it runs and is not watched: " + p.mem.Cure.Detail
	case p.run.settled:
		return stateRunning, "it runs"
	case p.cfg.Ready.Kind != manifest.ReadyStarted && p.mem.More > p.m.now:
		return stateRampUp, fmt.Sprintf("it is not ready yet (%s) and asked for more time", p.cfg.Ready.Kind)
	case p.cfg.Ready.Kind != manifest.ReadyStarted:
		return stateRampUp, fmt.Sprintf("it is not ready yet (%s)", p.cfg.Ready.Kind)
	}
	return stateRampUp, fmt.Sprintf("it is in its ramp-up of %s", ha.Span(p.cfg.RampUp))
}

// resting describes a process of which no copy is there.
func resting(p *proc) (State, string) {
	c := p.mem.Cure
	text, ok := intended(p)
	switch {
	case elsewhere(p) && !p.m.node.quitting:
		return stateElsewhere, text
	case p.away():
		return stateStandby, text
	case p.mem.Hard.Disabled:
		return stateGivenUp, "it was given up: " + c.Detail
	case !ok:
		return stateStopped, text
	case p.mem.Done:
		return stateDone, "it ended as expected"
	case p.mem.Fell && p.m.node.hard.Disabled:
		return stateDown, "it ended, and nothing on this node is recovered any more: its budget of reboots and failovers is used up"
	case p.mem.Fell:
		return stateDown, "it ended while it was not watched"
	case p.mem.Hard.Locked:
		return stateDown, "it is locked and does not run"
	case p.m.node.hard.Locked:
		return stateDown, "the node is locked and it does not run"
	case c.Stage == waiting:
		return stateDelayed, fmt.Sprintf("it waits %s before restart %d of %d",
			ha.Span(c.Due.Sub(p.m.now)), p.mem.Window.count(p.m.now, p.cfg.Restarts), p.cfg.Restarts.Limit)
	case p.plan.told:
		return stateSeeking, "nothing matches its attach rule; it is looked for again and again"
	case !p.m.node.settled:
		return stateWaiting, "what runs is being found out"
	}
	if len(p.mem.Strays) > 0 {
		return stateWaiting, "it waits for the end of a copy that nobody ordered"
	}
	if text := blocker(p); text != "" {
		return stateWaiting, "it waits " + text
	}
	return stateWaiting, "its start is due"
}
