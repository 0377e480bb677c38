package check

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// A Runner runs a command as user (empty: the daemon's own) with env added to its
// environment, kills its whole tree after timeout or when ctx ends, and returns
// its exit code and the beginning of what it printed. An error says that it could
// not be run or was killed.
type Runner func(ctx context.Context, argv, env []string, user string, timeout time.Duration) (code int, output string, err error)

// A Prober runs the checks of one node. A check that waits costs a place in a
// heap; one that runs costs a goroutine. A check never overlaps itself.
type Prober struct {
	run  Runner
	out  func(ha.Input)
	log  *slog.Logger
	wake chan struct{}

	mu      sync.Mutex
	checks  map[ha.Check]*entry
	due     queue
	running int
}

// Result is the last that is known of a check.
type Result struct {
	On     bool // it is being run
	Known  bool // the rest is of a run since it was switched on
	OK     bool
	At     time.Time
	Took   time.Duration
	Detail string
}

// entry is one check. Guarded by the prober's lock.
type entry struct {
	c       manifest.Check
	life    uint64 // grows with each change that makes a running probe's answer void
	on      bool
	gone    bool               // removed while it ran
	cancel  context.CancelFunc // of the running probe; nil: none runs
	quiet   bool               // the last verdict told was a success
	stalled int                // time-outs in a row that were this process's own
	last    Result
	due     time.Time
	index   int // in the queue; -1: not in it
}

const (
	// maxRunning bounds the probes at one instant: more would rather measure the
	// load that they make.
	maxRunning = 256
	// spread is the longest time that the first run of a check waits for its phase.
	spread = 10 * time.Second
	crowd  = 50 * time.Millisecond // when to try again if maxRunning run
	// maxStalled bounds how often in a row a time-out is put down to a stall of
	// this process: a machine that is always late must not hide a fault for ever.
	maxStalled = 3
)

// New makes a prober that tells verdicts through out, which may block: only the
// check that has something to say waits then.
func New(run Runner, out func(ha.Input), log *slog.Logger) *Prober {
	return &Prober{run: run, out: out, log: log, wake: make(chan struct{}, 1), checks: map[ha.Check]*entry{}}
}

// Set adds a check, or changes it; one that is the same goes on undisturbed. A new
// check does not run before Judge says so.
func (p *Prober) Set(c manifest.Check) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.checks[c.Name]
	if e == nil {
		e = &entry{index: -1}
		p.checks[c.Name] = e
	}
	same := !e.gone && reflect.DeepEqual(e.c, c)
	e.c, e.gone = c, false
	if !same {
		p.renew(e)
	}
}

// Remove ends a check.
func (p *Prober) Remove(name ha.Check) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.checks[name]
	if e == nil {
		return
	}
	e.on, e.gone = false, true
	p.renew(e)
	if e.cancel == nil {
		delete(p.checks, name)
	}
}

// Judge switches the runs of a check on or off. Switched on, its first success is
// told again. A probe that runs while it is switched off counts no more.
func (p *Prober) Judge(name ha.Check, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.checks[name]; e != nil && !e.gone && e.on != on {
		e.on = on
		p.renew(e)
	}
}

// Last returns the last result of a check; the zero Result if there is none.
func (p *Prober) Last(name ha.Check) Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.checks[name]; e != nil {
		r := e.last
		r.On = e.on
		return r
	}
	return Result{}
}

// Try runs a check once, now, beside its own schedule, and returns why it failed.
// It tells no verdict. It is for readiness.
func (p *Prober) Try(ctx context.Context, name ha.Check) error {
	p.mu.Lock()
	e := p.checks[name]
	if e == nil || e.gone {
		p.mu.Unlock()
		return fmt.Errorf("there is no check %q", name)
	}
	c := e.c
	p.mu.Unlock()
	a := p.probe(ctx, c)
	if !a.ok {
		return errors.New(a.detail)
	}
	return nil
}

