package engine

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"gemel/internal/clock"
	"gemel/internal/decide/ladder"
	"gemel/internal/ha"
	"gemel/internal/journal"
	"gemel/internal/manifest"
	"gemel/internal/proc"
	"gemel/internal/status"
)

// Journal is where each step is written before it is carried out.
type Journal interface {
	Step(journal.Step) error
	Manifest(version uint64, name string, b []byte) error
	// Bound sets how many bytes it may have; zero is the default.
	Bound(limit int64)
}

// Setup is what an Engine is made of. All fields are needed unless they say
// otherwise.
//
//budget:fields it is configuration
type Setup struct {
	Clock   clock.Clock
	Log     *slog.Logger
	Journal Journal
	Past    journal.Past // what the journal remembered at its opening
	Edges   Edges
	Board   *status.Board
	Feed    *status.Feed

	Manifest *manifest.Manifest // the one in force
	Source   string             // where it was read from
	Bytes    []byte             // what it was read from
	Version  uint64             // its number in the journal
	Resolve  func(manifest.Process) (proc.Spec, error)
	Parse    func(ctx context.Context, name string, b []byte) (*manifest.Manifest, error) // nil: config.Parse

	Node    status.NodeStatus // the fields that do not change: Name, Version, Monitor, Since
	Booted  ha.Booted
	Before  []ha.Event             // Code, Subject, Detail and Evidence of what is known of lives before, to be told
	Stopped func(reason ha.Reason) // called once when every program has stopped after a Quit; may be nil
}

// An Engine is the loop with its inbox. Its methods may be called from any
// goroutine.
type Engine struct {
	inbox *inbox[item]
	loop  *loop
	ended chan struct{} // closed when Run returns
}

// loop is what belongs to Run's goroutine.
type loop struct {
	s      Setup
	inform func(ha.Input) // puts a fact into the inbox

	machine  *ladder.Machine
	force    force
	programs programs
	teller   teller
	requests requests
	picture  picture
	settled  bool
	parting  bool // the end was asked for
}

// New makes an Engine; nothing runs before Run.
func New(s Setup) (*Engine, error) {
	specs, err := resolved(s.Manifest, s)
	if err != nil {
		return nil, err
	}
	e := &Engine{inbox: newInbox[item](), ended: make(chan struct{})}
	s.Edges = s.Edges.whole(e.Tell)
	e.loop = &loop{
		s: s, inform: e.Tell,
		machine:  ladder.New(s.Manifest, s.Past.Kept, s.Past.NextStart),
		force:    force{manifest: s.Manifest, name: s.Source, bytes: s.Bytes, version: s.Version, given: s.Version},
		programs: newPrograms(s, specs),
		teller:   newTeller(s),
		requests: requests{waiting: make(map[string]chan<- reply)},
		picture:  newPicture(s.Node),
	}
	return e, nil
}

// Tell puts a fact into the inbox. It never waits.
func (e *Engine) Tell(in ha.Input) { e.inbox.put(item{in: in}) }

// Quit has everything stopped, and what the cluster gave this node given back first.
// It never waits.
func (e *Engine) Quit(why string) {
	e.inbox.put(item{do: func() ha.Input { e.loop.quit(why); return nil }})
}

// Note tells an info event that an edge asks for: output that was dropped, a
// handler that failed. It never waits.
func (e *Engine) Note(code ha.Code, about ha.Subject, detail string) {
	e.inbox.put(item{do: func() ha.Input { e.loop.emit(code, about, detail); return nil }})
}

// Recall tells what became known of a life before: Code, Subject, Detail and
// Evidence of the event count. It never waits.
func (e *Engine) Recall(before ha.Event) {
	e.inbox.put(item{do: func() ha.Input { e.loop.recall(before); return nil }})
}

// Alarm tells an alarm that an edge asserts or clears: Code, Subject, Detail, Change and
// Severity of the event count. It never waits.
func (e *Engine) Alarm(a ha.Event) {
	e.inbox.put(item{do: func() ha.Input {
		l := e.loop
		ev := l.teller.own(a.Code, a.Subject, a.Detail)
		ev.Change, ev.Severity = a.Change, a.Severity
		l.wrote(l.witness(ev))
		return nil
	}})
}

// Trouble says that the journal found by itself that it cannot be written, or,
// with nil, that it can again. It never waits and never calls the journal.
func (e *Engine) Trouble(err error) {
	e.inbox.put(item{do: func() ha.Input { e.loop.wrote(err); return nil }})
}

