package daemon

import (
	"context"
	"sync"
	"time"

	"gemel/internal/check"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/proc"
)

// waits are the loops that belong to one start of a process: the one that looks
// for its readiness and the one that runs its watchdog command. They end with the
// start.
type waits struct {
	mu   sync.Mutex
	runs map[wait]*waiting
	wg   sync.WaitGroup
	shut bool
}

// The kinds of loop.
const (
	forReady = "ready"
	forBeats = "watchdog"
)

// wait names a loop: of each kind a process has one at most.
type wait struct {
	process ha.Process
	kind    string
}

type waiting struct {
	start  ha.StartID
	cancel context.CancelFunc
}

func newWaits() *waits { return &waits{runs: make(map[wait]*waiting)} }

// begin runs f until the start ends or f returns. It takes the place of a loop of
// the same kind.
func (w *waits) begin(ctx context.Context, what wait, start ha.StartID, f func(context.Context)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.shut {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	me := &waiting{start, cancel}
	if old := w.runs[what]; old != nil {
		old.cancel()
	}
	w.runs[what] = me
	w.wg.Go(func() {
		defer cancel()
		f(ctx)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.runs[what] == me {
			delete(w.runs, what)
		}
	})
}

// end ends the loops of a start, of the kinds given.
func (w *waits) end(p ha.Process, start ha.StartID, kinds ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, kind := range kinds {
		what := wait{p, kind}
		if r := w.runs[what]; r != nil && r.start == start {
			r.cancel()
			delete(w.runs, what)
		}
	}
}

func (w *waits) close() {
	w.mu.Lock()
	w.shut = true
	for _, r := range w.runs {
		r.cancel()
	}
	w.mu.Unlock()
	w.wg.Wait()
}

// await looks for the readiness of a start. READY=1 comes by the beats and needs
// no look.
func (h *hands) await(a ha.Await, r manifest.Ready) {
	if r.Kind == manifest.ReadyNotify || r.Kind == manifest.ReadyStarted {
		return
	}
	h.waits.begin(h.group.ctx, wait{a.Process, forReady}, a.Start, func(ctx context.Context) {
		if err := check.Await(ctx, r, h.checks); err != nil {
			return // the start ended; a time-out is the core's
		}
		h.engine.Tell(ha.Ready{Process: a.Process, Start: a.Start, How: string(r.Kind)})
	})
}

// watch hands an order to the beats, and runs the watchdog command where the
// manifest has one: an end with exit 0 is a beat.
func (h *hands) watch(a ha.Watch, w manifest.Watchdog) {
	h.beats.Watch(a)
	if w.By != "command" || a.Within == 0 {
		h.waits.end(a.Process, a.Start, forBeats)
		return
	}
	h.waits.begin(h.group.ctx, wait{a.Process, forBeats}, a.Start, func(ctx context.Context) {
		t := time.NewTicker(w.Interval)
		defer t.Stop()
		for {
			e, err := proc.Run(ctx, proc.Command{Args: w.Command, Env: h.surroundings(), Timeout: w.Interval})
			if err == nil && e.Code == 0 && ctx.Err() == nil {
				h.beats.Pulse(a.Process)
			}
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
		}
	})
}
