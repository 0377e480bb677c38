package place

import (
	"slices"

	"gemel/internal/ha"
)

// A scribe writes the answer.
type scribe struct{ voice }

// answer puts numbers into words.
func (w scribe) answer(conflicts []ha.Reason, traded bool) Answer {
	a := Answer{Choices: make([]Choice, len(w.groups)), Conflicts: conflicts, traded: traded}
	waits := w.waits()
	for _, running := range []bool{false, true} {
		for g := range w.groups {
			if (w.st[g].orig != none) == running {
				w.order(g, waits)
			}
		}
	}
	for g := range w.groups {
		a.Choices[g] = w.choice(g, waits[g])
	}
	return a
}

// waits lists for each group those that leave the room that it needs.
func (w *work) waits() [][]int {
	out := make([][]int, len(w.groups))
	for g := range w.groups {
		if s := &w.st[g]; s.now != s.orig {
			for _, h := range s.room {
				if w.st[h].orig == s.now && w.st[h].now != s.now {
					out[g] = append(out[g], h)
				}
			}
		}
	}
	return out
}

// circular says whether any group waits, by way of others, for itself.
func circular(waits [][]int) bool {
	for g, hs := range waits {
		for _, h := range hs {
			if waitsFor(h, g, waits) {
				return true
			}
		}
	}
	return false
}

// order adds those that a group starts after. One that runs already does not wait
// for who waits for it to leave: neither would ever go.
func (w scribe) order(g int, waits [][]int) {
	s := &w.st[g]
	if s.now == none || s.now == s.orig {
		return
	}
	for _, p := range w.links[g].after {
		if w.st[p].orig != none && w.groups[p].Active || s.orig != none && waitsFor(p, g, waits) {
			continue
		}
		waits[g] = append(waits[g], p)
	}
	slices.Sort(waits[g])
	waits[g] = slices.Compact(waits[g])
}

func waitsFor(p, g int, waits [][]int) bool {
	seen := map[int]bool{p: true}
	todo := []int{p}
	for len(todo) > 0 {
		h := todo[0]
		todo = todo[1:]
		if h == g {
			return true
		}
		for _, o := range waits[h] {
			if !seen[o] {
				seen[o] = true
				todo = append(todo, o)
			}
		}
	}
	return false
}

func (w scribe) choice(g int, waits []int) Choice {
	s := &w.st[g]
	c := Choice{Group: w.groups[g].Name, Behind: slices.Clone(s.behind), Refused: s.refused}
	if s.orig != none {
		c.From = w.nodes[s.orig].Name
	}
	if s.now != none {
		c.Node = w.nodes[s.now].Name
	}
	c.Move = s.orig != none && s.now != s.orig
	for _, h := range waits {
		c.Wait = append(c.Wait, w.groups[h].Name)
	}
	switch {
	case s.now == none:
		c.Reason = w.sayNowhere(g)
	case s.now == s.orig:
		c.Reason = w.sayStay(g)
		c.Behind = nil
	default:
		c.Reason = s.reason
	}
	if len(c.Behind) > 0 {
		c.Reason.Facts = append(slices.Clone(c.Reason.Facts), fact("behind", list(c.Behind)))
	}
	c.Not = make([]WhyNot, 0, len(w.nodes))
	for n := range w.nodes {
		switch n {
		case s.now:
		case s.orig: // why it moves
			c.Not = append(c.Not, WhyNot{w.nodes[n].Name, c.Reason})
		default:
			c.Not = append(c.Not, WhyNot{w.nodes[n].Name, w.say(s.not[n], g, n)})
		}
	}
	return c
}