// Run decides until ctx ends. It returns when everything that it started has
// returned. Run may be called once.
func (e *Engine) Run(ctx context.Context) error {
	defer close(e.ended)
	l := e.loop
	alarm, err := l.s.Clock.Alarm()
	if err != nil {
		return fmt.Errorf("starting the engine: %w", err)
	}
	defer alarm.Stop()
	later := time.NewTimer(0)
	later.Stop()
	defer later.Stop()
	l.open()
	var set ha.Instant // what the alarm is set to; zero: nothing that matters
	for {
		if at, ok := l.machine.Wake(); ok && at != set {
			alarm.Set(at)
			set = at
		}
		if wait := l.show(); wait > 0 {
			later.Reset(wait)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-alarm.C():
			set = 0
			if at, ok := l.machine.Wake(); ok && at <= l.s.Clock.Now() {
				l.step(ha.Tick{})
			}
		case <-e.inbox.wake:
			l.drain(e.inbox.take())
		case r, ok := <-l.s.Edges.Shadow.Reports():
			if !ok {
				return nil // the end of both halves was ordered: nobody is left to decide for
			}
			l.report(r)
		case <-later.C: // for show
		}
	}
}

// open begins a life: the machine hears that it lives.
func (l *loop) open() {
	for _, c := range l.force.manifest.Checks {
		l.s.Edges.Check(c)
	}
	l.s.Edges.Want(l.force.manifest)
	l.step(l.s.Booted)
	for _, r := range l.s.Past.Repairs {
		l.emit(ha.JournalRepaired, ha.OfNode(), r)
	}
	for _, before := range l.s.Before {
		l.recall(before)
	}
	l.emit(ha.MonitorStarted, ha.OfNode(), "version "+l.s.Booted.Version)
	l.draw()
}

// drain works off what was in the inbox. What comes meanwhile is for the next
// round, so that the shadow's reports get their turn.
func (l *loop) drain(items []item) {
	for _, it := range items {
		in := it.in
		if it.do != nil {
			in = it.do()
		}
		if in != nil {
			l.step(in)
		}
		l.show() // a long row of facts is seen while it is worked off
	}
}

// step is the heart: decide, write down, act.
func (l *loop) step(in ha.Input) {
	now, wall := l.s.Clock.Now(), time.Now()
	actions := l.machine.Step(now, in)
	sync := l.teller.complete(actions, now, wall)
	err := l.s.Journal.Step(journal.Step{At: now, Wall: wall, Input: in, Actions: actions, Sync: sync})
	l.programs.follow(in, now, err == nil)
	unwritten := err
	if !sync {
		unwritten = nil
	}
	for _, a := range actions {
		l.act(a, unwritten)
	}
	l.wrote(err)
	switch in := in.(type) {
	case ha.Exited:
		l.retire(in.Process)
	case ha.StartFailed:
		l.retire(in.Process)
	}
	l.picture.stale = true
}

// ours returns a process of m if it is for this node. What is not has no specs, no
// names in the file system, and nothing that the shadow knows: it need not be
// possible to start it here.
func (l *loop) ours(m *manifest.Manifest, name ha.Process) (manifest.Process, bool) {
	p, ok := m.Process(name)
	return p, ok && p.For(l.s.Booted.Node)
}

// retire forgets a process that ended and is not to run here any more.
func (l *loop) retire(p ha.Process) {
	if _, wanted := l.ours(l.force.manifest, p); wanted {
		return
	}
	if _, runs := l.programs.live[p]; !runs {
		l.programs.forget(p)
	}
}

// wrote follows each writing of the journal. One that cannot be written never
// stops the supervision: it is an alarm, and what it should have written is kept
// in memory and written as soon as it can be.
func (l *loop) wrote(err error) {
	if err == nil {
		l.programs.acknowledge()
	}
	if ev, changed := l.teller.trouble(err); changed {
		l.witness(ev)
	}
}

// emit tells an info event of the engine's own.
func (l *loop) emit(code ha.Code, about ha.Subject, detail string) {
	l.wrote(l.witness(l.teller.own(code, about, detail)))
}

func (l *loop) recall(before ha.Event) {
	ev := l.teller.own(before.Code, before.Subject, before.Detail)
	ev.Evidence = before.Evidence
	l.wrote(l.witness(ev))
}

// witness writes an event of the engine's own down and tells it. Its record has
// no input: the core knows nothing of it.
func (l *loop) witness(ev ha.Event) error {
	err := l.s.Journal.Step(journal.Step{At: ev.At, Wall: ev.Wall, Actions: []ha.Action{ha.Emit{Event: ev}}})
	l.tell(ev)
	return err
}

// tell passes an event, which is written, to everybody who listens.
func (l *loop) tell(ev ha.Event) {
	l.teller.tell(ev)
	l.s.Edges.Notify(ev, l.force.manifest.Node.Handler)
	l.picture.stale = true
}
