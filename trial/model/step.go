package main

import "fmt"

// step is one thing that can happen next.
type step struct {
	what     string
	to       state
	mirrored bool // what was node A is B in to, and the other way round
}

type stepper struct {
	r        *rules
	from     state
	out      []step
	text     bool // whether what is wanted
	mirrored bool // how the names of the nodes stand in the text
}

func (p *stepper) say(s state, what func() string) {
	s.renumber(p.r)
	if s == p.from {
		return
	}
	mirrored := s.settle()
	p.out = append(p.out, step{to: s, mirrored: mirrored})
	if p.text {
		p.out[len(p.out)-1].what = what()
	}
}

// next is all that can happen in s.
func (p *stepper) next(s state) []step {
	p.from, p.out = s, p.out[:0]
	p.tick(s)
	for n := range s.nodes {
		p.node(s, n)
	}
	for b := range s.brains {
		p.brain(s, b)
	}
	for i, w := range s.late {
		if w.op != nothing {
			t := s
			t.late[i] = write{}
			t.commit(p.r, &w)
			p.say(t, func() string { return fmt.Sprintf("the store commits a late write: %s", p.write(w)) })
			t = s
			t.late[i] = write{}
			p.say(t, func() string { return fmt.Sprintf("a late write is lost: %s", p.write(w)) })
		}
	}
	return p.out
}

// tick is the passing of time, the same for all: that clocks run apart is for the
// simulator, and for the factor in W.
func (p *stepper) tick(s state) {
	t := s
	old := p.r.authority // what is older gives nothing
	for n := range t.nodes {
		d := &t.nodes[n]
		if d.auth > 0 {
			d.auth--
		}
		for i := range d.reads {
			if d.reads[i].stage > 0 && d.reads[i].age < old {
				d.reads[i].age++
			}
		}
		if d.clear.stage > 0 && d.clear.age < old {
			d.clear.age++
		}
	}
	for b := range t.brains {
		t.brains[b].w.wait = max(t.brains[b].w.wait-1, 0)
		for n := range t.brains[b].views {
			if v := &t.brains[b].views[n]; v.wait > 0 {
				v.wait--
			}
		}
	}
	p.say(t, func() string { return "a tick" })
}

func (p *stepper) name(n int) string {
	if p.mirrored {
		n = 1 - n
	}
	return string(rune('A' + n))
}

func bname(b int) string { return fmt.Sprintf("brain %d", b+1) }

func (k key) String() string {
	t := [...]string{"member", "suspect", "left", "evicted"}[k.state]
	if k.grant {
		t += ", granted"
	}
	if !k.mine {
		t += ", a former incarnation"
	}
	return t
}

func (p *stepper) write(w write) string {
	n, o := p.name(int(w.node)), p.name(1-int(w.node))
	switch w.op {
	case opSuspect:
		return "suspect " + n
	case opEvict:
		if w.to {
			return "evict " + n + " and grant to " + o
		}
		return "evict " + n
	case opRemove:
		if w.to {
			return "move from " + n + " to " + o
		}
		return "take the group from " + n
	case opGrant:
		return "grant to " + n
	}
	return "nothing"
}
