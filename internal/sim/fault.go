package sim

import (
	"fmt"
	"slices"
	"time"

	"gemel/internal/ha"
)

// Fault is one thing that goes wrong, or is asked for.
type Fault struct {
	At   time.Duration
	Kind string
	Node int
	To   int           // the other node, where there is one
	For  time.Duration // how long
}

// String prints a fault.
func (f Fault) String() string {
	return fmt.Sprintf("%.3fs %s node=%d to=%d for=%v", f.At.Seconds(), f.Kind, f.Node, f.To, f.For.Round(time.Millisecond))
}

// kinds are the faults, each as often as it stands here.
var kinds = [...]string{"freeze", "freeze", "freeze", "kill", "kill", "crash", "crash", "cut", "cut", "deaf", "mute", "alone", "alone", "apart", "apart",
	"sleep", "away", "slow", "slow", "leave", "move", "move", "move", "clone"}

// Faults draws a schedule. Half of the faults come in bursts on one node: alone
// they hardly ever meet what breaks a promise.
func Faults(c Config, n int) []Fault {
	d := dice(c.Seed ^ 0xfa017)
	var all []Fault
	at, node := time.Duration(0), 0
	from := c.Kinds
	if len(from) == 0 {
		from = kinds[:]
	}
	for range n {
		if d.chance(2) {
			at, node = d.between(c.Timers.Settle, c.Length), d.upTo(c.Nodes)
		} else {
			at += d.between(0, c.Timers.Life)
		}
		f := Fault{At: min(at, c.Length), Kind: from[d.upTo(len(from))], Node: node, To: d.upTo(max(c.Nodes, 3))}
		f.For = d.between(20*time.Millisecond, 3*c.Timers.Life)
		if d.chance(4) {
			f.For = c.Timers.Wait(c.Timers.Life) + d.between(-200*time.Millisecond, 200*time.Millisecond)
		}
		all = append(all, f)
	}
	slices.SortStableFunc(all, func(a, b Fault) int { return int(a.At - b.At) })
	return all
}

// strike lets a fault happen.
func (w *world) strike(f Fault) {
	m := w.nodes[f.Node]
	w.note()
	w.say("FAULT %s", f)
	switch f.Kind {
	case "freeze":
		m.frozen = max(m.frozen, w.now+f.For)
		w.after(f.For, w.note)
	case "sleep":
		w.sleep(m, f.For)
	case "kill":
		if m.up {
			m.life++
			m.runs = false
			life := m.life
			m.frozen = 0
			w.after(min(f.For, time.Second)/2, func() {
				if m.up && m.life == life {
					m.begin()
				}
			})
		}
	case "crash":
		m.crash()
		w.after(f.For+500*time.Millisecond, m.boot)
	case "cut", "deaf", "mute", "alone":
		w.sever(f)
	case "apart":
		m.apart = max(m.apart, w.now+f.For)
	case "away":
		w.store.away = max(w.store.away, w.now+f.For/2)
		if w.bad[flawForgetful] {
			w.at(w.store.away, w.store.forget)
		}
	case "slow":
		w.store.slow = max(w.store.slow, w.now+f.For)
	case "clone":
		m.twin.boot()
		if m.twice = true; m.asleep > w.now {
			for _, g := range w.groups() {
				w.ends(g.Name, m)
			}
		}
		w.after(f.For+time.Second, m.twin.crash)
	case "leave":
		m.deliver(m.life, ha.Departs{}, false)
		life := m.life
		w.after(f.For+time.Second, func() { // and comes back
			if m.up && m.life == life {
				m.begin()
			}
		})
	case "move":
		g := w.groups()[f.For%time.Duration(w.c.Groups)].Name
		w.known = nil
		w.wants[g] = w.nodes[f.To%w.c.Nodes].name
	}
}

// sleep suspends a machine: nothing runs on it, its clock does.
func (w *world) sleep(m *machine, d time.Duration) {
	if !m.up || m.asleep > w.now {
		return
	}
	m.asleep = w.now + d
	stood := make([]ha.Group, 0, len(m.shadow))
	for _, g := range w.groups() {
		if p := m.shadow[g.Name]; p != nil && (p.stage == running || p.stage == leaving) {
			if !sure(w, g.Name) || m.twice || w.bad[flawSleepyClock] {
				w.ends(g.Name, m)
			}
			stood = append(stood, g.Name)
		}
	}
	boots := m.boots
	w.after(d, func() {
		if !m.up || boots != m.boots {
			return
		}
		for _, g := range stood {
			p := m.shadow[g]
			if p == nil {
				continue
			}
			if m.local(w.now) >= p.until.Add(-w.c.Timers.Stop) && !w.bad[flawSleepyClock] {
				// The deadline is over before the first instruction: the network gate of the
				// group is shut by a clock that ran on.
				delete(m.shadow, g)
				w.ends(g, m)
				continue
			}
			if w.bad[flawSleepyClock] {
				p.until = p.until.Add(d)
				m.watch(g, p)
			}
			if !slices.ContainsFunc(w.runs[g], func(s spell) bool { return s.node == m.i }) {
				w.starts(g, m, p.fence)
			}
		}
		m.deliver2(m.holds())
	})
}

