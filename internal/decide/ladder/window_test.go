package ladder

import (
	"testing"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// dice is a small generator: the tests of a pure package draw no other chance.
type dice uint64

func (d *dice) roll(n int) int {
	*d ^= *d << 13
	*d ^= *d >> 7
	*d ^= *d << 17
	return int(uint64(*d) % uint64(n))
}

// naive says the same as window, from the list of all restarts ever made.
type naive []ha.Instant

func (n naive) count(now ha.Instant, r manifest.Restarts) int {
	c := 0
	for _, t := range n {
		if t+ha.Instant(r.Within) > now {
			c++
		}
	}
	return c
}

// pause walks the whole history: each quiet window begins the row anew.
func (n naive) pause(now ha.Instant, r manifest.Restarts) time.Duration {
	row := 0
	for i, t := range n {
		if i > 0 && t-n[i-1] >= ha.Instant(r.Within) {
			row = 0
		}
		row++
	}
	if len(n) == 0 || now-n[len(n)-1] >= ha.Instant(r.Within) {
		row = 0
	}
	if row == 0 || r.Delay == 0 {
		return 0
	}
	d := float64(r.Delay)
	for i := 1; i < row; i++ {
		d = min(d*2, float64(max(r.Delay, r.DelayMax)))
	}
	return time.Duration(d)
}

func TestWindowAgainstNaive(t *testing.T) {
	for seed := 1; seed <= 2000; seed++ {
		d := dice(seed * 7919)
		r := manifest.Restarts{Limit: d.roll(6), Within: time.Duration(1+d.roll(60)) * time.Second,
			Delay: time.Duration(d.roll(3)) * 500 * time.Millisecond, DelayMax: time.Duration(d.roll(30)) * time.Second}
		var w window
		var n naive
		now := ha.Instant(d.roll(100)) * ha.Instant(time.Second)
		for range 60 {
			now = now.Add(time.Duration(d.roll(20000)) * time.Millisecond)
			if got, want := w.count(now, r), n.count(now, r); got != want {
				t.Fatalf("seed %d at %v: count %d, want %d", seed, now, got, want)
			}
			if got, want := w.delay(now, r), n.pause(now, r); got != want {
				t.Fatalf("seed %d at %v: delay %v, want %v (%v, %+v)", seed, now, got, want, n, r)
			}
			if at, ok := w.easier(now, r); ok {
				if at <= now {
					t.Fatalf("seed %d: easier %v is not after %v", seed, at, now)
				}
				if before := at - 1; w.full(before, r) != w.full(now, r) || (w.delay(before, r) == 0) != (w.delay(now, r) == 0) {
					t.Fatalf("seed %d: it became easier before %v", seed, at)
				}
			}
			if !w.full(now, r) && d.roll(3) > 0 {
				w.add(now, r)
				n = append(n, now)
				if len(w.Stamps) > r.Limit {
					t.Fatalf("seed %d: %d stamps of %d", seed, len(w.Stamps), r.Limit)
				}
			}
		}
	}
}
