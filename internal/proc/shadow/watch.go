package shadow

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/deadman"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/proc"
	"gemel/internal/proc/lapse"
)

// Watch is the hardware watchdog that a shadow keeps. No other process ever pets it: it
// is to bite when the shadow does not run.
type Watch struct {
	// Open arms it, which pets it as well.
	Open func() (deadman.Dog, error)
	// Time is the one that Open asks for, and Timers those of the cluster.
	Time   time.Duration
	Timers manifest.Timers
}

const (
	watchAgain = 10 * time.Second // between two attempts to open what cannot be opened
	watchTimes = 8                // in which a watchdog's time is divided for the looks
)

// watch pets the watchdog as long as every authority is young or everything is seen
// stopped. It has a thread of its own: a driver that hangs holds up nothing else.
type watch struct {
	of    *shadow
	keep  atomic.Pointer[lapse.Keeper]
	event int // eventfd: there is something to tell the monitor
	stop  chan struct{}
	done  sync.WaitGroup

	mu     sync.Mutex
	there  []ha.Group // of which the monitor says that something is there
	said   bool       // it has said so once
	time   time.Duration
	why    string // it is not armed; empty with a zero time: not yet
	logged string
}

func (w *watch) open() error {
	s := w.of
	if s.c.Watch == nil {
		return nil
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("making the eventfd of the watchdog: %w", err)
	}
	w.event = fd
	if err := s.poll.add(fd, func() {
		var b [8]byte
		_, _ = unix.Read(fd, b[:])
		w.tell()
	}); err != nil {
		unix.Close(fd)
		w.event = -1
		return err
	}
	w.stop = make(chan struct{})
	w.done.Go(w.turn)
	return nil
}

// turn is the life of the thread.
func (w *watch) turn() {
	runtime.LockOSThread() // never unlocked: its scheduling ends with it
	c := w.of.c
	if c.RealTime {
		_ = proc.RealTime(true) // the loop of the shadow asks as well, and says that it is not allowed
	}
	var dog deadman.Dog
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-w.stop:
			w.end(dog)
			return
		case <-next.C:
		}
		pause := watchAgain
		if against := w.against(); against != "" {
			if pause = c.Watch.Time / watchTimes; dog != nil {
				pause = dog.Time() / watchTimes
				w.warn("the watchdog is not petted, and resets the machine", "within", dog.Time(), "why", against)
			}
		} else if dog == nil {
			if dog = w.arm(); dog != nil {
				pause = dog.Time() / watchTimes
			}
		} else {
			pause = dog.Time() / watchTimes
			if err := dog.Pet(); err != nil {
				w.is(dog.Time(), err.Error()) // it goes on: to be closed would be to be disarmed, perhaps
			} else {
				w.is(dog.Time(), "")
			}
		}
		next.Reset(pause)
	}
}

// arm opens the watchdog; nil: it cannot be used.
func (w *watch) arm() deadman.Dog {
	c := w.of.c.Watch
	dog, err := c.Open()
	if err != nil {
		w.is(0, err.Error())
		return nil
	}
	if _, ok := c.Timers.Proof(dog.Time()); !ok {
		why := fmt.Sprintf("its time is %s, and twice that, with two renewals of an authority, does not fit into the %s before a takeover",
			ha.Span(dog.Time()), ha.Span(c.Timers.Wait().Truncate(time.Millisecond)))
		if err := dog.Disarm(); err != nil {
			why += "; " + err.Error()
		}
		w.is(0, why)
		return nil
	}
	w.is(dog.Time(), "")
	w.of.c.Log.Info("the hardware watchdog is armed", "time", dog.Time())
	return dog
}

// end closes the watchdog: it goes on to count if anything of a group may be here.
func (w *watch) end(dog deadman.Dog) {
	if dog == nil {
		return
	}
	log := w.of.c.Log
	if k := w.keep.Load(); k == nil || k.Idle(w.has(false)) {
		if err := dog.Disarm(); err != nil {
			log.Error("the end of the watchdog", "err", err)
		}
		return
	}
	log.Warn("something of a group may be here: the watchdog goes on, and resets the machine if no other Gemel takes it over", "within", dog.Time())
	if err := dog.Leave(); err != nil {
		log.Error("the end of the watchdog", "err", err)
	}
}

// against says what stands against petting it now.
func (w *watch) against() string {
	k := w.keep.Load()
	if k == nil {
		return "" // no right was ever given here
	}
	return k.Against(w.old(), w.has(true))
}

// has tells what the monitor says of a group; unknown if it has not said anything yet.
func (w *watch) has(unknown bool) func(ha.Group) bool {
	return func(g ha.Group) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.said {
			return unknown
		}
		return slices.Contains(w.there, g)
	}
}

// old is how long before its end an authority is too old to pet by.
func (w *watch) old() time.Duration {
	c := w.of.c.Watch
	w.mu.Lock()
	t := w.time
	w.mu.Unlock()
	if t == 0 {
		t = c.Time
	}
	age, _ := c.Timers.Proof(t)
	return c.Timers.Life - age
}

// kill is when what runs by a right is ended. Where there is a watchdog that is half of
// its time after the last pet, so that everything is seen stopped before it bites.
func (w *watch) kill(r proc.Right) ha.Instant {
	w.mu.Lock()
	t := w.time
	w.mu.Unlock()
	if t == 0 {
		return r.Kill
	}
	return min(r.Kill, r.Until.Add(t/2-w.old()))
}

// told takes what the monitor says is there.
func (w *watch) told(groups []ha.Group) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.there, w.said = groups, true
}

// is notes how it is, and has it told if that is new. What stood against petting does not
// any more.
func (w *watch) is(t time.Duration, why string) {
	w.mu.Lock()
	same := w.time == t && w.why == why
	w.time, w.why, w.logged = t, why, ""
	w.mu.Unlock()
	if same {
		return
	}
	if why != "" {
		w.of.c.Log.Error("there is no hardware watchdog: this node offers no exclusivity by it", "why", why)
	}
	_, _ = unix.Write(w.event, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// warn says something once.
func (w *watch) warn(text string, args ...any) {
	w.mu.Lock()
	same := w.logged == text
	w.logged = text
	w.mu.Unlock()
	if !same {
		w.of.c.Log.Warn(text, args...)
	}
}

// tell tells the monitor how it is.
func (w *watch) tell() {
	w.mu.Lock()
	t, why := w.time, w.why
	w.mu.Unlock()
	if w.event >= 0 && (t != 0 || why != "") {
		w.of.report(proc.Report{Kind: proc.ReportWatchdog, At: clock.Now(), Life: t, Error: why})
	}
}

func (w *watch) close() {
	if w.event < 0 {
		return
	}
	close(w.stop)
	w.done.Wait()
	w.of.poll.del(w.event)
	unix.Close(w.event)
	w.event = -1
}
