package ladder

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// applied brings the wanted manifest into force: only what changed is touched.
func takeApplied(m *Machine, in ha.Applied) {
	if m.next == nil {
		return
	}
	man := m.next
	m.next = nil
	m.adopt(man)
	m.touchAll()
}

// adopt makes man the manifest in force. A process or check that it does not
// name is on its way out; one that is new begins with what was kept of it.
func (m *Machine) adopt(man *manifest.Manifest) {
	m.man = man
	for _, p := range m.list {
		if _, ok := man.Process(p.name); !ok {
			p.plan.gone = true
			cancel(p)
			m.touch(p)
		}
	}
	for i := range man.Processes {
		cfg := &man.Processes[i]
		if p := m.procs[cfg.Name]; p != nil {
			change(p, cfg)
			continue
		}
		p := &proc{m: m, name: cfg.Name, cfg: cfg, since: m.now}
		if err := load(m.kept[p.key()], &p.mem); err != nil {
			p.mem, p.plan.broken = memory{}, err.Error()
		}
		p.safe = p.mem.Hard
		insert(m, p)
	}
	adoptChecks(m, man)
	join(m, man)
	m.cluster.gather(m, man)
}

// insert adds a process to the list.
func insert(m *Machine, p *proc) {
	m.procs[p.name] = p
	if role, ok := m.node.roles[p.name]; ok {
		p.plan.role, p.plan.ruled = role, true
	}
	i := sort.Search(len(m.list), func(i int) bool { return m.list[i].name >= p.name })
	m.list = slices.Insert(m.list, i, p)
	m.mark(p)
}

// ghost makes a process that the manifest does not name, for a copy that runs.
func ghost(m *Machine, name ha.Process) *proc {
	p := &proc{m: m, name: name, since: m.now, cfg: &manifest.Process{Name: name}}
	p.plan.gone, p.rank = true, math.MaxInt // nothing waits for it
	if load(m.kept[p.key()], &p.mem) != nil {
		p.mem = memory{} // it is on its way out: what it was matters no more
	}
	p.safe, p.mem.Strays = p.mem.Hard, nil // those that run are told
	m.cluster.former(p)                    // while it runs, not everything of its group has stopped here
	insert(m, p)
	return p
}

// remove forgets a process that is out of the manifest and does not run. The
// ranks of the others stay right without it.
func remove(m *Machine, p *proc) {
	silence(p)
	delete(m.procs, p.name)
	m.list = slices.DeleteFunc(m.list, func(q *proc) bool { return q == p })
	m.forget(p.key())
	for _, q := range p.near {
		q.near = slices.DeleteFunc(q.near, func(r *proc) bool { return r == p })
		m.touch(q)
	}
}

// silence takes away the alarm of a process that is not in the manifest any more:
// nobody could lock and unlock it, so that it would stand for ever.
func silence(p *proc) {
	if p.mem.Cure.Fault != ha.FaultNone || p.mem.Hard.Disabled {
		text := "it is not in the manifest any more"
		p.emit(ha.Initialized, text, because(ruleApply, text))
	}
}

// change gives a process its new policies, and a restart if the running program
// is concerned. A setting made by hand is dropped for a field that changed.
func change(p *proc, cfg *manifest.Process) {
	old := p.cfg
	p.cfg = cfg
	if old.Recovery != cfg.Recovery {
		p.mem.Hard.Recovery, p.mem.Hard.RecoveryBy = ha.RecoveryUnset, lock{}
	}
	if old.Restarts.Then != cfg.Restarts.Then {
		p.mem.Hard.Escalation, p.mem.Hard.EscalationBy = ha.EscalationUnset, lock{}
	}
	back := p.plan.gone
	p.plan.gone = false
	what := old.Changes(*cfg)
	if len(what) == 0 {
		return
	}
	p.plan.told, p.plan.hold = false, 0
	p.mem.Done = false
	switch {
	case back && p.run.phase == stopping:
		p.plan.again = true
	case p.run.phase == up || p.run.phase == starting:
		p.plan.turn = because(ruleApply, "the manifest changed: "+strings.Join(what, ", "))
	case p.run.phase == stopping:
		p.plan.stale = true
	case p.run.phase == seeking:
		p.run = run{}
	}
}

// join ties each process to those that it waits for and that wait for it, to
// its checks and to its groups.
func join(m *Machine, man *manifest.Manifest) {
	for _, p := range m.list {
		p.near, p.checks, p.rank = nil, nil, 0
		p.plan.group, p.plan.standby = false, false
	}
	for _, p := range m.list {
		for _, names := range [][]ha.Process{p.cfg.Needs, p.cfg.After, p.cfg.Follows} {
			for _, n := range names {
				if q := m.procs[n]; q != nil && q != p {
					if !slices.Contains(p.near, q) {
						p.near = append(p.near, q)
					}
					if !slices.Contains(q.near, p) {
						q.near = append(q.near, p)
					}
				}
			}
		}
	}
	next := 0
	for _, p := range m.list {
		next = number(m, p, next)
	}
	was := map[*proc]ha.Group{}
	for _, p := range m.list {
		was[p], p.plan.home = p.plan.home, ""
	}
	for _, g := range man.Groups {
		for _, n := range g.Run {
			if p := m.procs[n]; p != nil {
				p.plan.group, p.plan.home = true, g.Name
			}
		}
		for _, n := range g.Standby {
			if p := m.procs[n]; p != nil {
				p.plan.standby = true
			}
		}
	}
	for _, p := range m.list {
		// What runs by the right of one group has no right by another one.
		if m.cluster.yes && was[p] != p.plan.home && (p.run.phase == up || p.run.phase == starting) && !p.plan.gone {
			p.plan.turn = because(ruleApply, "its group changed", "was", was[p], "is", p.plan.home)
		}
		if !p.plan.standby || p.plan.home != "" {
			p.plan.idle = "" // no group's standbys alone run it any more
		}
		if p.plan.home == "" {
			p.plan.bar = ""
			if m.cluster.yes { // else roles come from outside, and stand
				delete(m.node.roles, p.name)
				p.plan.ruled = false
			}
		}
	}
	for _, c := range m.checks {
		for _, n := range c.covers {
			if p := m.procs[n]; p != nil {
				p.checks = append(p.checks, c)
			}
		}
	}
}

