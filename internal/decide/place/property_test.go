package place

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"gemel/internal/ha"
)

const problems = 20_000

// rollAll rolls problems and shows the first for which a property does not hold.
func rollAll(t *testing.T, alone bool, holds func(d dice, p Problem) string) {
	t.Helper()
	t.Parallel()
	n := uint64(problems)
	if testing.Short() {
		n /= 10
	}
	for seed := range n {
		d := roll(seed)
		p := d.problem(alone)
		if wrong := holds(d, p); wrong != "" {
			t.Fatalf("seed %d: %s\n%s%s", seed, wrong, print(p), show(Plan(p)))
		}
	}
}

func print(p Problem) string {
	s := ""
	for _, n := range p.Nodes {
		s += fmt.Sprintf("node %+v\n", n)
	}
	for _, g := range p.Groups {
		s += fmt.Sprintf("group %+v\n", g)
		for _, a := range g.At {
			if a.Health != nil {
				s += fmt.Sprintf("   at %s %+v\n", a.Node, *a.Health)
			}
		}
	}
	return s
}

func (p Problem) node(name ha.Node) *Node {
	for i := range p.Nodes {
		if p.Nodes[i].Name == name {
			return &p.Nodes[i]
		}
	}
	return nil
}

func (p Problem) group(name ha.Group) *Group {
	for i := range p.Groups {
		if p.Groups[i].Name == name {
			return &p.Groups[i]
		}
	}
	return nil
}

func (g *Group) on(n ha.Node) At {
	for _, a := range g.At {
		if a.Node == n {
			return a
		}
	}
	return At{}
}

// has says who has a group, if anybody.
func (p Problem) has(g *Group) ha.Node {
	if n := p.node(g.Now); n != nil && (n.State == ha.NodeMember || n.State == ha.NodeSuspect) {
		return g.Now
	}
	return ""
}

func (p Problem) linked(g *Group, of func(Rules) []ha.Group, h *Group) bool {
	return slices.Contains(of(g.Rules), h.Name) || slices.Contains(of(h.Rules), g.Name)
}

func (p Problem) weight(g *Group, res string) int64 {
	w := int64(0)
	if res == "groups" {
		w = 1
	}
	for _, a := range g.Rules.Weights {
		if a.Resource == res {
			w = a.Value
		}
	}
	return w
}

func (n *Node) bound(res string) (int64, bool) {
	for _, a := range n.Capacity {
		if a.Resource == res {
			return a.Value, true
		}
	}
	return n.Else, n.Else > 0 && res != "groups"
}

func apartOf(r Rules) []ha.Group { return r.Apart }
func withOf(r Rules) []ha.Group  { return r.With }

// allowed is the naive twin of may.
func (p Problem) allowed(g *Group, name ha.Node) string {
	n := p.node(name)
	forced := g.Request.Forced && g.Request.Node == name
	for i := range p.Groups { // a force counts for all that go together
		forced = forced || p.Groups[i].Request.Forced && p.Groups[i].Request.Node == name
	}
	switch {
	case n.State != ha.NodeMember, n.Witness, n.Drained, n.Maintenance:
		return "takes no groups"
	case len(g.Rules.Nodes) > 0 && !slices.Contains(g.Rules.Nodes, name):
		return "is not in its list"
	case n.Level < g.Rules.Level:
		return "offers too low a level"
	case (g.on(name).Unfit != "" || g.on(name).Unasked) && g.Now != name:
		return "is unfit"
	case g.on(name).Barred != "" && !forced:
		return "is barred"
	}
	return ""
}

// guarded is the part of the guards that holds for whatever a group goes with.
func (p Problem) guarded(g *Group, c Choice) string {
	n, x := p.node(c.Node), p.node(c.From)
	if x == nil || c.Reason.Rule == "place.forced" {
		return ""
	}
	if len(g.on(c.Node).Behind) > 0 && c.Reason.Rule != "place.with" {
		return fmt.Sprintf("%s moves to %s, which is behind", g.Name, c.Node)
	}
	if x.State != ha.NodeMember || x.Maintenance && c.Reason.Rule != "place.requested" {
		return fmt.Sprintf("%s leaves %s", g.Name, c.From)
	}
	if c.Reason.Rule == "place.failback" && release(n.Release, x.Release) < 0 {
		return fmt.Sprintf("%s fails back to an older release", g.Name)
	}
	return ""
}

