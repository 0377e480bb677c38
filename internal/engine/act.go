package engine

import (
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/proc"
)

// act carries out one order. unwritten is why the decision is not on the disk
// although it had to be before acting, else nil: then nothing is done that cannot
// be taken back, and the core is told so.
func (l *loop) act(a ha.Action, unwritten error) {
	m := l.force.manifest
	switch a := a.(type) {
	case ha.Start:
		if p, ok := m.Process(a.Process); ok && p.Attach.Set() {
			l.programs.seek(a.Start, p)
			l.s.Edges.Launch(a, p)
			return
		}
		l.programs.start(a)
	case ha.Arm:
		l.programs.order(proc.Order{Kind: proc.OrderArm, Process: a.Process, Start: a.Start, Next: a.Next})
	case ha.Stop:
		l.programs.stop(a)
	case ha.Extend:
		l.programs.order(proc.Order{Kind: proc.OrderStop, Process: a.Process, Start: a.Start, At: a.Until})
	case ha.Watch:
		p, _ := m.Process(a.Process)
		l.s.Edges.Watch(a, p.Watchdog)
	case ha.Await:
		if p, ok := m.Process(a.Process); ok {
			l.s.Edges.Await(a, p.Ready)
		}
	case ha.Judge:
		l.s.Edges.Judge(a)
	case ha.Seek:
		if p, ok := m.Process(a.Process); ok {
			l.programs.seek(a.Start, p)
			l.s.Edges.Seek(a, p)
		}
	case ha.Examine:
		l.s.Edges.Examine(a, l.programs.pid(a.Process, a.Start))
	case ha.Handle:
		if p, ok := m.Process(a.Process); ok {
			l.s.Edges.Handle(a, handler(p.Handlers, a.Rung), l.teller.last[a.Process])
		}
	case ha.Failover:
		if unwritten != nil {
			l.inform(ha.FailedOver{Process: a.Process, Group: a.Group, Outcome: ha.Refused, StillActive: true, Detail: unpaid(unwritten)})
			return
		}
		l.s.Edges.Failover(a)
	case ha.Entrust:
		l.programs.order(proc.Order{Kind: proc.OrderEntrust, Process: a.Process, Start: a.Start, Group: a.Group, Fence: a.Fence})
	case ha.StartPart:
		l.s.Edges.StartPart(a)
	case ha.StopPart:
		l.s.Edges.StopPart(a)
	case ha.Account:
		l.s.Edges.Account(a.Holds)
	case ha.Reboot:
		if unwritten != nil {
			l.inform(ha.RebootFailed{Process: a.Process, Detail: unpaid(unwritten)})
			return
		}
		l.s.Edges.Reboot(a, m.Node.Reboot)
	case ha.Emit:
		l.tell(a.Event)
	case ha.Keep: // the journal has it
	case ha.Answer:
		l.draw() // who asks again at once sees what was answered
		l.requests.answer(a, unwritten)
	case ha.Done:
		if l.s.Stopped != nil {
			l.s.Stopped(a.Why)
		}
	}
}

// unpaid says why a step that costs of the node's budget is not taken: a node that
// forgets what it spent could reboot for ever.
func unpaid(unwritten error) string {
	return "not done: the node's budget cannot be written to the journal: " + unwritten.Error()
}

// handler returns the handler of a rung; one without a command is none.
func handler(h manifest.Handlers, rung string) manifest.Handler {
	switch rung {
	case "failover":
		return h.Failover
	case "reboot":
		return h.Reboot
	case "give-up":
		return h.GiveUp
	case "recovered":
		return h.Recovered
	}
	return h.Restart
}
