package main

import (
	"fmt"
	"path/filepath"

	"gemel/internal/ha"
	"gemel/internal/journal"
)

// judge compares the journal with what the oracle saw: each end once, with its
// true code.
func (c *campaign) judge() ([]string, error) {
	var bad []string
	say := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	seen := make(map[ha.StartID]ha.Exited)
	err := journal.Read(filepath.Join(c.data, "journal"), 0, func(r journal.Record) bool {
		if r.Kind == journal.KindGap {
			say("the journal has a gap at record %d: %s", r.Seq, r.Note)
		}
		if died, ok := r.Input.(ha.HalfDied); ok && died.Status.Unknown {
			say("record %d: the end of the %s is not known: %v", r.Seq, died.Half, died.Status)
		}
		in, ok := r.Input.(ha.Exited)
		if !ok {
			return true
		}
		if old, twice := seen[in.Start]; twice {
			say("the end of start %d of %s is recorded twice: %v and %v", in.Start, in.Process, old.Status, in.Status)
		}
		seen[in.Start] = in
		return true
	})
	if err != nil {
		return bad, fmt.Errorf("reading the journal: %w", err)
	}
	unknown := 0
	for id, l := range c.oracle.lives {
		in, ok := seen[ha.StartID(id)]
		if !ok {
			say("the end of start %d of %s (code %d) is not recorded", id, l.name, l.code)
			continue
		}
		s := in.Status
		switch {
		case s.Unknown:
			unknown++
			if !c.pair.wasDead(s.After, s.Before) {
				say("start %d of %s: %v, but a half lived all that time", id, l.name, s)
			}
		case l.leaving && s.Signal == 0 && s.Code == leaveCode:
		case s.Signal != 0 || s.Code != l.code:
			say("start %d of %s ended with code %d and was recorded as %v", id, l.name, l.code, s)
		}
	}
	fmt.Printf("%d ends, %d of them unknown because neither half lived\n", len(c.oracle.lives), unknown)
	if len(c.oracle.lives) < c.programs {
		say("only %d starts were seen: the trial shows nothing", len(c.oracle.lives))
	}
	return bad, nil
}

// wasDead reports whether there was a moment between the two instants in which
// neither half lived.
func (p *pair) wasDead(after, before ha.Instant) bool {
	for _, s := range p.dead {
		if s.from <= before && (s.to == 0 || s.to >= after) {
			return true
		}
	}
	return false
}

func (o *oracle) starts() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.lives)
}
