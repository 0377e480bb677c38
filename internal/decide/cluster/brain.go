package cluster

import (
	"slices"

	"gemel/internal/decide/place"
	"gemel/internal/ha"
)

// Mind is what a Brain is made of.
type Mind struct {
	Node   ha.Node
	Era    uint64
	Timers Timers
	Listed []ha.Node     // all nodes of the cluster, in the order in which they become brain
	Voters []ha.Node     // those of them that only vote and neither run groups nor become brain
	Groups []place.Group // of the manifest, and what is asked for; where they are the brain knows itself
	Facts  []place.Node  // what is known of nodes beside their keys: health, capacity
	Start  ha.Instant    // when this machine could first hear anybody
	Fences []ha.Node     // nodes that a fence device can turn off
	// Off are the incarnations of which an operator says that their machine is off.
	Off map[ha.Node]ha.Incarnation
	// Alarmed are the groups of which a brain of this node said before that they have no
	// node, in an alarm that stands still.
	Alarmed []ha.Group
	Plant   []Flaw

	needs map[ha.Group]int // the levels of those of Groups that need more than the first
}

// A Brain decides about nodes and grants while it holds the epoch. It is used by
// one goroutine.
type Brain struct {
	mind  Mind
	bad   flaws
	now   ha.Instant
	out   []ha.Action
	store picture
	ear   ear
	waits []wait
	held  bool // this brain holds the epoch
	calm  []calm
	cold  cold
	last  outcome
	said  said
	way   way
	// condemned is when a node was ordered off because of a stop that it cannot prove.
	condemned map[ha.Node]ha.Instant
	shots     []shot
}

// said is what this brain has told of the placement.
type said struct {
	alarmed []ha.Group                   // without a node: the alarm stands
	refused map[ha.Group]map[string]bool // moves, by their reasons
}

// way is what is on its way to the store, and when it is looked at next.
type way struct {
	ids   uint64
	write *pending
	doubt *pending   // nobody said whether it came about
	slow  int        // writes in a row that were given up too early, perhaps
	read  uint64     // zero: none
	asked ha.Instant // when a read was sent last
	next  ha.Instant // of the next look at who is heard
}

// outcome is the last placement, and what it was made of.
type outcome struct {
	of   place.Problem
	is   place.Answer
	told bool
}

// cold tells whether the cluster only begins.
type cold struct {
	looked bool // in this epoch
	yes    bool // nobody who is here now had a group before
	since  ha.Instant
}

// picture is what this brain knows of the store.
type picture struct {
	ha.StoreRead
	known bool // it was read in this epoch, and nothing of unknown outcome came after
}

// wait is the wait for the end of what a node may hold, from an answer that this
// brain got itself. It is for one revision of the key, or for one incarnation.
type wait struct {
	node   ha.Node
	key    ha.Rev         // of the suspicion; zero: it is for a former incarnation
	after  ha.Incarnation // that the former one was followed by
	until  ha.Instant
	fence  ha.Instant // not before is a fence device ordered
	turned bool       // a fence device was ordered
	off    bool       // it has confirmed
	looked bool       // what its end leads to was decided
}

// calm keeps a node that clears its suspicions from being suspected again and again.
type calm struct {
	node  ha.Node
	count int
	until ha.Instant
}

// pending is the transaction on its way. There is one at a time.
type pending struct {
	id    uint64
	began ha.Instant
	puts  []ha.Put
	why   ha.Reason
	epoch bool // it takes the epoch
}

// NewBrain returns the brain of a node in a life of the daemon. It waits for
// nothing that a life before waited for, and knows nothing that it knew.
func NewBrain(m Mind) *Brain {
	m.needs = needs(m.Groups)
	return &Brain{mind: m, bad: plant(m.Plant), ear: ear{me: m.Node, start: m.Start, silence: m.Timers.Silence, listed: m.Listed,
		whole: map[ha.Node]ha.Instant{}, served: map[ha.Node]ha.Instant{}, life: m.Timers.Life}, said: said{slices.Clone(m.Alarmed), map[ha.Group]map[string]bool{}}, condemned: map[ha.Node]ha.Instant{}}
}

