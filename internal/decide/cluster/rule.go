package cluster

import (
	"cmp"
	"reflect"
	"slices"
	"time"

	"gemel/internal/decide/place"
	"gemel/internal/ha"
)

func compare[T cmp.Ordered](a, b T) int { return cmp.Compare(a, b) }

func timesOf(n int) time.Duration { return time.Duration(n) }

// maxCalm bounds how long a node that clears its suspicions is left alone: it
// doubles from one silence.
const maxCalm = 6 // doublings

// span is how long this brain waits for the end of what a node may hold.
func span(b *Brain, n ha.KeyedNode) time.Duration {
	w := b.mind.Timers.Wait(n.Life)
	if b.bad[flawShort] {
		w /= 2
	}
	return w
}

// patience is how long the answer to a write is waited for. A store whose leader died with
// the node that this is about never gives one: what is proposed meanwhile is forgotten.
// What is done then is to read, for a reading is told of the election. A store on a slow disk
// takes longer for every write, so that the next one gets twice the time.
func patience(b *Brain) time.Duration {
	life := b.mind.Timers.Life
	if b.bad[flawSend] || b.way.slow > 5 { // the flaw would hardly be seen in so short a time
		return life
	}
	return min(b.mind.Timers.Silence<<b.way.slow, life)
}

// rule does the first of what is to be done, in the order of its urgency: the end
// of a wait, a suspicion, a group without a node, a move.
func (b *Brain) rule() {
	if settled(b) {
		judge(b)
	}
	condemn(b)
	pursue(b)
	for _, do := range []func() bool{b.evict, func() bool { return confirm(b) }, b.suspect, b.grant, b.remove} {
		if do() {
			return
		}
	}
	if cede(b) {
		return
	}
	// Who watches learns of what others write; who does not, looks.
	if b.now.Sub(b.way.asked) >= b.mind.Timers.Silence {
		b.look()
	}
}

// cede hands the epoch over to a node that runs no group, if this one runs some: then
// the death of an active node costs no election. It is done at rest only.
func cede(b *Brain) bool {
	rest := b.mind.Timers.Rest
	if me := b.store.node(b.mind.Node); rest == 0 || b.now.Sub(b.cold.since) < rest || len(b.waits) > 0 || me == nil || len(me.Grants) == 0 {
		return false
	}
	away := func(f place.Node) bool { return f.Drained || f.Maintenance } // it is about to be worked on
	for _, name := range b.mind.Listed {
		if n := b.store.node(name); name == b.mind.Node || !takes(b, name) || len(n.Grants) > 0 ||
			slices.ContainsFunc(b.mind.Facts, func(f place.Node) bool { return f.Name == name && away(f) }) {
			continue
		}
		b.send([]ha.Put{{Key: ha.BrainKey, Guard: b.store.Epoch, Brain: &ha.BrainRecord{Node: name}}},
			because("switch", "it runs no group, and this node does: its death would cost an election", fact("node", string(name))), false)
		return true
	}
	return false
}

// evict ends a suspicion whose wait is over, and grants what the node had to others
// in the same transaction.
func (b *Brain) evict() bool {
	for i := range b.waits {
		w := &b.waits[i]
		n := b.store.node(w.node)
		if w.key == 0 || n == nil || n.State != ha.NodeSuspect || n.Key != w.key && !b.bad[flawInherit] {
			continue
		}
		// A node that lives clears its suspicion within a few round trips; it is not to be
		// turned off for that.
		if !w.turned && b.now >= w.fence && slices.Contains(b.mind.Fences, w.node) {
			w.turned = true
			shoot(b, *n, because("fence", "its suspicion is written"))
		}
		if b.now < w.until && !w.off {
			continue
		}
		r := n.NodeRecord
		r.State, r.Grants, r.Off = ha.NodeEvicted, nil, w.off
		puts := []ha.Put{{Key: ha.NodeKey(r.Node), Guard: n.Key, Node: &r, Blind: b.bad[flawEvict]}}
		var left []ha.Group
		for _, g := range n.Grants {
			if w.off || !sure(b, g.Group, n.Node) {
				left = append(left, g.Group)
			}
		}
		puts = append(puts, regrant(b, placement(b, r.Node), left)...)
		b.send(puts, because("evict", "the wait for the end of its authority is over", fact("node", string(r.Node))), false)
		return true
	}
	return false
}

