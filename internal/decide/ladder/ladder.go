package ladder

import (
	"fmt"
	"strings"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// recovering is the code of a fault that is being recovered.
func recovering(f ha.Fault) ha.Code {
	switch f {
	case ha.FaultWatchdog:
		return ha.WatchdogRecovering
	case ha.FaultIntegrity:
		return ha.IntegrityRecovering
	}
	return ha.ExistenceRecovering
}

// disabled is the code of a fault that was given up.
func disabled(f ha.Fault) ha.Code {
	switch f {
	case ha.FaultWatchdog:
		return ha.WatchdogDisabled
	case ha.FaultIntegrity:
		return ha.IntegrityDisabled
	}
	return ha.ExistenceDisabled
}

// fault raises the alarm and begins the ladder: of a program that still runs,
// the evidence is taken first.
func fault(p *proc, f ha.Fault, start ha.StartID, detail string, why ha.Reason) {
	rule := p.mem.Cure.Rule
	p.mem.Cure = cure{Fault: f, Start: start, Detail: detail, Rule: rule}
	p.emit(recovering(f), detail, why)
	if f == ha.FaultExistence {
		recoverFrom(p, why)
		return
	}
	p.disarm("a fault of it is examined")
	p.unwatch("a fault of it is examined")
	p.mem.Cure.Stage, p.mem.Cure.Due = examining, p.m.now.Add(ha.ExamineBound)
	p.m.touch(p)
	p.m.do(ha.Examine{Process: p.name, Start: p.run.start, Fault: f,
		Why: because(ruleEvidence, "what it does is recorded before anything is done to it", "detail", detail)})
}

// missed takes the news of a thread that did not beat.
func missed(p *proc, in ha.Missed) {
	if p.run.start != in.Start || !p.judged() {
		return
	}
	who := "the program"
	if in.Thread != "" {
		who = "thread " + in.Thread
	}
	detail := fmt.Sprintf("%s has not beaten for %v", who, p.m.now.Sub(in.Last).Round(time.Millisecond))
	if in.Last == 0 {
		if p.cfg.Watchdog.By == "command" {
			who = "the watchdog command of the program"
		}
		detail = who + " has not sent a beat since its start; " + wayToBeat(p.cfg.Watchdog)
	}
	if in.Missing > 1 {
		detail += fmt.Sprintf("; %d threads are late", in.Missing)
	}
	fault(p, ha.FaultWatchdog, in.Start, detail, because(ruleFault, fmt.Sprintf("no beat for %s", ha.Span(p.cfg.Watchdog.Silence())),
		"thread", in.Thread, "last", in.Last, "missing", in.Missing))
}

// wayToBeat says what a program that never beat should do.
func wayToBeat(w manifest.Watchdog) string {
	how := "the SDK's Beat or WATCHDOG=1"
	switch w.By {
	case "command":
		return fmt.Sprintf("%s must end with 0 within its interval of %s", strings.Join(w.Command, " "), ha.Span(w.Interval))
	case "page":
		how = "the SDK's Beat"
	case "notify":
		how = "WATCHDOG=1 by sd_notify"
	}
	return fmt.Sprintf("it must beat each %s by %s, or its watchdog: must go from the manifest", ha.Span(w.Interval), how)
}

// examined takes the evidence.
func examined(p *proc, in ha.Examined) {
	if in.Ref != "" && in.Start != 0 {
		p.tell(ha.EvidenceTaken, in.Ref, func(e *ha.Event) {
			e.Evidence, e.Start, e.Fault = in.Ref, in.Start, p.mem.Cure.Fault
			e.Why = because(ruleEvidence, "the evidence was kept", "start", in.Start)
		})
	}
	if p.mem.Cure.Stage == examining && in.Start == p.mem.Cure.Start {
		recoverFrom(p, because(ruleFault, "its evidence was taken", "detail", p.mem.Cure.Detail))
	}
}

// recoverFrom takes the recovery in force.
func recoverFrom(p *proc, why ha.Reason) {
	p.mem.Cure.Stage = idle
	rec := p.recovery()
	switch p.mem.Cure.Rule {
	case manifest.ExitRestart:
		rec = ha.RecoveryRestart
	case manifest.ExitGiveUp:
		rec = ha.RecoveryNone
	}
	p.m.touch(p)
	switch rec {
	case ha.RecoveryRestart:
		restart(p, why)
	case ha.RecoveryFailoverRestart:
		p.emit(ha.AttemptFailover, "", because(ruleFailover, "recovery: failover-restart"))
		if !counted(p) {
			return
		}
		if p.role() == ha.Standby {
			again(p)
			return
		}
		askFailover(p, thenRestart)
	case ha.RecoveryFailoverReboot:
		p.emit(ha.AttemptReboot, "", because(ruleFailover, "recovery: failover-reboot"))
		leave(p, thenReboot)
	default:
		why := because(ruleNone, "recovery: none", "exit rule", p.mem.Cure.Rule)
		p.emit(ha.NoActionRecovery, "", why)
		giveUp(p, why)
	}
}

// restart takes the rung of a restart in place.
func restart(p *proc, why ha.Reason) {
	p.emit(ha.AttemptRestart, p.mem.Cure.Detail, because(ruleRestart, "recovery: restart",
		"restarts", p.mem.Window.count(p.m.now, p.cfg.Restarts), "limit", p.cfg.Restarts.Limit, "cause", why.Text))
	if p.cfg.Attach.Set() && len(p.cfg.Attach.Start) == 0 {
		p.emit(ha.RestartFailure, "attach: names no start command", because(ruleSeek, "Gemel cannot start it; it is looked for until it is there"))
		p.mem.Cure.Rule = ""
		p.plan.hold = p.m.now.Add(p.cfg.Attach.Every)
		return
	}
	if counted(p) {
		again(p)
	}
}

// counted counts a restart and sets when it is due; if it would be one too many,
// the escalation is taken instead.
func counted(p *proc) bool {
	w, r, now := &p.mem.Window, p.cfg.Restarts, p.m.now
	if w.full(now, r) {
		escalate(p)
		return false
	}
	p.mem.Cure.Due = now.Add(w.delay(now, r))
	w.add(now, r)
	return true
}

// again has the program started anew: at once if its heir runs already or there
// is no pause, and after its stop if the faulty copy still runs.
func again(p *proc) {
	p.handle("restart", p.cfg.Handlers.Restart, because(ruleRestart, "the rung of a restart", "fault", p.mem.Cure.Fault))
	p.m.touch(p)
	p.mem.Cure.Mode, p.mem.Cure.Rule = "", ""
	switch {
	case p.run.heir:
		p.run.heir = false
		p.mem.Cure.Stage = idle
	case p.run.phase == up || p.run.phase == starting:
		p.mem.Cure.Stage = ending
	default:
		p.mem.Cure.Stage = waiting
	}
}

// escalate takes the rung above the restarts.
func escalate(p *proc) {
	r := p.cfg.Restarts
	text := fmt.Sprintf("%s within %s", restarts(p.mem.Window.count(p.m.now, r)), ha.Span(r.Within))
	why := because(ruleExcess, "one more restart would exceed the limit", "restarts", p.mem.Window.count(p.m.now, r),
		"limit", r.Limit, "within", r.Within, "then", p.escalation())
	p.emit(ha.ExcessiveRestarts, text, why)
	switch p.escalation() {
	case ha.EscalationFailoverReboot:
		p.emit(ha.AttemptEscalation, "", why)
		leave(p, thenEscReboot)
	case ha.EscalationFailover:
		p.emit(ha.AttemptEscalatedFailover, "", why)
		if p.role() == ha.Standby {
			p.emit(ha.EscalatedFailoverFailure, "this node is standby", why)
			giveUp(p, because(ruleExcess, "there is nothing to move from a standby"))
			return
		}
		askFailover(p, thenEscaped)
	default:
		p.emit(ha.NoActionEscalation, "", why)
		giveUp(p, why)
	}
}

// giveUp ends the ladder: the alarm stands, and the process is watched again
// only after lock and unlock. A program that still runs is left running, but the
// heir of one that was given up is not.
func giveUp(p *proc, why ha.Reason) {
	p.emit(disabled(p.mem.Cure.Fault), p.mem.Cure.Detail, why)
	p.handle("give-up", p.cfg.Handlers.GiveUp, why)
	p.mem.Hard.Disabled = true
	p.mem.Cure = cure{Fault: p.mem.Cure.Fault, Start: p.mem.Cure.Start, Detail: p.mem.Cure.Detail}
	if p.run.heir {
		p.run.expel = because(ruleGiveUp, "it was given up when its forerunner ended", "because", why.Text)
	}
	p.m.touch(p)
}

// cancel ends a recovery without a word: the process is not watched any more, or
// an operator decided.
func cancel(p *proc) {
	p.mem.Cure.Stage, p.mem.Cure.Mode, p.mem.Cure.Due, p.mem.Cure.Rule = idle, "", 0, ""
	p.m.touch(p)
}

// resume goes on with what the monitor before had begun, or, after a boot, says
// that the watch began anew.
func resume(p *proc) {
	c := &p.mem.Cure
	if p.plan.broken != "" {
		p.mem.Hard.Disabled = true
		why := because(ruleInternal, "its memory cannot be read", "error", p.plan.broken)
		p.emit(ha.InternalFault, p.plan.broken, why)
		p.emit(ha.MemoryLost, p.plan.broken, why)
		return
	}
	if p.m.node.fresh {
		if c.Fault != ha.FaultNone && p.watched() {
			initialize(p, "the machine was booted")
		}
		return
	}
	switch c.Stage {
	case failing:
		orderFailover(p, "asked again: the monitor that asked is gone")
	case rebooting:
		if q := p.m.node.rebooter(p); q != nil && q.name < p.name {
			break // ordered for that one
		}
		orderReboot(p, "ordered again: the monitor that ordered it is gone and the machine still runs")
	}
	if p.mem.Stop != 0 && p.mem.Stop == p.run.start && p.run.phase == up && c.Stage == idle {
		p.plan.turn = because(ruleStop, "its stop had been ordered by the monitor before", "start", p.run.start)
	}
}

// initialize says that the watch of the process begins anew, which forgives
// everything.
func initialize(p *proc, text string) {
	p.mem.Hard.Disabled, p.mem.Hard.Rebooting, p.mem.Fell = false, false, false
	p.mem.Cure, p.mem.Window = cure{}, window{}
	p.run.from = max(p.run.from, p.m.now) // what was not ready is given its time again
	p.m.touch(p)
	p.emit(ha.Initialized, "", because(ruleInit, text))
}