// Want changes what the manifest and its operators ask for, and what is known of the
// nodes beside their keys.
func (b *Brain) Want(groups []place.Group, facts []place.Node) {
	b.mind.Groups, b.mind.Facts, b.mind.needs = groups, facts, needs(groups)
}

// Fences says which nodes a fence device can turn off.
func Fences(b *Brain, nodes []ha.Node) { b.mind.Fences = nodes }

// Vouch says of which incarnations an operator has confirmed that their machine is off.
func Vouch(b *Brain, off map[ha.Node]ha.Incarnation) { b.mind.Off = off }

// Step takes one fact and returns what is to be done about it.
func (b *Brain) Step(now ha.Instant, in ha.Input) []ha.Action {
	b.now, b.ear.now, b.out = now, now, nil
	b.ear.answered(in)
	switch in := in.(type) {
	case ha.Hearing:
		b.ear.listen(in.Nodes)
		// The next look is at the latest when a silence is complete, and not up to half of one
		// later.
		b.way.next = min(b.way.next, b.ear.falls(b.way.next))
		b.decide()
	case ha.StoreRead:
		if in.ID == b.way.read {
			b.way.read = 0
			if in.Error == "" {
				b.learn(in)
				b.decide()
			} else if b.held || orphaned(b) {
				// A store that elects refuses what it was asked before, and can answer in a moment.
				b.way.next = min(b.way.next, b.now.Add(b.mind.Timers.Silence/8))
			}
		}
	case ha.StoreWritten:
		b.wrote(in)
	case ha.Stirred:
		if in.At > b.store.At {
			b.store.known = false
			b.decide()
		}
	case ha.Tick:
		if b.held && slices.ContainsFunc(b.waits, func(w wait) bool { return w.until <= b.now && !w.looked }) {
			for i := range b.waits {
				b.waits[i].looked = b.waits[i].until <= b.now
			}
			b.decide()
		}
	case ha.Off:
		for i := range b.waits {
			if w := &b.waits[i]; w.node == in.Node && w.turned && (w.key == in.Key || b.bad[flawOff]) {
				w.off = true
			}
		}
		hit(b, in)
	}
	if !b.held && len(b.said.alarmed) > 0 {
		hush(b, nil, "this node does not decide any more")
	}
	if b.now >= b.way.next {
		b.way.next = b.now.Add(b.mind.Timers.Silence / 2)
		b.order(ha.Listen{Why: because("listen", "each half of a silence")})
	}
	return b.out
}

// Wake returns when the brain wants to be asked again if nothing happens.
func (b *Brain) Wake() (ha.Instant, bool) {
	t := b.way.next
	for _, w := range b.waits {
		if b.held && w.until > b.now {
			t = min(t, w.until)
		}
	}
	return t, true
}

// Holds reports whether this brain holds the epoch, as far as it knows.
func (b *Brain) Holds() bool { return b.held }

func (b *Brain) order(x ha.Action) { b.out = append(b.out, x) }

// decide does the first thing that is to be done. Its outcome leads to the next.
func (b *Brain) decide() {
	if w := b.way.write; w != nil && b.now >= w.began.Add(patience(b)) {
		b.way.write, b.way.doubt, b.store.known, b.ear.fine = nil, w, false, 0
		b.way.slow++
	}
	if b.way.read != 0 && b.now >= b.way.asked.Add(b.mind.Timers.Life) {
		b.way.read, b.ear.fine = 0, 0
	}
	switch {
	case b.way.write != nil || b.way.read != 0:
	case !b.store.known && (b.held || b.way.asked == 0 || b.now.Sub(b.way.asked) >= b.mind.Timers.Silence || orphaned(b)):
		b.look()
	case !b.store.known:
		// Who does not hold the epoch asks at most once in a silence, and not at each look, as
		// long as who holds it is heard.
	case !b.held:
		b.aspire()
	default:
		b.rule()
	}
}

