package main

import (
	"hash/maphash"
	"slices"
)

// result is what a search found.
type result struct {
	states   int
	complete bool     // everything that can happen was seen
	broken   string   // the promise that was broken, "" if none
	run      []string // the shortest way there
}

// search goes breadth first from the start until it has seen everything, found a
// violation, or seen limit states.
func search(r *rules, limit int) result {
	seen := newSet()
	first := start()
	first.renumber(r)
	first.settle()
	seen.add(first, 0)
	p := stepper{r: r}
	for at := 0; at < seen.n; at++ {
		if seen.n >= limit {
			return result{states: seen.n}
		}
		for _, next := range p.next(*seen.at(at)) {
			if seen.n >= limit || !seen.add(next.to, at) {
				continue
			}
			if what := next.to.bad(); what != "" {
				return result{states: seen.n, broken: what, run: seen.run(r)}
			}
		}
	}
	return result{states: seen.n, complete: true}
}

// set is all states that were seen, in the order in which they were, each with the
// one that it was reached from. It holds them whole: two states are never taken for
// one.
type set struct {
	n    int
	all  [][]state // in pieces: a large slice that grows is copied whole
	from []uint32
	slot []uint32 // index + 1; its length is a power of two
	seed maphash.Seed
}

const piece = 1 << 14

func newSet() *set {
	return &set{slot: make([]uint32, 1<<16), seed: maphash.MakeSeed()}
}

func (t *set) at(i int) *state { return &t.all[i/piece][i%piece] }

// add reports whether s is new.
func (t *set) add(s state, from int) bool {
	if t.n*2 > len(t.slot) {
		t.slot = make([]uint32, 2*len(t.slot))
		for i := range t.n {
			t.slot[t.find(t.at(i))] = uint32(i + 1)
		}
	}
	i := t.find(&s)
	if t.slot[i] != 0 {
		return false
	}
	if t.n%piece == 0 {
		t.all = append(t.all, make([]state, 0, piece))
	}
	last := len(t.all) - 1
	t.all[last] = append(t.all[last], s)
	t.from = append(t.from, uint32(from))
	t.n++
	t.slot[i] = uint32(t.n)
	return true
}

func (t *set) find(s *state) uint64 {
	mask := uint64(len(t.slot) - 1)
	i := maphash.Comparable(t.seed, *s) & mask
	for t.slot[i] != 0 && *t.at(int(t.slot[i] - 1)) != *s {
		i = (i + 1) & mask
	}
	return i
}

// run is the way from the start to the last state, in words.
func (t *set) run(r *rules) []string {
	var way []int
	for i := t.n - 1; i != 0; i = int(t.from[i]) {
		way = append(way, i)
	}
	slices.Reverse(way)
	p := stepper{r: r, text: true}
	var out []string
	from := *t.at(0)
	for _, i := range way {
		to := *t.at(i)
		for _, next := range p.next(from) {
			if next.to == to {
				out = append(out, next.what)
				p.mirrored = p.mirrored != next.mirrored
				break
			}
		}
		from = to
	}
	return out
}
