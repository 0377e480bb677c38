package place

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"gemel/internal/ha"
)

// dice makes problems of a few nodes and groups, in which everything is rare
// enough to leave room for the rest.
type dice struct{ *rand.Rand }

func roll(seed uint64) dice { return dice{rand.New(rand.NewPCG(seed, 4711))} }

func (d dice) in(n int) bool { return d.IntN(n) == 0 }

func (d dice) health() Health {
	if d.in(2) {
		return Health{}
	}
	return Health{d.in(2), d.IntN(3), d.IntN(3)}
}

// problem rolls one; alone: a single group without relations or weights.
func (d dice) problem(alone bool) Problem {
	var p Problem
	calm := d.in(2)
	for i := range 1 + d.IntN(5) {
		p.Nodes = append(p.Nodes, d.node(i, calm, alone))
	}
	groups := d.IntN(8)
	if alone {
		groups = 1
	}
	for i := range groups {
		p.Groups = append(p.Groups, d.group(i, p, calm))
	}
	if !alone {
		for i := range p.Groups {
			d.relate(&p.Groups[i], groups)
		}
	}
	return p
}

func (d dice) node(i int, calm, alone bool) Node {
	n := Node{Name: ha.Node(fmt.Sprintf("n%d", i)), State: ha.NodeMember, Level: 2, Release: []string{"1.9", "1.10", "2-rc1", ""}[d.IntN(4)]}
	if !calm {
		n.Health = d.health()
		n.Witness, n.Drained, n.Maintenance = d.in(12), d.in(6), d.in(12)
		n.Level = 1 + d.IntN(2)
	}
	if d.in(5) {
		n.State = []ha.NodeState{ha.NodeSuspect, ha.NodeLeft, ha.NodeEvicted}[d.IntN(3)]
	}
	for _, t := range []string{"t0", "t1", "t2"} {
		switch d.IntN(6) {
		case 0:
			n.Misses = append(n.Misses, t)
		case 1, 2, 3:
			n.Reaches = append(n.Reaches, t)
		}
	}
	if !alone && d.in(2) {
		n.Capacity = []Amount{{"memory", int64(d.IntN(12))}}
		if d.in(3) {
			n.Capacity = append(n.Capacity, Amount{"groups", int64(d.IntN(4))})
		}
		n.Else = int64(d.IntN(10))
	}
	return n
}

func (d dice) group(i int, p Problem, calm bool) Group {
	g := Group{Name: ha.Group(fmt.Sprintf("g%d", i))}
	someNode := func() ha.Node { return p.Nodes[d.IntN(len(p.Nodes))].Name }
	r := &g.Rules
	if !d.in(3) {
		for _, n := range d.Perm(len(p.Nodes)) {
			if !d.in(5) {
				r.Nodes = append(r.Nodes, p.Nodes[n].Name)
			}
		}
	}
	r.LeastGroups = d.in(3)
	r.Priority = d.IntN(3)
	r.Failback, r.Open = d.in(3), !d.in(3)
	if d.in(2) {
		r.Weights = []Amount{{"memory", int64(d.IntN(7))}}
	}
	if d.in(4) {
		r.Weights = append(r.Weights, Amount{"disk", int64(d.IntN(7))})
	}
	if d.in(3) {
		r.Targets = []string{"t0", "t1", "t2"}[:1+d.IntN(3)]
	}
	if d.in(4) {
		g.Now = someNode()
	}
	if d.in(2) {
		g.Now = someNode()
	}
	if d.in(2) {
		g.Last = someNode()
	}
	if d.in(15) {
		g.Last = "x0" // it has left the cluster
	}
	g.Active = !d.in(4)
	if !calm {
		r.Level, r.Stickiness = d.IntN(3), d.IntN(3)
		g.Locked, g.Maintenance = d.in(12), d.in(15)
		if r.Limit = 2 * d.IntN(2); r.Limit > 0 {
			g.Failovers = d.IntN(3)
		}
	}
	if d.in(5) {
		g.Request = Request{Node: someNode(), Forced: d.in(3), Any: d.in(3)}
	}
	for _, n := range p.Nodes {
		if d.in(4) {
			g.At = append(g.At, d.at(n.Name))
		}
	}
	return g
}

func (d dice) at(n ha.Node) At {
	a := At{Node: n}
	if d.in(2) {
		h := d.health()
		a.Health = &h
	}
	if d.in(2) {
		a.Behind = []string{"www"}
		if d.in(2) {
			a.OnLoss = "www was 40s behind"
		}
	}
	if d.in(4) {
		a.Barred = "orders was given up here"
	}
	a.Unasked = d.in(16)
	if d.in(8) {
		a.Unfit = "script db could not run here"
	}
	return a
}

func (d dice) relate(g *Group, groups int) {
	other := func() []ha.Group { return []ha.Group{ha.Group(fmt.Sprintf("g%d", d.IntN(groups)))} }
	if d.in(4) {
		g.Rules.After = other()
	}
	if d.in(6) {
		g.Rules.With = other()
	}
	if d.in(4) {
		g.Rules.Apart = other()
	}
}

// shuffled is the same problem in another order.
func (d dice) shuffled(p Problem) Problem {
	q := Problem{Nodes: slices.Clone(p.Nodes), Groups: slices.Clone(p.Groups)}
	d.Shuffle(len(q.Nodes), func(i, j int) { q.Nodes[i], q.Nodes[j] = q.Nodes[j], q.Nodes[i] })
	d.Shuffle(len(q.Groups), func(i, j int) { q.Groups[i], q.Groups[j] = q.Groups[j], q.Groups[i] })
	for i := range q.Groups {
		g := &q.Groups[i]
		g.At = slices.Clone(g.At)
		d.Shuffle(len(g.At), func(i, j int) { g.At[i], g.At[j] = g.At[j], g.At[i] })
	}
	return q
}
