package place

import (
	"cmp"
	"slices"

	"gemel/internal/ha"
)

// What made one node come before another.
const (
	bySync = iota
	byHealth
	byReach
	byHome
	byLast
	byFewest
	byList
	byName
	byOnly    // there was no other
	byAnchor  // what goes with it is there
	byRequest // an operator asked for it
)

// key is what a node is chosen by, the lesser the better.
type key struct {
	behind, reach, home, last, count, pos int
	health                                Health
}

func (w *work) key(ms []int, n, home int) key {
	k := key{health: w.health(ms, n), reach: -w.reached(ms, n), home: 1, last: 1}
	for _, m := range ms {
		if w.st[m].last != none && w.st[m].last != n && w.synced([]int{m}, n).code != okay {
			k.behind = 1
		}
	}
	if n == home {
		k.home = 0
	}
	first := &w.groups[ms[0]].Rules
	if w.st[ms[0]].now == none && w.st[ms[0]].last == n {
		k.last = 0
	}
	if first.LeastGroups {
		k.count = w.count[n]
	}
	k.pos = w.listed[ms[0]*len(w.nodes)+n]
	return k
}

// compare says which key comes first, and by what.
func compare(a, b key) (int, int) {
	for i, c := range []int{
		bySync:   cmp.Compare(a.behind, b.behind),
		byHealth: grave(a.health, b.health),
		byReach:  cmp.Compare(a.reach, b.reach),
		byHome:   cmp.Compare(a.home, b.home),
		byLast:   cmp.Compare(a.last, b.last),
		byFewest: cmp.Compare(a.count, b.count),
		byList:   cmp.Compare(a.pos, b.pos),
	} {
		if c != 0 {
			return c, i
		}
	}
	return 0, byName
}

// choose returns the best of nodes, which are in order of name.
func (w *work) choose(ms, nodes []int, home int) (int, bool) {
	if len(nodes) == 0 {
		return none, false
	}
	best, bestKey := nodes[0], w.key(ms, nodes[0], home)
	for _, n := range nodes[1:] {
		k := w.key(ms, n, home)
		if c, _ := compare(k, bestKey); c < 0 {
			best, bestKey = n, k
		}
	}
	return best, true
}

// criterion says by what one node came before another.
func (w *work) criterion(ms []int, first, second, home int) int {
	_, by := compare(w.key(ms, first, home), w.key(ms, second, home))
	return by
}

// prefer lets the request of an operator choose among the nodes that a group may
// leave for, if it would be followed from the best of them anyway: one move, not two.
func (w court) prefer(u unit, ms, cands []int, best int) int {
	r, t := w.request(u.members)
	if r.Node != "" && t != best && slices.Contains(cands, t) && (r.Forced || w.as(ms, best, t, r.Any).code == okay) {
		return t
	}
	return best
}

// judge says whether a unit that is somewhere has a reason to leave.
func (w court) judge(u unit) bool {
	a := w.anchor(u)
	x := w.st[a].now
	ms := w.on(u, x)
	w.forget(ms)
	for _, m := range u.members {
		if s := &w.st[m]; !s.moved && s.now != none && s.now != x {
			w.forget([]int{m})
		}
	}
	if w.once && w.anyMoved(ms) {
		return w.gather(u)
	}
	nots := make([]no, len(w.nodes))
	for n := range w.nodes {
		if n != x {
			if nots[n] = w.fits(ms, n, false); nots[n].code == okay {
				nots[n] = no{code: noCause, m: ms[0], x: x}
			}
		}
	}
	changed := false
	h := w.heldUnit(ms)
	w.note(ms, nots)
	switch {
	case h.code == mended && w.requested(u, ms, x):
		changed = true
	case h.code != okay:
		for _, m := range ms {
			if s := &w.st[m]; !s.moved {
				s.held = h
			}
		}
		if r, t := w.request(u.members); r.Node != "" && t != x && h.code != mended {
			w.refuse(ms, w.sayRefused(ms[0], t, h, "request"))
		}
	default:
		changed = w.requested(u, ms, x) || w.leave(u, ms, x) || w.heal(u, ms, x) || w.failback(u, ms, x)
	}
	return w.gather(u) || changed
}

// anyMoved says whether anything is decided of groups that somebody has.
func (w *work) anyMoved(ms []int) bool {
	return slices.ContainsFunc(ms, func(m int) bool { return w.st[m].moved && w.st[m].orig != none })
}

