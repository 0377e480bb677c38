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
	ends map[ha.Process][]context.CancelFunc
	wg   sync.WaitGroup
	shut bool
}

func newWaits() *waits { return &waits{ends: make(map[ha.Process][]context.CancelFunc)} }

// begin runs f until the process's start ends or f returns.
func (w *waits) begin(ctx context.Context, p ha.Process, f func(context.Context)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.shut {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	w.ends[p] = append(w.ends[p], cancel)
	w.wg.Go(func() {
		defer cancel()
		f(ctx)
	})
}

// end ends what runs for a process.
func (w *waits) end(p ha.Process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, cancel := range w.ends[p] {
		cancel()
	}
	delete(w.ends, p)
}

func (w *waits) close() {
	w.mu.Lock()
	w.shut = true
	for _, ends := range w.ends {
		for _, cancel := range ends {
			cancel()
		}
	}
	w.ends = make(map[ha.Process][]context.CancelFunc)
	w.mu.Unlock()
	w.wg.Wait()
}

// await looks for the readiness of a start. READY=1 comes by the beats and needs
// no look.
func (h *hands) await(a ha.Await, r manifest.Ready) {
	if r.Kind == manifest.ReadyNotify || r.Kind == manifest.ReadyStarted {
		return
	}
	h.waits.begin(h.group.ctx, a.Process, func(ctx context.Context) {
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
		return
	}
	h.waits.begin(h.group.ctx, a.Process, func(ctx context.Context) {
		t := time.NewTicker(w.Interval)
		defer t.Stop()
		for {
			e, err := proc.Run(ctx, proc.Command{Args: w.Command, Timeout: w.Interval})
			if err == nil && e.Code == 0 {
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
