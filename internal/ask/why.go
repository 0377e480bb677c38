package ask

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"gemel/internal/ha"
	"gemel/internal/journal"
	"gemel/internal/status"
)

// A Question names what is asked about: one of Process, Check, Event and Node. If
// all are zero it is the last alarm, or the last event if there never was one.
type Question struct {
	Process ha.Process
	Check   ha.Check
	Event   uint64
	Node    bool
	Last    int              // how many episodes, counted from the end; 0 means 1, of check and node 10 turns
	Now     *status.Snapshot // the present picture; nil: what the journal knows
}

// An Answer is the chain from recorded facts to what is.
type Answer struct {
	Title   string   `json:"title"`              // what is asked about, in one line
	State   string   `json:"state,omitempty"`    // how it is now, one sentence
	Because []string `json:"because,omitempty"`  // why it does not run, if so: who, when, what to do
	Means   string   `json:"means,omitempty"`    // of an event: what it means
	Effect  string   `json:"effect,omitempty"`   // of an event: what it does to the service
	Do      string   `json:"do,omitempty"`       // of an event: what to do
	Kept    []string `json:"evidence,omitempty"` // names of the evidence that was kept
	Chain   []Link   `json:"chain"`              // oldest first
	After   []Link   `json:"after,omitempty"`    // of an event: what came of it
	Notes   []string `json:"notes,omitempty"`    // what the journal could not tell
}

// A Link is one turn of the core, as far as it concerns the question.
type Link struct {
	Seq     uint64      `json:"seq"`
	At      ha.Instant  `json:"at"`
	Wall    time.Time   `json:"wall"`
	Fact    string      `json:"fact"`              // what came in, one sentence
	Reasons []ha.Reason `json:"reasons,omitempty"` // the rules that fired, each once
	Orders  []string    `json:"orders,omitempty"`  // what was ordered and told, one sentence each
	Events  []uint64    `json:"events,omitempty"`  // ids of the events among them
	Left    int         `json:"left,omitempty"`    // instead of a turn: so many are left out here
}

// Why answers a question from the journal in dir.
func Why(dir string, q Question) (Answer, error) {
	if _, err := os.Stat(dir); err != nil {
		return Answer{}, fmt.Errorf("there is no journal to ask: %w", err)
	}
	if q.Event == 0 && q.Process == "" && q.Check == "" && !q.Node {
		id, err := lastEvent(dir)
		if err != nil {
			return Answer{}, err
		}
		q.Event = id
	}
	if q.Event != 0 {
		return whyEvent(dir, q)
	}
	s := ha.OfNode()
	switch {
	case q.Process != "":
		s = ha.OfProcess(q.Process)
	case q.Check != "":
		s = ha.OfCheck(q.Check)
	}
	return whySubject(dir, s, q)
}

// lastEvent finds the newest event that raised an alarm, else the newest.
func lastEvent(dir string) (uint64, error) {
	var assert, any uint64
	err := backward(dir, func() pass {
		assert, any = 0, 0
		return pass{
			take: func(r journal.Record) {
				for _, a := range r.Actions {
					if e, ok := a.(ha.Emit); ok {
						any = e.Event.ID
						if e.Event.Change == ha.Assert {
							assert = e.Event.ID
						}
					}
				}
				if r.Base != nil {
					for _, e := range r.Base.Alarms {
						assert = max(assert, e.ID)
					}
				}
			},
			enough: func(journal.Record) bool { return assert != 0 },
		}
	})
	switch {
	case err != nil:
		return 0, err
	case assert != 0:
		return assert, nil
	case any != 0:
		return any, nil
	}
	return 0, errors.New("nothing is recorded yet")
}