// heldUnit says whether any of the groups may not be touched: then none is moved.
// That their node is in maintenance is said only if there is nothing else, because
// an operator's request goes before it.
func (w court) heldUnit(ms []int) no {
	out := no{}
	for _, m := range ms {
		if h := w.hold(m); h.code == mended {
			out = h
		} else if h.code != okay {
			return h
		}
	}
	return out
}

// requested moves a unit to where an operator asked it to be: the first guard if
// it is forced, else the second.
func (w court) requested(u unit, ms []int, x int) bool {
	r, t := w.request(u.members)
	if r.Node == "" || t == x {
		return false
	}
	var f no
	switch {
	case t == none:
		f = no{code: away, m: ms[0]}
	case r.Forced:
		f = w.fits(ms, t, true)
	default:
		f = w.as(ms, x, t, r.Any)
	}
	if f.code != okay {
		w.turn(ms, t, f)
		w.refuse(ms, w.sayRefused(ms[0], t, f, "request"))
		return false
	}
	w.move(ms, t, no{code: tied, m: ms[0], x: t, r: byRequest}, w.sayAsked(r, x))
	w.degrade(ms, t, r.Forced)
	return true
}

// turn notes the guard that refused a node.
func (w *work) turn(ms []int, n int, f no) {
	if n == none {
		return
	}
	for _, m := range ms {
		if s := &w.st[m]; !s.moved {
			s.not[n] = f
		}
	}
}

// move puts groups elsewhere; the nodes that they could have had as well get other.
// Those among them that nobody has yet, and that only joined the others a moment
// ago, start there at once.
func (w court) move(ms []int, n int, other no, why ha.Reason) {
	lead := ms[0]
	for _, m := range ms {
		if w.st[m].orig != none {
			lead = m
			break
		}
	}
	for _, m := range ms {
		s := &w.st[m]
		for i, f := range s.not {
			switch {
			case i == s.now && i != s.orig:
				s.not[i] = no{code: leftSoon, m: m, x: n}
			case f.code == noCause:
				s.not[i] = other
			case f.code == tied && f.r == byAnchor:
				s.not[i].x = n
			}
		}
	}
	w.put(ms, n, why)
	w.degrade(ms, n, false)
	for _, m := range ms {
		if m != lead && w.st[m].orig == none {
			w.st[m].reason = w.sayWith(lead, n)
		}
	}
}

// leave moves a unit off a node that may not have it any more. It is a request of
// somebody (a drain, a changed manifest), so the second guard holds; but what was
// given up where it is cannot be less healthy elsewhere, and need only be in sync.
func (w court) leave(u unit, ms []int, x int) bool {
	r, t := w.request(u.members)
	pinned := r.Forced && t == x
	cause := no{}
	for _, m := range ms {
		if f := w.may(m, x, pinned); f.code != okay && cause.code == okay {
			cause = f
		}
		for _, h := range w.links[m].apart {
			o := &w.st[h]
			if o.now == x && cause.code == okay && (w.unitOf[h] < w.unitOf[m] || w.hold(h).code != okay) {
				cause = no{code: apart, m: m, x: h}
			}
		}
	}
	if cause.code == okay {
		return false
	}
	if cause.code == barred {
		if d := w.damp(ms); d.code != okay {
			w.refuse(ms, w.sayRefused(ms[0], none, d, "given up here"))
			return false
		}
	}
	var cands []int
	for n := range w.nodes {
		if n == x {
			continue
		}
		f := w.as(ms, x, n, false)
		if cause.code == barred {
			if f = w.fits(ms, n, false); f.code == okay {
				f = w.synced(ms, n)
			}
			if f.code == okay {
				f = w.stays(ms, n)
			}
		}
		if f.code == okay {
			cands = append(cands, n)
		} else {
			w.turn(ms, n, f)
		}
	}
	best, ok := w.choose(ms, cands, w.home(u))
	if !ok {
		w.refuse(ms, w.sayStuck(ms[0], x, cause))
		return false
	}
	best = w.prefer(u, ms, cands, best)
	by := byOnly
	for _, n := range cands {
		if n != best {
			c := w.criterion(ms, best, n, w.home(u))
			if by == byOnly {
				by = c
			}
			w.turn(ms, n, no{code: later, m: ms[0], x: best, r: c})
		}
	}
	w.move(ms, best, no{code: later, m: ms[0], x: best, r: by}, w.sayLeave(x, best, cause))
	return true
}

