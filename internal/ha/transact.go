package ha

import "strings"

// Inputs of the machines of a cluster. They belong to the closed set of Input.
type (
	// NodeRead answers ReadNode. At is the revision of the store that was read, Key
	// that of the node's key; zero: there is no such key.
	NodeRead struct {
		ID     uint64     `json:"id"`
		At     Rev        `json:"at"`
		Key    Rev        `json:"key,omitempty"`
		Record NodeRecord `json:"record"`
		Error  string     `json:"error,omitempty"` // why there is no answer; empty: there is one
	}

	// StoreRead answers ReadStore: everything that the brain decides by, at one
	// revision.
	StoreRead struct {
		ID     uint64       `json:"id"`
		At     Rev          `json:"at"`
		Epoch  Rev          `json:"epoch,omitempty"` // revision of the brain's key
		Brain  BrainRecord  `json:"brain"`
		Nodes  []KeyedNode  `json:"nodes,omitempty"`  // sorted by node
		Groups []KeyedGroup `json:"groups,omitempty"` // sorted by group
		Error  string       `json:"error,omitempty"`
	}

	// StoreWritten answers WriteStore. What is neither OK nor refused has an unknown
	// outcome: it may be committed still, at any later time.
	StoreWritten struct {
		ID      uint64 `json:"id"`
		OK      bool   `json:"ok"`
		Refused bool   `json:"refused,omitempty"` // a guard did not hold: it never will be committed
		At      Rev    `json:"at,omitempty"`      // that it was committed at
		Error   string `json:"error,omitempty"`
	}

	// Holds tells what of the groups is not seen stopped on this node, as of the
	// Rights of that number.
	Holds struct {
		Rights uint64  `json:"rights"`
		Groups []Group `json:"groups,omitempty"` // sorted
		// Unproved are those of them that were to stop, and whose stop cannot be proved.
		Unproved []Group `json:"unproved,omitempty"`
	}

	// Drawn answers Draw.
	Drawn struct {
		Incarnation Incarnation `json:"incarnation"`
	}

	// Departs asks a node to leave the cluster.
	Departs struct{}

	// Hearing answers Listen: when each node was last heard, and what it said then.
	Hearing struct {
		Nodes []Heard `json:"nodes,omitempty"` // sorted by node
	}

	// Stirred says that something in the store changed: what was read may be old.
	Stirred struct {
		At Rev `json:"at"` // the newest revision that is known of
	}

	// Off says that a fence device was told to turn a node off after TurnOff was
	// ordered, did so, and said afterwards that the node is off.
	Off struct {
		Node Node `json:"node"`
		Key  Rev  `json:"key"` // of the TurnOff that it answers
	}
)

// KeyedNode is a node's record with the revision of its key.
type KeyedNode struct {
	NodeRecord
	Key Rev `json:"key"`
}

// KeyedGroup is a group's record with the revision of its key.
type KeyedGroup struct {
	GroupRecord
	Key Rev `json:"key"`
}

// Heard is what is known of a node by its heartbeats.
type Heard struct {
	Node  Node    `json:"node"`
	At    Instant `json:"at"` // by our clock; zero: never
	Said  Said    `json:"said"`
	Hears []Node  `json:"hears,omitempty"` // whom it hears itself; sorted
}

// Said is what a node says of itself with each heartbeat.
type Said struct {
	Incarnation Incarnation `json:"incarnation,omitempty"`
	// Key is the revision of its own key that it obeys: what that does not grant is
	// not started any more. Zero: it obeys none.
	Key   Rev     `json:"key,omitempty"`
	Holds []Group `json:"holds,omitempty"` // not seen stopped; sorted
	// Unproved are those of them that should have stopped, and cannot be seen to have.
	Unproved []Group `json:"unproved,omitempty"`
	// Away says that the store has not answered it for as long as an authority lasts.
	Away bool `json:"away,omitempty"`
}

