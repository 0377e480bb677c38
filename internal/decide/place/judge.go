package place

import (
	"slices"

	"gemel/internal/ha"
)

// Plan says where each group belongs. It is total: what Validate complains about
// is placed as far as that goes.
func Plan(p Problem) Answer {
	f := newField(p)
	w, traded := decide(f)
	return scribe{voice{w}}.answer(critic{f}.complaints(p), traded)
}

// A court decides. Once: no group is moved on by a second cause.
type court struct {
	voice
	once bool
}

// decide settles everything; traded: groups would have had to change places, and
// were moved by one step only.
func decide(f *field) (w *work, traded bool) {
	for _, once := range []bool{false, true} {
		w = newWork(f)
		court{voice{w}, once}.settled()
		// Who leaves for one node and then, by what others do meanwhile, for another one
		// may end where somebody is who waits for it to leave.
		if !circular(w.waits()) {
			return w, once
		}
	}
	return w, true
}

// settled judges until nothing changes. What one pass moves away leaves room for
// the next one. Each pass judges by what the ones before decided, so that when one
// changes nothing, none would change anything any more: that is why the answer to
// the answer moves nothing.
func (w court) settled() {
	for range len(w.units) + 2 {
		if !w.pass() {
			return
		}
	}
}

// pass judges all units once. Groups that nobody has come before those that run
// and would be better off elsewhere.
func (w court) pass() bool {
	changed := false
	for _, u := range w.units {
		if w.anchor(u) == none {
			changed = w.grant(u) || changed
		} else {
			changed = w.join(u) || changed
		}
	}
	for _, u := range w.units {
		if w.anchor(u) != none {
			changed = w.judge(u) || changed
		}
	}
	return changed
}

// anchor is the first member that is anywhere: the others go to it.
func (w *work) anchor(u unit) int {
	for _, m := range u.members {
		if w.st[m].now != none {
			return m
		}
	}
	return none
}

// on lists the members that are on a node; none: nowhere.
func (w *work) on(u unit, n int) []int {
	var out []int
	for _, m := range u.members {
		if w.st[m].now == n {
			out = append(out, m)
		}
	}
	return out
}

// hold says why nothing is done about a group, whatever else.
func (w *work) hold(g int) no {
	s := &w.st[g]
	switch group := &w.groups[g]; {
	case group.Locked:
		return no{code: locked, m: g}
	case group.Maintenance:
		return no{code: paused, m: g}
	case s.now != none && w.nodes[s.now].State == ha.NodeSuspect:
		return no{code: suspected, m: g, x: s.now}
	case s.now != none && w.nodes[s.now].Maintenance:
		return no{code: mended, m: g, x: s.now}
	case s.now == none && s.last >= 0 && w.nodes[s.last].Maintenance:
		return no{code: mended, m: g, x: s.last}
	}
	return no{}
}

// request returns the first request of the groups, and its node if that exists.
func (w *field) request(ms []int) (r Request, n int) {
	for _, m := range ms {
		if r = w.groups[m].Request; r.Node != "" {
			return r, w.find(r.Node)
		}
	}
	return Request{}, none
}

// home is the node to which a unit returns by itself at this time, or none.
func (w *work) home(u unit) int {
	for _, m := range u.members {
		r := &w.groups[m].Rules
		if !r.Failback || !r.Open || r.LeastGroups || len(r.Nodes) == 0 {
			continue
		}
		for n := range w.nodes {
			if w.listed[m*len(w.nodes)+n] == 0 {
				return n
			}
		}
	}
	return none
}

// forget drops what an earlier pass said of groups that it left where they were.
func (w *work) forget(ms []int) {
	for _, m := range ms {
		if s := &w.st[m]; !s.moved {
			s.held, s.refused, s.beside = no{}, nil, none
		}
	}
}

// note keeps why not of each node, for the groups for which nothing else was decided.
func (w *work) note(ms []int, nots []no) {
	for _, m := range ms {
		if s := &w.st[m]; !s.moved {
			copy(s.not, nots)
		}
	}
}

// refuse says that a move is not made. A group that another cause moved earlier
// keeps what was said then.
func (w *work) refuse(ms []int, why ha.Reason) {
	for _, m := range ms {
		if s := &w.st[m]; !s.moved {
			s.refused = append(s.refused, why)
		}
	}
}

// grant finds a node for a unit that nobody has. Its members go together or not
// at all, but for those about which nothing is to be done.
func (w court) grant(u unit) bool {
	w.forget(u.members)
	if w.asked(u) {
		return true
	}
	ms, nots, cands := w.free(u, false)
	if len(ms) == 0 {
		return false
	}
	best, ok := w.choose(ms, cands, w.home(u))
	if !ok {
		for _, m := range ms {
			w.st[m].held = no{code: nowhere, m: m}
		}
		w.note(ms, nots)
		return false
	}
	last := w.st[ms[0]].last
	why := no{m: ms[0], x: best, r: byOnly}
	for _, n := range cands {
		if n != best {
			nots[n] = no{code: later, m: ms[0], x: best, r: w.criterion(ms, best, n, w.home(u))}
			if why.r == byOnly {
				why.r = nots[n].r
			}
		}
	}
	w.note(ms, nots)
	var lost no
	if last >= 0 {
		lost = nots[last]
	} else {
		lost = no{code: away, m: ms[0]}
	}
	w.put(ms, best, w.sayGrant(why, last, lost))
	w.degrade(ms, best, false)
	return true
}

