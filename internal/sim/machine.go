package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"gemel/internal/decide/cluster"
	"gemel/internal/ha"
)

// machine is one computer: its clock, the daemon, and the shadow, which lives on
// when the daemon does not.
type machine struct {
	w     *world
	i     int
	name  ha.Node
	votes bool     // it only votes
	twin  *machine // a second machine that says it is this one; it is down but for a fault
	clone bool     // it is such a twin
	up    bool
	boots int
	twice bool // its name was on two machines: no proof of one is one of the other
	ticks
	ills
	daemon
	heard  []ha.Heard // as of when each was heard last
	shadow map[ha.Group]*program
	fenced map[ha.Group]ha.Fence // under which it ran each group last, in this boot
}

// ticks is a clock of its own.
type ticks struct {
	rate float64
	zero ha.Instant
}

// ills is until when something is wrong.
type ills struct {
	frozen time.Duration // the daemon stands still
	asleep time.Duration // the machine sleeps
	apart  time.Duration // it does not reach the store
}

// daemon is the monitor.
type daemon struct {
	runs    bool
	life    int // what was sent to one before it is lost
	auth    *cluster.Authority
	brain   *cluster.Brain
	inc     ha.Incarnation // that is kept for the next life
	said    ha.Said
	rights  uint64 // number of the last Rights that was obeyed
	started ha.Instant
	waking  time.Duration
}

// program stands for all that a group is on a machine.
type program struct {
	fence ha.Fence
	until ha.Instant // of this machine's clock
	stage stage
	check int // number of the deadline that counts
}

type stage uint8

const (
	starting stage = iota
	running
	leaving  // it is stopped in its own time
	stopping // and now in the time that is allowed for it
)

func (m *machine) local(t time.Duration) ha.Instant {
	return m.zero + ha.Instant(float64(t)*m.rate)
}

// true is when this machine's clock will show an instant.
func (m *machine) when(t ha.Instant) time.Duration {
	return time.Duration(float64(t-m.zero)/m.rate) + 1
}

func (m *machine) boot() {
	w := m.w
	if m.up {
		return
	}
	m.up, m.frozen, m.asleep = true, 0, 0
	m.boots++
	if !w.bad[flawResumed] {
		m.inc = ""
	}
	m.shadow, m.fenced = map[ha.Group]*program{}, map[ha.Group]ha.Fence{}
	m.begin()
}

// begin starts the daemon.
func (m *machine) begin() {
	w := m.w
	m.life++
	m.runs = !m.votes
	m.said, m.rights = ha.Said{}, 0
	m.started = m.local(w.now)
	m.brain = nil
	if m.votes {
		return
	}
	var plant []cluster.Flaw
	for _, f := range w.c.Plant {
		if slices.Contains(cluster.Flaws(), f) {
			plant = append(plant, f)
		}
	}
	boot := fmt.Sprintf("%s%d", m.name, m.boots)
	m.auth = cluster.NewAuthority(cluster.Self{Node: m.name, Boot: boot, Era: 1, Timers: w.c.Timers, Incarnation: m.inc, Plant: plant})
	mind := cluster.Mind{Node: m.name, Era: 1, Timers: w.c.Timers, Groups: w.groups(), Start: m.started, Fences: w.fences(), Plant: plant}
	for _, n := range w.listed() {
		mind.Listed = append(mind.Listed, n.name)
		if n.votes {
			mind.Voters = append(mind.Voters, n.name)
		}
	}
	m.brain = cluster.NewBrain(mind)
	m.deliver(m.life, m.holds(), false)
	m.deliver(m.life, ha.Tick{}, true)
}

func (m *machine) holds() ha.Holds {
	h := ha.Holds{Rights: m.rights}
	for g := range m.shadow {
		h.Groups = append(h.Groups, g)
	}
	slices.Sort(h.Groups)
	return h
}

// deliver brings a fact to one of the two machines, when the daemon runs.
func (m *machine) deliver(life int, in ha.Input, brain bool) {
	w := m.w
	if !m.up || !m.runs || life != m.life {
		return
	}
	if late := max(m.frozen, m.asleep); late > w.now {
		w.at(late, func() { m.deliver(life, in, brain) })
		return
	}
	w.res.Steps++
	now := m.local(w.now)
	var out []ha.Action
	if brain {
		m.brain.Want(w.groups(), facts(w))
		out = m.brain.Step(now, in)
	} else {
		out = m.auth.Step(now, in)
	}
	for _, x := range out {
		m.act(x, brain)
	}
	m.alarm()
}

// alarm makes the daemon's timer.
func (m *machine) alarm() {
	t, ok := m.auth.Wake()
	if b, also := m.brain.Wake(); also && (!ok || b < t) {
		t, ok = b, true
	}
	if !ok {
		return
	}
	w, life := m.w, m.life
	at := max(m.when(t), w.now+time.Microsecond)
	if m.waking > w.now && m.waking <= at {
		return
	}
	m.waking = at
	w.at(at, func() {
		if life == m.life {
			m.deliver(life, ha.Tick{}, false)
			m.deliver(life, ha.Tick{}, true)
		}
	})
}

