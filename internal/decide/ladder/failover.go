package ladder

import (
	"gemel/internal/ha"
)

// leave takes a rung that ends in a reboot: the groups move first, unless this
// node is standby and has none to move.
func leave(p *proc, m mode) {
	if p.role() == ha.Standby {
		if pay(p) {
			p.mem.Cure.Mode = m
			reboot(p, "this node is standby")
		}
		return
	}
	askFailover(p, m)
}

// askFailover asks for a failover if the node's budget allows it.
func askFailover(p *proc, m mode) {
	if !pay(p) {
		return
	}
	p.mem.Cure.Stage, p.mem.Cure.Mode = failing, m
	orderFailover(p, "the groups move before anything else is done")
}

// orderFailover gives the order of a failover that is paid for.
func orderFailover(p *proc, text string) {
	m := p.mem.Cure.Mode
	why := because(ruleFailover, text, "then", m)
	p.handle("failover", p.cfg.Handlers.Failover, why)
	p.m.touch(p)
	p.m.do(ha.Failover{Process: p.name, All: m == thenReboot || m == thenEscReboot || !p.plan.group, Bar: m == thenEscaped, Why: why})
}

// pay takes one entry of the node's budget; without one all monitoring ends.
func pay(p *proc) bool {
	if p.m.node.pay(p) {
		p.mem.Cure.Paid = p.m.now
		return true
	}
	p.m.node.exceed(p)
	return false
}

// failedOver takes the answer of a failover.
func failedOver(p *proc, in ha.FailedOver) {
	c := &p.mem.Cure
	if c.Stage != failing || in.Outcome == ha.OutcomeUnknown {
		return
	}
	refused := because(ruleFailover, "the failover was refused", "detail", in.Detail)
	moved := in.Outcome == ha.Moved
	switch c.Mode {
	case thenReboot, thenEscReboot:
		switch {
		case !in.StillActive:
			reboot(p, "no group is active here any more")
		case p.cfg.Severity == ha.Critical:
			reboot(p, "groups are still active here, but the process is critical")
		default:
			p.m.node.giveBack(c.Paid)
			unable(p, in.Detail, because(ruleStill, "groups are still active here and the process is not critical: no reboot",
				"detail", in.Detail, "severity", p.cfg.Severity))
		}
	case thenEscaped:
		if !moved {
			p.m.node.giveBack(c.Paid)
			p.emit(ha.EscalatedFailoverFailure, in.Detail, refused)
			giveUp(p, refused)
			return
		}
		p.emit(ha.EscalatedFailoverDone, in.Detail, because(ruleMoved, "the groups run elsewhere", "detail", in.Detail))
		p.mem.Window = window{}
		gone(p, in.Detail)
	default:
		if !moved {
			p.m.node.giveBack(c.Paid)
			again(p)
			return
		}
		gone(p, in.Detail)
	}
}

// gone ends a recovery whose groups moved: a program that went with them is
// recovered where they are; any other one is started here.
func gone(p *proc, detail string) {
	if !p.plan.group || p.plan.standby {
		if p.mem.Cure.Mode == thenEscaped && !counted(p) {
			return
		}
		again(p)
		return
	}
	p.m.node.rule(p.name, ha.Standby)
	p.tell(ha.Initialized, "its group runs elsewhere", func(e *ha.Event) {
		e.Why = because(ruleMoved, "its group moved: its recovery is told by the node that runs it now", "detail", detail)
	})
	p.mem.Cure = cure{}
	p.m.touchAll()
}

// reboot orders the reboot of the machine.
func reboot(p *proc, text string) {
	p.mem.Cure.Stage = rebooting
	p.mem.Hard.Rebooting = true
	p.handle("reboot", p.cfg.Handlers.Reboot, because(ruleReboot, text))
	if first := p.m.node.rebooter(p); first == nil {
		orderReboot(p, text)
	}
}

func orderReboot(p *proc, text string) {
	p.m.touch(p)
	p.m.do(ha.Reboot{Process: p.name, Why: because(ruleReboot, text, "severity", p.cfg.Severity, "mode", p.mem.Cure.Mode)})
}

// rebootFailed takes the news that the machine still runs.
func takeRebootFailed(m *Machine, in ha.RebootFailed) {
	for _, p := range m.list {
		if p.mem.Cure.Stage == rebooting {
			m.touch(p)
			p.mem.Hard.Rebooting = false
			unable(p, in.Detail, because(ruleReboot, "the reboot failed", "detail", in.Detail))
		}
	}
}

// unable says that the rung that ends in a reboot came to nothing.
func unable(p *proc, detail string, why ha.Reason) {
	code := ha.RebootFailure
	if p.mem.Cure.Mode == thenEscReboot {
		code = ha.EscalationFailure
	}
	p.emit(code, detail, why)
	giveUp(p, why)
}
