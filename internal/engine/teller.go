package engine

import (
	"log/slog"
	"slices"
	"time"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/status"
)

// teller completes events and knows which alarms stand.
type teller struct {
	clock clock.Clock
	log   *slog.Logger
	feed  *status.Feed

	alarms alarms
	last   map[ha.Process]ha.Event // of each process, for its handlers
	id     uint64                  // of the last event
	bad    bool                    // the alarm that the journal cannot be written stands
}

func newTeller(s Setup) teller {
	return teller{
		clock: s.Clock, log: s.Log, feed: s.Feed,
		alarms: newAlarms(s.Past.Alarms),
		last:   make(map[ha.Process]ha.Event),
		id:     max(s.Past.NextEvent, 1) - 1,
		// The life before may have ended with a full disk.
		bad: slices.ContainsFunc(s.Past.Alarms, func(e ha.Event) bool { return e.Code == ha.DiskTrouble }),
	}
}

// complete gives the events among actions what only the edge knows, and reports
// whether the step has to be on the disk before anything is done.
func (t *teller) complete(actions []ha.Action, now ha.Instant, wall time.Time) (sync bool) {
	for i, a := range actions {
		switch a := a.(type) {
		case ha.Emit:
			a.Event = t.number(a.Event.Dated(now, wall), now, wall)
			actions[i] = a
		case ha.Keep:
			sync = sync || a.Sync
		}
	}
	return sync
}

func (t *teller) number(ev ha.Event, now ha.Instant, wall time.Time) ha.Event {
	t.id++
	ev.ID, ev.At, ev.Wall = t.id, now, wall
	return ev
}

// own makes an info event of the engine's own, beside the decisions of the core.
func (t *teller) own(code ha.Code, about ha.Subject, detail string) ha.Event {
	return t.number(ha.Event{
		Code: code, Subject: about, Text: code.String(), Detail: detail,
		Why: ha.Reason{Rule: "engine", Text: detail},
	}, t.clock.Now(), time.Now())
}

// trouble returns the event that a change of the journal's health is; err is why
// it cannot be written.
func (t *teller) trouble(err error) (ev ha.Event, changed bool) {
	if t.bad == (err != nil) {
		return ha.Event{}, false
	}
	t.bad = err != nil
	detail, change, severity := "the journal is written again", ha.Clear, ha.OK
	if t.bad {
		t.log.Error("the journal cannot be written", "error", err)
		detail, change, severity = err.Error(), ha.Assert, ha.Major
	}
	ev = t.own(ha.DiskTrouble, ha.OfNode(), detail)
	ev.Change, ev.Severity = change, severity
	return ev, true
}

// tell passes an event to those who follow.
func (t *teller) tell(ev ha.Event) {
	t.alarms.take(ev)
	if ev.Subject.Kind == ha.KindProcess {
		t.last[ha.Process(ev.Subject.Name)] = ev
	}
	t.feed.Tell(ev)
}