// heal moves a unit for health or for reach: the third guard.
func (w court) heal(u unit, ms []int, x int) bool {
	if len(w.nodes[x].Misses) == 0 && !w.health(ms, x).Critical {
		return false
	}
	if r, t := w.request(u.members); r.Forced && t == x {
		return false
	}
	sticky := 0
	for _, m := range ms {
		sticky = max(sticky, w.groups[m].Rules.Stickiness)
	}
	var cands []int
	var refused []ha.Reason
	for n := range w.nodes {
		if n == x {
			continue
		}
		if !w.better(ms, x, n, sticky) {
			w.turnBetter(ms, x, n)
			continue
		}
		f := w.fits(ms, n, false)
		if f.code == okay {
			f = w.synced(ms, n)
		}
		if f.code == okay {
			f = w.damp(ms)
		}
		if f.code == okay {
			cands = append(cands, n)
			continue
		}
		w.turn(ms, n, f)
		if f.code > barred { // who may not have it at all was not asked
			refused = append(refused, w.sayRefused(ms[0], n, f, "health"))
		}
	}
	best, ok := w.choose(ms, cands, w.home(u))
	if !ok {
		for _, why := range refused {
			w.refuse(ms, why)
		}
		return false
	}
	best = w.prefer(u, ms, cands, best)
	for _, n := range cands {
		if n != best {
			w.turn(ms, n, no{code: later, m: ms[0], x: best, r: w.criterion(ms, best, n, w.home(u))})
		}
	}
	why := w.sayReach(ms, x, best)
	if healthier(w.health(ms, x), w.health(ms, best), sticky) {
		why = w.sayHealth(ms, x, best)
	}
	w.move(ms, best, no{code: worse, m: ms[0], x: best}, why)
	return true
}

// turnBetter notes why a node is not better than x, if anything could be.
func (w court) turnBetter(ms []int, x, n int) {
	if w.st[ms[0]].not[n].code != noCause {
		return
	}
	if a, b := w.health(ms, x), w.health(ms, n); a.Critical || grave(b, a) > 0 {
		w.turn(ms, n, no{code: worse, m: ms[0], x: x})
	} else if f := w.covers(ms, x, n); f.code != okay {
		w.turn(ms, n, f)
	}
}

// failback moves a unit to the first of its nodes, by the second guard, unless an
// operator asked it to be where it is.
func (w court) failback(u unit, ms []int, x int) bool {
	h := w.home(u)
	if h == none || h == x {
		return false
	}
	if r, t := w.request(u.members); r.Node != "" && t == x {
		return false
	}
	f := w.damp(ms)
	if f.code == okay {
		f = w.as(ms, x, h, false)
	}
	if f.code != okay {
		w.turn(ms, h, f)
		if f.code > barred { // a home that is not there is not asked for
			w.refuse(ms, w.sayRefused(ms[0], h, f, "failback"))
		}
		return false
	}
	w.move(ms, h, no{code: later, m: ms[0], x: h, r: byHome}, w.sayFailback(x, h))
	return true
}

// gather moves the members that are elsewhere to the one that the others go to: a
// changed manifest asks for it, so the second guard holds.
func (w court) gather(u unit) bool {
	if len(u.members) == 1 {
		return false
	}
	a := w.anchor(u)
	n := w.st[a].now
	changed := false
	for _, m := range u.members {
		z := w.st[m].now
		if z == none || z == n || w.once && w.anyMoved([]int{m}) {
			continue
		}
		ms := []int{m}
		nots := make([]no, len(w.nodes))
		w.settle(ms, z, nots, no{code: tied, m: a, x: n, r: byAnchor})
		f := w.hold(m)
		w.st[m].held = f
		if f.code == okay {
			f = w.as(ms, z, n, false)
		}
		if f.code != okay {
			w.turn(ms, n, f)
			w.refuse(ms, w.sayRefused(m, n, f, "with"))
			continue
		}
		w.move(ms, n, no{code: tied, m: a, x: n, r: byAnchor}, w.sayWith(a, n))
		changed = true
	}
	return changed
}