func (m *machine) act(x ha.Action, brain bool) {
	w, life := m.w, m.life
	switch x := x.(type) {
	case ha.ReadNode:
		w.store.reach(m, func() any { return w.store.readNode(m.name, x.ID) }, func(v any) {
			in, ok := v.(ha.NodeRead)
			if !ok {
				in = ha.NodeRead{ID: x.ID, Error: "no answer"}
			}
			m.deliver(life, in, brain)
		})
	case ha.ReadStore:
		w.store.reach(m, func() any { return w.store.readAll(x.ID) }, func(v any) {
			in, ok := v.(ha.StoreRead)
			if !ok {
				in = ha.StoreRead{ID: x.ID, Error: "no answer"}
			}
			m.deliver(life, in, brain)
		})
	case ha.WriteStore:
		w.store.reach(m, func() any { return w.store.commit(x) }, func(v any) {
			in, ok := v.(ha.StoreWritten)
			if !ok {
				in = ha.StoreWritten{ID: x.ID, Error: "no answer"}
			}
			m.deliver(life, in, brain)
		})
	case ha.Rights:
		m.obey(x)
	case ha.Say:
		m.said = x.Said
	case ha.Draw:
		inc := ha.Incarnation(fmt.Sprintf("%s.%d", m.name, w.dice.upTo(1<<30)))
		w.after(time.Millisecond, func() { m.deliver(life, ha.Drawn{Incarnation: inc}, false) })
	case ha.Keep:
		m.inc = ha.Incarnation(strings.Trim(x.Value, `"`))
	case ha.TurnOff:
		w.turnOff(m, x)
	case ha.Listen:
		w.after(0, func() { m.deliver(life, m.listen(), true) })
	}
}

// obey is what the engine does with its rights: it starts what is missing and
// stops what is there without a right. Deadlines are the shadow's.
func (m *machine) obey(r ha.Rights) {
	m.rights = r.Number
	for _, g := range m.holds().Groups {
		p := m.shadow[g]
		i := slices.IndexFunc(r.Groups, func(x ha.Right) bool { return x.Group == g })
		if i < 0 {
			m.stop(g, p)
			continue
		}
		if x := r.Groups[i]; x.Leaving || x.Fence != p.fence {
			m.leave(g, p)
		}
		if p.stage != stopping {
			p.until = max(p.until, r.Groups[i].Until)
			m.watch(g, p)
		}
	}
	now := m.local(m.w.now)
	for _, x := range r.Groups {
		if m.shadow[x.Group] == nil && !x.Leaving && x.Until > now {
			m.start(x)
		}
	}
	m.deliver2(m.holds())
}

// deliver2 brings a fact to the authority after the step that is going on.
func (m *machine) deliver2(in ha.Input) {
	life := m.life
	m.w.after(0, func() { m.deliver(life, in, false) })
}

func (m *machine) start(x ha.Right) {
	w := m.w
	p := &program{fence: x.Fence, until: x.Until}
	m.shadow[x.Group] = p
	m.watch(x.Group, p)
	boots := m.boots
	var begin func()
	begin = func() {
		switch {
		case boots != m.boots || !m.up || m.shadow[x.Group] != p || p.stage != starting && !w.bad[flawLooseStart]:
		case m.asleep > w.now:
			w.at(m.asleep, begin)
		case m.local(w.now) >= p.until && !w.bad[flawLooseStart]:
		default:
			p.stage = running
			w.starts(x.Group, m, p.fence)
		}
	}
	w.after(w.dice.between(time.Millisecond, 40*time.Millisecond), begin)
}

// watch arms the shadow's deadline: the kill begins early enough to be over.
func (m *machine) watch(g ha.Group, p *program) {
	w := m.w
	if w.bad[flawNoDeadline] {
		return
	}
	p.check++
	check, boots := p.check, m.boots
	at := m.when(p.until.Add(-w.c.Timers.Stop))
	var fire func()
	fire = func() {
		if boots != m.boots || !m.up || m.shadow[g] != p || p.check != check {
			return
		}
		if m.asleep > w.now {
			w.at(m.asleep, fire)
			return
		}
		if p.stage != stopping {
			w.res.Seen.Deadlines++
			w.say("%s: deadline of %s", m.name, g)
		}
		m.stop(g, p)
	}
	w.at(at, fire)
}

// leave stops a group in its own time, which may be longer than any authority.
func (m *machine) leave(g ha.Group, p *program) {
	w := m.w
	if p.stage >= leaving {
		return
	}
	if p.stage == starting {
		m.stop(g, p)
		return
	}
	p.stage = leaving
	boots := m.boots
	took := w.dice.between(0, w.c.Timers.Life*3)
	if !w.dice.chance(3) {
		took = w.dice.between(0, w.c.Timers.Stop)
	}
	w.after(took, func() {
		if boots == m.boots && m.up && m.shadow[g] == p && p.stage == leaving {
			m.stop(g, p)
		}
	})
}

// stop ends a group within the time that is allowed for it.
func (m *machine) stop(g ha.Group, p *program) {
	w := m.w
	if p.stage == stopping {
		return
	}
	ran := p.stage != starting
	p.stage = stopping
	boots := m.boots
	took := w.dice.between(0, w.c.Timers.Stop*9/10)
	if !ran {
		took = 0
	}
	if m.asleep > w.now {
		took = 0
	}
	w.after(took, func() {
		if boots != m.boots || !m.up || m.shadow[g] != p {
			return
		}
		delete(m.shadow, g)
		w.ends(g, m)
		m.deliver2(m.holds())
	})
}

// crash is the end of everything on a machine in one instant.
func (m *machine) crash() {
	if !m.up {
		return
	}
	m.w.note()
	m.up = false
	m.life++
	for _, g := range m.w.groups() {
		m.w.ends(g.Name, m)
	}
	m.shadow = map[ha.Group]*program{}
	m.w.say("%s is down", m.name)
}