// whySubject tells the last episodes of a process or a check, or the last turns
// of the node.
func whySubject(dir string, s ha.Subject, q Question) (Answer, error) {
	want := q.Last
	if want <= 0 {
		want = 1
		if s.Kind != ha.KindProcess {
			want = 10 // each of their turns stands for itself
		}
	}
	var c *collector
	var eps [][]turn
	err := backward(dir, func() pass {
		c = newCollector(s)
		return pass{take: c.take, enough: func(journal.Record) bool {
			eps = episodes(s, c.turns)
			return len(eps) > want && c.explains(q.Now)
		}}
	}, mentions(s)...)
	if err != nil {
		return Answer{}, err
	}
	eps = episodes(s, c.turns)
	if len(c.turns) == 0 && !known(s, q.Now, c.manifest) {
		return Answer{}, none("gemel status lists what there is", "nothing is recorded of %s, and no manifest names it", s)
	}
	a := Answer{Title: s.String(), Notes: c.notes}
	a.State, a.Because = c.present(q.Now)
	if len(eps) > want {
		eps = eps[len(eps)-want:]
	}
	for _, ep := range eps {
		a.Chain = append(a.Chain, c.links(ep)...)
		a.Kept = append(a.Kept, evidence(ep)...)
	}
	return a, nil
}

// whyEvent tells the episode of an event up to the turn that told it, and apart
// from it what came after.
func whyEvent(dir string, q Question) (Answer, error) {
	e, lo, hi, err := findEvent(dir, q.Event)
	if err != nil {
		return Answer{}, err
	}
	if e.ID == 0 {
		if hi == 0 {
			return Answer{}, none("", "there is no event %d: nothing is recorded yet", q.Event)
		}
		return Answer{}, none("gemel events lists them", "there is no event %d: the journal holds %d to %d", q.Event, lo, hi)
	}
	s := e.Subject
	if s.Kind == ha.KindShadow || s.Kind == ha.KindMonitor {
		s = ha.OfNode()
	}
	var c *collector
	var eps [][]turn
	at := -1
	err = backward(dir, func() pass {
		c = newCollector(s)
		c.keep = e.ID
		return pass{take: c.take, enough: func(journal.Record) bool {
			eps = episodes(s, c.turns)
			at = episodeOf(eps, e.ID)
			return at > 0
		}}
	}, mentions(s)...)
	if err != nil {
		return Answer{}, err
	}
	eps = episodes(s, c.turns)
	at = episodeOf(eps, e.ID)
	a := Answer{Title: fmt.Sprintf("event %d, %s: %s", e.ID, e.Subject, e.Text), Notes: c.notes}
	if e.Detail != "" {
		a.Title += " (" + e.Detail + ")"
	}
	if entry, ok := e.Code.Entry(); ok {
		a.Means, a.Effect, a.Do = entry.Means, entry.Effect, entry.Do
		if e.Subject.Name != "" {
			a.Do = strings.ReplaceAll(a.Do, "NAME", e.Subject.Name)
		}
	}
	if at < 0 {
		return a, nil
	}
	a.Kept = evidence(eps[at])
	before, after := split(eps[at], e.ID)
	a.Chain, a.After = c.links(before), c.links(after)
	return a, nil
}

// findEvent looks for an event; lo and hi are the first and last id if it is not
// there.
func findEvent(dir string, id uint64) (e ha.Event, lo, hi uint64, err error) {
	below := false
	err = backward(dir, func() pass {
		return pass{
			take: func(r journal.Record) {
				below = below || r.Base != nil && r.Base.NextEvent <= id
				for _, a := range r.Actions {
					if em, ok := a.(ha.Emit); ok && em.Event.ID == id {
						e = em.Event
					}
				}
			},
			enough: func(journal.Record) bool { return e.ID != 0 || below },
		}
	}, fmt.Sprintf(`"id":%d,`, id))
	if err != nil || e.ID != 0 {
		return e, 0, 0, err
	}
	err = journal.Events(dir, 0, time.Time{}, func(e ha.Event) bool {
		if lo == 0 {
			lo = e.ID
		}
		hi = e.ID
		return true
	})
	return ha.Event{}, lo, hi, err
}

// none is the error of a question about what there is not.
func none(hint, format string, args ...any) error {
	return &ha.Error{Kind: ha.ErrNotFound, Reason: "nothing", Hint: hint, Err: fmt.Errorf(format, args...)}
}