func TestNewPlacesAreAllowed(t *testing.T) {
	placed, moved, nowhere := 0, 0, 0
	rollAll(t, false, func(d dice, p Problem) string {
		a := Plan(p)
		for _, c := range a.Choices {
			g := p.group(c.Group)
			if c.From != p.has(g) || c.Move != (c.From != "" && c.Node != c.From) {
				return fmt.Sprintf("%s: from or move is wrong", c.Group)
			}
			if c.Reason.Rule == "" || c.Reason.Text == "" || len(c.Not) < len(p.Nodes)-1 {
				return fmt.Sprintf("%s: a reason is missing", c.Group)
			}
			for _, w := range c.Not {
				if w.Reason.Text == "" || w.Reason.Rule == "place.ok" || w.Node == c.Node {
					return fmt.Sprintf("%s: why not %s is missing", c.Group, w.Node)
				}
			}
			if c.Node == "" {
				nowhere++
			}
			if c.Node == "" || c.Node == c.From {
				if c.Node == "" && c.From != "" {
					return fmt.Sprintf("%s is taken away from %s", c.Group, c.From)
				}
				continue
			}
			placed++
			if c.Move {
				moved++
			}
			if g.Locked || g.Maintenance {
				return fmt.Sprintf("%s is touched", c.Group)
			}
			if s := p.guarded(g, c); s != "" {
				return s
			}
			if s := p.allowed(g, c.Node); s != "" {
				return fmt.Sprintf("%s goes to %s, which %s", c.Group, c.Node, s)
			}
			for i := range p.Groups {
				h := &p.Groups[i]
				o, _ := a.Choice(h.Name)
				if p.linked(g, apartOf, h) && o.Node == c.Node {
					return fmt.Sprintf("%s and %s are on %s", g.Name, h.Name, o.Node)
				}
				if p.linked(g, withOf, h) && o.Node != c.Node && o.Node != o.From {
					return fmt.Sprintf("%s and %s are not together", g.Name, h.Name)
				}
			}
			if s := p.room(a, g, c.Node); s != "" {
				return s
			}
		}
		return ""
	})
	t.Logf("%d placed, %d of them moved, %d nowhere", placed, moved, nowhere)
	if !testing.Short() && (moved < problems/10 || placed < problems/2 || nowhere < problems/10) {
		t.Error("the problems are too dull")
	}
}

// room says whether a new placement exceeds a capacity.
func (p Problem) room(a Answer, g *Group, n ha.Node) string {
	for _, res := range []string{"memory", "disk", "groups"} {
		bound, bounded := p.node(n).bound(res)
		if !bounded || p.weight(g, res) == 0 {
			continue
		}
		sum := int64(0)
		for i := range p.Groups {
			if o, _ := a.Choice(p.Groups[i].Name); o.Node == n {
				sum += p.weight(&p.Groups[i], res)
			}
		}
		if sum > bound {
			return fmt.Sprintf("%s brings %s of %s to %d of %d", g.Name, res, n, sum, bound)
		}
	}
	return ""
}

// What is to be done can be done one by one, each after those that it waits for,
// and no node is ever too full or has two that stay apart.
func TestWaitsAreEnough(t *testing.T) {
	waits := 0
	rollAll(t, false, func(d dice, p Problem) string {
		a := Plan(p)
		at, done := map[ha.Group]ha.Node{}, map[ha.Group]bool{}
		for i := range p.Groups {
			g := &p.Groups[i]
			at[g.Name] = p.has(g)
			c, _ := a.Choice(g.Name)
			done[g.Name] = c.Node == c.From && c.Node != ""
			if len(c.Wait) > 0 {
				waits++
			}
		}
		for again := true; again; {
			again = false
			for _, c := range a.Choices {
				if c.Node == "" || done[c.Group] || slices.ContainsFunc(c.Wait, func(h ha.Group) bool { return !done[h] }) {
					continue
				}
				again, done[c.Group] = true, true
				at[c.Group] = c.Node
				g := p.group(c.Group)
				var now Answer
				for i := range p.Groups {
					now.Choices = append(now.Choices, Choice{Group: p.Groups[i].Name, Node: at[p.Groups[i].Name]})
					if h := &p.Groups[i]; p.linked(g, apartOf, h) && at[h.Name] == c.Node {
						return fmt.Sprintf("%s meets %s", g.Name, h.Name)
					}
				}
				if s := p.room(now, g, c.Node); s != "" {
					return "on the way " + s
				}
			}
		}
		if slices.ContainsFunc(a.Conflicts, func(r ha.Reason) bool { return r.Rule == "place.circle" }) {
			return ""
		}
		for _, c := range a.Choices {
			if c.Node != "" && !done[c.Group] && !slices.ContainsFunc(c.Wait, func(h ha.Group) bool { return !done[h] }) {
				return fmt.Sprintf("%s never goes", c.Group)
			}
		}
		// Whoever never goes waits in the end for one that goes nowhere.
		for _, c := range a.Choices {
			if c.Node != "" && !done[c.Group] && !endsNowhere(a, c.Group, len(a.Choices)) {
				return fmt.Sprintf("%s waits for ever", c.Group)
			}
		}
		return ""
	})
	if waits == 0 {
		t.Error("nobody ever waits")
	}
}

