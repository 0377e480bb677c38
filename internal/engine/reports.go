package engine

import (
	"gemel/internal/ha"
	"gemel/internal/proc"
)

// report turns what the shadow tells into facts.
func (l *loop) report(r proc.Report) {
	if l.s.Edges.Made(r) {
		return
	}
	switch r.Kind {
	case proc.ReportKept:
		l.s.Edges.Kept(r.Name, r.FDs)
	case proc.ReportRunning:
		l.step(ha.Adopted{Process: r.Process, Start: r.Start, PID: r.PID, Age: r.At, Armed: r.Next, Of: r.Group})
	case proc.ReportSynced:
		l.synced()
	case proc.ReportStarted:
		l.step(ha.Started{Process: r.Process, Start: r.Start, PID: r.PID})
	case proc.ReportFailed:
		l.step(ha.StartFailed{Process: r.Process, Start: r.Start, Error: r.Error, Unentitled: r.Unentitled})
	case proc.ReportEntrusted:
		l.step(ha.Entrusted{Process: r.Process, Start: r.Start, Group: r.Group, Fence: r.Fence, Error: r.Error, Unentitled: r.Unentitled})
	case proc.ReportLapsed:
		l.step(ha.Lapsed{Group: r.Group, Fence: r.Fence})
		l.s.Edges.Lapsed()
	case proc.ReportExited:
		if l.programs.known(r.Process, r.Start) {
			l.programs.order(proc.Order{Kind: proc.OrderAck, Process: r.Process, Start: r.Start})
			return
		}
		l.step(ha.Exited{Process: r.Process, Start: r.Start, Status: r.Status, Successor: r.Next, PID: r.PID})
	case proc.ReportStuck:
		l.step(ha.StopFailed{Process: r.Process, Start: r.Start, Detail: r.Error})
	case proc.ReportQuit:
		l.quit(r.Error)
	case proc.ReportReload:
		l.s.Edges.Reload()
	default:
		l.half(r)
		l.s.Edges.Half(r)
	}
}

// half takes what is told of the halves of Gemel themselves.
func (l *loop) half(r proc.Report) {
	node := &l.picture.node
	if r.Cgroup != "" {
		node.Cgroup, node.Notes = r.Cgroup, r.Notes
		l.picture.stale = true
	}
	switch r.Kind {
	case proc.ReportHello:
		node.Shadow = r.PID
		// The monitor that saw the one before die may have died before this one came.
		l.step(ha.HalfBack{Half: ha.KindShadow, PID: r.PID})
	case proc.ReportMonitor:
		l.step(ha.HalfDied{Half: ha.KindMonitor, Status: r.Status, Hung: r.Hung})
		l.step(ha.HalfBack{Half: ha.KindMonitor, PID: node.Monitor})
	case proc.ReportShadowDied:
		node.Shadow = 0
		l.step(ha.HalfDied{Half: ha.KindShadow, Status: r.Status, Hung: r.Hung})
	case proc.ReportShadowBack:
		node.Shadow = r.PID
		l.step(ha.HalfBack{Half: ha.KindShadow, PID: r.PID})
	case proc.ReportUpgraded:
		text := "the shadow goes on as before: " + r.Error
		if r.Error == "" {
			node.Shadow = r.PID
			text = "the shadow is version " + r.Version
		}
		l.emit(ha.Upgraded, ha.Subject{Kind: ha.KindShadow}, text)
	}
}

// synced closes the adoption: the shadow has told everything that it holds.
func (l *loop) synced() {
	for _, p := range l.force.manifest.Processes {
		if !p.For(l.s.Booted.Node) {
			continue
		}
		// What is watched gets its names in the file system only now: a notify socket
		// that the shadow kept is here before a new one could take its place.
		if !l.settled {
			l.programs.open(p)
		}
		l.programs.teach(p.Name)
	}
	if !l.settled {
		l.settled = true
		l.step(ha.Settled{})
		l.s.Edges.Synced()
	}
}

// quit ends everything. What the cluster gave this node is given back first, so that
// it runs elsewhere before the rest is stopped; who asks a second time is not kept
// waiting.
func (l *loop) quit(why string) {
	if l.parting {
		l.step(ha.Quit{Why: why})
		return
	}
	l.parting = true
	l.s.Edges.Depart(func() { l.inform(ha.Quit{Why: why}) })
}