// look reads everything.
func (b *Brain) look() {
	b.way.ids++
	b.way.read, b.way.asked = b.way.ids, b.now
	b.order(ha.ReadStore{ID: b.way.ids, Why: because("look", "what the store says is not known")})
}

// learn takes what the store says. Waits are for what stood there: a key that
// changed ends them, and what was not known before begins its own.
func (b *Brain) learn(in ha.StoreRead) {
	b.clarify(in)
	if b.held && in.Epoch != b.store.Epoch {
		b.held, b.waits = false, nil
	}
	b.store = picture{in, true}
	if !b.held {
		return
	}
	if !b.bad[flawInherit] {
		b.waits = slices.DeleteFunc(b.waits, func(w wait) bool {
			n := b.store.node(w.node)
			return n == nil || (w.key != 0 && (n.Key != w.key || n.State != ha.NodeSuspect)) || w.key == 0 && n.Incarnation != w.after
		})
	}
	for _, n := range in.Nodes {
		await(b, n)
	}
	if !b.cold.looked {
		b.cold = cold{looked: true, since: b.now, yes: !slices.ContainsFunc(in.Groups, func(g ha.KeyedGroup) bool {
			n := b.store.node(g.Node)
			return n != nil && n.Incarnation == g.Incarnation
		})}
	}
}

// await begins the wait that a record asks for, if it does not run already.
func await(b *Brain, n ha.KeyedNode) {
	begin := func(w wait) {
		if slices.ContainsFunc(b.waits, func(x wait) bool {
			return x.node == w.node && (x.key == w.key || b.bad[flawInherit]) && x.after == w.after
		}) {
			return
		}
		w.until, w.fence = b.now.Add(span(b, n)), b.now.Add(b.mind.Timers.Silence)
		b.waits = append(b.waits, w)
	}
	if n.State == ha.NodeSuspect {
		w := wait{node: n.Node, key: n.Key}
		if b.bad[flawOwn] {
			w.off = true
		}
		begin(w)
	}
	if slices.ContainsFunc(b.store.Groups, func(g ha.KeyedGroup) bool { return g.Node == n.Node && g.Incarnation != n.Incarnation }) {
		begin(wait{node: n.Node, after: n.Incarnation})
	}
}

// node returns what is known of a node; nil: it has no key.
func (p *picture) node(name ha.Node) *ha.KeyedNode {
	i, ok := slices.BinarySearchFunc(p.Nodes, name, func(n ha.KeyedNode, s ha.Node) int { return compare(n.Node, s) })
	if !ok {
		return nil
	}
	return &p.Nodes[i]
}

func (p *picture) group(name ha.Group) (ha.KeyedGroup, bool) {
	i, ok := slices.BinarySearchFunc(p.Groups, name, func(g ha.KeyedGroup, s ha.Group) int { return compare(g.Group, s) })
	if !ok {
		return ha.KeyedGroup{GroupRecord: ha.GroupRecord{Group: name}}, false
	}
	return p.Groups[i], true
}

// rank is the place of this node among those that may take the epoch. Who holds it has
// none: if it is lost, it gets no silence of its own to come first.
func rank(b *Brain) int {
	turn := 1
	for _, n := range b.mind.Listed {
		if n == b.mind.Node {
			break
		}
		if b.mind.eligible(n) && n != b.store.Brain.Node {
			turn++
		}
	}
	return turn
}

// orphaned reports whether another node held the epoch when that was read last, and is
// lost for as long as it is this node's turn.
func orphaned(b *Brain) bool {
	holder := b.store.Brain.Node
	return holder != "" && holder != b.mind.Node && b.ear.lost(holder, rank(b))
}

