package place

import "gemel/internal/ha"

// A Problem is all that a placement depends on. Nodes and groups are in any
// order; names are unique (Validate says so if not, and the first of a name by
// its place in the list is taken).
type Problem struct {
	Nodes  []Node
	Groups []Group
}

// A Node is a machine as it is now.
type Node struct {
	Name        ha.Node
	State       ha.NodeState // a member takes groups; a suspect keeps what it has; any other has nothing
	Witness     bool         // it only votes
	Drained     bool         // its groups are to leave, none is to come
	Maintenance bool         // hands off: none leaves, none comes
	// Capacity bounds the sum of the weights of the groups on it. A resource that is
	// not named is bounded by Else; zero or less is no bound.
	Capacity []Amount
	Else     int64
	Health   Health
	Reaches  []string // named targets that are known to be reachable from here
	Misses   []string // those that are known not to be; one in neither list is unknown
	Release  string   // dotted numbers; empty is unknown, and older than any
	Level    int      // the exclusivity level that it offers by itself: 0 to 2; less: it has not said yet
	Fenced   bool     // others can turn it off by a device that works
}

// Offers is the exclusivity level that a node offers: 3 if others can turn it off. The
// guard must be there all the same, for what does not wait for that.
func (n Node) Offers() int {
	if n.Fenced && n.Level > 0 {
		return 3
	}
	return n.Level
}

// An Amount is so much of a resource: of a capacity or a weight.
//
// The resource "groups" is counted without being asked for: a group weighs 1 of
// it if its rules do not say otherwise, and Node.Else does not bound it.
type Amount struct {
	Resource string
	Value    int64
}

// Health is the alarms that stand against a node, in order of what counts more.
type Health struct {
	Critical bool // at least one
	Majors   int
	Minors   int
}

// A Group is one group as it is now.
type Group struct {
	Name  ha.Group
	Rules Rules
	// Now is the node that has it. Empty, or no member or suspect of the cluster:
	// nobody has it. In the middle of a move it is still with who had it, until it
	// is granted elsewhere. Last is who had it last; empty means that it never ran,
	// and then no node can be behind.
	Now, Last ha.Node
	// Active says that it was started on Now, so that what starts after it may start.
	Active      bool
	Locked      bool // by an operator: it is not granted and not moved
	Maintenance bool // the same with an end
	Request     Request
	// Failovers is how often it failed over lately; see Rules.Limit.
	Failovers int
	At        []At
}

// Rules are what the manifest says of a group.
type Rules struct {
	Nodes       []ha.Node // in order of preference; empty: all, in order of name
	LeastGroups bool      // the policy least-groups; else configured-node
	Weights     []Amount
	Priority    int // who is placed first when room is scarce: the greater
	// After: it starts when those are active. With: never on another node than those.
	// Apart: never on the same. With and Apart count in both directions.
	After, With, Apart []ha.Group
	// Stickiness is by how many majors (or, these being equal, minors) more the
	// other must be ahead, where both have a critical alarm. Zero: any less is enough.
	Stickiness int
	// Failback says that it returns to the first of Nodes by itself; Open, that the
	// window for that is open now.
	Failback, Open bool
	Level          int      // the exclusivity level that it needs
	Targets        []string // what it should reach from where it is
	// Limit of Failovers, from which on it is not moved by itself any more. The loss
	// of its node is not bounded by that. Zero: none.
	Limit int
}

// A Request is where an operator wants a group to be. It counts as long as it
// stands here: a group that is where it was asked to be does not fail back, and
// one that was forced there does not leave for health either. Who keeps the
// requests drops one when the group is elsewhere by a later cause, or when it was
// refused and the operator was told.
type Request struct {
	Node   ha.Node // empty: none
	Forced bool    // waives health, sync, release and At.Barred
	Any    bool    // waives the release
}

// At is what is particular to a group on one node. A node that has none is in
// sync, as healthy as the node itself, fit and not barred.
type At struct {
	Node   ha.Node
	Health *Health  // nil: the node's own
	Behind []string // file sets of priority 1 that are not in sync here
	// OnLoss says, if not empty, that the group may not be taken over here after the
	// loss of who had it, and why: the wait of a file set, already reduced.
	OnLoss string
	// Unproved says, if not empty, that the group needs a proof that who had it last is off,
	// that there is none, and what would be one. No force waives that.
	Unproved string
	// Unfit says, if not empty, that a part of the group says of itself that it could not
	// be started here, and why. No force waives that: it would come to nothing. It is
	// nothing to the node that has the group: what runs is no matter of its start.
	Unfit string
	// Unasked: its parts have not said yet whether they could be started here. That counts
	// in the same way, and passes.
	Unasked bool
	// Barred says, if not empty, that the group may not run here, and why: its
	// programs were given up here, for one. On the node that has it: it is to leave.
	Barred string
}

// An Answer is where everything belongs.
type Answer struct {
	Choices   []Choice    // one for each group, by name
	Conflicts []ha.Reason // as of Validate

	traded bool // some groups need more than one step
}

// A Choice is where one group belongs.
type Choice struct {
	Group ha.Group
	Node  ha.Node // empty: nowhere
	From  ha.Node // who has it now; empty: nobody
	Move  bool    // it is on From and must go to Node
	// Wait are the groups that must be first: those that it starts after and that
	// are not active, and those that leave the room that it needs. Nothing is done
	// about the group before. Empty: at once.
	Wait []ha.Group
	// Behind are the file sets that were not in sync on Node when the group was
	// forced there or its node was lost: it will be degraded.
	Behind []string
	Reason ha.Reason
	// Refused is each move that something asks for and that is not made. It is said
	// at each answer: an event is for when it changes.
	Refused []ha.Reason
	Not     []WhyNot // for each other node, by name
}

// A WhyNot is why a group is not on a node.
type WhyNot struct {
	Node   ha.Node
	Reason ha.Reason
}

// Choice returns what was answered for a group.
func (a Answer) Choice(g ha.Group) (Choice, bool) {
	for _, c := range a.Choices {
		if c.Group == g {
			return c, true
		}
	}
	return Choice{}, false
}

// WhyNot returns why the group is not to be on a node; false: it is to be there,
// or one of the two is unknown.
func (c Choice) WhyNot(n ha.Node) (ha.Reason, bool) {
	for _, w := range c.Not {
		if w.Node == n {
			return w.Reason, true
		}
	}
	return ha.Reason{}, false
}
