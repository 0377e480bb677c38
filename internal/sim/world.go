package sim

import (
	"container/heap"
	"fmt"
	"slices"
	"time"

	"gemel/internal/decide/cluster"
	"gemel/internal/decide/place"
	"gemel/internal/ha"
)

// dice are random numbers that depend on a seed alone.
type dice uint64

func (d *dice) next() uint64 {
	*d += 0x9e3779b97f4a7c15
	z := uint64(*d)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// upTo returns one of 0 to n-1.
func (d *dice) upTo(n int) int { return int(d.next() % uint64(max(n, 1))) }

// between returns a time from a to b.
func (d *dice) between(a, b time.Duration) time.Duration {
	return a + time.Duration(d.next()%uint64(max(b-a, 1)))
}

// chance is true once in n times.
func (d *dice) chance(n int) bool { return d.upTo(n) == 0 }

// event is something that happens at an instant of the one true time.
type event struct {
	at  time.Duration
	seq int
	do  func()
}

type events []event

// Len, Less, Swap, Push and Pop are those of container/heap.
func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	old[len(old)-1] = event{}
	*e = old[:len(old)-1]
	return last
}

type world struct {
	c     Config
	bad   map[cluster.Flaw]bool
	dice  dice
	now   time.Duration
	seq   int
	queue events
	nodes []*machine
	store *store
	wants map[ha.Group]ha.Node // moves that were asked for
	known []place.Group        // as of the last change of wants; nil: it changed
	runs  map[ha.Group][]spell
	top   map[ha.Group]ha.Fence
	cut   [][]bool // cut[a][b]: a does not hear b
	res   Result
	hash  uint64
}

// spell is a group that runs on a node.
type spell struct {
	node  int
	since time.Duration
}

func newWorld(c Config) *world {
	w := &world{c: c, bad: map[cluster.Flaw]bool{}, dice: dice(c.Seed), runs: map[ha.Group][]spell{}, top: map[ha.Group]ha.Fence{},
		wants: map[ha.Group]ha.Node{}, hash: 14695981039346656037}
	for _, f := range c.Plant {
		w.bad[f] = true
	}
	w.store = newStore(w)
	n := c.Nodes
	if n == 2 {
		n = 3
	}
	for i := range n {
		m := &machine{w: w, i: i, name: ha.Node(string(rune('a' + i))), votes: i >= c.Nodes}
		m.rate = 1 + (float64(w.dice.upTo(2001))-1000)/1000*c.Timers.Drift/2
		m.zero = ha.Instant(w.dice.between(0, time.Hour))
		w.nodes = append(w.nodes, m)
	}
	for i := range c.Nodes {
		m := w.nodes[i]
		m.twin = &machine{w: w, i: n + i, name: m.name, clone: true}
		m.twin.ticks = ticks{m.rate, ha.Instant(w.dice.between(0, time.Hour))}
		w.nodes = append(w.nodes, m.twin)
	}
	for _, m := range w.nodes {
		m.heard = make([]ha.Heard, len(w.nodes))
		w.cut = append(w.cut, make([]bool, len(w.nodes)))
	}
	return w
}

// at lets something happen at a time; now if that is over.
func (w *world) at(t time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, event{max(t, w.now), w.seq, do})
}

// after lets something happen later.
func (w *world) after(d time.Duration, do func()) { w.at(w.now+d, do) }

func (w *world) run(until time.Duration) {
	for len(w.queue) > 0 && w.queue[0].at <= until {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		e.do()
	}
	w.now = until
}

// say notes what happens. It is all part of the hash: the same seed, the same run.
func (w *world) say(format string, args ...any) {
	if !w.c.Trace {
		return
	}
	w.res.Trace = append(w.res.Trace, fmt.Sprintf("%9.3f ", w.now.Seconds())+fmt.Sprintf(format, args...))
}

// mark mixes a number into the hash.
func (w *world) mark(v uint64) { w.hash = (w.hash ^ v ^ uint64(w.now)<<20) * 1099511628211 }

func (w *world) violate(format string, args ...any) {
	text := fmt.Sprintf("%.3fs ", w.now.Seconds()) + fmt.Sprintf(format, args...)
	w.say("VIOLATION %s", text)
	w.res.Bad = append(w.res.Bad, text)
}

// starts notes that a group runs on a node from now on.
func (w *world) starts(g ha.Group, m *machine, f ha.Fence) {
	w.res.Seen.Starts++
	for _, s := range w.runs[g] {
		w.violate("group %s starts on %s and runs on %s", g, m.name, w.nodes[s.node].name)
	}
	if top := w.top[g]; f.Less(top) {
		w.violate("group %s starts on %s with fence %s after %s", g, m.name, f, top)
	} else if f == top && m.fenced[g] != f {
		w.violate("group %s starts on %s with the fence %s of another", g, m.name, f)
	}
	w.top[g], m.fenced[g] = f, f
	w.runs[g] = append(w.runs[g], spell{m.i, w.now})
	w.mark(uint64(m.i)<<8 | 1)
	w.say("%s runs %s fence %s", m.name, g, f)
}

// ends notes that a group does not run on a node any more.
func (w *world) ends(g ha.Group, m *machine) {
	all := w.runs[g]
	i := slices.IndexFunc(all, func(s spell) bool { return s.node == m.i })
	if i < 0 {
		return
	}
	for j, s := range all {
		if j != i {
			w.res.Overlap = max(w.res.Overlap, w.now-max(s.since, all[i].since))
		}
	}
	w.runs[g] = slices.Delete(all, i, i+1)
	w.mark(uint64(m.i)<<8 | 2)
	w.say("%s has stopped %s", m.name, g)
}

// listed are the nodes of the cluster, without those who only say that they are.
func (w *world) listed() []*machine {
	return slices.DeleteFunc(slices.Clone(w.nodes), func(m *machine) bool { return m.clone })
}

// fences are the nodes that a device can turn off.
func (w *world) fences() []ha.Node {
	var all []ha.Node
	for _, m := range w.listed() {
		if w.c.Fences && !m.votes {
			all = append(all, m.name)
		}
	}
	return all
}

// sure reports whether a group needs the proof that a lost node is off.
func sure(w *world, g ha.Group) bool { return w.c.Fences && g == "p" }

// facts are what is known of the nodes beside their keys.
func facts(w *world) []place.Node {
	var all []place.Node
	for _, n := range w.fences() {
		all = append(all, place.Node{Name: n, Level: 1, Fenced: true})
	}
	return all
}

// groups are those of the manifest, each with its nodes in an order of its own.
func (w *world) groups() []place.Group {
	if w.known != nil {
		return w.known
	}
	var all []place.Group
	for i := range w.c.Groups {
		g := place.Group{Name: ha.Group(string(rune('p' + i)))}
		if sure(w, g.Name) {
			g.Rules.Level = 3
		}
		g.Request.Node = w.wants[g.Name]
		for j := range w.c.Nodes {
			g.Rules.Nodes = append(g.Rules.Nodes, w.nodes[(i+j)%w.c.Nodes].name)
		}
		all = append(all, g)
	}
	w.known = all
	return all
}

// atEnd marks what only the end of the quiet phase showed.
const atEnd = " at the end"

// judge looks for what the end of the quiet phase must bring.
func (w *world) judge() {
	for _, g := range w.groups() {
		if n := len(w.runs[g.Name]); n != 1 {
			w.violate("group %s runs on %d nodes"+atEnd, g.Name, n)
		}
	}
}