// condemnedFor is how long a node that was ordered off for a stop that it cannot prove
// has for being off, or for proving it, before its device is ordered again.
const condemnedFor = time.Minute

// condemn has a member turned off that says it cannot prove the stop of a group, if a
// fence device can: no proof of stop, no takeover, and being off is one. Nothing else
// follows from that here. When the node falls silent it is suspected like any other, and
// its device is asked once more.
func condemn(b *Brain) {
	for _, n := range b.store.Nodes {
		h := b.ear.hearing(n.Node)
		own := h.Said.Incarnation == n.Incarnation && !b.ear.silent(n.Node, 1)
		if n.State != ha.NodeMember || !own || len(h.Said.Unproved) == 0 || !slices.Contains(b.mind.Fences, n.Node) {
			continue
		}
		if at, ok := b.condemned[n.Node]; ok && b.now.Sub(at) < condemnedFor {
			continue
		}
		b.condemned[n.Node] = b.now
		b.order(ha.TurnOff{Node: n.Node, Key: n.Key, Why: because("condemn", "it cannot prove the stop of a group: no proof of stop, no takeover",
			fact("group", string(h.Said.Unproved[0])))})
	}
}

// regrant gives groups to where a placement has them, all in one transaction.
func regrant(b *Brain, a place.Answer, groups []ha.Group) []ha.Put {
	next := map[ha.Node]*ha.NodeRecord{}
	var puts []ha.Put
	for _, g := range groups {
		c, _ := a.Choice(g)
		to := b.store.node(c.Node)
		if to == nil || len(c.Wait) > 0 || !takes(b, c.Node) {
			continue
		}
		k, _ := b.store.group(g)
		r, ok := next[to.Node]
		if !ok {
			r = &ha.NodeRecord{}
			*r = to.NodeRecord
			r.Grants = slices.Clone(r.Grants)
			next[to.Node] = r
			puts = append(puts, ha.Put{Key: ha.NodeKey(to.Node), Guard: to.Key, Node: r})
		}
		k.GroupRecord = granted(b, k.GroupRecord, r)
		puts = append(puts, ha.Put{Key: ha.GroupKey(g), Guard: k.Key, Group: &k.GroupRecord})
	}
	return puts
}

// granted adds a group to a node's record, under the fence that follows its last.
func granted(b *Brain, k ha.GroupRecord, to *ha.NodeRecord) ha.GroupRecord {
	f := k.Fence
	switch {
	case f.Era < b.mind.Era:
		f = ha.Fence{Era: b.mind.Era, Counter: 1}
	case !b.bad[flawFence]:
		f.Counter++
	}
	k.Fence, k.Node, k.Incarnation = f, to.Node, to.Incarnation
	to.Grants = append(to.Grants, ha.Grant{Group: k.Group, Fence: f})
	slices.SortFunc(to.Grants, func(x, y ha.Grant) int { return compare(x.Group, y.Group) })
	return k
}

// placement is where everything belongs, if a node is lost as well; empty: as it is.
func placement(b *Brain, lost ha.Node) place.Answer {
	p := problem(b, func(n ha.KeyedNode) bool {
		return n.Off || slices.ContainsFunc(b.waits, func(w wait) bool { return w.node == n.Node && w.key == n.Key && w.off })
	}, lost)
	if lost != "" {
		return place.Plan(p)
	}
	if !reflect.DeepEqual(p, b.last.of) {
		b.last = outcome{of: p, is: place.Plan(p)}
	}
	return b.last.is
}

// Plan returns where groups would belong if this was asked for, these were the facts,
// and those nodes lost, as far as this brain knows what is.
func (b *Brain) Plan(groups []place.Group, facts []place.Node, lost ...ha.Node) place.Answer {
	return place.Plan(Supposed(b, groups, facts, lost...))
}

