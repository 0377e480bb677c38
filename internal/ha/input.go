package ha

import "time"

// An Input is a fact that comes into a decision. The set is closed: each type
// is a small struct of this file and is in the journal under its Name.
type Input interface{ Name() string }

type (
	// Tick says only that the time has come that the core asked for by Wake.
	Tick struct{}

	// Booted opens each life of a monitor: what it is, and what it knows of the
	// time before.
	Booted struct {
		Boot    string `json:"boot"`     // the kernel's boot id
		NewBoot bool   `json:"new_boot"` // the machine was booted since the last monitor of this node wrote
		Version string `json:"version"`
		First   bool   `json:"first"` // nothing was ever recorded here before
		// Gap is the least time that is certain to lie between the last instant
		// recorded in the boot before and the zero of this one's clock; 0 if it
		// is not known. It ages what was kept across the boot.
		Gap time.Duration `json:"gap,omitempty"`
		// Node is the name of this node, which "on:" of a process is compared with.
		// Empty, as in a journal of a version that did not know it: every process is
		// for this node.
		Node Node `json:"node,omitempty"`
		// Cluster: this node belongs to a cluster, so that what a group has active runs
		// only while MayRun names the group.
		Cluster bool `json:"cluster,omitempty"`
		// Alone: no other node is in that cluster, and none comes into it while something of
		// a group runs here by no right. What runs from before the cluster goes on until its
		// group has a right.
		Alone bool `json:"alone,omitempty"`
		// Own are programs of Gemel itself, beside those of any manifest.
		Own []Own `json:"own,omitempty"`
	}

	// Started says that a program executes its first instruction, or is about to.
	Started struct {
		Process Process `json:"process"`
		Start   StartID `json:"start"`
		PID     int     `json:"pid"`
	}

	// StartFailed says that a start came to nothing; the program never ran.
	StartFailed struct {
		Process Process `json:"process"`
		Start   StartID `json:"start"`
		Error   string  `json:"error"`
		// Unentitled: this node had no authority for its group at that instant. That is
		// no fault of the program.
		Unentitled bool `json:"unentitled,omitempty"`
	}

	// Exited says that a program is gone. Successor is the start that the shadow
	// made at once under a standing order (see Arm), or zero.
	Exited struct {
		Process   Process    `json:"process"`
		Start     StartID    `json:"start"`
		Status    ExitStatus `json:"status"`
		Successor StartID    `json:"successor,omitempty"`
		PID       int        `json:"pid,omitempty"` // the successor's, if any
	}

	// StopFailed says that a program is still there after SIGKILL and its bound
	// (state D). It may still exit later.
	StopFailed struct {
		Process Process `json:"process"`
		Start   StartID `json:"start"`
		Detail  string  `json:"detail"`
	}

	// Ready says that the program's readiness condition holds (READY=1, port,
	// file, check).
	Ready struct {
		Process Process `json:"process"`
		Start   StartID `json:"start"`
		How     string  `json:"how"` // notify, port, file, check
	}

	// Stopping says that the program announced its own end (STOPPING=1).
	Stopping struct {
		Process Process `json:"process"`
		Start   StartID `json:"start"`
	}

	// Busy says that the program needs more time to become ready, or to end
	// (EXTEND_TIMEOUT_USEC=).
	Busy struct {
		Process Process       `json:"process"`
		Start   StartID       `json:"start"`
		For     time.Duration `json:"for"` // from the instant of this input on; above 0
	}

	// Missed says that a watched thread, or the whole program, did not beat
	// within the time that Watch allowed.
	Missed struct {
		Process Process `json:"process"`
		Start   StartID `json:"start"`
		Thread  string  `json:"thread"`  // name or number of the slowest thread; "" for sd_notify
		Last    Instant `json:"last"`    // when it was last heard
		Missing int     `json:"missing"` // how many threads are late
	}

	// Verdict is the result of a check. Each failure is told; of successes only
	// the first after a failure or after the check began.
	Verdict struct {
		Check   Check     `json:"check"`
		OK      bool      `json:"ok"`
		Detail  string    `json:"detail,omitempty"`
		Accused []Process `json:"accused,omitempty"` // which of the covered processes; empty means all
	}

	// Examined says that the evidence of a program was taken, or that its time
	// was up. Ref names what was kept; it may be empty.
	Examined struct {
		Process Process `json:"process"`
		Start   StartID `json:"start"`
		Ref     string  `json:"ref,omitempty"`
	}

	// FailedOver answers a Failover.
	FailedOver struct {
		Process Process `json:"process"`         // who asked
		Group   Group   `json:"group,omitempty"` // for which a part asked; Process is empty then
		Outcome Outcome `json:"outcome"`
		Detail  string  `json:"detail"`
		// StillActive: at least one of the groups that were asked about is still
		// active on this node.
		StillActive bool `json:"still_active"`
	}

	// RebootFailed says that the reboot command ended and the machine still runs.
	RebootFailed struct {
		Process Process `json:"process"`
		Detail  string  `json:"detail"`
	}

	// RoleSet tells this node's role: active or standby in the groups that hold
	// the process, or in any (Process empty). RoleNone on a machine of no cluster.
	RoleSet struct {
		Process Process `json:"process,omitempty"`
		Role    Role    `json:"role"`
	}

	// HalfDied says that the other half of Gemel died and is being started
	// again: KindShadow as seen by the monitor, KindMonitor as told by the shadow.
	HalfDied struct {
		Half   Kind       `json:"half"`
		Status ExitStatus `json:"status"`
		Hung   bool       `json:"hung,omitempty"` // it was killed because it did not answer
	}

	// HalfBack says that the other half runs again.
	HalfBack struct {
		Half Kind `json:"half"`
		PID  int  `json:"pid"`
	}

	// Adopted says that a program that the core may not know of runs: found by
	// a new monitor at the shadow, after a detach, or by attach.
	Adopted struct {
		Process Process `json:"process"`
		Start   StartID `json:"start"`
		PID     int     `json:"pid"`
		Age     Instant `json:"since"` // when it started
		Foreign bool    `json:"foreign,omitempty"`
		// Of is by the right of which group the shadow holds it; empty: by none.
		Of Group `json:"of,omitempty"`
		// Armed is the standing order that the shadow still holds for it.
		Armed StartID `json:"armed,omitempty"`
	}

	// NotFound says that nothing matches the attach rule of a process.
	NotFound struct {
		Process Process `json:"process"`
		Detail  string  `json:"detail"`
	}

	// Settled closes the facts of adoption: what is not known to run by now does
	// not run.
	Settled struct{}

	// Request is what an operator or a program asks for through the API.
	Request struct {
		ID     string  `json:"id,omitempty"` // the API's request, for the answer
		Verb   Verb    `json:"verb"`
		Target Subject `json:"target"`
		Value  string  `json:"value,omitempty"`
		Forced bool    `json:"forced,omitempty"` // of a move
		By     string  `json:"by,omitempty"`     // who, for the audit
		// Wall is when it was asked for, for showing only: a lock outlives boots, and
		// with them every instant. Zero in a journal of a version that did not note it.
		Wall time.Time `json:"wall,omitzero"`
	}

	// Applied says that a manifest is now the wanted one. The policies are not
	// in it: they are given to the core beside it, and are in the journal as a
	// manifest record with this version.
	Applied struct {
		Version uint64 `json:"version"`
		Digest  string `json:"digest"`
	}

	// Quit asks for the stop of every program, in reverse order, and the end.
	Quit struct {
		Why string `json:"why"`
	}
)

