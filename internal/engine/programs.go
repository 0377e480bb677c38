package engine

import (
	"log/slog"
	"maps"
	"slices"

	"gemel/internal/ha"
	"gemel/internal/journal"
	"gemel/internal/manifest"
	"gemel/internal/proc"
)

// programs are what is known outside of the core of the programs that run.
type programs struct {
	edges Edges
	log   *slog.Logger

	specs   map[ha.Process]*proc.Spec
	live    map[ha.Process]running      // from the order of the start to the end
	foreign map[ha.Process]attached     // programs that are attached to
	adopted map[ha.Process]adoption     // programs that ran before this monitor
	ends    map[ha.Process][]ha.StartID // the latest starts of each process whose ends are recorded
	unsaid  []proc.Order                // acknowledgements of ends that are not in the journal yet
}

// running is the start of a process that runs, or is about to.
type running struct {
	start ha.StartID
	pid   int // 0: its start was ordered and not told yet
}

// adoption is when this monitor took over a start that ran already.
type adoption struct {
	start ha.StartID
	at    ha.Instant
}

// attached is a program that Gemel found, as the manifest described it then.
type attached struct {
	start   ha.StartID
	process manifest.Process
}

func newPrograms(s Setup, specs map[ha.Process]*proc.Spec) programs {
	p := programs{
		edges: s.Edges, log: s.Log, specs: specs,
		live:    make(map[ha.Process]running),
		foreign: make(map[ha.Process]attached),
		adopted: make(map[ha.Process]adoption),
		ends:    make(map[ha.Process][]ha.StartID),
	}
	maps.Copy(p.ends, s.Past.Exits)
	return p
}

// order sends an order to the shadow. While there is none the link keeps it.
func (p *programs) order(o proc.Order) {
	if err := p.edges.Shadow.Send(o); err != nil {
		p.log.Error("the shadow did not take an order", "order", o.Kind, "process", o.Process, "error", err)
	}
}

// open makes the names of a process in the file system.
func (p *programs) open(cfg manifest.Process) {
	var spec proc.Spec
	if s := p.specs[cfg.Name]; s != nil {
		spec = *s
	}
	if err := p.edges.Open(cfg, spec); err != nil {
		p.log.Error("a process has no names in the file system", "process", cfg.Name, "error", err)
	}
}

// teach sends a spec to the shadow; a process that is only watched has none.
func (p *programs) teach(name ha.Process) {
	if spec := p.specs[name]; spec != nil && spec.Path != "" {
		p.order(proc.Order{Kind: proc.OrderSpec, Process: name, Spec: spec})
	}
}

// seek notes that a start of cfg is a program that is looked for, or started by
// others and then looked for.
func (p *programs) seek(start ha.StartID, cfg manifest.Process) {
	p.foreign[cfg.Name] = attached{start, cfg}
}

// start has the shadow start a program.
func (p *programs) start(a ha.Start) {
	p.live[a.Process] = running{start: a.Start}
	p.order(proc.Order{Kind: proc.OrderStart, Process: a.Process, Start: a.Start})
}

// stop has a program stopped by whoever holds it.
func (p *programs) stop(a ha.Stop) {
	if f, ok := p.foreign[a.Process]; ok && f.start == a.Start {
		p.edges.Halt(a, f.process)
		return
	}
	p.order(proc.Order{Kind: proc.OrderStop, Process: a.Process, Start: a.Start, Kill: a.Kill})
}

// known reports whether the end of a start is recorded. A monitor that died after
// it wrote an end down and before the shadow heard so leaves one that is told
// again.
func (p *programs) known(name ha.Process, start ha.StartID) bool {
	return slices.Contains(p.ends[name], start)
}

// follow does with a fact what belongs to it outside of the core: the end of a
// program is acknowledged once the journal has it (from then on the kernel may
// forget it), and the edges learn which start runs.
func (p *programs) follow(in ha.Input, now ha.Instant, written bool) {
	switch in := in.(type) {
	case ha.Started:
		p.runs(in.Process, in.Start, in.PID)
	case ha.StartFailed:
		if p.live[in.Process].start == in.Start {
			delete(p.live, in.Process)
		}
	case ha.Adopted:
		if in.Foreign && p.foreign[in.Process].start != in.Start {
			return // it was let go meanwhile
		}
		p.adopted[in.Process] = adoption{in.Start, now}
		p.runs(in.Process, in.Start, in.PID)
	case ha.Exited:
		p.ends[in.Process] = journal.Recent(p.ends[in.Process], in.Start)
		if f, ok := p.foreign[in.Process]; ok && f.start == in.Start {
			delete(p.foreign, in.Process)
		} else {
			p.unsaid = append(p.unsaid, proc.Order{Kind: proc.OrderAck, Process: in.Process, Start: in.Start})
		}
		p.edges.Gone(in.Process, in.Start)
		if p.live[in.Process].start == in.Start {
			delete(p.live, in.Process)
		}
		if in.Successor != 0 {
			p.runs(in.Process, in.Successor, in.PID)
		}
		if written {
			p.acknowledge()
		}
	}
}

// acknowledge tells the shadow of every end that the journal has.
func (p *programs) acknowledge() {
	for _, o := range p.unsaid {
		p.order(o)
	}
	p.unsaid = nil
}

func (p *programs) runs(name ha.Process, start ha.StartID, pid int) {
	p.live[name] = running{start, pid}
	p.edges.Runs(name, start, pid)
}

func (p *programs) pid(name ha.Process, start ha.StartID) int {
	if r := p.live[name]; r.start == start {
		return r.pid
	}
	return 0
}

// forget gives back what belongs to a process that is not in the manifest any
// more and does not run any more. A program that was found is let go: it runs on.
func (p *programs) forget(name ha.Process) {
	delete(p.specs, name)
	delete(p.foreign, name)
	delete(p.adopted, name)
	delete(p.live, name)
	delete(p.ends, name)
	p.order(proc.Order{Kind: proc.OrderForget, Process: name})
	p.edges.Close(name)
}
