package place

import (
	"slices"
	"strings"

	"gemel/internal/ha"
)

// Validate says what no placement can keep, in order of the groups' names: names
// that are not there or there twice, circles of After, With against Apart, groups
// that go together without a node for both, a failback without a home.
func Validate(p Problem) []ha.Reason {
	return critic{newField(p)}.complaints(p)
}

// maxKnots bounds the circles, and the conflicts of one unit, that are told: a
// problem that is wrong everywhere has more of them than anybody reads, or than
// should be built.
const maxKnots = 8

// A critic complains.
type critic struct{ *field }

func (w critic) complaints(p Problem) []ha.Reason {
	out := doubles(p)
	for g := range w.groups {
		out = append(out, w.strangers(g)...)
		out = append(out, w.oddRules(g)...)
	}
	out = append(out, w.circles()...)
	for _, u := range w.units {
		out = append(out, w.torn(u)...)
	}
	return out
}

func doubles(p Problem) []ha.Reason {
	var out []ha.Reason
	var nodes, groups []string
	for _, n := range p.Nodes {
		nodes = append(nodes, string(n.Name))
	}
	for _, g := range p.Groups {
		groups = append(groups, string(g.Name))
	}
	for _, d := range twice(nodes) {
		out = append(out, because("place.twice", "there are two nodes named "+d+": give each its own name", fact("node", d)))
	}
	for _, d := range twice(groups) {
		out = append(out, because("place.twice", "there are two groups named "+d+": give each its own name", fact("group", d)))
	}
	return out
}

func twice(names []string) []string {
	slices.Sort(names)
	var out []string
	for i := 1; i < len(names); i++ {
		if names[i] == names[i-1] && !slices.Contains(out, names[i]) {
			out = append(out, names[i])
		}
	}
	return out
}

// strangers are names that are not there.
func (w critic) strangers(g int) []ha.Reason {
	var out []ha.Reason
	r := &w.groups[g].Rules
	for _, n := range r.Nodes {
		if !slices.ContainsFunc(w.nodes, func(o Node) bool { return o.Name == n }) {
			out = append(out, because("place.unknown", w.group(g)+" names the node "+string(n)+", which the cluster does not have",
				fact("group", w.group(g)), fact("node", n)))
		}
	}
	for _, rel := range []struct {
		word string
		of   []ha.Group
	}{{"after", r.After}, {"with", r.With}, {"apart", r.Apart}} {
		for _, o := range rel.of {
			if _, ok := slices.BinarySearchFunc(w.groups, o, func(a Group, b ha.Group) int { return strings.Compare(string(a.Name), string(b)) }); !ok {
				out = append(out, because("place.unknown", w.group(g)+" is "+rel.word+" "+string(o)+", which is no group",
					fact("group", w.group(g)), fact(rel.word, o)))
			}
		}
	}
	return out
}

func (w critic) oddRules(g int) []ha.Reason {
	var out []ha.Reason
	r := &w.groups[g].Rules
	if r.Failback && (r.LeastGroups || len(r.Nodes) == 0) {
		out = append(out, because("place.no-home", w.group(g)+" fails back by itself, which needs a list of nodes and the policy configured-node",
			fact("group", w.group(g))))
	}
	for _, a := range r.Weights {
		if a.Value < 0 {
			out = append(out, because("place.negative", w.group(g)+" weighs less than nothing of "+a.Resource+": it is taken as 0",
				fact("group", w.group(g)), fact(a.Resource, a.Value)))
		}
	}
	for _, rel := range []struct {
		word string
		of   []ha.Group
	}{{"with", r.With}, {"apart", r.Apart}} {
		if slices.Contains(rel.of, w.groups[g].Name) {
			out = append(out, because("place.self", w.group(g)+" is "+rel.word+" itself", fact("group", w.group(g))))
		}
	}
	for _, o := range w.links[g].apart {
		if other := &w.groups[o].Rules; o > g && len(r.Nodes) == 1 && len(other.Nodes) == 1 && r.Nodes[0] == other.Nodes[0] {
			out = append(out, because("place.no-two-nodes", w.group(g)+" is to be apart from "+w.group(o)+", and the one node of both is "+string(r.Nodes[0]),
				fact("apart", w.group(g)+" apart "+w.group(o)), fact("node", r.Nodes[0])))
		}
	}
	return out
}

// circles finds one circle of After in each knot of them, from its first name on.
func (w critic) circles() []ha.Reason {
	const fresh, open, closed = 0, 1, 2
	var out []ha.Reason
	mark := make([]int, len(w.groups))
	var path []int
	var walk func(g int)
	walk = func(g int) {
		mark[g] = open
		path = append(path, g)
		for _, p := range w.links[g].after {
			switch mark[p] {
			case fresh:
				walk(p)
			case open:
				if len(out) == maxKnots {
					break
				}
				circle := slices.Clone(path[slices.Index(path, p):])
				first := slices.Index(circle, slices.Min(circle))
				circle = append(slices.Clone(circle[first:]), circle[:first]...)
				way := w.way(append(circle, circle[0]), " after ")
				out = append(out, because("place.circle", "no one of them can start first: "+way, fact("circle", way)))
			}
		}
		path = path[:len(path)-1]
		mark[g] = closed
	}
	for g := range w.groups {
		if mark[g] == fresh {
			walk(g)
		}
	}
	return out
}

func (w critic) way(groups []int, word string) string {
	var names []string
	for _, g := range groups {
		names = append(names, w.group(g))
	}
	return strings.Join(names, word)
}

// torn finds what is wrong among groups that go together.
func (w critic) torn(u unit) []ha.Reason {
	var out []ha.Reason
	for _, m := range u.members {
		for _, o := range w.links[m].apart {
			if o > m && w.unitOf[o] == w.unitOf[m] && len(out) < maxKnots {
				way := w.way(w.path(m, o), " with ")
				out = append(out, because("place.conflict", w.group(m)+" is to be apart from "+w.group(o)+" and with it: "+way,
					fact("apart", w.group(m)+" apart "+w.group(o)), fact("with", way)))
			}
		}
	}
	if len(u.members) > 1 && len(w.nodes) > 0 {
		for n := range w.nodes {
			if !slices.ContainsFunc(u.members, func(m int) bool { return w.listed[m*len(w.nodes)+n] == none }) {
				return out
			}
		}
		way := w.way(u.members, " with ")
		out = append(out, because("place.no-common-node", "no node is in the lists of all that go together: "+way, fact("with", way)))
	}
	return out
}

// path is the shortest way of With from one group to another.
func (w critic) path(from, to int) []int {
	prev := map[int]int{from: none}
	for todo := []int{from}; len(todo) > 0; todo = todo[1:] {
		if todo[0] == to {
			break
		}
		for _, o := range w.links[todo[0]].with {
			if _, ok := prev[o]; !ok {
				prev[o] = todo[0]
				todo = append(todo, o)
			}
		}
	}
	var out []int
	for g := to; g != none; g = prev[g] {
		out = append([]int{g}, out...)
	}
	return out
}
