package rpc

import (
	"context"
	"slices"
	"time"

	"connectrpc.com/connect"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
)

const (
	eventLimit    = 1000 // events of one answer, if not asked otherwise
	maxEventLimit = 10000
	maxChoices    = 256 // subjects or codes of a filter
)

// choice is a filter that was checked.
type choice struct {
	since, until time.Time
	subjects     []ha.Subject
	codes        []ha.Code
	least        ha.Severity
	classic      bool
	alarms       bool
}

func choose(f *gemelv1.EventFilter) (choice, error) {
	c := choice{classic: f.GetClassic(), alarms: f.GetAlarms()}
	if t := f.GetSince(); t != nil {
		if err := t.CheckValid(); err != nil {
			return c, fault(ha.ErrInvalid, "since", "", "since is no time: %v", err)
		}
		c.since = t.AsTime()
	}
	if t := f.GetUntil(); t != nil {
		if err := t.CheckValid(); err != nil {
			return c, fault(ha.ErrInvalid, "until", "", "until is no time: %v", err)
		}
		c.until = t.AsTime()
	}
	if n := max(len(f.GetSubjects()), len(f.GetCodes())); n > maxChoices {
		return c, fault(ha.ErrInvalid, "filter", "", "the filter names %d subjects or codes; at most %d", n, maxChoices)
	}
	for _, s := range f.GetSubjects() {
		if s.GetKind() != gemelv1.Kind_KIND_UNSPECIFIED && kinds[s.GetKind()] == "" {
			return c, fault(ha.ErrInvalid, "kind", "", "there is no kind %d of subject", s.GetKind())
		}
		c.subjects = append(c.subjects, subject(s))
	}
	for _, n := range f.GetCodes() {
		if n > 0xffff {
			return c, fault(ha.ErrInvalid, "code", "", "there is no code %d", n)
		}
		c.codes = append(c.codes, ha.Code(n))
	}
	if v := f.GetSeverity(); v != gemelv1.Severity_SEVERITY_UNSPECIFIED {
		if v < 0 || v > gemelv1.Severity_SEVERITY_CRITICAL {
			return c, fault(ha.ErrInvalid, "severity", "", "there is no severity %d", v)
		}
		c.least = ha.Severity(v - 1)
	}
	return c, nil
}

// takes reports whether an event is chosen.
func (c *choice) takes(e *ha.Event) bool {
	if e.Severity < c.least || e.Wall.Before(c.since) || !c.until.IsZero() && !e.Wall.Before(c.until) {
		return false
	}
	if c.alarms && e.Change == ha.Info {
		return false
	}
	if len(c.codes) > 0 && !slices.Contains(c.codes, e.Code) {
		return false
	}
	if c.classic {
		if entry, _ := e.Code.Entry(); !entry.Classic {
			return false
		}
	}
	return len(c.subjects) == 0 || slices.ContainsFunc(c.subjects, func(s ha.Subject) bool {
		return (s.Kind == "" || s.Kind == e.Subject.Kind) && (s.Name == "" || s.Name == e.Subject.Name)
	})
}

// past calls each with the recorded events that are chosen.
func (s *Server) past(ctx context.Context, after uint64, c *choice, each func(ha.Event, bool) bool) error {
	if s.b.History == nil {
		return fault(ha.ErrUnavailable, "history", "", "this daemon keeps no events")
	}
	return s.b.History(ctx, after, c.since, func(e ha.Event) bool {
		return ctx.Err() == nil && (e.ID <= after || each(e, c.takes(&e)))
	})
}

