package ladder

import (
	"fmt"
	"slices"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// exited takes the news of an end.
func takeExited(m *Machine, in ha.Exited) {
	m.seen(in.Start)
	m.seen(in.Successor)
	p := m.procs[in.Process]
	if p != nil && slices.Contains(p.mem.Strays, in.Start) {
		p.mem.Strays = slices.DeleteFunc(p.mem.Strays, func(id ha.StartID) bool { return id == in.Start })
		m.touch(p)
	}
	own := p != nil && p.run.start == in.Start && p.alive()
	if p != nil && m.node.catching && !own {
		// It died while no monitor lived: a new one has not seen it run.
		own = !slices.Contains(p.plan.strays, in.Start) && (in.Successor != 0 && p.run.start == in.Successor || !p.alive() && in.Start >= p.mem.Start)
	}
	if own {
		m.touch(p)
		exited(p, in)
		return
	}
	if in.Successor != 0 && (p == nil || in.Successor != p.run.start) {
		stray(m, in.Process, in.Successor, in.PID)
	}
}

// exited judges the end of the copy of p.
func exited(p *proc, in ha.Exited) {
	old, status := p.run, in.Status
	found := run{}
	if in.Successor != 0 && old.start == in.Successor {
		found = old
	}
	if old.start != in.Start { // the heir was adopted before its parent's end was told, or nothing was
		old = run{phase: up, start: in.Start}
	}
	if p.mem.Stop == in.Start && old.phase == up {
		old.phase = stopping
	}
	p.mem.Last, p.mem.Start = &status, in.Start
	p.run = found
	if found.start == 0 {
		p.mem.More = 0
	}
	if status.Unknown && !old.foreign {
		p.emit(ha.ExitUnknown, status.String(), because(ruleExit, "it ended while nobody could see it", "start", in.Start))
	}
	if old.phase == stuck {
		freed(p, old)
	}
	if in.Successor != 0 {
		inherit(p, in)
	}
	if p.m.node.fresh && p.m.node.catching {
		return // it ended with the machine
	}
	switch text, ok := intended(p); {
	case old.phase >= stopping:
		stopped(p, old, status)
	case !ok:
		p.emit(ha.ProcessStopped, status.String(), because(ruleExpected, text, "start", in.Start, "status", status))
	case p.mem.Cure.Stage != idle:
		// its recovery is under way and goes on
	case !p.watched():
		unwatchedEnd(p, old, status)
	default:
		judgeExit(p, old, status)
	}
	if p.run.heir && p.plan.stale {
		p.plan.stale = false
		p.plan.turn = because(ruleApply, "the manifest changed before the standing order started it", "start", in.Successor)
	}
	if p.run.heir && p.mem.Cure.Stage == idle {
		if p.run.expel.Rule == "" && (p.mem.Fell || p.mem.Done || p.mem.Hard.Disabled) {
			p.run.expel = because(ruleExpected, "no successor was due when it ended", "status", status)
		}
		p.run.heir = false
	}
	if in.Successor != 0 && p.run.start == in.Successor {
		p.emit(ha.ProcessStarted, fmt.Sprintf("pid %d", p.run.pid), because(ruleStarted, "the standing order started it at once",
			"start", in.Successor, "after", in.Start))
	}
}

// inherit makes the start of a standing order the running copy. Whether it may
// stay is decided by what follows.
func inherit(p *proc, in ha.Exited) {
	p.mem.Start, p.mem.Starts = in.Successor, p.mem.Starts+1
	if p.run.start == in.Successor {
		p.run.heir = true
		return
	}
	p.run = run{start: in.Successor, heir: true, again: true}
	p.began(in.PID, p.m.now)
}

// stopped takes the end of a stop that was ordered.
func stopped(p *proc, old run, status ha.ExitStatus) {
	p.mem.Stop = 0
	if p.mem.Cure.Stage == ending {
		p.mem.Cure.Stage = waiting // for what is left of the pause
		if p.run.heir {
			p.mem.Cure.Stage = idle
		}
		return
	}
	why := old.stop
	if why.Rule == "" {
		why = because(ruleStop, "its stop had been ordered by the monitor before", "start", old.start)
	}
	p.emit(ha.ProcessStopped, status.String(), why)
	p.plan.again = old.back
	// The end of everything is no end of this process alone: the next life starts
	// it again.
	if !old.back && !p.watched() && !p.m.node.quitting {
		p.mem.Fell = true
	}
}

// unwatchedEnd notes the end of a program that is locked or was given up. One
// that its manifest calls well is no matter of recovery, and what needs it may go on.
func unwatchedEnd(p *proc, old run, status ha.ExitStatus) {
	if meaning(p.cfg, status) == manifest.ExitDone {
		p.mem.Done = true
		p.emit(ha.ProcessExpected, status.String(), because(ruleExit, fmt.Sprintf("it ended with %v", status), "start", old.start, "means", manifest.ExitDone))
		p.m.touch(p)
		return
	}
	p.mem.Fell = true
	p.emit(ha.ProcessEnded, status.String(), because(ruleExit, "it ended while it was not watched, so nothing is done about it", "start", old.start, "status", status))
}

// judgeExit finds what an end means: the first exit rule that matches, else what
// is usual for a task or for a program that should run for ever.
func judgeExit(p *proc, old run, status ha.ExitStatus) {
	do := meaning(p.cfg, status)
	why := because(ruleExit, fmt.Sprintf("it ended with %v", status), "start", old.start, "means", do)
	switch do {
	case manifest.ExitDone:
		p.mem.Done = true
		p.emit(ha.ProcessExpected, status.String(), why)
		p.recovered("it ended as expected")
		p.m.touch(p)
	case manifest.ExitAgain:
		p.emit(ha.ProcessExpected, status.String(), why)
		p.plan.again = true
		if !old.settled {
			p.plan.hold = p.m.now.Add(p.cfg.Restarts.Delay) // not in a tight loop
		}
	default:
		p.mem.Cure.Rule = ""
		if do != manifest.ExitFault {
			p.mem.Cure.Rule = do
		}
		fault(p, ha.FaultExistence, old.start, status.String(), why)
	}
}

// meaning is what the manifest says about an end.
func meaning(cfg *manifest.Process, s ha.ExitStatus) manifest.ExitAction {
	for _, r := range cfg.Exits {
		if !s.Unknown && (s.Signal != 0 && slices.Contains(r.Signals, s.Signal) || s.Signal == 0 && slices.Contains(r.Codes, s.Code)) {
			return r.Do
		}
	}
	if cfg.Task && s.Success() {
		return manifest.ExitDone
	}
	return manifest.ExitFault
}

// startFailed takes the news that a start came to nothing.
func startFailed(p *proc, in ha.StartFailed) {
	p.m.seen(in.Start)
	if p.run.start != in.Start || !p.alive() {
		return
	}
	old := p.run
	p.run = run{}
	p.mem.Stop = 0
	why := because(ruleExit, "the program could not be executed", "start", in.Start, "error", in.Error)
	_, ok := intended(p)
	switch {
	case in.Unentitled:
		// The next renewal may be on its way to the shadow, or the news that there is none
		// on its way here.
		p.plan.hold = p.m.now.Add(unentitledPause)
		p.plan.again = p.plan.again || old.again
		if p.mem.Cure.Stage == idle && p.mem.Cure.Fault != ha.FaultNone {
			p.mem.Cure.Stage, p.mem.Cure.Due = waiting, p.plan.hold
		}
	case old.phase >= stopping || !ok:
		p.emit(ha.StartRefused, in.Error, why)
		p.plan.again = old.back
	case p.mem.Cure.Stage != idle:
	case !p.watched():
		p.mem.Fell = true
		p.emit(ha.StartRefused, in.Error, why)
	case p.mem.Cure.Fault != ha.FaultNone:
		p.mem.Cure.Detail = in.Error
		p.emit(ha.RestartFailure, in.Error, why)
		if p.recovery() == ha.RecoveryNone {
			recoverFrom(p, why)
			return
		}
		restart(p, why)
	default:
		fault(p, ha.FaultExistence, in.Start, in.Error, why)
	}
}

// unentitledPause is how long after a start that the shadow refused for want of
// authority the next one is tried.
const unentitledPause = 100 * time.Millisecond

// stopFailed takes the news that a copy is still there after SIGKILL.
func stopFailed(p *proc, in ha.StopFailed) {
	if p.run.start != in.Start || p.run.phase != stopping {
		return
	}
	p.run.phase = stuck
	p.emit(ha.ProcessStuck, in.Detail, because(ruleStuck, "no other copy is started while this one may run", "start", in.Start))
}

// freed says that a copy that could not be killed is gone.
func freed(p *proc, old run) {
	why := because(ruleStuck, "the copy that could not be killed is gone")
	if f := p.mem.Cure.Fault; f != ha.FaultNone {
		code := recovering(f)
		if p.mem.Hard.Disabled {
			code = disabled(f)
		}
		p.emit(code, "the copy that could not be killed is gone", why)
		return
	}
	if !old.alarmed {
		return // its alarm was taken away for another reason
	}
	p.tell(ha.ProcessStuck, "it is gone", func(e *ha.Event) { e.Why, e.Change, e.Severity = why, ha.Clear, ha.OK })
	p.run.alarmed = false
}

// becameReady takes the news that the readiness condition holds.
func becameReady(p *proc, in ha.Ready) {
	if p.run.start != in.Start || p.run.phase != up && p.run.phase != starting || p.run.ready && p.run.settled {
		return
	}
	if p.run.phase == starting {
		p.began(0, p.m.now)
	}
	p.emit(ha.ProcessReady, in.How, because(ruleReady, "its readiness condition holds", "how", in.How))
	p.run.watch = min(p.run.watch, 0) // beats are due from now on
	p.settled("ready by " + in.How)
}

// leaving takes the program's word that it is about to end: its threads need not
// beat any more.
func leaving(p *proc, in ha.Stopping) {
	if p.run.start == in.Start && p.run.phase == up {
		p.unwatch("it announced its end")
		p.run.watch = -1
	}
}

// mostStop is how long a stop may take in all because the program asks for it. A
// start may ask for ever: nobody waits behind it who does not need it.
const mostStop = time.Hour

// busy takes the program's word that it needs more time. Its fault, or SIGKILL,
// comes later then and never earlier.
func busy(p *proc, in ha.Busy) {
	if p.run.start != in.Start || p.run.foreign || p.m.node.kill {
		return
	}
	until := p.m.now.Add(in.For)
	switch {
	case p.run.phase == stopping:
		longer(p, in, until)
	case p.run.phase == up && p.mem.Stop == in.Start, // its stop is ordered anew in this step
		(p.run.phase == starting || p.run.phase == up) && !p.run.settled && p.cfg.Ready.Kind != manifest.ReadyStarted:
		p.mem.More = max(p.mem.More, until)
	}
}

// longer gives a program time until then to end by itself.
func longer(p *proc, in ha.Busy, until ha.Instant) {
	most := max(mostStop, p.cfg.Stop.Grace)
	text := fmt.Sprintf("it asked for %s more to end", ha.Span(in.For))
	if last := p.run.from.Add(most); until > last {
		until = last
		text += fmt.Sprintf("; a stop may take %s in all", ha.Span(most))
	}
	if until <= max(p.mem.More, p.run.from.Add(p.cfg.Stop.Grace)) {
		return
	}
	p.mem.More = until
	p.m.do(ha.Extend{Process: p.name, Start: p.run.start, Until: until, Why: because(ruleExtend, text, "asked", in.For, "start", in.Start)})
}