// sever cuts heartbeats for a while.
func (w *world) sever(f Fault) {
	var pairs [][2]int
	for o := range w.listed() {
		switch {
		case o == f.Node:
		case f.Kind == "alone", f.Kind == "cut" && o == f.To:
			pairs = append(pairs, [2]int{f.Node, o}, [2]int{o, f.Node})
		case f.Kind == "deaf":
			pairs = append(pairs, [2]int{f.Node, o})
		case f.Kind == "mute":
			pairs = append(pairs, [2]int{o, f.Node})
		}
	}
	for _, p := range pairs {
		w.cut[p[0]][p[1]] = true
	}
	if f.Kind == "alone" && f.For%2 == 0 { // the store is on the same network
		m := w.nodes[f.Node]
		m.apart = max(m.apart, w.now+f.For)
	}
	w.after(f.For, func() {
		w.note()
		for _, p := range pairs {
			w.cut[p[0]][p[1]] = false
		}
	})
}

// heal ends everything that goes wrong.
func (w *world) heal() {
	w.note()
	w.say("all is healed")
	for i := range w.cut {
		clear(w.cut[i])
	}
	w.store.away, w.store.slow = 0, 0
	clear(w.wants)
	w.known = nil
	for _, m := range w.nodes {
		if m.clone {
			m.crash()
			continue
		}
		m.frozen, m.apart = min(m.frozen, w.now), 0
		if !m.up {
			m.boot()
		} else if !m.votes {
			life := m.life
			w.after(2*time.Second, func() {
				if m.up && m.life == life {
					m.begin() // a node that left comes back
				}
			})
		}
	}
}

// audible reports whether a hears b now.
func (w *world) audible(a, b *machine) bool {
	return b.up && (b.runs || b.votes) && b.frozen <= w.now && b.asleep <= w.now && !w.cut[a.i][b.i]
}

// note keeps for every pair what was heard last, before something changes.
func (w *world) note() {
	for _, a := range w.nodes {
		for _, b := range w.nodes {
			if a != b && w.audible(a, b) {
				a.heard[b.i] = w.hear(a, b)
			}
		}
	}
}

// hear is the newest heartbeat of b at a.
func (w *world) hear(a, b *machine) ha.Heard {
	h := ha.Heard{Node: b.name, At: a.local(w.now - w.dice.between(0, w.c.Timers.Silence/4)), Said: b.said}
	for _, c := range w.nodes {
		if c.name != b.name && !c.clone && w.audible(b, c) {
			h.Hears = append(h.Hears, c.name)
		}
	}
	return h
}

func (m *machine) listen() ha.Hearing {
	w := m.w
	var in ha.Hearing
	for _, o := range w.nodes {
		if o.name == m.name {
			continue
		}
		if w.audible(m, o) {
			m.heard[o.i] = w.hear(m, o)
		}
		h := m.heard[o.i]
		if h.Node == "" {
			continue
		}
		if i := slices.IndexFunc(in.Nodes, func(x ha.Heard) bool { return x.Node == h.Node }); i < 0 {
			in.Nodes = append(in.Nodes, h)
		} else if in.Nodes[i].At < h.At {
			in.Nodes[i] = h
		}
	}
	// What this node says of itself it knows without a network.
	in.Nodes = append(in.Nodes, ha.Heard{Node: m.name, At: m.local(w.now), Said: m.said})
	slices.SortFunc(in.Nodes, func(a, b ha.Heard) int {
		if a.Node < b.Node {
			return -1
		}
		return 1
	})
	return in
}

// turnOff is a fence device: slow, and not always of use.
func (w *world) turnOff(by *machine, x ha.TurnOff) {
	life := by.life
	i := slices.IndexFunc(w.nodes, func(m *machine) bool { return m.name == x.Node })
	if w.dice.chance(4) {
		return
	}
	w.after(w.dice.between(50*time.Millisecond, time.Second), func() {
		m := w.nodes[i]
		m.crash()
		m.twin.crash()
		w.after(w.dice.between(time.Second, 4*time.Second), m.boot)
		w.after(w.dice.between(10*time.Millisecond, 8*time.Second), func() {
			w.res.Seen.Fenced++
			by.deliver(life, ha.Off{Node: x.Node, Key: x.Key}, true)
		})
	})
}
