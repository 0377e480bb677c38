package cluster

import (
	"slices"
	"time"

	"gemel/internal/ha"
)

// ear is what the heartbeats tell.
type ear struct {
	me      ha.Node
	start   ha.Instant // when anybody could be heard at the earliest
	silence time.Duration
	listed  []ha.Node
	now     ha.Instant
	heard   []ha.Heard // sorted by node; as of the last look
	// whole is when a node was heard last that said that it hears somebody. One that is
	// heard and hears nobody has lost one direction of all its networks: no answer of the
	// store reaches it either.
	whole map[ha.Node]ha.Instant
	// served is when a node was heard last that did not say that the store is away, and
	// fine since when it has answered here without a break; zero: it does not.
	served map[ha.Node]ha.Instant
	fine   ha.Instant
	life   time.Duration
}

// hearing is what was heard of a node; its zero value if nothing was.
func (e *ear) hearing(name ha.Node) ha.Heard {
	i, ok := slices.BinarySearchFunc(e.heard, name, func(h ha.Heard, s ha.Node) int { return compare(h.Node, s) })
	if !ok {
		return ha.Heard{}
	}
	return e.heard[i]
}

// listen takes what was heard.
func (e *ear) listen(all []ha.Heard) {
	hears := func(h ha.Heard) bool {
		return slices.ContainsFunc(h.Hears, func(n ha.Node) bool { return n != h.Node && slices.Contains(e.listed, n) })
	}
	for _, h := range all {
		// It may have become deaf at any instant since the last look: its silence counts from
		// this one.
		if hears(h) || hears(e.hearing(h.Node)) {
			e.whole[h.Node] = h.At
		}
		if !h.Said.Away {
			e.served[h.Node] = h.At
		}
	}
	e.heard = all
}

// lost reports whether a node is silent, or is heard and was deaf itself for as long, or is
// forsaken.
func (e *ear) lost(name ha.Node, times int) bool {
	last := max(min(e.hearing(name).At, e.whole[name]), e.start)
	return e.now.Sub(last) >= e.silence*timesOf(times) || e.forsaken(name, times)
}

// silent reports whether a node was not heard for some silences, counted from
// when it could have been at the earliest.
func (e *ear) silent(name ha.Node, times int) bool {
	last := max(e.hearing(name).At, e.start)
	return e.now.Sub(last) >= e.silence*timesOf(times)
}

// falls is the first instant after now and before another one at which a silence of a
// node is complete if nothing more is heard of it: the first one, or a further one that a
// node behind in the list waits for.
func (e *ear) falls(before ha.Instant) ha.Instant {
	for _, n := range e.listed {
		heard := max(e.hearing(n).At, e.start)
		for i := range e.listed {
			for _, last := range []ha.Instant{heard, max(min(heard, e.whole[n]), e.start)} {
				if t := last.Add(e.silence * timesOf(i+1)); n != e.me && t > e.now && t < before {
					before = t
				}
			}
		}
	}
	return before
}

// listening reports whether this brain hears anybody: one that hears nobody is
// deaf itself, unless there is but one other.
func (e *ear) listening() bool {
	if len(e.listed) <= 2 {
		return true
	}
	return slices.ContainsFunc(e.listed, func(n ha.Node) bool { return n != e.me && !e.silent(n, 1) })
}

// witnessed reports whether a node that is heard says that it hears this one.
func (e *ear) witnessed(name ha.Node) bool {
	return slices.ContainsFunc(e.heard, func(h ha.Heard) bool {
		return h.Node != name && h.Node != e.me && slices.Contains(e.listed, h.Node) && !e.silent(h.Node, 1) && slices.Contains(h.Hears, name)
	})
}

// answered notes whether the store answers here.
func (e *ear) answered(in ha.Input) {
	ok, failed := false, false
	switch in := in.(type) {
	case ha.StoreRead:
		ok, failed = in.Error == "", in.Error != ""
	case ha.StoreWritten:
		ok, failed = in.OK || in.Refused, in.Error != ""
	}
	switch {
	case failed:
		e.fine = 0
	case ok && e.fine == 0:
		e.fine = e.now
	}
}

// forsaken reports whether the store answers here, and not a node that is heard: a firewall
// lets half of it through, or its own voter ends again and again. All that it had has
// stopped by its deadline. After an outage of the store everybody says so for a moment.
func (e *ear) forsaken(name ha.Node, times int) bool {
	return e.fine != 0 && e.hearing(name).Said.Away && e.now.Sub(max(e.served[name], e.fine, e.start)) >= e.life/2*timesOf(times)
}
