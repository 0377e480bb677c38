package place

import (
	"cmp"
	"slices"

	"gemel/internal/ha"
)

// work is the answer as far as it has come.
type work struct {
	*field
	st    []standing
	load  [][]int64 // node x resource: by what is to be there
	left  [][]int64 // node x resource: by what is there and is to go elsewhere
	count []int     // groups that are to be on a node
}

// standing is what is decided of one group so far.
type standing struct {
	orig, now, last int  // nodes, or none; last may be gone
	moved           bool // decided to be on now
	reason          ha.Reason
	held            no   // why nothing is done about it
	not             []no // for each node
	refused         []ha.Reason
	room            []int // groups that leave the room that it needs
	behind          []string
	beside          int // the group that it should join and cannot, or none
}

func newWork(f *field) *work {
	w := &work{field: f, st: make([]standing, len(f.groups)), count: make([]int, len(f.nodes))}
	for range w.nodes {
		w.load = append(w.load, make([]int64, len(w.res)))
		w.left = append(w.left, make([]int64, len(w.res)))
	}
	for g := range w.st {
		w.st[g] = w.standing(g)
		if n := w.st[g].now; n != none {
			w.count[n]++
			addTo(w.load[n], w.weigh[g], 1)
		}
	}
	return w
}

// standing is where a group is before anything is decided.
func (w *field) standing(g int) standing {
	s := standing{not: make([]no, len(w.nodes)), beside: none}
	group := &w.groups[g]
	s.now = w.find(group.Now)
	if name := cmp.Or(group.Now, group.Last); name != "" {
		if s.last = w.find(name); s.last == none {
			s.last = gone
		}
	} else {
		s.last = none
	}
	if s.now != none {
		if state := w.nodes[s.now].State; state != ha.NodeMember && state != ha.NodeSuspect {
			s.now = none
		}
	}
	s.orig = s.now
	return s
}

func addTo(sum, weights []int64, sign int64) {
	for r, v := range weights {
		sum[r] += sign * v
	}
}

// put decides that groups are to be on a node.
func (w *work) put(ms []int, n int, why ha.Reason) {
	for _, m := range ms {
		s := &w.st[m]
		if s.now != none {
			w.count[s.now]--
			addTo(w.load[s.now], w.weigh[m], -1)
			if s.now == s.orig {
				addTo(w.left[s.now], w.weigh[m], 1)
			}
		}
		s.now, s.reason, s.moved, s.held = n, s.onward(why), true, no{}
		w.count[n]++
		addTo(w.load[n], w.weigh[m], 1)
		if n == s.orig {
			addTo(w.left[n], w.weigh[m], -1)
		}
	}
	for _, m := range ms {
		w.st[m].room = w.roomOf(m, n)
	}
}

// onward is the reason of a move that goes on from where an earlier cause, in the
// same answer, had put the group.
func (s *standing) onward(why ha.Reason) ha.Reason {
	if !s.moved {
		return why
	}
	out := ha.Reason{Rule: s.reason.Rule, Text: s.reason.Text + "; and from there: " + why.Text, Facts: slices.Concat(s.reason.Facts, why.Facts)}
	if why.Rule == "place.forced" {
		out.Rule = why.Rule
	}
	return out
}

// roomOf lists who must have left a node before a group can be there.
func (w *work) roomOf(m, n int) []int {
	if w.st[m].orig == n {
		return nil
	}
	tight := make([]bool, len(w.res))
	any := false
	for r, v := range w.weigh[m] {
		tight[r] = v > 0 && w.left[n][r] > 0 && w.bound[n][r] != none && w.load[n][r]+w.left[n][r] > w.bound[n][r]
		any = any || tight[r]
	}
	var out []int
	leaves := func(h int) bool { return w.st[h].orig == n && w.st[h].now != n }
	for _, h := range w.links[m].apart {
		if leaves(h) {
			out = append(out, h)
		}
	}
	if any {
		for h := range w.groups {
			if leaves(h) && slices.ContainsFunc(w.res, func(r string) bool {
				i, _ := slices.BinarySearch(w.res, r)
				return tight[i] && w.weigh[h][i] > 0
			}) {
				out = append(out, h)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