// renew makes what is known of e void and plans its next run anew.
func (p *Prober) renew(e *entry) {
	e.life++
	e.quiet, e.stalled, e.last = false, 0, Result{}
	if e.cancel != nil {
		e.cancel() // the end of the probe plans the next
		p.unplan(e)
		return
	}
	if e.on {
		p.plan(e, first(e.c, time.Now()))
	} else {
		p.unplan(e)
	}
}

// first is the next instant of the check's own phase, which its name decides: a
// thousand checks that are switched on together do not run together.
func first(c manifest.Check, now time.Time) time.Time {
	window := min(c.Every, spread)
	if window <= 0 {
		return now
	}
	h := fnv.New64a()
	h.Write([]byte(c.Name))
	phase := time.Duration(h.Sum64() % uint64(window))
	since := time.Duration(now.UnixNano() % int64(window))
	return now.Add((phase - since + window) % window)
}

func (p *Prober) plan(e *entry, at time.Time) {
	e.due = at
	if e.index < 0 {
		heap.Push(&p.due, e)
	} else {
		heap.Fix(&p.due, e.index)
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *Prober) unplan(e *entry) {
	if e.index >= 0 {
		heap.Remove(&p.due, e.index)
	}
}

// Run runs the checks until ctx ends and every probe has returned.
func (p *Prober) Run(ctx context.Context) error {
	var probes sync.WaitGroup
	defer probes.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(p.begin(ctx, &probes))
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-p.wake:
		}
	}
}

// begin starts what is due and returns how long nothing will be.
func (p *Prober) begin(ctx context.Context, probes *sync.WaitGroup) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.due) > 0 {
		e, now := p.due[0], time.Now()
		if wait := e.due.Sub(now); wait > 0 {
			return wait
		}
		if p.running >= maxRunning {
			return crowd
		}
		p.unplan(e)
		c, life := e.c, e.life
		probing, cancel := context.WithCancel(ctx)
		e.cancel = cancel
		p.running++
		next := slot(e.due, now, c.Every)
		probes.Go(func() {
			defer cancel()
			start := time.Now()
			a := p.probe(probing, c)
			took := time.Since(start)
			if in := p.note(e, life, a, took); in != nil && ctx.Err() == nil {
				in()
			}
			p.finish(e, life, next)
		})
	}
	return time.Hour
}

// note writes an answer down and returns how to tell it, or nil.
func (p *Prober) note(e *entry, life uint64, a answer, took time.Duration) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.life != life {
		return nil
	}
	if !a.ok && took > bound(e.c)+max(e.c.Timeout/2, 500*time.Millisecond) && e.stalled < maxStalled {
		// Its time-out came late, so that this process slept: the program may have
		// answered in time.
		e.stalled++
		p.log.Warn("a check was held up by this process itself and is repeated", "check", e.c.Name, "took", took)
		return nil
	}
	e.stalled = 0
	e.last = Result{Known: true, OK: a.ok, At: time.Now(), Took: took, Detail: a.detail}
	if a.ok && e.quiet {
		return nil
	}
	e.quiet = a.ok
	v := ha.Verdict{Check: e.c.Name, OK: a.ok, Detail: a.detail, Accused: a.accused}
	return func() { p.out(v) }
}

// slot is when the run after one that was due, and began at now, is due: one
// interval later, and in the check's phase also if it began late.
func slot(due, now time.Time, every time.Duration) time.Time {
	if every <= 0 {
		return now
	}
	return due.Add((now.Sub(due)/every + 1) * every)
}

// finish ends a probe and plans the next one: when it is due, or at once if it is
// due by now. A run that takes as long as the interval delays the next one and never
// makes it fall out.
func (p *Prober) finish(e *entry, life uint64, next time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running--
	e.cancel = nil
	switch {
	case e.gone:
		delete(p.checks, e.c.Name)
	case !e.on:
	case e.life != life:
		p.plan(e, first(e.c, time.Now()))
	case e.stalled > 0:
		p.plan(e, time.Now())
	case e.c.Every > 0:
		if now := time.Now(); next.Before(now) {
			next = now
		}
		p.plan(e, next)
	}
}

// queue is a heap of checks by the instant of their next run.
type queue []*entry

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push is called by container/heap.
func (q *queue) Push(x any) {
	e := x.(*entry)
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
