package ha

import (
	"strconv"
	"strings"
	"time"
)

// The words of a cluster, as they stand in its store and in the messages about it.

// Rev is a revision of the store. It grows with each transaction; a key carries
// that of the transaction that wrote it last. Zero is no key.
type Rev int64

// Incarnation tells one membership of a node from the ones before and after. It
// is drawn at random at each join, survives a restart of the daemon, and is never
// resumed after a boot. Empty is none.
type Incarnation string

// NodeState is what the cluster says of a node.
type NodeState string

// The states of a node.
const (
	NodeMember  NodeState = "member"  // its grants count
	NodeSuspect NodeState = "suspect" // it was missed: no new authority until it clears that
	NodeLeft    NodeState = "left"    // by its own hand, with all stopped
	NodeEvicted NodeState = "evicted" // by the brain, when its authority had ended
)

// A Grant says that a group is a node's, under a fence.
type Grant struct {
	Group Group `json:"group"`
	Fence Fence `json:"fence"`
}

// A NodeRecord is one node's key in the store.
type NodeRecord struct {
	Node        Node        `json:"node"`
	Incarnation Incarnation `json:"incarnation,omitempty"`
	Boot        string      `json:"boot,omitempty"` // the kernel's boot id
	Era         uint64      `json:"era"`
	State       NodeState   `json:"state"`
	// Life is how long a read gives authority (L). It stands here and not in the
	// manifest because who waits for the end of an authority must know by which
	// figure it was taken.
	Life   time.Duration `json:"life"`
	Grants []Grant       `json:"grants,omitempty"` // sorted by group
	// Off says of an evicted node that a fence device or an operator has confirmed that the
	// machine of this incarnation is off. None of it ever runs again.
	Off bool `json:"off,omitempty"`
}

// Grant returns the grant of a group.
func (r NodeRecord) Grant(g Group) (Grant, bool) {
	for _, h := range r.Grants {
		if h.Group == g {
			return h, true
		}
	}
	return Grant{}, false
}

// A GroupRecord is one group's key: the highest fence that it ever had, and who
// got it under that. He may have given it up since; what proves that is not here.
type GroupRecord struct {
	Group Group `json:"group"`
	Fence Fence `json:"fence"`
	Node  Node  `json:"node,omitempty"` // empty: nobody ever had it
	// Incarnation is that of Node when it got the group. What another one says of
	// itself proves nothing about this one.
	Incarnation Incarnation `json:"incarnation,omitempty"`
}

// A BrainRecord is the key of who decides. Its revision is the epoch.
type BrainRecord struct {
	Node        Node        `json:"node"`
	Incarnation Incarnation `json:"incarnation"`
}

// String prints a revision in decimal.
func (r Rev) String() string { return strconv.FormatInt(int64(r), 10) }

// String prints "member 4f,web:1.7", with the incarnation and the grants.
func (r NodeRecord) String() string {
	var b strings.Builder
	b.WriteString(string(r.State))
	if r.Incarnation != "" {
		b.WriteString(" " + string(r.Incarnation))
	}
	for _, g := range r.Grants {
		b.WriteString("," + string(g.Group) + ":" + g.Fence.String())
	}
	if r.Off {
		b.WriteString(" off")
	}
	return b.String()
}