func endsNowhere(a Answer, g ha.Group, depth int) bool {
	c, _ := a.Choice(g)
	return c.Node == "" || depth > 0 && slices.ContainsFunc(c.Wait, func(h ha.Group) bool { return endsNowhere(a, h, depth-1) })
}

// The answer to the answer changes nothing: neither the second round nor, by that,
// any later one.
func TestItsOwnAnswerMovesNothing(t *testing.T) {
	traded := 0
	rollAll(t, false, func(d dice, p Problem) string {
		a := Plan(p)
		q := follow(p, a)
		if a.traded { // the second round takes the second step
			traded++
			a = Plan(q)
			q = follow(q, a)
		}
		for round := 2; round <= 3; round++ {
			b := Plan(q)
			for i, c := range b.Choices {
				if c.Move || c.Node != a.Choices[i].Node {
					return fmt.Sprintf("round %d: %s goes from %q to %q\n%s\n%s", round, c.Group, a.Choices[i].Node, c.Node, print(q), show(b))
				}
			}
			q = follow(q, b)
		}
		return ""
	})
	if traded > problems/1000 {
		t.Errorf("%d problems need two rounds", traded)
	}
	t.Logf("%d problems need two rounds", traded)
}

func TestOrderOfTheInputMeansNothing(t *testing.T) {
	rollAll(t, false, func(d dice, p Problem) string {
		a := Plan(p)
		if b := Plan(p); !reflect.DeepEqual(a, b) {
			return "the second answer differs"
		}
		if b := Plan(d.shuffled(p)); !reflect.DeepEqual(a, b) {
			return "shuffled it is answered so:\n" + show(b)
		}
		return ""
	})
}

// A group that is more sticky never moves where it did not when it was less so.
func TestStickinessIsMonotone(t *testing.T) {
	kept := 0
	rollAll(t, false, func(d dice, p Problem) string {
		if len(p.Groups) == 0 {
			return ""
		}
		q := d.shuffled(p)
		g := &q.Groups[d.IntN(len(q.Groups))]
		g.Rules.Stickiness += 1 + d.IntN(3)
		a, _ := Plan(p).Choice(g.Name)
		b, _ := Plan(q).Choice(g.Name)
		if b.Move && !a.Move {
			return fmt.Sprintf("%s moves to %s with stickiness %d:\n%s", g.Name, b.Node, g.Rules.Stickiness, show(Plan(q)))
		}
		if a.Move && !b.Move {
			kept++
		}
		return ""
	})
	if kept == 0 {
		t.Error("no stickiness ever kept a group")
	}
}

// The loss of a node moves what was on it, and what goes with that; a move that
// somebody asked for and that was refused may have become possible.
func TestALossMovesOnlyWhatWasThere(t *testing.T) {
	lost := 0
	rollAll(t, false, func(d dice, p Problem) string {
		q := follow(p, Plan(p))
		q = follow(q, Plan(q))
		a := Plan(q)
		q.Nodes = slices.Clone(q.Nodes)
		n := &q.Nodes[d.IntN(len(q.Nodes))]
		n.State = ha.NodeEvicted
		b := Plan(q)
		free := map[ha.Group]bool{}
		for i, c := range b.Choices {
			if a.Choices[i].Node == n.Name || len(a.Choices[i].Refused) > 0 {
				free[c.Group] = true
			}
			if a.Choices[i].Node == n.Name && c.Node != "" {
				lost++
			}
		}
		for range q.Groups {
			for i := range q.Groups {
				for j := range q.Groups {
					if q.linked(&q.Groups[i], withOf, &q.Groups[j]) && free[q.Groups[i].Name] {
						free[q.Groups[j].Name] = true
					}
				}
			}
		}
		for i, c := range b.Choices {
			if !free[c.Group] && a.Choices[i].Node != "" && c.Node != a.Choices[i].Node {
				return fmt.Sprintf("%s is lost, and %s goes from %s to %s:\n%s%s", n.Name, c.Group, a.Choices[i].Node, c.Node, print(q), show(b))
			}
		}
		return ""
	})
	if lost == 0 {
		t.Error("nothing was ever lost")
	}
}
