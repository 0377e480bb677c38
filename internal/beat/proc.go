package beat

import (
	"slices"
	"time"

	"gemel/internal/ha"
)

// proc is what is known of one process. Guarded by the watcher's lock.
type proc struct {
	life
	name  ha.Process
	uid   int // who may notify
	sock  int // -1: none
	page  *page
	watch watch

	due   ha.Instant // when to look next
	index int        // in the queue; -1: not in it

	tokens int        // datagrams that may be read before the socket is muted
	filled ha.Instant // when tokens were last given
	muted  bool
	eager  bool // what it sends is heard at once
}

// life is what was heard of one start.
type life struct {
	start    ha.StartID
	pid      int        // main process; zero: not told yet
	past     []int      // main processes of the last starts: what they say comes too late
	beat     ha.Instant // last WATCHDOG=1 or pulse; zero: never
	ready    bool
	stopping bool
	status   string
	held     []held
	plea     plea
	refused  bool // a foreign sender was told of
}

// plea is the time that a start asks for by EXTEND_TIMEOUT_USEC=. It may ask as
// often as it likes: what it asks for within pleaRest is told as one.
type plea struct {
	until ha.Instant // the latest instant asked for that is not told yet; zero: none
	told  ha.Instant // when the last one was told; zero: never
}

// held is a notification of which it is not yet known to which start it belongs.
// The shadow starts a successor at once, and its READY=1 may be here before the
// news of its start.
type held struct {
	message
	pid int
	at  ha.Instant
}

// watch is the core's order in force.
type watch struct {
	from   ha.Instant
	within time.Duration // zero: none
	said   bool          // Missed was told
	// After a stall of this process ended at stall, what was last heard before it
	// has credit more time.
	stall  ha.Instant
	credit time.Duration
}

const (
	keepPast = 8
	keepHeld = 16
	// holdFor is how long a notification of uncertain origin waits for the news of
	// a start. Then it counts for the start that is known.
	holdFor = 250 * time.Millisecond

	// A program that notifies more often than rate is slowed down by its own full
	// socket: that costs it time, and Gemel nothing.
	rate   = 1000 // a second
	burst  = 256
	refill = 50 * time.Millisecond
)

// begin makes start the running one.
func (e *proc) begin(start ha.StartID, pid int) {
	if start == e.start {
		if pid > 0 {
			e.pid = pid
		}
		return
	}
	past := e.past
	if e.pid > 0 && e.pid != pid {
		past = append(past, e.pid)
	}
	past = slices.DeleteFunc(past, func(old int) bool { return old == pid })
	if n := len(past); n > keepPast {
		past = past[n-keepPast:]
	}
	e.life = life{start: start, pid: pid, past: past, held: e.held}
	e.watch = watch{}
	if e.page != nil {
		e.page.forget()
	}
}

// takeHeld returns what waits, and forgets it.
func (e *proc) takeHeld() []held {
	all := e.held
	e.held = nil
	return all
}

// hold lets a notification wait. The oldest gives way.
func (e *proc) hold(h held) {
	if len(e.held) == keepHeld {
		e.held = slices.Delete(e.held, 0, 1)
	}
	e.held = append(e.held, h)
}

// deadline is when a source last heard at becomes late.
func (a watch) deadline(last ha.Instant) ha.Instant {
	d := max(last, a.from).Add(a.within)
	if last < a.stall {
		d = d.Add(a.credit)
	}
	return d
}

// on reports whether silence is to be told.
func (a watch) on() bool { return a.within > 0 && !a.said }

// oldest is the last instant of the source that was silent for the longest; if
// there is none, of the last sign that there ever was.
func (e *proc) oldest() ha.Instant {
	last, any := ha.Instant(0), false
	if e.beat != 0 {
		last, any = e.beat, true
	}
	if e.page != nil {
		switch {
		case e.page.live > 0 && (!any || e.page.oldest < last):
			last, any = e.page.oldest, true
		case !any:
			last = e.page.done
		}
	}
	return last
}

// period is how often the page of a watched process is looked at: three times
// within what is allowed, and each second and a half at the least. A fault is told
// at most this much later than it could be, and never earlier. Of a monitor that
// does nothing else, these looks are half the work.
func (a watch) period() time.Duration {
	return min(max(a.within/3, 50*time.Millisecond), 1500*time.Millisecond)
}

// ceil rounds t up to a multiple of d, so that many processes are looked at in
// one wake-up.
func ceil(t ha.Instant, d time.Duration) ha.Instant {
	return (t + ha.Instant(d) - 1) / ha.Instant(d) * ha.Instant(d)
}

// next is when e must be looked at; ok is false if never.
func (e *proc) next(now ha.Instant) (t ha.Instant, ok bool) {
	earlier := func(u ha.Instant) {
		if !ok || u < t {
			t, ok = u, true
		}
	}
	if e.muted {
		earlier(e.filled.Add(refill))
	}
	if e.start != 0 {
		for _, h := range e.held {
			if h.start == 0 {
				earlier(h.at.Add(holdFor))
			}
		}
	}
	if e.plea.until != 0 {
		earlier(e.plea.told.Add(pleaRest))
	}
	if !e.watch.on() {
		return t, ok
	}
	fine := min(max(e.watch.within/32, 10*time.Millisecond), 250*time.Millisecond)
	earlier(ceil(e.watch.deadline(e.oldest()), fine))
	if e.page != nil {
		earlier(ceil(max(now+1, e.watch.from), e.watch.period()))
	}
	return t, ok
}

// queue is a heap of processes by the instant at which to look at them.
type queue []*proc

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due < q[j].due }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push is called by container/heap.
func (q *queue) Push(x any) {
	e := x.(*proc)
	e.index = len(*q)
	*q = append(*q, e)
}

// Pop is called by container/heap.
func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	e.index = -1
	return e
}
