package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"gemel/internal/clock"
	"gemel/internal/config"
	"gemel/internal/ha"
	"gemel/internal/journal"
	"gemel/internal/manifest"
	"gemel/internal/proc"
	"gemel/internal/status"
)

// rig is an engine in a bubble with edges that only note what they are told.
type rig struct {
	t       *testing.T
	e       *Engine
	board   status.Board
	feed    *status.Feed
	reports chan proc.Report
	ended   chan error
	cancel  context.CancelFunc

	mu    sync.Mutex
	said  []string // what happened outside, in order
	disk  error    // why the journal cannot be written
	steps []journal.Step
	told  []ha.Event
	bound int64
}

func (r *rig) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

// Send is the shadow's ear.
func (r *rig) Send(o proc.Order, _ ...int) error {
	at := ""
	if o.At != 0 {
		at = fmt.Sprintf(" at %v", o.At)
	}
	r.note("order %s %s %d %d%s", o.Kind, o.Process, o.Start, o.Next, at)
	return nil
}

// Reports is the shadow's mouth.
func (r *rig) Reports() <-chan proc.Report { return r.reports }

// Step is the journal.
func (r *rig) Step(s journal.Step) error {
	names := []string{"-"}
	if s.Input != nil {
		names[0] = s.Input.Name()
	}
	for _, a := range s.Actions {
		name := a.Name()
		if e, ok := a.(ha.Emit); ok {
			name = fmt.Sprintf("emit:%d", e.Event.Code)
		}
		names = append(names, name)
	}
	r.mu.Lock()
	err := r.disk
	r.steps = append(r.steps, s)
	r.mu.Unlock()
	if err != nil {
		names = append(names, "FAILED")
	}
	r.note("journal %s", strings.Join(names, " "))
	return err
}

// Manifest is the journal's.
func (r *rig) Manifest(version uint64, name string, _ []byte) error {
	r.note("manifest %d %s", version, name)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.disk
}

// Bound is the journal's.
func (r *rig) Bound(limit int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bound = limit
}

func (r *rig) setDisk(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.disk = err
}

// since returns what happened since the last call, and forgets it.
func (r *rig) since() []string {
	r.t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	said := r.said
	r.said = nil
	return said
}

func (r *rig) events(code ha.Code) (found []ha.Event) {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.told {
		if e.Code == code {
			found = append(found, e)
		}
	}
	return found
}

func (r *rig) picture() *status.Snapshot {
	r.t.Helper()
	if err := r.e.Look(context.Background(), Sight{}); err != nil {
		r.t.Fatal(err)
	}
	s, _ := r.board.Last()
	return s
}

func (r *rig) process(name ha.Process) status.ProcessStatus {
	r.t.Helper()
	for _, p := range r.picture().Processes {
		if p.Name == name {
			return p
		}
	}
	r.t.Fatalf("there is no process %s in the picture", name)
	return status.ProcessStatus{}
}