// Own is a program of Gemel itself.
type Own struct {
	Name    Process  `json:"name"`
	Command []string `json:"command"`
}

// Verb is what a Request asks for.
type Verb string

// The verbs.
const (
	VerbStart   Verb = "start"
	VerbStop    Verb = "stop"
	VerbRestart Verb = "restart"
	VerbLock    Verb = "lock"
	VerbUnlock  Verb = "unlock"
	VerbClear   Verb = "clear" // forget the restarts counted and the bars of this node
	// Of a cluster; they are no matter of one node.
	VerbMove   Verb = "move"   // a group; Value is the node, empty: wherever it belongs besides
	VerbDrain  Verb = "drain"  // have all groups leave a node, and none come
	VerbResume Verb = "resume" // take a drain back
	// VerbMaintain is maintenance of a group, a node, or with a node without a name the
	// cluster; Value is how long, empty: it ends.
	VerbMaintain Verb = "maintain"
	// VerbDecide has a node decide; without a name it is the one that suits best.
	VerbDecide Verb = "decide"
	// VerbConfirmOff says that an evicted node is off.
	VerbConfirmOff Verb = "confirm-off"
	// VerbRecovery and VerbEscalation set a dynamic item; Value is its word.
	VerbRecovery   Verb = "set-recovery"
	VerbEscalation Verb = "set-escalation"
)

// Name returns the name under which the input stands in the journal.
func (Tick) Name() string         { return "tick" }
func (Booted) Name() string       { return "booted" }
func (Started) Name() string      { return "started" }
func (StartFailed) Name() string  { return "start-failed" }
func (Exited) Name() string       { return "exited" }
func (StopFailed) Name() string   { return "stop-failed" }
func (Ready) Name() string        { return "ready" }
func (Stopping) Name() string     { return "stopping" }
func (Busy) Name() string         { return "busy" }
func (Missed) Name() string       { return "missed" }
func (Verdict) Name() string      { return "verdict" }
func (Examined) Name() string     { return "examined" }
func (FailedOver) Name() string   { return "failed-over" }
func (RebootFailed) Name() string { return "reboot-failed" }
func (RoleSet) Name() string      { return "role" }
func (HalfDied) Name() string     { return "half-died" }
func (HalfBack) Name() string     { return "half-back" }
func (Adopted) Name() string      { return "adopted" }
func (NotFound) Name() string     { return "not-found" }
func (Settled) Name() string      { return "settled" }
func (Request) Name() string      { return "request" }
func (Applied) Name() string      { return "applied" }
func (Quit) Name() string         { return "quit" }

// Longest time that evidence may take before a kill goes ahead without it.
const ExamineBound = 300 * time.Millisecond