// Events lists recorded events.
func (a *api) Events(ctx context.Context, req *gemelv1.EventsRequest) (*gemelv1.EventsResponse, error) {
	limit := int(req.GetLimit())
	switch {
	case limit == 0:
		limit = eventLimit
	case limit > maxEventLimit:
		return nil, fault(ha.ErrInvalid, "limit", "read on with after", "limit is %d; at most %d", req.GetLimit(), maxEventLimit)
	}
	c, err := choose(req.GetFilter())
	if err != nil {
		return nil, err
	}
	res := &gemelv1.EventsResponse{}
	var found []ha.Event
	if req.GetAfter() == 0 {
		found, res.LastId, err = a.newest(ctx, &c, limit+1)
		if len(found) > limit {
			found, res.More = found[1:], true
		}
	} else {
		err = a.past(ctx, req.GetAfter(), &c, func(e ha.Event, chosen bool) bool {
			if res.More = chosen && len(found) == limit; res.More {
				return false
			}
			res.LastId = e.ID
			if chosen {
				found = append(found, e)
			}
			return true
		})
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	for _, e := range found {
		res.Events = append(res.Events, eventOf(e))
	}
	return res, nil
}

// newest returns the newest events that are chosen, at most so many, oldest
// first, and the greatest id that it saw. It looks at the end of the record
// first and then at more and more of it: most questions are about just now.
func (s *Server) newest(ctx context.Context, c *choice, limit int) (found []ha.Event, last uint64, err error) {
	end := s.lastID(ctx)
	for span := uint64(4*limit + 256); ; span *= 8 {
		after := uint64(0)
		if c.since.IsZero() && span < end {
			after = end - span
		}
		kept := ring{limit: limit}
		err := s.past(ctx, after, c, func(e ha.Event, chosen bool) bool {
			last = e.ID
			if chosen {
				kept.add(e)
			}
			return true
		})
		if found = kept.list(); err != nil || after == 0 || len(found) == limit {
			return found, last, err
		}
	}
}

// lastID is the id of the newest event.
func (s *Server) lastID(ctx context.Context) (last uint64) {
	_ = s.b.Feed.Follow(ctx, func(l uint64) error {
		last = l
		return errGone // nothing is to be followed
	}, nil)
	return last
}

// ring keeps the last events of many.
type ring struct {
	limit int
	kept  []ha.Event
	next  int
}

func (r *ring) add(e ha.Event) {
	if len(r.kept) < r.limit {
		r.kept = append(r.kept, e)
		return
	}
	r.kept[r.next] = e
	r.next = (r.next + 1) % r.limit
}

func (r *ring) list() []ha.Event {
	return slices.Concat(r.kept[r.next:], r.kept[:r.next])
}

// WatchEvents sends past events as asked for, a mark, and then what happens.
func (a *api) WatchEvents(ctx context.Context, req *gemelv1.WatchEventsRequest, stream *connect.ServerStream[gemelv1.WatchEventsResponse]) error {
	c, err := choose(req.GetFilter())
	if err != nil {
		return err
	}
	if n := req.GetPast(); n > maxEventLimit {
		return fault(ha.ErrInvalid, "past", "", "past is %d; at most %d", n, maxEventLimit)
	}
	var broken error
	send := func(e ha.Event) bool {
		broken = stream.Send(&gemelv1.WatchEventsResponse{Event: eventOf(e)})
		return broken == nil
	}
	begin := func(last uint64) error {
		if err := a.recorded(ctx, req, &c, last, send); err != nil {
			return err
		}
		if broken != nil {
			return broken
		}
		return stream.Send(&gemelv1.WatchEventsResponse{Live: true, LastId: last})
	}
	err = a.b.Feed.Follow(ctx, begin, func(e ha.Event) bool { return !c.takes(&e) || send(e) })
	if broken != nil {
		return broken
	}
	return err
}

// recorded sends the events up to the id last that a watcher asked for.
func (s *Server) recorded(ctx context.Context, req *gemelv1.WatchEventsRequest, c *choice, last uint64, send func(ha.Event) bool) error {
	after := req.GetAfter()
	all := after != 0 || req.GetAllSince()
	if !all && req.GetPast() == 0 || after >= last {
		return ctx.Err()
	}
	if !all {
		found, _, err := s.newest(ctx, c, int(req.GetPast()))
		if err != nil {
			return err
		}
		for _, e := range found {
			if e.ID <= last && !send(e) {
				return nil
			}
		}
		return ctx.Err()
	}
	return s.past(ctx, after, c, func(e ha.Event, chosen bool) bool {
		return e.ID <= last && (!chosen || send(e))
	})
}
