package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
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

	Node    status.NodeStatus // the fields that do not change: Name, Version, Monitor
	Booted  ha.Booted
	Stopped func(reason ha.Reason) // called once when every program has stopped after a Quit
}

// An Engine is the loop. Its methods may be called from any goroutine.
type Engine struct {
	s     Setup
	inbox *inbox
	alarm clock.Alarm

	// The rest belongs to Run's goroutine.
	machine  *ladder.Machine
	manifest *manifest.Manifest
	source   force
	specs    map[ha.Process]proc.Spec
	alarms   alarms
	event    uint64 // id of the last event
	waiting  map[string]chan ha.Answer
	settled  bool
	diskBad  bool
	picture  picture
	exits    map[ha.Process][]ha.StartID     // the latest starts of each process whose ends are recorded
	last     map[ha.Process]ha.Event         // last event of each process, for its handlers
	foreign  map[ha.Process]manifest.Process // programs that are attached to, until they are gone

	mu      sync.Mutex // guards what follows
	current force      // a copy of source for readers
}

// force is the manifest in force as it was given.
type force struct {
	name    string
	bytes   []byte
	version uint64
}

// New makes an Engine; nothing runs before Run.
func New(s Setup) (*Engine, error) {
	specs, err := Resolve(s.Manifest, s.Resolve)
	if err != nil {
		return nil, err
	}
	f := force{s.Source, s.Bytes, s.Version}
	e := &Engine{
		s:        s,
		inbox:    newInbox(),
		machine:  ladder.New(s.Manifest, s.Past.Kept, s.Past.NextStart),
		manifest: s.Manifest,
		source:   f,
		current:  f,
		specs:    specs,
		alarms:   newAlarms(s.Past.Alarms),
		event:    max(s.Past.NextEvent, 1) - 1,
		waiting:  make(map[string]chan ha.Answer),
		picture:  newPicture(s.Node),
		exits:    make(map[ha.Process][]ha.StartID),
		last:     make(map[ha.Process]ha.Event),
		foreign:  make(map[ha.Process]manifest.Process),
	}
	maps.Copy(e.exits, s.Past.Exits)
	return e, nil
}

// Tell puts a fact into the inbox. It never waits.
func (e *Engine) Tell(in ha.Input) { e.inbox.put(item{in: in}) }

// Run decides until ctx ends. It returns when everything that it started has
// returned.
func (e *Engine) Run(ctx context.Context) error {
	alarm, err := e.s.Clock.Alarm()
	if err != nil {
		return fmt.Errorf("starting the engine: %w", err)
	}
	e.alarm = alarm
	defer alarm.Stop()
	e.open()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-alarm.C():
			if at, ok := e.machine.Wake(); ok && at <= e.s.Clock.Now() {
				e.step(ha.Tick{})
			}
		case <-e.inbox.wake:
			e.drain()
		case r, ok := <-e.s.Edges.Shadow.Reports():
			if !ok {
				return errors.New("the link to the shadow ended")
			}
			e.report(r)
		}
		if at, ok := e.machine.Wake(); ok {
			alarm.Set(at)
		}
		e.publish(false)
	}
}

// open begins a life: the machine hears that it lives.
func (e *Engine) open() {
	for _, c := range e.manifest.Checks {
		e.s.Edges.Check(c)
	}
	e.step(e.s.Booted)
	for _, r := range e.s.Past.Repairs {
		e.emit(ha.JournalRepaired, ha.OfNode(), r)
	}
	e.emit(ha.MonitorStarted, ha.OfNode(), "version "+e.s.Booted.Version)
	e.publish(true)
}

// drain takes everything that is in the inbox. A burst of exits is worked off
// before the picture is drawn again, except that a reader sees progress.
func (e *Engine) drain() {
	drawn := time.Duration(e.s.Clock.Now())
	for {
		items := e.inbox.take()
		if len(items) == 0 {
			return
		}
		for _, it := range items {
			in := it.in
			if it.do != nil {
				in = it.do()
			}
			if in != nil {
				e.step(in)
			}
			if now := time.Duration(e.s.Clock.Now()); now-drawn > 100*time.Millisecond {
				drawn = now
				e.publish(false)
			}
		}
	}
}

// step is the heart: decide, write down, act.
func (e *Engine) step(in ha.Input) {
	now := e.s.Clock.Now()
	wall := time.Now()
	actions := e.machine.Step(now, in)
	sync := false
	for i, a := range actions {
		switch a := a.(type) {
		case ha.Emit:
			a.Event = e.number(a.Event, now, wall)
			actions[i] = a
		case ha.Keep:
			sync = sync || a.Sync
		}
	}
	err := e.write(journal.Step{At: now, Wall: wall, Input: in, Actions: actions, Sync: sync})
	e.acted(in)
	for _, a := range actions {
		e.act(a, err != nil && sync)
	}
	e.picture.stale = true
}

// number completes an event with what only the edge knows.
func (e *Engine) number(ev ha.Event, now ha.Instant, wall time.Time) ha.Event {
	e.event++
	ev.ID, ev.At, ev.Wall = e.event, now, wall
	return ev
}

// write appends a step. A journal that cannot be written never stops the
// supervision: it is an alarm, and the journal itself notes the gap later.
func (e *Engine) write(s journal.Step) error {
	err := e.s.Journal.Step(s)
	switch {
	case err != nil && !e.diskBad:
		e.diskBad = true
		e.s.Log.Error("journal cannot be written", "error", err)
		e.tell(e.own(ha.DiskTrouble, ha.OfNode(), ha.Assert, ha.Major, err.Error()))
	case err == nil && e.diskBad:
		e.diskBad = false
		e.tell(e.own(ha.DiskTrouble, ha.OfNode(), ha.Clear, ha.OK, "the journal is written again"))
	}
	return err
}

// own makes an event of the engine's own, outside of a decision of the machine.
func (e *Engine) own(code ha.Code, about ha.Subject, change ha.Change, sev ha.Severity, detail string) ha.Event {
	ev := ha.Event{
		Code: code, Subject: about, Change: change, Severity: sev,
		Text: code.String(), Detail: detail,
		Why: ha.Reason{Rule: "engine", Text: detail},
	}
	return e.number(ev, e.s.Clock.Now(), time.Now())
}

// emit tells an info event of the engine's own and writes it down.
func (e *Engine) emit(code ha.Code, about ha.Subject, detail string) {
	ev := e.own(code, about, ha.Info, ha.OK, detail)
	_ = e.write(journal.Step{At: ev.At, Wall: ev.Wall, Input: ha.Tick{}, Actions: []ha.Action{ha.Emit{Event: ev}}})
	e.tell(ev)
}

// Note tells an info event that an edge asks for: output that was dropped, a
// handler that failed. It never waits.
func (e *Engine) Note(code ha.Code, about ha.Subject, detail string) {
	e.inbox.put(item{do: func() ha.Input { e.emit(code, about, detail); return nil }})
}

// tell passes an event to everybody who listens.
func (e *Engine) tell(ev ha.Event) {
	e.alarms.take(ev)
	if ev.Subject.Kind == ha.KindProcess {
		e.last[ha.Process(ev.Subject.Name)] = ev
	}
	e.s.Feed.Tell(ev)
	e.s.Edges.Notify(ev, e.manifest.Node.Handler)
}
