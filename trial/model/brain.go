package main

import "fmt"

// brain is what can happen at brain b.
func (p *stepper) brain(s state, b int) {
	me := s.brains[b]
	if me.epoch != s.epoch || me.epoch == 0 {
		if me.w.op == nothing && (p.r.crashes || b == 0) {
			t := s
			t.epoch++
			t.brains[b] = brain{epoch: t.epoch}
			t.forget(b)
			p.say(t, func() string { return fmt.Sprintf("%s takes the epoch", bname(b)) })
		}
	}
	if p.r.crashes && (me.epoch != 0 || me.w.op != nothing) {
		t := s
		if t.outlive(p.r, me.w) {
			t.brains[b] = brain{}
			t.forget(b)
			p.say(t, func() string { return fmt.Sprintf("%s crashes", bname(b)) })
		}
	}
	if me.epoch == 0 {
		return
	}
	if me.w.op != nothing {
		p.writing(s, b)
		return
	}
	for n := range s.keys {
		p.judge(s, b, n)
	}
}

// outlive leaves a write behind that nobody waits for; it reports whether there
// was room for it.
func (s *state) outlive(r *rules, w write) bool {
	if w.op == nothing || w.stage != 1 {
		return true
	}
	for i := range s.late[:r.late] {
		if s.late[i].op == nothing {
			s.late[i] = w
			return true
		}
	}
	return false
}

// judge is what brain b can do about node n when it waits for nothing.
func (p *stepper) judge(s state, b, n int) {
	me := s.brains[b]
	o := 1 - n
	v, ov := me.views[n], me.views[o]
	if v.rev != s.keys[n].rev {
		t := s
		t.brains[b].views[n] = view{key: s.keys[n].plain(), wait: -1}
		p.say(t, func() string {
			return fmt.Sprintf("%s reads %s: r%d %s", bname(b), p.name(n), s.keys[n].rev, s.keys[n])
		})
	}
	if v.rev == 0 {
		return
	}
	send := func(w write, why string) {
		t := s
		w.node, w.epoch, w.stage = int8(n), me.epoch, 1
		if p.r.has(noGuards) {
			w.epoch, w.guard = 0, [nodes]rev{}
		}
		t.brains[b].w = w
		if w.op == opSuspect && p.r.has(waitFromSend) {
			t.brains[b].w.wait = p.r.wait
		}
		p.say(t, func() string { return fmt.Sprintf("%s asks to %s%s", bname(b), p.write(w), why) })
	}
	own := func() (g [nodes]rev) { g[n] = v.rev; return }
	both := func() (g [nodes]rev) { g[n], g[o] = v.rev, ov.rev; return }
	if v.state == member {
		g := own()
		if p.r.has(blindSuspect) {
			g = [nodes]rev{}
		}
		send(write{op: opSuspect, guard: g}, "")
	}
	if v.state == suspect && v.wait >= 0 {
		p.fence(s, b, n)
		if v.wait == 0 || v.off == 2 || p.r.has(anyProof) && s.proof[n] {
			send(write{op: opEvict, guard: own()}, "")
			if v.grant && ov.rev != 0 && ov.state == member {
				send(write{op: opEvict, to: true, guard: both()}, "")
			}
		}
	}
	if p.r.moves && v.state == member && v.grant {
		if p.r.has(looseReport) {
			if s.report[n] != 0 && ov.rev != 0 && ov.state == member {
				send(write{op: opRemove, to: true, guard: both()}, ", which reported that it stopped")
			}
		} else {
			send(write{op: opRemove, guard: own()}, "")
		}
	}
	if v.state == member && !v.grant && ov.rev != 0 && !ov.grant {
		out := ov.state == evicted || ov.state == left
		stopped := s.report[o] == ov.rev
		if out || stopped {
			send(write{op: opGrant, guard: both()}, "")
		}
	}
}

// fence is the device that turns a node off.
func (p *stepper) fence(s state, b, n int) {
	if !p.r.fences {
		return
	}
	v := s.brains[b].views[n]
	switch v.off {
	case 0:
		t := s
		t.brains[b].views[n].off = 1
		p.say(t, func() string { return fmt.Sprintf("%s orders %s off", bname(b), p.name(n)) })
	case 1:
		t := s
		t.crash(n)
		t.brains[b].views[n].off = 2
		t.proof[n] = p.r.has(anyProof)
		p.say(t, func() string { return fmt.Sprintf("%s is off, and %s knows it", p.name(n), bname(b)) })
	}
}

// writing is what can happen to the write of brain b.
func (p *stepper) writing(s state, b int) {
	w := s.brains[b].w
	switch w.stage {
	case 1:
		t := s
		done := w
		done.stage = 3
		if t.commit(p.r, &done) {
			done.stage = 2
		}
		done.epoch, done.guard = 0, [nodes]rev{}
		t.brains[b].w = done
		p.say(t, func() string {
			return fmt.Sprintf("the store decides on %s's write: %s %v", bname(b), p.write(w), t.brains[b].w.stage == 2)
		})
	default:
		t := s
		t.brains[b].w = write{}
		t.answered(p.r, b, w)
		p.say(t, func() string { return fmt.Sprintf("%s has the answer: %s %v", bname(b), p.write(w), w.stage == 2) })
	}
	t := s
	if t.outlive(p.r, w) {
		t.brains[b].w = write{}
		t.forget(b) // it reads before it writes again
		p.say(t, func() string { return fmt.Sprintf("%s waits no longer: %s", bname(b), p.write(w)) })
	}
}

// commit carries a write out if its guards hold.
func (s *state) commit(r *rules, w *write) bool {
	if w.epoch != 0 && w.epoch != s.epoch {
		return false
	}
	for n, g := range w.guard {
		if g != 0 && g != s.keys[n].rev {
			return false
		}
	}
	n := int(w.node)
	o := 1 - n
	k := s.keys[n]
	switch w.op {
	case opSuspect:
		k.state = suspect
	case opEvict:
		k.state, k.grant = evicted, false
		if w.to {
			ok := s.keys[o]
			ok.grant = true
			s.put(o, ok)
		}
	case opRemove:
		k.grant = false
		if w.to {
			ok := s.keys[o]
			ok.grant = true
			s.put(o, ok)
		}
	case opGrant:
		k.grant = true
	}
	s.put(n, k)
	w.got = s.keys[n].plain()
	return true
}

// answered is what a brain learns by the answer to its own write.
func (s *state) answered(r *rules, b int, w write) {
	me := &s.brains[b]
	if w.stage != 2 {
		s.forget(b)
		return
	}
	// It knows what it wrote, and by the revision of the answer that nobody wrote
	// in between; what came after, its guards will find.
	n := int(w.node)
	o := 1 - n
	v := &me.views[n]
	if w.op == opSuspect {
		wait := r.wait
		if r.has(waitFromSend) {
			wait = w.wait
		}
		*v = view{key: w.got, wait: wait}
		return
	}
	me.views[n] = view{wait: -1}
	if w.to {
		me.views[o] = view{wait: -1}
	}
}