// Supposed is the problem that Plan solves.
func Supposed(b *Brain, groups []place.Group, facts []place.Node, lost ...ha.Node) place.Problem {
	was := b.mind
	b.Want(groups, facts)
	// A device is taken to work: what is asked is what would be, not the worst of it.
	p := problem(b, func(n ha.KeyedNode) bool {
		return n.Off || slices.Contains(b.mind.Fences, n.Node) && slices.Contains(lost, n.Node)
	}, lost...)
	b.mind = was
	return p
}

// problem is what a placement depends on, as this brain sees it. Off tells which nodes are
// proved to be off.
func problem(b *Brain, off func(ha.KeyedNode) bool, lost ...ha.Node) place.Problem {
	var p place.Problem
	for _, name := range b.mind.Listed {
		n := place.Node{Name: name}
		if i := slices.IndexFunc(b.mind.Facts, func(f place.Node) bool { return f.Name == name }); i >= 0 {
			n = b.mind.Facts[i]
		}
		n.State, n.Witness = ha.NodeLeft, !b.mind.eligible(name)
		if k := b.store.node(name); k != nil {
			n.State = k.State
		}
		switch {
		case slices.Contains(lost, name):
			n.State = ha.NodeEvicted
		case n.State == ha.NodeMember && !takes(b, name):
			n.State = ha.NodeSuspect // it keeps what it has, and gets nothing
		}
		p.Nodes = append(p.Nodes, n)
	}
	for _, g := range b.mind.Groups {
		if k, ok := b.store.group(g.Name); ok {
			g.Now, g.Last = k.Node, k.Node
			g.Active = slices.Contains(b.ear.hearing(k.Node).Said.Holds, g.Name)
			n := b.store.node(k.Node)
			if n != nil && n.Incarnation == k.Incarnation && (n.State == ha.NodeEvicted || slices.Contains(lost, n.Node)) && sure(b, g.Name, n.Node) && !off(*n) {
				g.At = unproved(b, g.At, n.Node)
			}
		}
		p.Groups = append(p.Groups, g)
	}
	return p
}

// takes reports whether a node can be given a group now.
func takes(b *Brain, name ha.Node) bool {
	n := b.store.node(name)
	return n != nil && n.State == ha.NodeMember && n.Era == b.mind.Era && slices.Contains(b.mind.Listed, name) && b.mind.eligible(name) &&
		(name == b.mind.Node || !b.ear.lost(name, 1))
}

// suspect writes a suspicion of a member that nobody hears, or that is heard here and
// hears nobody: that others hear it as well proves nothing then.
func (b *Brain) suspect() bool {
	if !b.ear.listening() {
		return false
	}
	for i := range b.store.Nodes {
		n := b.store.Nodes[i]
		if n.State != ha.NodeMember || n.Node == b.mind.Node || !b.ear.lost(n.Node, 1) || b.ear.silent(n.Node, 1) && b.ear.witnessed(n.Node) {
			continue
		}
		c := calmOf(b, n.Node)
		if b.now < c.until {
			continue
		}
		c.until = b.now.Add(b.mind.Timers.Silence << min(c.count, maxCalm))
		c.count++
		r := n.NodeRecord
		r.State = ha.NodeSuspect
		why := "it was not heard for a silence, by nobody"
		switch {
		case b.ear.silent(n.Node, 1):
		case b.ear.forsaken(n.Node, 1):
			why = "it is heard, and says that the store does not answer it, which it does here"
		default:
			why = "it is heard, and says for a silence that it hears nobody itself"
		}
		p := ha.Put{Key: ha.NodeKey(r.Node), Guard: n.Key, Node: &r, Blind: b.bad[flawSuspect]}
		b.send([]ha.Put{p}, because("suspect", why, fact("node", string(r.Node))), false)
		return true
	}
	return false
}

func calmOf(b *Brain, n ha.Node) *calm {
	i := slices.IndexFunc(b.calm, func(c calm) bool { return c.node == n })
	if i < 0 {
		b.calm = append(b.calm, calm{node: n})
		i = len(b.calm) - 1
	}
	c := &b.calm[i]
	if c.count > 0 && b.now.Sub(c.until) > b.mind.Timers.Silence<<maxCalm {
		c.count = 0
	}
	return c
}

