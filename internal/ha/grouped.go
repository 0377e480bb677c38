package ha

import "strings"

// What a node does for the groups that it may run. These belong to the closed sets
// of Input and Action, as those of input.go and action.go do.
type (
	// MayRun says which groups this node may run: what of the authority's Rights
	// concerns what is started and stopped. Instants are not in it; the shadow keeps
	// them. It comes when a group or a fence of it changes, and not at each renewal.
	MayRun struct {
		Rights uint64  `json:"rights"` // number of the Rights
		Groups []Right `json:"groups,omitempty"`
	}

	// Lapsed says that the shadow has begun to kill what it holds of a group: the
	// authority for it has come to its end.
	Lapsed struct {
		Group Group `json:"group"`
		Fence Fence `json:"fence"`
	}

	// PartDone answers StartPart and StopPart.
	PartDone struct {
		Group  Group  `json:"group"`
		Part   Part   `json:"part"`
		On     bool   `json:"on,omitempty"` // it answers a StartPart
		OK     bool   `json:"ok,omitempty"`
		Detail string `json:"detail,omitempty"` // why not
		// Gone, of a start that failed: it was seen stopped again, or nothing was begun.
		Gone bool `json:"gone,omitempty"`
		// Hard, of a start that failed: it cannot work on this node as it is. Fatal: on no
		// node, before an operator has looked.
		Hard  bool `json:"hard,omitempty"`
		Fatal bool `json:"fatal,omitempty"`
	}

	// GroupFreed says that an operator lets a group be started here again.
	GroupFreed struct {
		Group Group `json:"group"`
	}
)

// PartLost says that a part that was started is not there any more, or not as it should
// be, without anybody having ordered that.
type PartLost struct {
	Group  Group  `json:"group"`
	Part   Part   `json:"part"`
	Detail string `json:"detail"`
}

// A program that ran before its machine was the first node of a cluster goes on by the
// right of its group.
type (
	// Entrust orders that a program that runs by no right runs by that of its group from
	// now on: its deadline, its guard and its gate. Outcome: Entrusted.
	Entrust struct {
		Process Process `json:"process"`
		Start   StartID `json:"start"`
		Group   Group   `json:"group"`
		Fence   Fence   `json:"fence"`
		Why     Reason  `json:"why"`
	}

	// Entrusted answers Entrust.
	Entrusted struct {
		Process Process `json:"process"`
		Start   StartID `json:"start"`
		Group   Group   `json:"group"`
		Fence   Fence   `json:"fence"`
		Error   string  `json:"error,omitempty"` // why not; empty: it is done
		// Unentitled: this node had no right for the group at that instant.
		Unentitled bool `json:"unentitled,omitempty"`
	}
)

// Name returns the name under which the action stands in the journal.
func (Entrust) Name() string { return "entrust" }

// Because returns the reason of the action.
func (a Entrust) Because() Reason { return a.Why }

// Name returns the name under which the input stands in the journal.
func (Entrusted) Name() string { return "entrusted" }

// Part names what of a group is no process: "address 192.0.2.10/24", "script NAME",
// "ocf NAME".
type Part string

// Made reports whether the part is started and stopped by commands of others.
func (p Part) Made() bool {
	return strings.HasPrefix(string(p), "script ") || strings.HasPrefix(string(p), "ocf ")
}

// The orders about groups.
type (
	// StartPart orders a part of a group to be made active here. Outcome: PartDone.
	StartPart struct {
		Group Group   `json:"group"`
		Part  Part    `json:"part"`
		Fence Fence   `json:"fence"`
		Start StartID `json:"start,omitempty"` // of the program that holds it, if commands make it
		Again bool    `json:"again,omitempty"` // it may be there, begun by a life before
		Why   Reason  `json:"why"`
	}

	// StopPart orders it to be taken away. Outcome: PartDone, which is OK only when it
	// is seen gone.
	StopPart struct {
		Group Group   `json:"group"`
		Part  Part    `json:"part"`
		Fence Fence   `json:"fence"`
		Start StartID `json:"start,omitempty"` // of the program that stops it, if nothing holds it any more
		// Cut ends a start that is under way. It has no outcome but that of the start.
		Cut bool   `json:"cut,omitempty"`
		Why Reason `json:"why"`
	}

	// Account tells the authority what of the groups is not seen stopped.
	Account struct {
		Holds
		Why Reason `json:"why"`
	}
)

// Name returns the name under which the input stands in the journal.
func (MayRun) Name() string   { return "may-run" }
func (Lapsed) Name() string   { return "lapsed" }
func (PartDone) Name() string { return "part-done" }
func (PartLost) Name() string { return "part-lost" }

// Name returns the name under which the input stands in the journal.
func (GroupFreed) Name() string { return "group-freed" }

// Name returns the name under which the action stands in the journal.
func (StartPart) Name() string { return "start-part" }
func (StopPart) Name() string  { return "stop-part" }
func (Account) Name() string   { return "account" }

// Because returns the reason of the action.
func (a StartPart) Because() Reason { return a.Why }
func (a StopPart) Because() Reason  { return a.Why }
func (a Account) Because() Reason   { return a.Why }
