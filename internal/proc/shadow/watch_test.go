package shadow

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gemel/internal/clock"
	"gemel/internal/deadman"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/proc"
)

// A watchdog of 1 s, with an authority of 2.5 s: a proof may be 0.75 s old, and what has no
// newer one is ended when it is 1.25 s old.
var watchTimers = manifest.Timers{Life: 2500 * time.Millisecond, Stop: 250 * time.Millisecond, Drift: 0.01}

// paper is a watchdog that writes down what is done to it, and when.
type paper struct {
	file string
	time time.Duration
}

func (p paper) note(what string) error {
	return appendLine(p.file, fmt.Sprint(what, " ", int64(clock.Now())))
}

func (p paper) Time() time.Duration { return p.time }
func (p paper) Pet() error          { return p.note("pet") }
func (p paper) Disarm() error       { return p.note("disarm") }
func (p paper) Leave() error        { return p.note("leave") }

// watchOf is the watchdog of a world: of some seconds, or one that cannot be opened.
func watchOf(dir, length string) *Watch {
	t, err := time.ParseDuration(length)
	return &Watch{Time: time.Second, Timers: watchTimers, Open: func() (deadman.Dog, error) {
		if err != nil {
			return nil, fmt.Errorf("%s is busy", length)
		}
		p := paper{filepath.Join(dir, "dog"), t}
		return p, p.note("open")
	}}
}

// dog is what was done to the watchdog after an instant.
func (w *world) dog(after ha.Instant) (all []string) {
	for _, l := range w.lines("dog") {
		what, at, _ := strings.Cut(l, " ")
		if n, err := strconv.ParseInt(at, 10, 64); err == nil && ha.Instant(n) > after {
			all = append(all, what)
		}
	}
	return all
}

// does waits until something was done to the watchdog after an instant.
func (w *world) does(what string, after ha.Instant) {
	w.t.Helper()
	w.wait("the watchdog is "+what, func() bool { return slices.Contains(w.dog(after), what) })
}

// young is a right whose proof is of now.
func young(g ha.Group, fence uint64) proc.Right {
	now := clock.Now()
	return proc.Right{Group: g, Fence: ha.Fence{Era: 1, Counter: fence}, Incarnation: "one", Life: watchTimers.Life,
		Until: now.Add(watchTimers.Life), Kill: now.Add(watchTimers.Life - watchTimers.Stop)}
}

// TestWatch: the watchdog is petted while nothing of a group is here or authority is young,
// and again when what was not renewed is seen gone, which is soon enough.
func TestWatch(t *testing.T) {
	w := newWorld(t, "SHADOW_TEST_WATCHDOG=1s")
	m := w.mark()
	c := w.up()
	if r := w.kind(m, proc.ReportWatchdog).Report; r.Life != time.Second || r.Error != "" {
		t.Fatalf("%+v", r)
	}
	w.does("open", 0)
	w.does("pet", clock.Now())
	w.send(proc.Order{Kind: proc.OrderSpec, Process: "p", Spec: in("g", w.spec("p", "sleep"))})
	r := young("g", 1)
	m = w.mark()
	w.rights(r)
	w.send(proc.Order{Kind: proc.OrderStart, Process: "p", Start: 1})
	w.about(m, proc.ReportStarted, 1)
	lapsed := w.kind(m, proc.ReportLapsed).Report
	if early := r.Kill.Sub(lapsed.At); early < 900*time.Millisecond {
		t.Errorf("its kill began %v before the one of its right, a second is due", early)
	}
	w.about(m, proc.ReportExited, 1)
	w.does("pet", clock.Now())
	// A shadow that dies leaves it as it is, and the next one takes it over.
	died := clock.Now()
	w.kill(c.Process.Pid)
	w.does("open", died)
	w.does("pet", clock.Now())
	if did := w.dog(0); slices.Contains(did, "disarm") || slices.Contains(did, "leave") {
		t.Errorf("a shadow that died: %q", did)
	}
	quit := clock.Now()
	w.send(proc.Order{Kind: proc.OrderQuit})
	w.does("disarm", quit)
}

