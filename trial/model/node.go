package main

import "fmt"

// node is what can happen on node n.
func (p *stepper) node(s state, n int) {
	d := s.nodes[n]
	p.reading(s, n)
	p.clearing(s, n)
	if d.auth == 0 && d.last == idle {
		t := s
		t.report[n] = d.seen
		p.say(t, func() string { return fmt.Sprintf("%s reports stopped, r%d", p.name(n), d.seen) })
	}
	if p.r.has(looseReport) && d.auth > 0 {
		t := s
		t.report[n] = d.seen
		p.say(t, func() string {
			return fmt.Sprintf("%s is asked to stop, stops, reports it, and starts again: it is still granted", p.name(n))
		})
	}
	p.life(s, n)
}

func (p *stepper) reading(s state, n int) {
	d := s.nodes[n]
	for i, r := range d.reads {
		t := s
		if r.stage == 0 && d.asks() >= p.r.reads {
			continue
		}
		switch r.stage {
		case 0:
			if i > 0 && d.reads[i-1].stage == 0 {
				continue // the first free one is as good
			}
			t.nodes[n].reads[i] = read{stage: 1}
			p.say(t, func() string { return fmt.Sprintf("%s begins a read", p.name(n)) })
		case 1:
			t.nodes[n].reads[i].stage = 2
			t.nodes[n].reads[i].got = s.keys[n]
			p.say(t, func() string {
				return fmt.Sprintf("the store answers %s's read: r%d %s", p.name(n), s.keys[n].rev, s.keys[n])
			})
		case 2:
			t.nodes[n].reads[i] = read{}
			t.take(p.r, n, r)
			p.say(t, func() string {
				return fmt.Sprintf("the answer reaches %s after %d ticks: r%d %s", p.name(n), r.age, r.got.rev, r.got)
			})
		}
		if r.stage > 0 {
			t = s
			t.nodes[n].reads[i] = read{}
			p.say(t, func() string { return fmt.Sprintf("a read of %s is lost", p.name(n)) })
		}
	}
}

// asks is how many of its requests are on their way.
func (d *node) asks() (n int8) {
	for _, r := range d.reads {
		n += min(r.stage, 1)
	}
	return n + min(d.clear.stage, 1)
}

// take is what an answer does to a node.
func (s *state) take(r *rules, n int, a read) {
	d := &s.nodes[n]
	if a.got.rev < d.seen && !r.has(olderAnswer) || d.going {
		return
	}
	d.seen = a.got.rev
	d.last = out
	if a.got.mine {
		switch a.got.state {
		case member:
			d.last = idle
			if a.got.grant || r.has(byWatch) && d.heard {
				d.last = granted
			}
		case suspect:
			d.last = suspected
		}
	}
	d.heard = r.has(byWatch) && (d.heard || a.got.mine && a.got.grant)
	switch d.last {
	case granted:
		lasts := r.authority - a.age
		if r.has(fromAnswer) {
			lasts = r.authority
		}
		d.auth = max(d.auth, lasts)
	case suspected:
		// What was held goes on to its own end.
	default:
		d.auth = 0
	}
}

func (p *stepper) clearing(s state, n int) {
	d := s.nodes[n]
	switch d.clear.stage {
	case 0:
		if d.last == suspected && !d.going && d.asks() < p.r.reads {
			t := s
			t.nodes[n].clear = read{stage: 1}
			t.nodes[n].guard = d.seen
			p.say(t, func() string { return fmt.Sprintf("%s clears the suspicion of r%d", p.name(n), d.seen) })
		}
	case 1:
		t := s
		k := &t.keys[n]
		if (k.rev == d.guard || p.r.has(blindClear)) && k.state == suspect || p.r.has(blindClear) && k.state == evicted {
			t.put(n, key{state: member, grant: k.grant, mine: k.mine})
			t.nodes[n].clear.got = *k
			t.nodes[n].clear.stage = 2
			t.nodes[n].guard = 0
			p.say(t, func() string { return fmt.Sprintf("the store clears %s: r%d %s", p.name(n), k.rev, *k) })
		} else {
			t.nodes[n].clear, t.nodes[n].guard = read{}, 0
			p.say(t, func() string { return fmt.Sprintf("the store refuses to clear %s", p.name(n)) })
		}
	case 2:
		t := s
		a := d.clear
		t.nodes[n].clear = read{}
		t.take(p.r, n, a)
		p.say(t, func() string {
			return fmt.Sprintf("%s knows after %d ticks that it is cleared: r%d %s", p.name(n), a.age, a.got.rev, a.got)
		})
	}
	if d.clear.stage > 0 {
		t := s
		t.nodes[n].clear, t.nodes[n].guard = read{}, 0
		p.say(t, func() string { return fmt.Sprintf("a clearing by %s is lost", p.name(n)) })
	}
}

// life is the end of a machine, its leaving and its joining.
func (p *stepper) life(s state, n int) {
	t := s
	if p.r.reboots {
		t.crash(n)
		p.say(t, func() string { return fmt.Sprintf("%s reboots", p.name(n)) })
	}
	if !s.keys[n].mine {
		if d := s.nodes[n]; !d.joins {
			t = s
			t.nodes[n].joins, t.nodes[n].jrev = true, s.keys[n].rev
			p.say(t, func() string { return fmt.Sprintf("%s asks to join", p.name(n)) })
		} else {
			t = s
			t.nodes[n] = node{}
			if s.keys[n].rev == s.nodes[n].jrev {
				t.put(n, key{state: member, mine: true})
				p.say(t, func() string { return fmt.Sprintf("%s has joined", p.name(n)) })
			} else {
				p.say(t, func() string { return fmt.Sprintf("%s may not join by what it knew", p.name(n)) })
			}
		}
	}
	d := s.nodes[n]
	if p.r.leaves && s.keys[n].mine && d.seen > 0 && !d.going {
		t = s
		t.nodes[n].going, t.nodes[n].auth = true, 0
		p.say(t, func() string { return fmt.Sprintf("%s stops everything in order to leave", p.name(n)) })
	}
	if d.going && s.keys[n].mine && d.seen == s.keys[n].rev && (s.keys[n].state == member || s.keys[n].state == suspect) {
		t = s
		t.put(n, key{state: left, mine: true})
		p.say(t, func() string { return fmt.Sprintf("%s has left", p.name(n)) })
	}
	if s.keys[n].mine && (s.keys[n].state == evicted || s.keys[n].state == left) && s.nodes[n].auth == 0 {
		// It has seen that it is out, has nothing, and draws a new incarnation.
		t = s
		t.crash(n)
		p.say(t, func() string { return fmt.Sprintf("%s draws a new incarnation", p.name(n)) })
	}
}

func (s *state) crash(n int) {
	s.nodes[n] = node{}
	s.keys[n].mine = false
}
