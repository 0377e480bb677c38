package main

import "math/bits"

// renumber gives the revisions of s their smallest numbers, drops what can have no
// effect any more, and orders what has no order.
func (s *state) renumber(r *rules) {
	s.dead(r)
	for n := range s.keys {
		var all [32]*rev
		refs := s.refs(n, all[:0])
		compact(refs)
	}
	var all [8]*rev
	refs := append(all[:0], &s.epoch)
	for b := range s.brains {
		if e := &s.brains[b].epoch; *e != 0 && *e != s.epoch {
			*e = 0
		}
		refs = append(refs, &s.brains[b].epoch, &s.brains[b].w.epoch)
	}
	for i := range s.late {
		refs = append(refs, &s.late[i].epoch)
	}
	compact(refs)
	for n := range s.nodes {
		d := &s.nodes[n]
		if later(d.reads[0], d.reads[1]) {
			d.reads[0], d.reads[1] = d.reads[1], d.reads[0]
		}
	}
	if s.late[0].op == nothing || s.late[1].op != nothing && s.late[1].before(s.late[0]) {
		s.late[0], s.late[1] = s.late[1], s.late[0]
	}
}

// settle gives the nodes the order of what they are in, so that two states that
// differ only in which node is called A are one; it reports whether they changed names.
func (s *state) settle() bool {
	if s.rank(0) <= s.rank(1) {
		return false
	}
	s.keys[0], s.keys[1] = s.keys[1], s.keys[0]
	s.nodes[0], s.nodes[1] = s.nodes[1], s.nodes[0]
	s.report[0], s.report[1] = s.report[1], s.report[0]
	s.proof[0], s.proof[1] = s.proof[1], s.proof[0]
	for b := range s.brains {
		m := &s.brains[b]
		m.views[0], m.views[1] = m.views[1], m.views[0]
		m.w.mirror()
	}
	for i := range s.late {
		s.late[i].mirror()
	}
	return true
}

// rank is any order of nodes. Two that it does not tell apart cost a search some
// states, and nothing else.
func (s *state) rank(n int) (rank uint64) {
	k, d := &s.keys[n], &s.nodes[n]
	put := func(v int8) { rank = rank<<3 | uint64(v&7) }
	for _, on := range []bool{k.grant, k.mine, d.going, d.joins} {
		v := int8(0)
		if on {
			v = 1
		}
		put(v)
	}
	for _, v := range []int8{k.rev, k.state, d.auth, d.seen, d.last, d.clear.stage, d.clear.age, d.clear.got.rev, s.report[n],
		d.reads[0].stage, d.reads[0].age, d.reads[0].got.rev, d.reads[1].stage, s.brains[0].views[n].rev, s.brains[0].views[n].wait + 1} {
		put(v)
	}
	return rank
}

func (w *write) mirror() {
	if w.op != nothing && w.op != opNever {
		w.node = 1 - w.node
		w.guard[0], w.guard[1] = w.guard[1], w.guard[0]
	}
}

func later(a, b read) bool {
	if a.stage == 0 || b.stage == 0 {
		return a.stage == 0 && b.stage != 0
	}
	if a.age != b.age {
		return a.age > b.age
	}
	if a.stage != b.stage {
		return a.stage > b.stage
	}
	return a.got.rev > b.got.rev
}

func (w write) before(o write) bool {
	if w.op != o.op {
		return w.op < o.op
	}
	if w.node != o.node {
		return w.node < o.node
	}
	return w.epoch < o.epoch
}

// dead drops what can have no effect any more: answers that will not be taken, and
// what rests on guards that cannot hold.
func (s *state) dead(r *rules) {
	for n := range s.nodes {
		d := &s.nodes[n]
		for i := range d.reads {
			if d.reads[i].stage == 2 && d.reads[i].got.rev < d.seen && !r.has(olderAnswer) {
				d.reads[i] = read{}
			}
			if a := &d.reads[i]; a.stage == 2 && !(a.got.mine && a.got.state == member && (a.got.grant || d.heard)) {
				a.age = 0
			}
		}
		if d.clear.stage == 1 && d.guard != s.keys[n].rev && !r.has(blindClear) {
			d.clear, d.guard = read{}, 0
		}
		if d.jrev != s.keys[n].rev {
			d.joins, d.jrev = false, 0
		}
		if s.report[n] != s.keys[n].rev && !r.has(looseReport) {
			s.report[n] = 0
		}
	}
	for i := range s.late {
		if !s.may(&s.late[i]) {
			s.late[i] = write{}
		}
	}
	if r.has(noGuards) || r.has(looseReport) {
		return
	}
	if s.brains[0].epoch != s.epoch {
		s.brains[0], s.brains[1] = s.brains[1], s.brains[0]
	}
	for b := range s.brains {
		m := &s.brains[b]
		if m.epoch != s.epoch {
			m.epoch, m.w = 0, write{}
			s.forget(b)
			continue
		}
		if m.w.stage == 1 && !s.may(&m.w) {
			m.w = write{stage: 3}
		}
		if m.w.stage == 3 {
			m.w = write{op: opNever, stage: 3}
		}
		for n := range m.views {
			if m.views[n].rev != s.keys[n].rev {
				m.views[n] = view{wait: -1}
			}
		}
	}
}

// may says whether the guards of w can still hold.
func (s *state) may(w *write) bool {
	if w.op == nothing || w.epoch != 0 && w.epoch != s.epoch {
		return false
	}
	for n, g := range w.guard {
		if g != 0 && g != s.keys[n].rev {
			return false
		}
	}
	return true
}

// refs are all places that hold a revision of key n.
func (s *state) refs(n int, to []*rev) []*rev {
	d := &s.nodes[n]
	to = append(to, &s.keys[n].rev, &d.seen, &d.guard, &d.jrev, &d.clear.got.rev, &s.report[n])
	for i := range d.reads {
		to = append(to, &d.reads[i].got.rev)
	}
	for b := range s.brains {
		m := &s.brains[b]
		to = append(to, &m.views[n].rev, &m.w.guard[n])
		if int(m.w.node) == n {
			to = append(to, &m.w.got.rev)
		}
	}
	for i := range s.late {
		to = append(to, &s.late[i].guard[n])
	}
	return to
}

// compact renumbers, and keeps order and equality.
func compact(refs []*rev) {
	var used uint64
	for _, r := range refs {
		used |= 1 << *r
	}
	used &^= 1
	for _, r := range refs {
		if *r != 0 {
			*r = rev(bits.OnesCount64(used & (2<<*r - 1)))
		}
	}
}