// grant gives a group to the node where it belongs: one that nobody can hold, or one
// that was taken from a node and is to stay there after all, under a new fence.
func (b *Brain) grant() bool {
	if !settled(b) {
		return false
	}
	a := placement(b, "")
	for _, g := range b.mind.Groups {
		k, _ := b.store.group(g.Name)
		guard, free := free(b, k)
		if back, taken := taken(b, k, a); taken && !free {
			guard, free = back, true
		}
		if !free {
			continue
		}
		puts := regrant(b, a, []ha.Group{g.Name})
		if len(puts) == 0 {
			continue
		}
		if guard != nil && puts[0].Key != ha.NodeKey(guard.Node) {
			puts = append(puts, ha.Put{Key: ha.NodeKey(guard.Node), Guard: guard.Key})
		}
		c, _ := a.Choice(g.Name)
		b.send(puts, because("grant", "nobody else can hold it, and "+c.Reason.Text, fact("group", string(g.Name)), fact("to", string(c.Node))), false)
		return true
	}
	return false
}

// taken reports whether a group was taken from a member where it belongs again. No
// stop has to be proved for that: who gets it is who may have it still.
func taken(b *Brain, k ha.KeyedGroup, a place.Answer) (*ha.KeyedNode, bool) {
	n := b.store.node(k.Node)
	if n == nil || n.State != ha.NodeMember || n.Incarnation != k.Incarnation {
		return nil, false
	}
	_, has := n.Grant(k.Group)
	c, _ := a.Choice(k.Group)
	return n, !has && c.Node == k.Node
}

// settled reports whether grants may be made: a cluster that begins waits for all
// who are listed, or for its time.
func settled(b *Brain) bool {
	if !b.cold.yes {
		return true
	}
	there := func(name ha.Node) bool {
		n := b.store.node(name)
		return !b.mind.eligible(name) || n != nil && n.State == ha.NodeMember
	}
	missing := slices.ContainsFunc(b.mind.Listed, func(name ha.Node) bool { return !there(name) })
	b.cold.yes = missing && b.now.Sub(b.cold.since) < b.mind.Timers.Settle
	return !b.cold.yes
}

// free reports whether nobody can hold a group, and by whose key that is known;
// nil: nobody ever had it, or its node has no key.
func free(b *Brain, k ha.KeyedGroup) (guard *ha.KeyedNode, ok bool) {
	if k.Node == "" {
		return nil, true
	}
	n := b.store.node(k.Node)
	if n == nil {
		return nil, true
	}
	if n.Incarnation != k.Incarnation {
		// Whoever has the key now cannot speak for the one who had the group: that one
		// may run still, cut off, or be a machine of its own.
		over := slices.ContainsFunc(b.waits, func(w wait) bool {
			return w.key == 0 && w.node == n.Node && w.after == n.Incarnation && b.now >= w.until
		})
		return n, over || b.bad[flawFormer]
	}
	if _, has := n.Grant(k.Group); has {
		return nil, false
	}
	switch n.State {
	case ha.NodeEvicted:
		return n, n.Off || !sure(b, k.Group, n.Node)
	case ha.NodeLeft:
		return n, true
	case ha.NodeMember:
		// It was taken from a member: the stop must have been reported by who obeys
		// the very key that stands there.
		said := b.ear.hearing(n.Node).Said
		proved := said.Incarnation == n.Incarnation && said.Key == n.Key && !slices.Contains(said.Holds, k.Group)
		return n, proved || b.bad[flawStop]
	}
	return nil, false
}

// remove takes a group from the node that it is to move away from.
func (b *Brain) remove() bool {
	for _, c := range placement(b, "").Choices {
		n := b.store.node(c.From)
		if !c.Move || len(c.Wait) > 0 || n == nil || n.State != ha.NodeMember || !takes(b, c.Node) {
			continue
		}
		if _, has := n.Grant(c.Group); !has {
			continue
		}
		r := n.NodeRecord
		r.Grants = slices.DeleteFunc(slices.Clone(r.Grants), func(x ha.Grant) bool { return x.Group == c.Group })
		b.send([]ha.Put{{Key: ha.NodeKey(r.Node), Guard: n.Key, Node: &r}},
			because("move", "first it is taken from where it is: "+c.Reason.Text, fact("group", string(c.Group)), fact("to", string(c.Node))), false)
		return true
	}
	return false
}