// free lists the members of a unit that nobody has and about which something may
// be done, and what is against each node. That a node is in maintenance does not
// count against the request of an operator.
func (w court) free(u unit, request bool) (ms []int, nots []no, cands []int) {
	for _, m := range u.members {
		h := w.hold(m)
		if h.code == okay || request && h.code == mended {
			ms = append(ms, m)
			continue
		}
		w.st[m].held = h
		w.note([]int{m}, slices.Repeat([]no{h}, len(w.nodes)))
	}
	nots = make([]no, len(w.nodes))
	for n := range w.nodes {
		if nots[n] = w.takes(ms, n); nots[n].code == okay {
			cands = append(cands, n)
		}
	}
	return ms, nots, cands
}

// asked starts a unit that nobody has where an operator asked it to be.
func (w court) asked(u unit) bool {
	r, t := w.request(u.members)
	if r.Node == "" {
		return false
	}
	ms, nots, _ := w.free(u, true)
	if len(ms) == 0 {
		w.refuse(u.members, w.sayRefused(u.members[0], t, w.st[u.members[0]].held, "request"))
		return false
	}
	if f := w.mayAsk(ms, t, r, nots); f.code != okay {
		w.refuse(ms, w.sayRefused(ms[0], t, f, "request"))
		return false
	}
	w.settle(ms, t, nots, no{code: tied, m: ms[0], x: t, r: byRequest})
	w.put(ms, t, w.sayAsked(r, none))
	w.degrade(ms, t, r.Forced)
	return true
}

// takes says whether a unit that nobody has may start on a node.
func (w court) takes(ms []int, n int) no {
	if f := w.fits(ms, n, false); f.code != okay {
		return f
	}
	if f := w.proved(ms, n); f.code != okay {
		return f
	}
	for _, m := range ms {
		s, at := &w.st[m], w.at[m*len(w.nodes)+n]
		if s.last != none && s.last != n && at != nil && at.OnLoss != "" {
			return no{code: onLoss, m: m, x: s.last}
		}
	}
	return no{}
}

// proved says whether who had groups of a unit last is known to be off, where they need that.
func (w *field) proved(ms []int, n int) no {
	for _, m := range ms {
		if at := w.at[m*len(w.nodes)+n]; at != nil && at.Unproved != "" {
			return no{code: unproved, m: m}
		}
	}
	return no{}
}

// mayAsk says whether a unit that nobody has may start where it was asked to be.
func (w court) mayAsk(ms []int, t int, r Request, nots []no) no {
	switch {
	case t == none:
		return no{code: away, m: ms[0]}
	case w.proved(ms, t).code != okay:
		return w.proved(ms, t)
	case r.Forced:
		return w.fits(ms, t, true)
	case nots[t].code != okay:
		return nots[t]
	}
	for _, m := range ms {
		if s := &w.st[m]; s.last != none && s.last != t {
			if f := w.synced([]int{m}, t); f.code != okay {
				return f
			}
		}
	}
	return w.stays(ms, t)
}

// settle notes why not for all nodes but the chosen one.
func (w court) settle(ms []int, chosen int, nots []no, other no) {
	for n := range nots {
		if n != chosen && nots[n].code == okay {
			nots[n] = other
		}
	}
	w.note(ms, nots)
}

// degrade lists what was not in sync where a group was put without the old
// holder's last word.
func (w *work) degrade(ms []int, n int, forced bool) {
	for _, m := range ms {
		s, at := &w.st[m], w.at[m*len(w.nodes)+n]
		s.behind = nil
		if at != nil && s.last != none && s.last != n && (s.orig == none || forced) {
			s.behind = at.Behind
		}
	}
}

// join puts the members that nobody has beside the one that somebody has.
func (w court) join(u unit) bool {
	a := w.anchor(u)
	n := w.st[a].now
	changed := false
	for _, m := range u.members {
		if w.st[m].now != none {
			continue
		}
		ms := []int{m}
		w.forget(ms)
		w.settle(ms, n, make([]no, len(w.nodes)), no{code: tied, m: a, x: n, r: byAnchor})
		f := w.hold(m)
		if f.code == okay {
			r, t := w.request(ms)
			if f = w.takes(ms, n); f.code == onLoss && r.Forced && t == n {
				f = no{}
			}
		}
		w.st[m].held = f
		if f.code != okay {
			w.st[m].beside = a
			if !w.st[m].moved {
				w.st[m].not[n] = f
			}
			continue
		}
		w.put(ms, n, w.sayWith(a, n))
		w.degrade(ms, n, false)
		changed = true
	}
	return changed
}
