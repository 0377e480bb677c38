package engine

import (
	"fmt"
	"slices"
	"sort"

	"gemel/internal/ha"
	"gemel/internal/journal"
	"gemel/internal/manifest"
	"gemel/internal/proc"
)

// report turns what the shadow tells into facts.
func (e *Engine) report(r proc.Report) {
	switch r.Kind {
	case proc.ReportHello:
		e.picture.node.Shadow = r.PID
		e.picture.node.Cgroup = r.Cgroup
		e.picture.notes = r.Notes
		e.picture.stale = true
	case proc.ReportKept:
		e.s.Edges.Kept(r.Name, r.FDs)
	case proc.ReportRunning:
		e.step(ha.Adopted{Process: r.Process, Start: r.Start, PID: r.PID, Age: r.At, Armed: r.Next})
	case proc.ReportSynced:
		e.synced()
	case proc.ReportStarted:
		e.step(ha.Started{Process: r.Process, Start: r.Start, PID: r.PID})
	case proc.ReportFailed:
		e.step(ha.StartFailed{Process: r.Process, Start: r.Start, Error: r.Error})
	case proc.ReportExited:
		e.exited(r)
	case proc.ReportStuck:
		e.step(ha.StopFailed{Process: r.Process, Start: r.Start, Detail: r.Error})
	case proc.ReportMonitor:
		e.step(ha.HalfDied{Half: ha.KindMonitor, Status: r.Status, Hung: r.Hung})
		e.step(ha.HalfBack{Half: ha.KindMonitor, PID: e.picture.node.Monitor})
	case proc.ReportShadowDied:
		e.picture.node.Shadow = 0
		e.step(ha.HalfDied{Half: ha.KindShadow, Status: r.Status, Hung: r.Hung})
	case proc.ReportShadowBack:
		e.picture.node.Shadow = r.PID
		e.step(ha.HalfBack{Half: ha.KindShadow, PID: r.PID})
	case proc.ReportUpgraded:
		if r.Error == "" {
			e.picture.node.Shadow = r.PID
			e.emit(ha.Upgraded, ha.Subject{Kind: ha.KindShadow}, "the shadow is version "+r.Version)
		} else {
			e.emit(ha.Upgraded, ha.Subject{Kind: ha.KindShadow}, "the shadow goes on as before: "+r.Error)
		}
	case proc.ReportQuit:
		e.step(ha.Quit{Why: r.Error})
	case proc.ReportReload:
		e.s.Edges.Reload()
	}
}

// exited takes the end of a program in, once. A monitor that died after it wrote
// the end down and before the shadow heard so leaves one that is told again.
func (e *Engine) exited(r proc.Report) {
	if slices.Contains(e.exits[r.Process], r.Start) {
		e.order(proc.Order{Kind: proc.OrderAck, Process: r.Process, Start: r.Start})
		return
	}
	e.step(ha.Exited{Process: r.Process, Start: r.Start, Status: r.Status, Successor: r.Next, PID: r.PID})
}

// synced closes the adoption: the shadow has told everything that it holds.
func (e *Engine) synced() {
	for _, p := range e.manifest.Processes {
		// What is watched gets its names in the file system only now: a notify socket
		// that the shadow kept is here before a new one could take its place.
		if !e.settled {
			if err := e.s.Edges.Open(p, e.specs[p.Name]); err != nil {
				e.s.Log.Error("a process has no names in the file system", "process", p.Name, "error", err)
			}
		}
		e.sendSpec(p.Name)
	}
	if !e.settled {
		e.settled = true
		e.step(ha.Settled{})
		e.s.Edges.Synced()
	}
}

func (e *Engine) sendSpec(p ha.Process) {
	spec := e.specs[p]
	if spec.Path == "" {
		return // it is only watched
	}
	e.order(proc.Order{Kind: proc.OrderSpec, Process: p, Spec: &spec})
}

// acted follows a fact, once it is written, with what belongs to it outside of
// the core: the exit is acknowledged (from here on the journal has it, and the
// kernel may forget it), and the edges learn which start runs.
func (e *Engine) acted(in ha.Input) {
	switch in := in.(type) {
	case ha.Started:
		e.runs(in.Process, in.Start, in.PID)
	case ha.Adopted:
		e.runs(in.Process, in.Start, in.PID)
	case ha.Exited:
		e.exits[in.Process] = journal.Recent(e.exits[in.Process], in.Start)
		if _, ok := e.foreign[in.Process]; !ok {
			e.order(proc.Order{Kind: proc.OrderAck, Process: in.Process, Start: in.Start})
		}
		e.s.Edges.Gone(in.Process, in.Start)
		if e.picture.running[in.Process].start == in.Start {
			delete(e.picture.running, in.Process)
			if _, wanted := e.manifest.Process(in.Process); !wanted {
				e.forget(in.Process)
			}
		}
		if in.Successor != 0 {
			e.runs(in.Process, in.Successor, in.PID)
		}
	}
}

// forget gives back what belongs to a process that is not in the manifest any
// more and does not run any more.
func (e *Engine) forget(p ha.Process) {
	delete(e.specs, p)
	delete(e.foreign, p)
	delete(e.last, p)
	e.order(proc.Order{Kind: proc.OrderForget, Process: p})
	e.s.Edges.Close(p)
}

func (e *Engine) runs(p ha.Process, s ha.StartID, pid int) {
	e.picture.running[p] = running{s, pid}
	e.s.Edges.Runs(p, s, pid)
}

func (e *Engine) pid(p ha.Process, s ha.StartID) int {
	if r := e.picture.running[p]; r.start == s {
		return r.pid
	}
	return 0
}

// Resolve makes a spec of every process, or tells everything that is wrong.
func Resolve(m *manifest.Manifest, resolve func(manifest.Process) (proc.Spec, error)) (map[ha.Process]proc.Spec, error) {
	specs := make(map[ha.Process]proc.Spec, len(m.Processes))
	var wrong []error
	for _, p := range m.Processes {
		s, err := resolve(p)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		specs[p.Name] = s
	}
	if len(wrong) > 0 {
		sort.Slice(wrong, func(i, j int) bool { return wrong[i].Error() < wrong[j].Error() })
		return nil, fmt.Errorf("%d of %d processes cannot be started as they are: %w", len(wrong), len(m.Processes), join(wrong))
	}
	return specs, nil
}
