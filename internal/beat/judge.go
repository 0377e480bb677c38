package beat

import (
	"container/heap"
	"slices"
	"time"

	"gemel/internal/ha"
)

// schedule puts e where it belongs in the queue.
func (h *hearing) schedule(e *proc, now ha.Instant) {
	t, ok := e.next(now)
	switch {
	case !ok && e.index >= 0:
		heap.Remove(&h.due, e.index)
	case ok && e.index < 0:
		e.due = t
		heap.Push(&h.due, e)
	case ok && e.due != t:
		e.due = t
		heap.Fix(&h.due, e.index)
	}
}

// sample reads the page of e and returns its slots. A spoilt page is made right
// for the next start, and told.
func (h *hearing) sample(e *proc, now ha.Instant) []byte {
	slots, ok := e.page.load(&h.buf)
	e.page.scan(slots, uint32(e.start), now)
	if !ok || e.page.grown() {
		found, err := e.page.repair()
		if err != nil {
			h.log.Warn("beat page cannot be repaired", "process", e.name, "found", found, "error", err)
		} else {
			h.log.Warn("the program spoilt its beat page; repaired", "process", e.name, "found", found)
		}
	}
	return slots
}

// judge looks at e, whose time has come. Whatever is ready to be heard is heard
// before anything is called late; and what this process slept itself is granted.
func (h *hearing) judge(e *proc, now ha.Instant) {
	lag := now.Sub(e.due)
	if e.muted && now >= e.filled.Add(refill) {
		h.fill(e, now)
	}
	for _, n := range e.takeHeld() {
		h.take(e, n, now)
	}
	plead(h, e, now)
	if e.watch.on() && now >= e.watch.from {
		var slots []byte
		if e.page != nil {
			slots = h.sample(e, now)
		}
		if lag > e.watch.within/2 {
			h.stalled(e, now, lag)
		}
		if e.watch.deadline(e.oldest()) <= now {
			h.drain(e, now)
		}
		if e.watch.on() && e.watch.deadline(e.oldest()) <= now {
			h.miss(e, slots, now)
		}
	}
	h.schedule(e, now)
}

// stalled grants what this process slept to every source that was silent then.
func (h *hearing) stalled(e *proc, now ha.Instant, lag time.Duration) {
	if e.oldest() >= e.watch.stall {
		e.watch.credit = 0
	}
	e.watch.stall, e.watch.credit = now, e.watch.credit+lag
	h.log.Warn("watching was late; the silence of that time does not count", "process", e.name, "late", lag)
}

// miss tells that at least one source is late.
func (h *hearing) miss(e *proc, slots []byte, now ha.Instant) {
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
	h.tell(missed)
}

// tell puts an input in line for out.
func (h *hearing) tell(in ha.Input) { h.said = append(h.said, in) }

// read takes what the socket of e holds, as far as its rate allows.
func (h *hearing) read(e *proc, now ha.Instant) {
	h.fill(e, now)
	for e.tokens > 0 {
		most := min(e.tokens, batch)
		n := h.receive(e, most, now)
		if e.tokens -= n; n < most {
			break
		}
	}
	if e.tokens == 0 {
		h.setMuted(e, true)
	}
	if e.muted || len(e.held) > 0 || e.plea.until != 0 {
		h.schedule(e, now)
	}
}

// drain reads what waits in the socket of e, whatever its rate.
func (h *hearing) drain(e *proc, now ha.Instant) {
	for range burst / batch {
		if e.sock < 0 || h.receive(e, batch, now) < batch {
			return
		}
	}
}

// fill gives e the tokens of the time that went by.
func (h *hearing) fill(e *proc, now ha.Instant) {
	if gone := now.Sub(e.filled); gone >= refill || e.filled == 0 {
		e.tokens = min(e.tokens+int(min(gone, time.Second)*rate/time.Second), burst)
		e.filled = now
	}
	if e.muted && e.tokens > 0 {
		h.setMuted(e, false)
	}
}

func (h *hearing) setMuted(e *proc, muted bool) {
	set := h.poll.hear
	if muted {
		set = h.poll.mute
		h.setEager(e, false)
	}
	if err := set(e.sock); err != nil {
		h.log.Warn("notify socket cannot be slowed down", "process", e.name, "error", err)
		return
	}
	e.muted = muted
}

// receive takes most datagrams at most, and returns how many there were.
func (h *hearing) receive(e *proc, most int, now ha.Instant) int {
	n := h.mail.receive(e.sock, most)
	for i := range n {
		d := h.mail.datagram(i)
		if len(d.body) == 0 {
			continue
		}
		if d.uid != e.uid && !h.member(d.pid, e.start) {
			if !e.refused {
				e.refused = true
				h.log.Warn("notification of a foreign process left out", "process", e.name, "pid", d.pid, "uid", d.uid)
			}
			continue
		}
		h.take(e, held{parse(d.body), d.pid, now}, now)
	}
	return n
}

// take lets a notification count, wait, or go by, by the start that it is of.
func (h *hearing) take(e *proc, n held, now ha.Instant) {
	switch {
	case n.start != 0 && n.start < e.start, slices.Contains(e.past, n.pid) && n.start != e.start:
		return
	case e.start == 0, n.start > e.start:
		e.hold(n)
		return
	case n.start == 0 && n.pid != e.pid && now < n.at.Add(holdFor) &&
		(n.ready || n.stopping || n.main != 0 || n.extend > 0) && (e.pid == 0 || !descends(n.pid, e.pid)):
		e.hold(n)
		return
	}
	h.apply(e, n, now)
}

// apply lets a notification count for the running start.
func (h *hearing) apply(e *proc, n held, now ha.Instant) {
	if n.beat || n.ready {
		h.setEager(e, false)
	}
	if n.beat || n.extend > 0 && e.beat != 0 {
		e.beat = now
	}
	if n.extend > 0 {
		e.watch.from = max(e.watch.from, now.Add(n.extend))
		e.plea.until = max(e.plea.until, now.Add(max(n.extend, leastExtend)))
		plead(h, e, now)
	}
	if n.told {
		e.status = n.status
	}
	if n.main != 0 && n.main != e.pid {
		// It says whose notifications count. What Gemel holds as the program stays
		// what it started.
		if descends(n.main, e.pid) || h.member(n.main, e.start) {
			e.pid = n.main
		} else {
			h.log.Warn("MAINPID of a foreign process left out", "process", e.name, "pid", n.main)
		}
	}
	if n.ready && !e.ready {
		e.ready = true
		h.tell(ha.Ready{Process: e.name, Start: e.start, How: "notify"})
	}
	if n.stopping && !e.stopping {
		e.stopping = true
		h.tell(ha.Stopping{Process: e.name, Start: e.start})
	}
	if n.trigger && e.watch.on() {
		e.watch.said = true
		h.tell(ha.Missed{Process: e.name, Start: e.start, Thread: "WATCHDOG=trigger", Last: now, Missing: 1})
	}
}

// plead tells what e asks for, if its turn has come.
func plead(h *hearing, e *proc, now ha.Instant) {
	if e.plea.until == 0 || e.plea.told != 0 && now < e.plea.told.Add(pleaRest) {
		return
	}
	if e.plea.until > now {
		h.tell(ha.Busy{Process: e.name, Start: e.start, For: e.plea.until.Sub(now)})
	}
	e.plea = plea{told: now}
}