// Actions of the machines of a cluster. They belong to the closed set of Action.
type (
	// ReadNode orders a linearizable read of this node's own key.
	ReadNode struct {
		ID  uint64 `json:"id"`
		Why Reason `json:"why"`
	}

	// ReadStore orders a linearizable read of all keys at one revision.
	ReadStore struct {
		ID  uint64 `json:"id"`
		Why Reason `json:"why"`
	}

	// WriteStore orders one transaction: all changes or none.
	WriteStore struct {
		ID    uint64 `json:"id"`
		Epoch Rev    `json:"epoch,omitempty"` // revision that the brain's key must have; zero: any
		Puts  []Put  `json:"puts"`
		Why   Reason `json:"why"`
	}

	// Rights says what this node may run, each until its own instant. What is not in
	// it has no right and is stopped at once. Number grows with each.
	Rights struct {
		Number uint64  `json:"number"`
		Groups []Right `json:"groups,omitempty"` // sorted by group
		Why    Reason  `json:"why"`
	}

	// Say changes what the heartbeats say of this node.
	Say struct {
		Said
		Why Reason `json:"why"`
	}

	// Draw orders a new incarnation, drawn at random.
	Draw struct {
		Why Reason `json:"why"`
	}

	// Listen asks whom the heartbeats were heard of.
	Listen struct {
		Why Reason `json:"why"`
	}

	// TurnOff orders a fence device to turn a node off.
	TurnOff struct {
		Node Node   `json:"node"`
		Key  Rev    `json:"key"` // of the suspicion that it is ordered for
		Why  Reason `json:"why"`
	}
)

// Right is what authority over one group is: whose grant, and until when.
type Right struct {
	Grant
	Until Instant `json:"until"`
	// Leaving: the group is not this node's any more, and what is there of it may go
	// on only to be stopped in order. Nothing of it is started.
	Leaving bool `json:"leaving,omitempty"`
}

// Put is one key of a transaction: it must have the revision Guard (zero: not
// exist) and gets what is set; nothing set: it is only compared.
type Put struct {
	Key   string       `json:"key"`
	Guard Rev          `json:"guard"`
	Node  *NodeRecord  `json:"node,omitempty"`
	Group *GroupRecord `json:"group,omitempty"`
	Brain *BrainRecord `json:"brain,omitempty"`
	// Blind leaves the guard out. Nothing but a planted bug sets it.
	Blind bool `json:"blind,omitempty"`
}

// BrainKey is the key of a BrainRecord; NodeKey and GroupKey are those of a node
// and a group.
const BrainKey = "brain"

// NodeKey returns the key of a node.
func NodeKey(n Node) string { return "nodes/" + string(n) }

// GroupKey returns the key of a group.
func GroupKey(g Group) string { return "groups/" + string(g) }

// Name returns the name under which the input stands in the journal.
func (NodeRead) Name() string     { return "node-read" }
func (StoreRead) Name() string    { return "store-read" }
func (StoreWritten) Name() string { return "store-written" }
func (Holds) Name() string        { return "holds" }
func (Drawn) Name() string        { return "drawn" }
func (Departs) Name() string      { return "departs" }
func (Hearing) Name() string      { return "hearing" }
func (Off) Name() string          { return "off" }
func (Stirred) Name() string      { return "stirred" }

// Name returns the name under which the action stands in the journal.
func (ReadNode) Name() string   { return "read-node" }
func (ReadStore) Name() string  { return "read-store" }
func (WriteStore) Name() string { return "write-store" }
func (Rights) Name() string     { return "rights" }
func (Say) Name() string        { return "say" }
func (Draw) Name() string       { return "draw" }
func (Listen) Name() string     { return "listen" }
func (TurnOff) Name() string    { return "turn-off" }

// Because returns the reason of the action.
func (a ReadNode) Because() Reason   { return a.Why }
func (a ReadStore) Because() Reason  { return a.Why }
func (a WriteStore) Because() Reason { return a.Why }
func (a Rights) Because() Reason     { return a.Why }
func (a Say) Because() Reason        { return a.Why }
func (a Draw) Because() Reason       { return a.Why }
func (a Listen) Because() Reason     { return a.Why }
func (a TurnOff) Because() Reason    { return a.Why }

// String prints keys and what they become, as "nodes/a@3=suspect".
func (c Put) String() string {
	var b strings.Builder
	b.WriteString(c.Key)
	if c.Guard != 0 {
		b.WriteString("@" + c.Guard.String())
	}
	switch {
	case c.Node != nil:
		b.WriteString("=" + c.Node.String())
	case c.Group != nil:
		b.WriteString("=" + c.Group.Fence.String())
		if c.Group.Node != "" {
			b.WriteString("," + string(c.Group.Node))
		}
	case c.Brain != nil:
		b.WriteString("=" + string(c.Brain.Node))
	}
	return b.String()
}
