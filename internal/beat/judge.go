package beat

import (
	"container/heap"
	"slices"
	"time"

	"gemel/internal/ha"
)

// schedule puts e where it belongs in the queue.
func (w *Watcher) schedule(e *proc, now ha.Instant) {
	t, ok := e.next(now)
	switch {
	case !ok && e.index >= 0:
		heap.Remove(&w.due, e.index)
	case ok && e.index < 0:
		e.due = t
		heap.Push(&w.due, e)
	case ok && e.due != t:
		e.due = t
		heap.Fix(&w.due, e.index)
	}
}

// sample reads the page of e and returns its slots. A spoilt page is made right
// for the next start, and told.
func (w *Watcher) sample(e *proc, now ha.Instant) []byte {
	slots, ok := e.page.load(&w.buf)
	e.page.scan(slots, uint32(e.start), now)
	if !ok {
		found, err := e.page.repair()
		if err != nil {
			w.log.Warn("beat page cannot be repaired", "process", e.name, "found", found, "err", err)
		} else {
			w.log.Warn("the program spoilt its beat page; repaired", "process", e.name, "found", found)
		}
	}
	return slots
}

// judge looks at e, whose time has come. Whatever is ready to be heard is heard
// before anything is called late; and what this process slept itself is granted.
func (w *Watcher) judge(e *proc, now ha.Instant) {
	lag := now.Sub(e.due)
	if e.muted && now >= e.filled.Add(refill) {
		w.fill(e, now)
	}
	for _, h := range e.takeHeld() {
		w.take(e, h, now)
	}
	if e.watch.on() && now >= e.watch.from {
		var slots []byte
		if e.page != nil {
			slots = w.sample(e, now)
		}
		if lag > e.watch.within/2 {
			w.stalled(e, now, lag)
		}
		if e.watch.deadline(e.oldest()) <= now {
			w.drain(e, now)
		}
		if e.watch.on() && e.watch.deadline(e.oldest()) <= now {
			w.miss(e, slots, now)
		}
	}
	w.schedule(e, now)
}

// stalled grants what this process slept to every source that was silent then.
func (w *Watcher) stalled(e *proc, now ha.Instant, lag time.Duration) {
	if e.oldest() >= e.watch.stall {
		e.watch.credit = 0
	}
	e.watch.stall, e.watch.credit = now, e.watch.credit+lag
	w.log.Warn("watching was late; the silence of that time does not count", "process", e.name, "late", lag)
}

// miss tells that at least one source is late.
func (w *Watcher) miss(e *proc, slots []byte, now ha.Instant) {
	missed := ha.Missed{Process: e.name, Start: e.start, Last: e.oldest()}
	if e.beat != 0 && e.watch.deadline(e.beat) <= now {
		missed.Missing++
	}
	if e.page != nil {
		slowest := e.beat
		if missed.Missing == 0 {
			slowest = now + 1
		}
		for i, s := range e.page.seen {
			if !s.live || e.watch.deadline(s.at) > now {
				continue
			}
			missed.Missing++
			if s.at < slowest {
				slowest = s.at
				missed.Thread, _ = slotName(slots, i)
			}
		}
	}
	missed.Missing = max(missed.Missing, 1) // nothing was ever heard
	e.watch.said = true
	w.tell(missed)
}

// tell puts an input in line for out.
func (w *Watcher) tell(in ha.Input) {
	w.say = append(w.say, func() { w.out(in) })
}

// read takes what the socket of e holds, as far as its rate allows.
func (w *Watcher) read(e *proc, now ha.Instant) {
	w.fill(e, now)
	for e.sock >= 0 {
		if e.tokens == 0 {
			w.setMuted(e, true)
			break
		}
		if !w.receive(e, now) {
			break
		}
		e.tokens--
	}
	w.schedule(e, now)
}

// drain reads what waits in the socket of e, whatever its rate.
func (w *Watcher) drain(e *proc, now ha.Instant) {
	for range burst {
		if e.sock < 0 || !w.receive(e, now) {
			return
		}
	}
}

// fill gives e the tokens of the time that went by.
func (w *Watcher) fill(e *proc, now ha.Instant) {
	if gone := now.Sub(e.filled); gone >= refill || e.filled == 0 {
		e.tokens = min(e.tokens+int(min(gone, time.Second)*rate/time.Second), burst)
		e.filled = now
	}
	if e.muted && e.tokens > 0 {
		w.setMuted(e, false)
	}
}

func (w *Watcher) setMuted(e *proc, muted bool) {
	set := w.poll.hear
	if muted {
		set = w.poll.mute
	}
	if err := set(e.sock); err != nil {
		w.log.Warn("notify socket cannot be slowed down", "process", e.name, "err", err)
		return
	}
	e.muted = muted
}

// receive takes one datagram; ok is false if there is none.
func (w *Watcher) receive(e *proc, now ha.Instant) bool {
	d, ok := receive(e.sock, w.body[:], w.ctl)
	if !ok || len(d.body) == 0 {
		return ok
	}
	if d.uid != e.uid && (w.Member == nil || !w.Member(e.name, d.pid)) {
		if !e.refused {
			e.refused = true
			w.log.Warn("notification of a foreign process left out", "process", e.name, "pid", d.pid, "uid", d.uid)
		}
		return true
	}
	w.take(e, held{parse(d.body), d.pid, now}, now)
	return true
}

// take lets a notification count, wait, or go by, by the start that it is of.
func (w *Watcher) take(e *proc, h held, now ha.Instant) {
	switch {
	case h.start != 0 && h.start < e.start, slices.Contains(e.past, h.pid) && h.start != e.start:
		return
	case e.start == 0, h.start > e.start:
		e.hold(h)
		return
	case h.start == 0 && h.pid != e.pid && now < h.at.Add(holdFor) &&
		(h.ready || h.stopping || h.main != 0) && (e.pid == 0 || !descends(h.pid, e.pid)):
		e.hold(h)
		return
	}
	w.apply(e, h, now)
}

// apply lets a notification count for the running start.
func (w *Watcher) apply(e *proc, h held, now ha.Instant) {
	if h.beat || h.extend > 0 && e.beat != 0 {
		e.beat = now
	}
	if h.extend > 0 {
		e.watch.from = max(e.watch.from, now.Add(h.extend))
	}
	if h.told {
		e.status = h.status
	}
	if h.main != 0 && h.main != e.pid && w.MainPID != nil {
		if descends(h.main, e.pid) || w.Member != nil && w.Member(e.name, h.main) {
			f, p, start, pid := w.MainPID, e.name, e.start, h.main
			e.pid = pid
			w.say = append(w.say, func() { f(p, start, pid) })
		} else {
			w.log.Warn("MAINPID of a foreign process left out", "process", e.name, "pid", h.main)
		}
	}
	if h.ready && !e.ready {
		e.ready = true
		w.tell(ha.Ready{Process: e.name, Start: e.start, How: "notify"})
	}
	if h.stopping && !e.stopping {
		e.stopping = true
		w.tell(ha.Stopping{Process: e.name, Start: e.start})
	}
	if h.trigger && e.watch.on() {
		e.watch.said = true
		w.tell(ha.Missed{Process: e.name, Start: e.start, Thread: "WATCHDOG=trigger", Last: now, Missing: 1})
	}
}
