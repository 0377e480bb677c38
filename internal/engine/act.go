package engine

import (
	"gemel/internal/ha"
	"gemel/internal/proc"
)

// act carries out one order. unwritten says that the decision could not be
// written although it had to be before acting: then nothing is done that cannot
// be taken back, and the core is told so.
func (e *Engine) act(a ha.Action, unwritten bool) {
	switch a := a.(type) {
	case ha.Start:
		e.start(a)
	case ha.Arm:
		e.order(proc.Order{Kind: proc.OrderArm, Process: a.Process, Start: a.Start, Next: a.Next})
	case ha.Stop:
		if p, ok := e.foreign[a.Process]; ok {
			e.s.Edges.Halt(a, p)
			return
		}
		e.order(proc.Order{Kind: proc.OrderStop, Process: a.Process, Start: a.Start, Kill: a.Kill})
	case ha.Watch:
		p, _ := e.manifest.Process(a.Process)
		e.s.Edges.Watch(a, p.Watchdog)
	case ha.Await:
		if p, ok := e.manifest.Process(a.Process); ok {
			e.s.Edges.Await(a, p.Ready)
		}
	case ha.Judge:
		e.s.Edges.Judge(a)
	case ha.Seek:
		if p, ok := e.manifest.Process(a.Process); ok {
			e.foreign[a.Process] = p
			e.s.Edges.Seek(a, p)
		}
	case ha.Examine:
		e.s.Edges.Examine(a, e.pid(a.Process, a.Start))
	case ha.Handle:
		e.handle(a)
	case ha.Failover:
		if unwritten {
			e.Tell(ha.FailedOver{Process: a.Process, Outcome: ha.Refused, StillActive: true,
				Detail: "the node's budget cannot be written to the journal"})
			return
		}
		e.s.Edges.Failover(a)
	case ha.Reboot:
		if unwritten {
			e.Tell(ha.RebootFailed{Process: a.Process, Detail: "the node's budget cannot be written to the journal"})
			return
		}
		e.s.Edges.Reboot(a, e.manifest.Node.Reboot)
	case ha.Emit:
		e.tell(a.Event)
	case ha.Keep: // the journal has it
	case ha.Answer:
		e.answer(a)
	case ha.Done:
		e.s.Stopped(a.Why)
	}
}

func (e *Engine) start(a ha.Start) {
	p, ok := e.manifest.Process(a.Process)
	if ok && p.Attach.Set() {
		e.foreign[a.Process] = p
		e.s.Edges.Launch(a, p)
		return
	}
	e.order(proc.Order{Kind: proc.OrderStart, Process: a.Process, Start: a.Start})
}

// order sends an order to the shadow. While there is none the link keeps it.
func (e *Engine) order(o proc.Order) {
	if err := e.s.Edges.Shadow.Send(o); err != nil {
		e.s.Log.Error("the shadow did not take an order", "order", o.Kind, "process", o.Process, "error", err)
	}
}

func (e *Engine) handle(a ha.Handle) {
	p, ok := e.manifest.Process(a.Process)
	if !ok {
		return
	}
	h := p.Handlers.Restart
	switch a.Rung {
	case "failover":
		h = p.Handlers.Failover
	case "reboot":
		h = p.Handlers.Reboot
	case "give-up":
		h = p.Handlers.GiveUp
	case "recovered":
		h = p.Handlers.Recovered
	}
	if len(h.Command) > 0 {
		e.s.Edges.Handle(a, h, e.last[a.Process])
	}
}