// aspire takes the epoch if nobody who is before this node is heard, and whoever
// holds it is lost.
func (b *Brain) aspire() {
	if !b.mind.eligible(b.mind.Node) {
		return
	}
	holder, turn := b.store.Brain.Node, rank(b)
	if holder != "" && holder != b.mind.Node && !orphaned(b) {
		// Who holds it is asked for again when the store stirs, and now and then: a watch
		// may be dead.
		if b.now.Sub(b.way.asked) >= b.mind.Timers.Life {
			b.store.known = false
		}
		return
	}
	if holder == "" && turn > 1 && b.now.Sub(b.mind.Start) < b.mind.Timers.Silence*timesOf(turn) {
		return
	}
	r := ha.BrainRecord{Node: b.mind.Node}
	why := because("epoch", "nobody who decides is heard")
	if holder == b.mind.Node {
		why = because("epoch", "this node is who decides, or was named to")
	} else if holder != "" && b.ear.forsaken(holder, 1) {
		why = because("epoch", "who decides says that the store does not answer it, which it does here")
	}
	b.send([]ha.Put{{Key: ha.BrainKey, Guard: b.store.Epoch, Brain: &r}}, why, true)
}

func (m *Mind) eligible(n ha.Node) bool { return !slices.Contains(m.Voters, n) }

// send orders a transaction. It is guarded on the epoch and on every key that it
// writes.
func (b *Brain) send(puts []ha.Put, why ha.Reason, epoch bool) {
	b.way.ids++
	b.way.write = &pending{id: b.way.ids, began: b.now, puts: puts, why: why, epoch: epoch}
	b.way.next = min(b.way.next, b.now.Add(patience(b)))
	w := ha.WriteStore{ID: b.way.ids, Puts: slices.Clone(puts), Why: why}
	if !epoch {
		w.Epoch = b.store.Epoch
	}
	if b.bad[flawEpoch] && !epoch {
		w.Epoch = 0
		for i := range w.Puts {
			w.Puts[i].Blind = true
		}
	}
	b.order(w)
}

// wrote takes the outcome of a transaction. What it wrote is known then, by the
// revision of the answer; what came after, the guards will find.
func (b *Brain) wrote(in ha.StoreWritten) {
	p := b.way.write
	if p == nil || p.id != in.ID {
		return
	}
	b.way.write = nil
	if !in.OK {
		if !in.Refused {
			b.way.doubt = p
		}
		b.store.known = false // refused or unknown: it is read before anything is written again
		b.decide()
		return
	}
	if b.now.Sub(p.began) < b.mind.Timers.Silence/2 {
		b.way.slow = 0
	}
	b.store.At = in.At
	b.tell(p)
	if p.epoch {
		b.held, b.waits, b.cold = true, nil, cold{}
		b.store.Epoch, b.store.Brain = in.At, *p.puts[0].Brain
		b.store.known = false // everything is read under the new epoch
		b.decide()
		return
	}
	for _, put := range p.puts {
		if put.Brain != nil { // it was handed over
			b.held, b.waits, b.store.Brain, b.store.known = false, nil, *put.Brain, false
			return
		}
		if put.Node != nil {
			b.keep(*put.Node, in.At, p.began)
		}
		if put.Group != nil {
			b.store.set(*put.Group, in.At)
		}
	}
	b.decide()
}

// keep notes a node's key as this brain has just written it.
func (b *Brain) keep(r ha.NodeRecord, at ha.Rev, began ha.Instant) {
	n := b.store.node(r.Node)
	if n == nil {
		b.store.known = false
		return
	}
	n.NodeRecord, n.Key = r, at
	if !b.bad[flawInherit] {
		b.waits = slices.DeleteFunc(b.waits, func(w wait) bool { return w.node == r.Node && w.key != 0 })
	}
	if r.State == ha.NodeSuspect {
		from := b.now
		if b.bad[flawSend] {
			from = began
		}
		b.waits = append(b.waits, wait{node: r.Node, key: at, until: from.Add(span(b, *n)), fence: b.now.Add(b.mind.Timers.Silence)})
	}
}

func (p *picture) set(r ha.GroupRecord, at ha.Rev) {
	i, ok := slices.BinarySearchFunc(p.Groups, r.Group, func(g ha.KeyedGroup, s ha.Group) int { return compare(g.Group, s) })
	if !ok {
		p.Groups = slices.Insert(p.Groups, i, ha.KeyedGroup{})
	}
	p.Groups[i] = ha.KeyedGroup{GroupRecord: r, Key: at}
}
