package ladder

import (
	"fmt"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// armable reports whether the decision about the next death of the copy is
// already clear but for the window: restart, whatever the end was.
func armable(p *proc) bool {
	if !p.watched() || p.cfg.Attach.Set() || p.cfg.Task || p.recovery() != ha.RecoveryRestart ||
		p.mem.Cure.Stage != idle || p.plan.turn.Rule != "" {
		return false
	}
	for _, r := range p.cfg.Exits {
		if r.Do != manifest.ExitRestart && r.Do != manifest.ExitFault {
			return false
		}
	}
	return true
}

// arm gives the standing order, or takes it back, as the next restart would be
// immediate or not.
func arm(p *proc) {
	w, r := &p.mem.Window, p.cfg.Restarts
	switch {
	case !armable(p):
		p.disarm("its next end needs a decision")
	case w.full(p.m.now, r):
		p.disarm("its restarts are used up")
	case w.delay(p.m.now, r) > 0:
		p.disarm("its next restart has a pause")
	case p.run.armed == 0:
		p.run.armed = p.m.newID()
		p.m.do(ha.Arm{Process: p.name, Start: p.run.start, Next: p.run.armed, Why: because(ruleStanding,
			"if it ends, it is restarted at once", "restarts", w.count(p.m.now, r), "limit", r.Limit)})
	}
}

// disarm takes the standing order back, if there is one.
func (p *proc) disarm(text string) {
	if p.run.armed == 0 {
		return
	}
	p.run.armed = 0
	p.m.do(ha.Arm{Process: p.name, Start: p.run.start, Why: because(ruleDisarm, text)})
}

// watch asks for beats as long as they matter.
func (p *proc) watch() {
	within := p.cfg.Watchdog.Silence()
	if p.cfg.Watchdog.Interval <= 0 || !p.watched() || p.run.phase != up || p.mem.Cure.Stage != idle {
		p.unwatch("it is not watched")
		return
	}
	if p.run.watch == within || p.run.watch < 0 {
		return
	}
	p.run.watch = within
	from := p.m.now
	if !p.run.settled {
		from = max(from, p.run.from.Add(p.cfg.RampUp))
	}
	p.m.do(ha.Watch{Process: p.name, Start: p.run.start, From: from, Within: within,
		Why: because(ruleWatch, fmt.Sprintf("its threads have to beat each %s; %d may be missed", ha.Span(p.cfg.Watchdog.Interval), p.cfg.Watchdog.Retries))})
}

// unwatch ends the watch, if there is one.
func (p *proc) unwatch(text string) {
	if p.run.watch > 0 {
		p.m.do(ha.Watch{Process: p.name, Start: p.run.start, Why: because(ruleWatch, text)})
	}
	p.run.watch = min(p.run.watch, 0)
}
