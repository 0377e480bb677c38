package ladder

import (
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// A window remembers the restarts of one process: those that still count, and
// how many came in a row, for the pause before the next one.
type window struct {
	Stamps []ha.Instant `json:"stamps,omitempty"` // ascending; those older than the window are dropped when it is used
	Row    int          `json:"row,omitempty"`    // restarts since the last quiet window; only true while a stamp counts
}

// count returns how many restarts lie within the window that ends at now.
func (w *window) count(now ha.Instant, r manifest.Restarts) int {
	n := 0
	for _, t := range w.Stamps {
		if now.Sub(t) < r.Within {
			n++
		}
	}
	return n
}

// full reports whether a further restart would exceed the limit.
func (w *window) full(now ha.Instant, r manifest.Restarts) bool {
	return w.count(now, r) >= r.Limit
}

// delay is the pause before the next restart: none for the first in a row, then
// the manifest's, doubling up to its greatest.
func (w *window) delay(now ha.Instant, r manifest.Restarts) time.Duration {
	if r.Delay <= 0 || w.count(now, r) == 0 {
		return 0
	}
	d := r.Delay
	for range w.Row - 1 {
		if d >= r.DelayMax {
			break
		}
		d *= 2
	}
	return min(d, max(r.DelayMax, r.Delay))
}

// add counts a restart at now.
func (w *window) add(now ha.Instant, r manifest.Restarts) {
	kept := make([]ha.Instant, 0, len(w.Stamps)+1)
	for _, t := range w.Stamps {
		if now.Sub(t) < r.Within {
			kept = append(kept, t)
		}
	}
	if len(kept) == 0 {
		w.Row = 0
	}
	w.Stamps = append(kept, now)
	w.Row++
}

// easier returns the next instant at which the answer of full or of delay can
// become better by time alone.
func (w *window) easier(now ha.Instant, r manifest.Restarts) (ha.Instant, bool) {
	full := w.full(now, r)
	for i, t := range w.Stamps {
		if now.Sub(t) >= r.Within {
			continue
		}
		if full || i == len(w.Stamps)-1 {
			return t.Add(r.Within), true
		}
	}
	return 0, false
}
