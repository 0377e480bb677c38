package ha

import "time"

// An Action is an order that a decision gives. It is never assumed done: its
// outcome comes back as an Input. The set is closed; each type is a small struct
// of this file, is in the journal under its Name, and carries its Reason.
type Action interface {
	Name() string
	Because() Reason
}

type (
	// Start orders one start of a program. Outcome: Started or StartFailed.
	Start struct {
		Process Process `json:"process"`
		Start   StartID `json:"start"`
		Why     Reason  `json:"why"`
	}

	// Arm is a standing order: if the program ends by itself, the shadow starts it
	// again at once as Next and tells both in one Exited. It is the decision to
	// restart taken (and written down) before the death, so that nothing stands
	// between death and successor. It holds for one death. Next zero takes the
	// order back; a program that ended in between was already started, and the
	// Exited that says so is on its way.
	Arm struct {
		Process Process `json:"process"`
		Start   StartID `json:"start"` // the running start
		Next    StartID `json:"next"`
		Why     Reason  `json:"why"`
	}

	// Stop orders the two-stage stop of the manifest: signal, grace, SIGKILL to
	// the whole tree. Kill skips the first stage. Outcome: Exited, or StopFailed
	// and perhaps Exited later.
	Stop struct {
		Process Process `json:"process"`
		Start   StartID `json:"start"`
		Kill    bool    `json:"kill,omitempty"`
		Why     Reason  `json:"why"`
	}

	// Extend moves the end of the first stage of a stop that is under way: no
	// SIGKILL before Until. It never shortens the grace.
	Extend struct {
		Process Process `json:"process"`
		Start   StartID `json:"start"`
		Until   Instant `json:"until"`
		Why     Reason  `json:"why"`
	}

	// Watch grants beats until they are due: if a thread is not heard for Within,
	// counted from Grace after the start at the earliest, the edge says Missed
	// once. Within zero ends the watch.
	Watch struct {
		Process Process       `json:"process"`
		Start   StartID       `json:"start"`
		From    Instant       `json:"from"` // silence before this instant does not count
		Within  time.Duration `json:"within"`
		Why     Reason        `json:"why"`
	}

	// Await orders the edge to look for the readiness of a start. Outcome: Ready.
	Await struct {
		Process Process `json:"process"`
		Start   StartID `json:"start"`
		Why     Reason  `json:"why"`
	}

	// Judge switches the runs of a check on or off.
	Judge struct {
		Check Check  `json:"check"`
		On    bool   `json:"on"`
		Why   Reason `json:"why"`
	}

	// Seek orders the edge to find the program of an attach rule and hold it.
	// Outcome: Adopted or NotFound; then Exited when it is gone.
	Seek struct {
		Process Process `json:"process"`
		Start   StartID `json:"start"` // the id under which it is held
		Why     Reason  `json:"why"`
	}

	// Examine orders evidence to be taken. Outcome: Examined; the core goes on
	// after ExamineBound without it.
	Examine struct {
		Process Process `json:"process"`
		Start   StartID `json:"start"`
		Fault   Fault   `json:"fault"`
		Why     Reason  `json:"why"`
	}

	// Handle runs the handler of a rung beside the recovery, never before it.
	Handle struct {
		Process Process `json:"process"`
		Rung    string  `json:"rung"` // restart, failover, reboot, give-up, recovered
		Why     Reason  `json:"why"`
	}

	// Failover asks that the groups of the process (all of the node if All) move
	// away. Outcome: FailedOver.
	Failover struct {
		Process Process `json:"process"`
		All     bool    `json:"all,omitempty"` // every group that is active on this node
		Bar     bool    `json:"bar,omitempty"` // and this node is barred for them
		// Group is the one that is to move, because a Part of it cannot be started;
		// Process is empty then. With Nowhere set it is to be started on no node.
		Group   Group  `json:"group,omitempty"`
		Part    Part   `json:"part,omitempty"`
		Nowhere bool   `json:"nowhere,omitempty"`
		Why     Reason `json:"why"`
	}

	// Reboot orders the machine's reboot. Outcome: none, or RebootFailed.
	Reboot struct {
		Process Process `json:"process"`
		Why     Reason  `json:"why"`
	}

	// Emit tells an event.
	Emit struct {
		Event Event `json:"event"`
	}

	// Keep orders a piece of the core's memory to be written down, so that the
	// next monitor, or the next boot, knows it. Sync asks for fsync before any
	// action of the same step is carried out.
	Keep struct {
		Key   string `json:"key"`   // process/NAME, check/NAME, node, or cluster/incarnation
		Value string `json:"value"` // JSON; empty forgets the key
		Sync  bool   `json:"sync,omitempty"`
		Why   Reason `json:"why"`
	}

	// Answer ends a Request. A refusal is an answer with OK false, and its reason.
	Answer struct {
		ID   string `json:"id"`
		OK   bool   `json:"ok"`
		Undo string `json:"undo,omitempty"` // the command that takes the change back
		Why  Reason `json:"why"`
	}

	// Done says that every program has stopped after a Quit.
	Done struct {
		Why Reason `json:"why"`
	}
)

// Name returns the name under which the action stands in the journal.
func (Start) Name() string    { return "start" }
func (Arm) Name() string      { return "arm" }
func (Stop) Name() string     { return "stop" }
func (Extend) Name() string   { return "extend" }
func (Watch) Name() string    { return "watch" }
func (Await) Name() string    { return "await" }
func (Judge) Name() string    { return "judge" }
func (Seek) Name() string     { return "seek" }
func (Examine) Name() string  { return "examine" }
func (Handle) Name() string   { return "handle" }
func (Failover) Name() string { return "failover" }
func (Reboot) Name() string   { return "reboot" }
func (Emit) Name() string     { return "emit" }
func (Keep) Name() string     { return "keep" }
func (Answer) Name() string   { return "answer" }
func (Done) Name() string     { return "done" }

// Because returns the reason of the action.
func (a Start) Because() Reason    { return a.Why }
func (a Arm) Because() Reason      { return a.Why }
func (a Stop) Because() Reason     { return a.Why }
func (a Extend) Because() Reason   { return a.Why }
func (a Watch) Because() Reason    { return a.Why }
func (a Await) Because() Reason    { return a.Why }
func (a Judge) Because() Reason    { return a.Why }
func (a Seek) Because() Reason     { return a.Why }
func (a Examine) Because() Reason  { return a.Why }
func (a Handle) Because() Reason   { return a.Why }
func (a Failover) Because() Reason { return a.Why }
func (a Reboot) Because() Reason   { return a.Why }
func (a Emit) Because() Reason     { return a.Event.Why }
func (a Keep) Because() Reason     { return a.Why }
func (a Answer) Because() Reason   { return a.Why }
func (a Done) Because() Reason     { return a.Why }