// number ranks p behind all that it waits for, so that order never runs in a
// ring, whatever a manifest says.
func number(m *Machine, p *proc, next int) int {
	if p.rank != 0 {
		return next
	}
	p.rank = -1
	for _, names := range [][]ha.Process{p.cfg.Needs, p.cfg.After} {
		for _, n := range names {
			if q := m.procs[n]; q != nil {
				next = number(m, q, next)
			}
		}
	}
	next++
	p.rank = next
	return next
}

// adopted takes the news of a program that runs already.
func takeAdopted(m *Machine, in ha.Adopted) {
	m.seen(in.Start)
	m.seen(in.Armed)
	p := m.procs[in.Process]
	if p == nil {
		if in.Foreign {
			return
		}
		p = ghost(m, in.Process)
	}
	m.touch(p)
	switch {
	case slices.Contains(p.plan.strays, in.Start):
		stray(m, in.Process, in.Start, in.PID)
	case p.run.start == in.Start && p.run.phase >= up:
		p.run.pid, p.run.armed, p.run.foreign = in.PID, in.Armed, in.Foreign
	case in.Foreign && p.run.start != in.Start:
		return // it was let go meanwhile
	case p.alive() && p.run.start != in.Start:
		stray(m, in.Process, in.Start, in.PID)
	default:
		takeOver(p, in)
	}
}

// takeOver makes a program that runs already the copy of p. One that was past
// its ramp-up, or ready, is so at once: a new monitor judges nothing anew.
func takeOver(p *proc, in ha.Adopted) {
	known := p.mem.Start == in.Start && p.mem.Ready == in.Start
	p.run = run{phase: up, start: in.Start, armed: in.Armed, pid: in.PID, foreign: in.Foreign, again: p.run.again}
	if p.mem.Start != in.Start {
		p.mem.Start, p.mem.More = in.Start, 0
	}
	switch {
	case !p.m.cluster.yes:
	case in.Of != "":
		p.mem.Of = in.Of
	case !known && p.mem.Of == "" && !p.m.cluster.alone:
		p.mem.Of = p.plan.home // its start was ordered by a life that could not say so any more
	}
	p.m.cluster.former(p) // it may be of a group that is in the manifest no more
	p.plan.told, p.plan.hold, p.plan.sought = false, 0, 0
	p.run.ready = known
	p.began(in.PID, in.Age)
	p.run.from = in.Age
	if p.cfg.Ready.Kind != manifest.ReadyStarted {
		p.run.from = p.m.now
		if known {
			p.run.settled = true
		}
	} else if p.m.now >= in.Age.Add(p.cfg.RampUp) && p.mem.Cure.Fault == ha.FaultNone {
		p.run.settled = true
	}
	p.emit(ha.ProcessAdopted, fmt.Sprintf("pid %d", in.PID), because(ruleAdopt, "it runs already", "start", in.Start, "since", in.Age))
}

// notFound takes the news that nothing matches the attach rule.
func notFound(p *proc, in ha.NotFound) {
	if !p.cfg.Attach.Set() || p.run.phase != seeking && p.run.phase != starting {
		return
	}
	asked := p.run.phase == starting
	p.plan.sought = p.run.start
	p.run = run{}
	every := p.cfg.Attach.Every
	p.plan.hold = p.m.now.Add(every)
	why := because(ruleSeek, "nothing matches the attach rule", "detail", in.Detail, "again in", every)
	if _, ok := intended(p); !ok || !p.watched() {
		return
	}
	rec := p.recovery()
	can := len(p.cfg.Attach.Start) > 0 && (rec == ha.RecoveryRestart || rec == ha.RecoveryFailoverRestart)
	switch {
	case asked && p.mem.Cure.Fault != ha.FaultNone:
		p.plan.hold = 0
		p.emit(ha.RestartFailure, in.Detail, why)
		restart(p, why)
	case asked:
		p.plan.hold = 0
		fault(p, ha.FaultExistence, 0, in.Detail, why)
	case can && p.mem.Cure.Fault == ha.FaultNone:
		p.plan.hold, p.plan.again = 0, true
	case !p.plan.told:
		p.plan.told = true
		p.emit(ha.Unmatched, in.Detail, why)
		if p.mem.Cure.Fault == ha.FaultNone {
			fault(p, ha.FaultExistence, 0, in.Detail, why)
		}
	}
}