// TestWatchBeyond: what commands have started is not seen stopped by the end of programs.
// Without a word that it is, the watchdog bites.
func TestWatchBeyond(t *testing.T) {
	w := newWorld(t, "SHADOW_TEST_WATCHDOG=1s")
	w.up()
	w.does("pet", 0)
	r := young("g", 1)
	r.Beyond = true
	m := w.mark()
	w.send(proc.Order{Kind: proc.OrderThere, Groups: []ha.Group{"g"}})
	w.rights(r)
	w.does("pet", clock.Now())
	// It is soon old. That it is not petted is looked for until another one would have bitten.
	w.kind(m, proc.ReportLapsed)
	old := r.Until.Add(-watchTimers.Life + 750*time.Millisecond)
	w.wait("the time of the watchdog to be over", func() bool { return clock.Now() > old.Add(1500*time.Millisecond) })
	if did := w.dog(old); len(did) > 1 { // one look may have been just before
		t.Errorf("after its authority was too old: %q", did)
	}
	word := clock.Now()
	w.send(proc.Order{Kind: proc.OrderThere})
	w.does("pet", word)
}

// TestWatchLeft: Gemel that ends with something of a group here leaves the watchdog armed.
func TestWatchLeft(t *testing.T) {
	w := newWorld(t, "SHADOW_TEST_WATCHDOG=1s")
	w.up()
	w.does("pet", 0)
	m := w.mark()
	w.rights(young("g", 1))
	w.send(proc.Order{Kind: proc.OrderSpec, Process: "p", Spec: in("g", w.spec("p", "sleep"))})
	w.send(proc.Order{Kind: proc.OrderStart, Process: "p", Start: 1})
	w.about(m, proc.ReportStarted, 1)
	w.send(proc.Order{Kind: proc.OrderDetach})
	w.does("leave", 0)
}

// TestWatchOfNoUse: one that is too slow for the timers is disarmed at once, and one that
// cannot be had is told.
func TestWatchOfNoUse(t *testing.T) {
	w := newWorld(t, "SHADOW_TEST_WATCHDOG=2s")
	m := w.mark()
	w.up()
	if r := w.kind(m, proc.ReportWatchdog).Report; r.Life != 0 || !strings.Contains(r.Error, "its time is 2s") {
		t.Errorf("%+v", r)
	}
	if did := w.dog(0); !slices.Equal(did, []string{"open", "disarm"}) {
		t.Errorf("%q", did)
	}
	w = newWorld(t, "SHADOW_TEST_WATCHDOG=the dog")
	m = w.mark()
	w.up()
	if r := w.kind(m, proc.ReportWatchdog).Report; r.Life != 0 || r.Error != "the dog is busy" {
		t.Errorf("%+v", r)
	}
}

// TestWatchMoved: a group that has left in good order does not hold up the next pet, although
// its last deadline is still to come.
func TestWatchMoved(t *testing.T) {
	w := newWorld(t, "SHADOW_TEST_WATCHDOG=1s")
	w.up()
	w.does("pet", 0)
	between := func(from, to ha.Instant) bool {
		for _, l := range w.lines("dog") {
			_, at, _ := strings.Cut(l, " ")
			if n, err := strconv.ParseInt(at, 10, 64); err == nil && ha.Instant(n) > from && ha.Instant(n) < to {
				return true
			}
		}
		return false
	}
	for try := uint64(1); ; try++ { // a machine that is busy may not come to it
		r := young("g", try)
		w.send(proc.Order{Kind: proc.OrderThere, Groups: []ha.Group{"g"}})
		w.rights(r)
		w.rights()
		w.send(proc.Order{Kind: proc.OrderThere})
		// A proof of it is too old now, and its kill is to come: an eighth later is no look of before.
		old, kill := r.Until.Add(750*time.Millisecond-watchTimers.Life), r.Until.Add(1250*time.Millisecond-watchTimers.Life)
		w.wait("the kill to be due", func() bool { return clock.Now() > kill })
		if between(old.Add(130*time.Millisecond), kill) {
			return
		}
		if try == 5 {
			t.Fatal("it was never petted between the two")
		}
	}
}