// edges returns edges that note each call.
func (r *rig) edges() Edges {
	return Edges{
		Shadow:  r,
		Open:    func(p manifest.Process, _ proc.Spec) error { r.note("open %s", p.Name); return nil },
		Close:   func(p ha.Process) { r.note("close %s", p) },
		Check:   func(c manifest.Check) { r.note("check %s", c.Name) },
		Uncheck: func(c ha.Check) { r.note("uncheck %s", c) },
		Watch:   func(a ha.Watch, w manifest.Watchdog) { r.note("watch %s %d %v %s", a.Process, a.Start, a.Within, w.By) },
		Await:   func(a ha.Await, w manifest.Ready) { r.note("await %s %d %s", a.Process, a.Start, w.Kind) },
		Judge:   func(a ha.Judge) { r.note("judge %s %t", a.Check, a.On) },
		Seek:    func(a ha.Seek, p manifest.Process) { r.note("seek %s %d", a.Process, a.Start) },
		Halt:    func(a ha.Stop, p manifest.Process) { r.note("halt %s %d", a.Process, a.Start) },
		Examine: func(a ha.Examine, pid int) { r.note("examine %s %d pid %d", a.Process, a.Start, pid) },
		Handle: func(a ha.Handle, h manifest.Handler, ev ha.Event) {
			r.note("handle %s %s %v after %d", a.Process, a.Rung, h.Command, ev.Code)
		},
		Launch:   func(a ha.Start, p manifest.Process) { r.note("launch %s %d", a.Process, a.Start) },
		Failover: func(a ha.Failover) { r.note("failover %s", a.Process) },
		Reboot:   func(a ha.Reboot, command []string) { r.note("reboot %s %v", a.Process, command) },
		Notify: func(ev ha.Event, _ manifest.Handler) {
			r.note("event %d %s", ev.Code, ev.Change)
			r.mu.Lock()
			r.told = append(r.told, ev)
			r.mu.Unlock()
		},
		Admit:  func(manifest.Access) { r.note("admit") },
		Runs:   func(p ha.Process, s ha.StartID, pid int) { r.note("runs %s %d pid %d", p, s, pid) },
		Gone:   func(p ha.Process, s ha.StartID) { r.note("gone %s %d", p, s) },
		Synced: func() { r.note("synced") },
		Reload: func() { r.note("reload") },
	}
}

// change lets a test alter the set-up of an engine.
type change func(*Setup)

// newRig makes an engine that runs a manifest. Nothing was told by a shadow yet.
func newRig(t *testing.T, text string, changes ...change) *rig {
	t.Helper()
	m, err := config.Parse("gemel.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, feed: status.NewFeed(0), reports: make(chan proc.Report), ended: make(chan error, 1)}
	s := Setup{
		Clock: clock.Bubble(), Log: slog.New(slog.DiscardHandler), Journal: r, Edges: r.edges(), Board: &r.board, Feed: r.feed,
		Manifest: m, Source: "gemel.yaml", Bytes: []byte(text), Version: 1,
		Resolve: func(p manifest.Process) (proc.Spec, error) {
			if p.User == "nobody-here" {
				return proc.Spec{}, fmt.Errorf("process %s: no such user", p.Name)
			}
			if p.Attach.Set() {
				return proc.Spec{Process: p.Name}, nil
			}
			return proc.Spec{Process: p.Name, Path: p.Command[0], Args: p.Command}, nil
		},
		Node:    status.NodeStatus{Name: "here", Monitor: 10},
		Booted:  ha.Booted{Boot: "this", Version: "1", Node: "here"},
		Stopped: func(why ha.Reason) { r.note("stopped") },
		Past:    journal.Past{NextEvent: 1, NextStart: 1},
	}
	for _, c := range changes {
		c(&s)
	}
	if r.e, err = New(s); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() { r.ended <- r.e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-r.ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the engine ended: %v", err)
		}
	})
	return r
}

// settle lets a shadow that holds nothing say hello.
func (r *rig) settle() {
	r.reports <- proc.Report{Kind: proc.ReportHello, PID: 11, Cgroup: "v2", Notes: []string{"a note"}}
	r.reports <- proc.Report{Kind: proc.ReportSynced}
	synctest.Wait()
}

// want fails unless lines that begin so occur in said in this order.
func want(t *testing.T, said []string, lines ...string) {
	t.Helper()
	i := 0
	for _, l := range lines {
		j := slices.IndexFunc(said[i:], func(s string) bool { return strings.HasPrefix(s, l) })
		if j < 0 {
			t.Fatalf("%q is missing, or too early, in\n%s", l, strings.Join(said, "\n"))
		}
		i += j + 1
	}
}

// never fails if a line begins so.
func never(t *testing.T, said []string, prefix string) {
	t.Helper()
	for _, l := range said {
		if strings.HasPrefix(l, prefix) {
			t.Fatalf("%q must not be in\n%s", l, strings.Join(said, "\n"))
		}
	}
}
