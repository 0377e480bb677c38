package rack

import (
	"errors"
	"fmt"
	"time"

	"gemel/internal/clock"
	"gemel/internal/ha"
)

// A Verdict is what the oracle found since the beginning.
type Verdict struct {
	Violations []string
	Overlap    time.Duration // in which two lives were active, all in all
	Resumed    time.Duration // the longest activity of a node that had been paused, while another one was active
	Lives      []Life        // in the order in which they began
	Looks      int           // how often the addresses of all nodes were looked at
}

// Judge compares everything with everything. It fails if the oracle itself could not
// see.
func (o *Oracle) Judge() (Verdict, error) {
	lives, err := o.Lives()
	o.mu.Lock()
	both, looks := append([]twice(nil), o.twice...), o.looks
	err = errors.Join(err, o.failed)
	o.mu.Unlock()
	if err != nil {
		return Verdict{}, fmt.Errorf("the oracle is blind: %w", err)
	}
	v := Verdict{Lives: lives, Looks: looks}
	for i, a := range lives {
		for _, b := range lives[i+1:] {
			o.compare(&v, a, b)
		}
	}
	for _, t := range both {
		v.add("the service address was on %s and on %s for %v, from %.3f s on", t.a.Name, t.b.Name,
			t.in.To.Sub(t.in.From)+time.Millisecond, o.since(t.in.From))
	}
	o.answers(&v)
	return v, nil
}

func (v *Verdict) add(format string, args ...any) {
	v.Violations = append(v.Violations, fmt.Sprintf(format, args...))
}

func (o *Oracle) since(at ha.Instant) float64 { return at.Sub(o.rack.Start).Seconds() }

// compare judges two lives, of which a began first.
func (o *Oracle) compare(v *Verdict, a, b Life) {
	switch {
	case b.Fence.Less(a.Fence):
		v.add("%s began at %.3f s, after %s that has a higher fence", b, o.since(b.first()), a)
	case a.Fence == b.Fence && a.Node != b.Node:
		v.add("%s and %s have the same fence", a, b)
	}
	for _, s := range a.Spans {
		for _, t := range b.Spans {
			from, to := max(s.From, t.From), min(s.To, t.To)
			if from > to {
				continue
			}
			long := to.Sub(from) + time.Millisecond // one beat is a millisecond of activity
			if back := max(o.resumed(a, s, to), o.resumed(b, t, to)); back > 0 {
				v.Resumed = max(v.Resumed, long)
				continue
			}
			v.Overlap += long
			v.add("%s and %s were both active for %v, from %.3f s on", a, b, long, o.since(from))
		}
	}
	// What is between the beats does not matter: after the first beat with a higher
	// fence, none with a lower one may come.
	if end := a.Spans[len(a.Spans)-1]; a.Fence.Less(b.Fence) && end.To > b.first() && o.resumed(a, end, end.To) == 0 {
		v.add("%s was active until %.3f s, %v after the first beat of %s", a, o.since(end.To), end.To.Sub(b.first()), b)
	}
}

// resumed is how long after a pause of its node a span went on until an instant, if that
// is all that there is of the span and it was soon over; else zero.
func (o *Oracle) resumed(l Life, s between, until ha.Instant) time.Duration {
	n := o.rack.Node(l.Node)
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.pauses {
		end := p.To
		if end == 0 {
			end = clock.Now()
		}
		if s.From >= p.From && s.To <= end.Add(afterPause) {
			return max(until.Sub(p.To), 1)
		}
	}
	return 0
}

// answers judges what the client was told: once a fence was answered, no lower one is.
func (o *Oracle) answers(v *Verdict) {
	if o.rack.Client == nil {
		return
	}
	var highest Answer
	for _, a := range o.rack.Client.Answers(0) {
		if a.Fence.Less(highest.Fence) && a.At > highest.At && !o.rack.Node(a.Node).absent(a.At) {
			v.add("%s answered with fence %s at %.3f s, %v after %s had answered with %s", a.Node, a.Fence, o.since(a.At),
				a.At.Sub(highest.At), highest.Node, highest.Fence)
			return // one says it
		}
		if !a.Fence.Less(highest.Fence) {
			highest = a
		}
	}
}
