package place

import (
	"cmp"
	"slices"
	"strings"

	"gemel/internal/ha"
)

const (
	none = -1 // no node
	gone = -2 // a node that is not in the cluster any more
)

// A field is a problem in numbers. Nodes and groups are by name, so that the order
// of the input means nothing.
type field struct {
	nodes  []Node
	groups []Group
	index  map[ha.Node]int // of nodes; only looked up
	listed []int           // group x node: position in the group's list, or none; 0 without a list
	at     []*At           // group x node, or nil
	links  []links         // of each group
	units  []unit          // in order of who is placed first
	unitOf []int           // of each group

	res   []string
	bound [][]int64 // node x resource; none is no bound
	weigh [][]int64 // group x resource
}

// links are the relations of a group, to those that exist.
type links struct{ after, with, apart []int }

// A unit is groups that go together, the first to be placed first. Most have one.
type unit struct {
	members []int
	prio    int
	depth   int // how many starts must come before
}

func newField(p Problem) *field {
	w := &field{
		nodes:  unique(p.Nodes, func(n Node) string { return string(n.Name) }),
		groups: unique(p.Groups, func(g Group) string { return string(g.Name) }),
		index:  make(map[ha.Node]int, len(p.Nodes)),
	}
	for i, n := range w.nodes {
		w.index[n.Name] = i
	}
	w.listed = make([]int, len(w.groups)*len(w.nodes))
	w.at = make([]*At, len(w.groups)*len(w.nodes))
	for g := range w.groups {
		w.locate(g)
	}
	w.relate()
	w.measure()
	return w
}

// find returns the number of a node, or none.
func (w *field) find(name ha.Node) int {
	if n, ok := w.index[name]; ok {
		return n
	}
	return none
}

// unique sorts a copy and keeps the first of each name.
func unique[T any](in []T, name func(T) string) []T {
	out := slices.Clone(in)
	slices.SortStableFunc(out, func(a, b T) int { return strings.Compare(name(a), name(b)) })
	return slices.CompactFunc(out, func(a, b T) bool { return name(a) == name(b) })
}

// locate fills in what joins a group to nodes.
func (w *field) locate(g int) {
	group, base := &w.groups[g], g*len(w.nodes)
	for n := range w.nodes {
		w.listed[base+n] = none
		if len(group.Rules.Nodes) == 0 {
			w.listed[base+n] = 0
		}
	}
	for i, name := range group.Rules.Nodes {
		if n, ok := w.index[name]; ok && w.listed[base+n] == none {
			w.listed[base+n] = i
		}
	}
	for i := range group.At {
		if n, ok := w.index[group.At[i].Node]; ok && w.at[base+n] == nil {
			w.at[base+n] = &group.At[i]
		}
	}
}

// relate finds the units and the order in which they are placed.
func (w *field) relate() {
	index := make(map[ha.Group]int, len(w.groups))
	for i, g := range w.groups {
		index[g.Name] = i
	}
	w.links = make([]links, len(w.groups))
	for g := range w.groups {
		r, l := w.groups[g].Rules, &w.links[g]
		l.after = append(l.after, known(index, r.After)...)
		for _, o := range known(index, r.With) {
			l.with = append(l.with, o)
			w.links[o].with = append(w.links[o].with, g)
		}
		for _, o := range known(index, r.Apart) {
			l.apart = append(l.apart, o)
			w.links[o].apart = append(w.links[o].apart, g)
		}
	}
	for g := range w.links {
		l := &w.links[g]
		for _, s := range []*[]int{&l.after, &l.with, &l.apart} {
			slices.Sort(*s)
			*s = slices.Compact(*s)
		}
	}
	w.unite(w.ranks())
}

func known(index map[ha.Group]int, names []ha.Group) []int {
	var out []int
	for _, name := range names {
		if o, ok := index[name]; ok {
			out = append(out, o)
		}
	}
	return out
}

// ranks returns for each group its priority, which is never below that of a group
// that starts after it, and how many starts come before.
func (w *field) ranks() (prio, depth []int) {
	prio, depth = make([]int, len(w.groups)), make([]int, len(w.groups))
	for g := range w.groups {
		prio[g] = w.groups[g].Rules.Priority
	}
	for changed := true; changed; {
		changed = false
		for g := range w.groups {
			for _, p := range w.links[g].after {
				if prio[p] < prio[g] {
					prio[p], changed = prio[g], true
				}
			}
		}
	}
	seen := make([]bool, len(w.groups))
	var walk func(g int) int
	walk = func(g int) int {
		if !seen[g] {
			seen[g] = true
			d := 0
			for _, p := range w.links[g].after {
				d = max(d, 1+walk(p))
			}
			depth[g] = d
		}
		return depth[g]
	}
	for g := range w.groups {
		walk(g)
	}
	return prio, depth
}

func (w *field) unite(prio, depth []int) {
	seen := make([]bool, len(w.groups))
	for g := range w.groups {
		if seen[g] {
			continue
		}
		u := unit{members: []int{g}}
		seen[g] = true
		for i := 0; i < len(u.members); i++ {
			m := u.members[i]
			u.prio, u.depth = max(u.prio, prio[m]), max(u.depth, depth[m])
			for _, o := range w.links[m].with {
				if !seen[o] {
					seen[o] = true
					u.members = append(u.members, o)
				}
			}
		}
		u.prio = prio[u.members[0]]
		for _, m := range u.members {
			u.prio = max(u.prio, prio[m])
		}
		slices.SortFunc(u.members, func(a, b int) int {
			return cmp.Or(cmp.Compare(prio[b], prio[a]), cmp.Compare(a, b))
		})
		w.units = append(w.units, u)
	}
	slices.SortFunc(w.units, func(a, b unit) int {
		return cmp.Or(cmp.Compare(b.prio, a.prio), cmp.Compare(a.depth, b.depth), cmp.Compare(a.members[0], b.members[0]))
	})
	w.unitOf = make([]int, len(w.groups))
	for i, u := range w.units {
		for _, m := range u.members {
			w.unitOf[m] = i
		}
	}
}

// measure numbers the resources.
func (w *field) measure() {
	w.res = []string{"groups"}
	for _, g := range w.groups {
		for _, a := range g.Rules.Weights {
			w.res = append(w.res, a.Resource)
		}
	}
	slices.Sort(w.res)
	w.res = slices.Compact(w.res)
	row := func(as []Amount, other func(resource string) int64) []int64 {
		out := make([]int64, len(w.res))
		for i, r := range w.res {
			out[i] = other(r)
		}
		for _, a := range as {
			if i, ok := slices.BinarySearch(w.res, a.Resource); ok {
				out[i] = max(a.Value, 0)
			}
		}
		return out
	}
	for _, g := range w.groups {
		w.weigh = append(w.weigh, row(g.Rules.Weights, func(r string) int64 {
			if r == "groups" {
				return 1
			}
			return 0
		}))
	}
	for _, n := range w.nodes {
		w.bound = append(w.bound, row(n.Capacity, func(r string) int64 {
			if r == "groups" || n.Else <= 0 {
				return none
			}
			return n.Else
		}))
	}
}
