package ladder

import (
	"slices"
	"sort"
	"strings"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// A Machine decides for one node. It is used by one goroutine; the same inputs
// at the same instants always give the same actions.
type Machine struct {
	man, next *manifest.Manifest // in force; what the next Applied brings
	kept      map[string]string  // last Keep values by key
	now       ha.Instant
	out       []ha.Action
	node      node
	procs     map[ha.Process]*proc
	list      []*proc  // sorted by name
	checks    []*check // sorted by name
	ids       ha.StartID
	timers    timers
	held      []ha.Input // facts that wait for Settled
	rounds
	cluster cluster
}

// rounds is what a step is working off.
type rounds struct {
	dirty   []*proc // to be looked at in this step
	touched []*proc // looked at in this step
	visit   uint64  // numbers the walks along needs
}

// New returns the machine of a node that runs m. kept holds the last value of
// each Keep by its key, first is the next start id that was never given out.
// Nothing happens before the input Booted.
func New(m *manifest.Manifest, kept map[string]string, first ha.StartID) *Machine {
	x := &Machine{kept: make(map[string]string, len(kept)), procs: map[ha.Process]*proc{}, ids: max(first, 1)}
	for k, v := range kept {
		x.kept[k] = v
	}
	x.node.m, x.node.roles = x, map[ha.Process]ha.Role{}
	x.node.load(x.kept[nodeKey])
	x.adopt(m)
	return x
}

// Want tells what the next ha.Applied brings into force; nothing else changes.
func (m *Machine) Want(man *manifest.Manifest) { m.next = man }

// Step takes one fact and returns what is to be done about it, in order. The
// facts come before the deadlines: one that arrives late, but before the machine
// acted on its absence, counts.
func (m *Machine) Step(now ha.Instant, in ha.Input) []ha.Action {
	m.now, m.out = now, nil
	m.input(in)
	for {
		t, ok := m.timers.first()
		if !ok || t.at > now {
			break
		}
		m.timers.set(t.p, 0)
		m.touch(t.p)
	}
	m.reconcile()
	m.finish()
	m.cluster.tell(m)
	return m.out
}

// Wake returns when the machine wants to be asked again if nothing happens
// before; false if it waits for facts alone.
func (m *Machine) Wake() (ha.Instant, bool) {
	t, ok := m.timers.first()
	if due := m.cluster.wake(); due != 0 && (!ok || due < t.at) {
		return due, true
	}
	return t.at, ok
}

// input hands a fact to the small machine that it is about. Before Settled only
// the facts of adoption are taken; the others wait.
func (m *Machine) input(in ha.Input) {
	switch in := in.(type) {
	case ha.Tick:
	case ha.Booted:
		m.node.booted(in)
	case ha.Adopted:
		takeAdopted(m, in)
	case ha.RoleSet:
		m.node.roleSet(in)
	case ha.MayRun:
		m.cluster.mayRun(m, in)
	case ha.Lapsed:
		m.cluster.lapsed(m, in)
	case ha.Entrusted:
		with(m, in.Process, func(p *proc) { entrusted(p, in) })
	case ha.PartDone:
		m.cluster.partDone(m, in)
	case ha.PartLost:
		m.cluster.partLost(m, in)
	case ha.GroupFreed:
		m.cluster.freed(m, in)
	case ha.HalfDied:
		m.node.halfDied(in)
	case ha.HalfBack:
		m.node.halfBack(in)
	case ha.Settled:
		m.settle()
	default:
		if !m.node.settled {
			m.held = append(m.held, in)
			return
		}
		m.fact(in)
	}
}

// fact takes a fact of the life after Settled.
func (m *Machine) fact(in ha.Input) {
	switch in := in.(type) {
	case ha.Started:
		takeStarted(m, in)
	case ha.StartFailed:
		with(m, in.Process, func(p *proc) { startFailed(p, in) })
	case ha.Exited:
		takeExited(m, in)
	case ha.StopFailed:
		with(m, in.Process, func(p *proc) { stopFailed(p, in) })
	case ha.Ready:
		with(m, in.Process, func(p *proc) { becameReady(p, in) })
	case ha.Stopping:
		with(m, in.Process, func(p *proc) { leaving(p, in) })
	case ha.Busy:
		with(m, in.Process, func(p *proc) { busy(p, in) })
	case ha.Missed:
		with(m, in.Process, func(p *proc) { missed(p, in) })
	case ha.Examined:
		with(m, in.Process, func(p *proc) { examined(p, in) })
	case ha.FailedOver:
		m.cluster.fled(m, in)
		with(m, in.Process, func(p *proc) { failedOver(p, in) })
	case ha.RebootFailed:
		takeRebootFailed(m, in)
	case ha.NotFound:
		with(m, in.Process, func(p *proc) { notFound(p, in) })
	case ha.Verdict:
		takeVerdict(m, in)
	case ha.Request:
		takeRequest(m, in)
	case ha.Applied:
		takeApplied(m, in)
	case ha.Quit:
		m.node.quit(in)
	}
}

// with calls f with the process of that name, if there is one.
func with(m *Machine, name ha.Process, f func(*proc)) {
	if p := m.procs[name]; p != nil {
		m.touch(p)
		f(p)
	}
}

// settle ends the time of adoption: recoveries that were under way go on, and
// what happened meanwhile is judged.
func (m *Machine) settle() {
	if m.node.settled {
		return
	}
	m.node.settled = true
	forgetStrangers(m)
	m.touchAll()
	for _, p := range slices.Clone(m.list) {
		resume(p)
	}
	m.node.catching = true
	held := m.held
	m.held = nil
	for _, in := range held {
		m.fact(in)
	}
	m.node.catching = false
}

// clusterKey begins the keys of what the cluster's machines keep beside this one.
const clusterKey = "cluster/"

// forgetStrangers drops what was kept about processes and checks that are not in
// the manifest any more.
func forgetStrangers(m *Machine) {
	known := map[string]bool{nodeKey: true}
	for _, p := range m.list {
		known[p.key()] = true
	}
	for _, c := range m.checks {
		known[c.key()] = true
	}
	for _, g := range m.cluster.groups {
		known[g.key()] = true
	}
	keys := make([]string, 0, len(m.kept))
	for k := range m.kept {
		if !known[k] && !strings.HasPrefix(k, clusterKey) {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	for _, k := range keys {
		if name, ok := strings.CutPrefix(k, processKey); ok {
			p := &proc{m: m, name: ha.Process(name), cfg: &manifest.Process{}}
			if load(m.kept[k], &p.mem) == nil {
				silence(p)
			}
		}
		m.forget(k)
	}
}

// forget drops a kept value.
func (m *Machine) forget(key string) {
	if _, ok := m.kept[key]; ok {
		delete(m.kept, key)
		m.do(ha.Keep{Key: key, Why: because(ruleKeep, key+" is not in the manifest any more")})
	}
}

// do appends an order to those of this step.
func (m *Machine) do(a ha.Action) { m.out = append(m.out, a) }

// touch marks a process, and those whose start or stop may wait for it, to be
// looked at in this step.
func (m *Machine) touch(p *proc) {
	m.mark(p)
	for _, q := range p.near {
		m.mark(q)
	}
}

func (m *Machine) mark(p *proc) {
	if !p.dirty {
		p.dirty = true
		m.dirty = append(m.dirty, p)
	}
	if !p.touched {
		p.touched = true
		m.touched = append(m.touched, p)
	}
}

func (m *Machine) touchAll() {
	for _, p := range m.list {
		m.mark(p)
	}
}

// reconcile looks at each marked process, in order of name, until none is left.
// Each look either changes a process towards its end state or leaves it.
func (m *Machine) reconcile() {
	if !m.node.settled {
		for _, p := range m.dirty {
			p.dirty = false
		}
		m.dirty = nil
		return
	}
	m.cluster.reconcile(m)
	for len(m.dirty) > 0 {
		now := m.dirty
		m.dirty = nil
		sort.Slice(now, func(i, j int) bool { return now[i].name < now[j].name })
		for _, p := range now {
			p.dirty = false
			p.reconcile()
		}
		m.cluster.reconcile(m)
	}
	m.node.finished()
}

// finish sets deadlines, judges on and off, and keeps what changed.
func (m *Machine) finish() {
	sort.Slice(m.touched, func(i, j int) bool { return m.touched[i].name < m.touched[j].name })
	looked := m.touched
	m.touched = nil
	for _, p := range looked {
		p.touched = false
		if m.procs[p.name] != p {
			m.timers.set(p, 0)
			for _, c := range p.checks {
				c.judge()
			}
			continue
		}
		m.timers.set(p, deadline(p))
		word(p)
		for _, c := range p.checks {
			c.judge()
		}
	}
	for _, c := range m.checks {
		if len(c.covers) == 0 {
			c.judge()
		}
	}
	if m.node.boot == "" {
		return
	}
	for _, p := range looked {
		if m.procs[p.name] == p {
			p.keep()
		}
	}
	m.node.keep()
}

// newID gives out the next start id.
func (m *Machine) newID() ha.StartID {
	id := m.ids
	m.ids++
	return id
}

// seen makes sure that an id that was seen is not given out again.
func (m *Machine) seen(id ha.StartID) { m.ids = max(m.ids, id+1) }
