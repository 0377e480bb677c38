package ladder

import (
	"fmt"
	"slices"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// intended reports whether the process should run, faults and locks apart, and
// if not, why.
func intended(p *proc) (string, bool) {
	p.m.visit++
	return wanted(p)
}

// wanted is intended, which looks at each process that is needed once: the ways to
// one grow with each layer of needs.
func wanted(p *proc) (string, bool) {
	w := &p.plan.walk
	if w.number != p.m.visit {
		w.number = p.m.visit
		w.bar, w.ok = decided(p)
	}
	return w.bar, w.ok
}

func decided(p *proc) (string, bool) {
	switch {
	case p.plan.gone:
		return "it is not in the manifest any more", false
	case p.m.node.quitting:
		return "every program is stopped: " + p.m.node.quitWhy, false
	case elsewhere(p):
		return barElsewhere(p), false
	case p.mem.Hard.Halted:
		return "an operator stopped it", false
	case p.plan.idle != "":
		return p.plan.idle, false
	case p.away() && p.plan.bar != "":
		return "its group is not active here: " + p.plan.bar, false
	case p.away():
		return "its group is active elsewhere", false
	case !p.cfg.AutoStart && !p.mem.Hard.Asked:
		return "it is started by hand only", false
	}
	for _, n := range p.cfg.Needs {
		if q := p.m.procs[n]; q != nil && q != p && q.rank < p.rank {
			if _, ok := wanted(q); !ok {
				if elsewhere(q) {
					return fmt.Sprintf("%s, which it needs, is not for this node", n), false
				}
				return fmt.Sprintf("%s, which it needs, does not run", n), false
			}
		}
	}
	return "", true
}

// mustStop says why the running copy has to go, and whether another one is to
// be started after it.
func mustStop(p *proc) (why ha.Reason, back, must bool) {
	if text, ok := intended(p); !ok {
		if p.run.foreign && (p.plan.gone || p.m.node.quitting || elsewhere(p)) {
			release(p, text)
			return ha.Reason{}, false, false
		}
		if q := holder(p); q != nil {
			return ha.Reason{}, false, false
		}
		return because(stopRule(p), text, "start", p.run.start), false, true
	}
	switch {
	case p.run.expel.Rule != "":
		return p.run.expel, false, true
	case foundling(p) && !spared(p):
		return unowned(p), true, true
	case p.mem.Cure.Stage == ending:
		return because(ruleRestart, "the faulty copy is stopped before it is started again",
			"fault", p.mem.Cure.Fault, "detail", p.mem.Cure.Detail), true, true
	case turning(p):
		return p.plan.turn, true, true
	}
	return ha.Reason{}, false, false
}

// turning reports whether the copy is to be replaced now. Of one that is locked, or whose
// machine is to be rebooted, it is not, and nobody waits for that.
func turning(p *proc) bool {
	return p.plan.turn.Rule != "" && !p.mem.Hard.Locked && !p.m.node.hard.Locked && p.mem.Cure.Stage == idle
}

func stopRule(p *proc) string {
	switch {
	case p.m.node.quitting:
		return ruleQuit
	case p.plan.gone:
		return ruleApply
	case elsewhere(p):
		return ruleNode
	case p.away():
		return ruleMoved
	}
	return ruleStop
}

// holder returns a process that has to stop before this one.
func holder(p *proc) *proc {
	for _, q := range p.near {
		if q.run.phase == absent || q.run.phase == seeking || q.run.phase == stuck || q.rank <= p.rank {
			continue
		}
		if !has(q.cfg.Needs, p.name) && !has(q.cfg.After, p.name) {
			continue
		}
		if _, ok := intended(q); !ok {
			return q
		}
	}
	return nil
}

// mayStart says whether the process is to be started now, and why.
func mayStart(p *proc) (ha.Reason, bool) {
	if _, ok := intended(p); !ok || !p.m.node.settled {
		return ha.Reason{}, false
	}
	h := p.mem.Hard
	if h.Locked || h.Disabled || p.m.node.hard.Locked || p.mem.Done || p.mem.Fell || p.m.now < p.plan.hold || len(p.mem.Strays) > 0 {
		return ha.Reason{}, false
	}
	switch p.mem.Cure.Stage {
	case idle:
		if blocker(p) != "" {
			return ha.Reason{}, false
		}
		if p.plan.again {
			return because(ruleStart, "it is started again after its stop"), true
		}
		return because(ruleStart, "it should run and does not"), true
	case ending, waiting:
		if p.mem.Cure.Stage == waiting && p.m.now < p.mem.Cure.Due {
			return ha.Reason{}, false
		}
		return because(ruleRestart, "restarted after its fault", "fault", p.mem.Cure.Fault, "detail", p.mem.Cure.Detail,
			"restarts", p.mem.Window.count(p.m.now, p.cfg.Restarts), "limit", p.cfg.Restarts.Limit), true
	}
	return ha.Reason{}, false
}

// blocker says for what a start from rest waits; empty for nothing.
func blocker(p *proc) string {
	for _, n := range p.cfg.Needs {
		q := p.m.procs[n]
		if q == nil || q == p || q.rank >= p.rank {
			continue
		}
		switch {
		case q.cfg.Task && !q.mem.Done:
			return fmt.Sprintf("until %s, which it needs, finished well", n)
		case !q.cfg.Task && !(q.run.phase == up && q.run.ready && !turning(q)):
			return fmt.Sprintf("until %s, which it needs, is ready", n)
		}
	}
	for _, n := range p.cfg.After {
		q := p.m.procs[n]
		if q == nil || q == p || q.rank >= p.rank {
			continue
		}
		if coming(q) {
			return fmt.Sprintf("for %s, which comes first", n)
		}
	}
	return ""
}

// coming reports whether the process is on its way to readiness by itself.
func coming(p *proc) bool {
	switch p.run.phase {
	case starting, seeking:
		return p.run.phase == starting || !p.plan.told
	case up:
		return p.cfg.Task || !p.run.ready
	case absent:
		_, ok := intended(p)
		h := p.mem.Hard
		return ok && !h.Locked && !h.Disabled && !p.m.node.hard.Locked && !p.mem.Done && !p.mem.Fell && !p.plan.told
	}
	return false
}

// start orders a start, or the search for a program that others start.
func start(p *proc, why ha.Reason) {
	again := p.mem.Cure.Stage != idle || p.plan.again
	id := p.plan.sought
	if id == 0 || again {
		id = p.m.newID()
	}
	p.run = run{phase: starting, start: id, began: p.m.now, from: p.m.now, again: again}
	p.mem.Stop, p.mem.More = 0, 0
	p.mem.Cure.Stage = idle
	p.plan.hold, p.plan.again, p.plan.stale = 0, false, false
	p.m.touch(p)
	if p.cfg.Attach.Set() && (!again || len(p.cfg.Attach.Start) == 0) {
		p.run.phase = seeking
		why.Rule = ruleSeek
		p.m.do(ha.Seek{Process: p.name, Start: id, Why: why})
		return
	}
	p.mem.Start = id
	p.mem.Starts++
	if p.mem.owned = (owned{}); p.m.cluster.yes {
		p.mem.Of = p.plan.home
	}
	p.m.do(ha.Start{Process: p.name, Start: id, Why: why})
}

// stop orders the two-stage stop of the copy.
func stop(p *proc, why ha.Reason, back bool) {
	p.disarm("its stop was ordered")
	p.unwatch(why.Text)
	p.run.phase, p.run.stop, p.run.back, p.run.from = stopping, why, back, p.m.now
	p.plan.stale = why.Rule == ruleApply
	if p.mem.Stop != p.run.start {
		p.mem.Stop, p.mem.More = p.run.start, 0 // what it asked for before was for its readiness
	}
	p.plan.turn = ha.Reason{}
	p.m.touch(p)
	p.m.do(ha.Stop{Process: p.name, Start: p.run.start, Kill: p.m.node.kill || hurried(p), Why: why})
	if p.mem.More > p.m.now && !p.m.node.kill && !hurried(p) {
		p.m.do(ha.Extend{Process: p.name, Start: p.run.start, Until: p.mem.More,
			Why: because(ruleExtend, "it had asked for more time to end before its stop was ordered again")})
	}
}

// release lets go of a program that Gemel did not start: it runs on.
func release(p *proc, text string) {
	p.unwatch(text)
	p.run = run{}
	p.m.touch(p)
}

// began makes a copy the one that runs.
func (p *proc) began(pid int, from ha.Instant) {
	p.run.phase, p.run.pid, p.run.began, p.run.from = up, pid, from, p.m.now
	p.m.touch(p)
	if p.cfg.Ready.Kind == manifest.ReadyStarted {
		p.ready()
		return
	}
	if p.run.ready {
		return
	}
	p.m.do(ha.Await{Process: p.name, Start: p.run.start,
		Why: because(ruleReady, "what needs it waits for its readiness", "ready", p.cfg.Ready.Kind)})
}

// started takes the news of a start.
func takeStarted(m *Machine, in ha.Started) {
	m.seen(in.Start)
	p := m.procs[in.Process]
	switch {
	case p != nil && p.run.start == in.Start && p.run.phase == starting:
		p.began(in.PID, m.now)
		p.emit(ha.ProcessStarted, fmt.Sprintf("pid %d", in.PID), because(ruleStarted, "the program runs", "start", in.Start, "pid", in.PID))
	case p != nil && p.run.start == in.Start:
		p.run.pid = in.PID
	case p != nil && p.run.armed == in.Start && p.alive():
		// the exit that says so is on its way
	default:
		stray(m, in.Process, in.Start, in.PID)
	}
}

// stray stops a copy that nobody ordered. It is remembered, so that no other one
// is started beside it.
func stray(m *Machine, name ha.Process, id ha.StartID, pid int) {
	why := because(ruleStray, "this start was not ordered, or was called back", "start", id, "pid", pid)
	p := m.procs[name]
	if p == nil {
		p = ghost(m, name)
	}
	if !slices.Contains(p.mem.Strays, id) {
		p.mem.Strays = append(p.mem.Strays, id)
	}
	m.touch(p)
	m.do(ha.Stop{Process: name, Start: id, Why: why})
}
