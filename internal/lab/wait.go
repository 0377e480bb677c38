package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
	"gemel/internal/rpc"
)

// record is every event that was told so far.
type record struct {
	mu     sync.Mutex
	events []*gemelv1.Event
	err    error         // the stream ended
	more   chan struct{} // closed and replaced with each event
}

func (r *record) add(e *gemelv1.Event, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e != nil {
		r.events = append(r.events, e)
	}
	r.err = err
	if r.more != nil {
		close(r.more)
	}
	r.more = make(chan struct{})
}

// look returns the events after an id, and what is closed when there are more.
func (r *record) look(after uint64) ([]*gemelv1.Event, <-chan struct{}, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.more == nil {
		r.more = make(chan struct{})
	}
	n, _ := slices.BinarySearchFunc(r.events, after+1, func(e *gemelv1.Event, id uint64) int {
		return int(int64(e.GetId()) - int64(id))
	})
	return r.events[n:len(r.events):len(r.events)], r.more, r.err
}

func (r *record) text(after uint64) string {
	events, _, _ := r.look(after)
	var b strings.Builder
	for _, e := range events[max(0, len(events)-100):] {
		fmt.Fprintf(&b, "  %d %s %s\n", e.GetId(), about(e), line(e)+" -- "+e.GetDetail())
	}
	return b.String()
}

// about names the subject of an event: the name of a process or check, else node,
// shadow or monitor.
func about(e *gemelv1.Event) string {
	if n := e.GetSubject().GetName(); n != "" {
		return n
	}
	return strings.ToLower(strings.TrimPrefix(e.GetSubject().GetKind().String(), "KIND_"))
}

// line prints an event as the scenario files of the ladder do.
func line(e *gemelv1.Event) string {
	word := func(s, prefix string) string { return strings.ToLower(strings.TrimPrefix(s, prefix)) }
	return fmt.Sprintf("%d %q %s %s", e.GetCode(), e.GetText(), word(e.GetChange().String(), "CHANGE_"), word(e.GetSeverity().String(), "SEVERITY_"))
}

// told is what an instance tells by its API.
type told struct {
	Client *rpc.Client // of the life that was begun last

	tb     testing.TB
	record *record
	stop   context.CancelFunc // of the record's stream
	done   chan struct{}
}

// follow begins to record, from the last event on.
func (i *told) follow() {
	ctx, cancel := context.WithCancel(context.Background())
	i.stop, i.done = cancel, make(chan struct{})
	seen, _, _ := i.record.look(0)
	req := &gemelv1.WatchEventsRequest{AllSince: true}
	if len(seen) > 0 {
		req.After = seen[len(seen)-1].GetId()
	}
	client := i.Client // the next life has its own
	go func() {
		defer close(i.done)
		err := client.Follow(ctx, req, func(m *gemelv1.WatchEventsResponse) error {
			if m.GetEvent() != nil {
				i.record.add(m.GetEvent(), nil)
			}
			return nil
		})
		if ctx.Err() == nil {
			i.record.add(nil, fmt.Errorf("the stream of events ended: %w", err))
		}
	}()
}

func (i *told) unfollow() {
	if i.stop != nil {
		i.stop()
		<-i.done
		i.stop = nil
	}
}

// Mark is the id of the newest event: what comes after it is new.
func (i *told) Mark() uint64 {
	i.tb.Helper()
	r, err := i.Client.Events(context.Background(), &gemelv1.EventsRequest{Limit: 1})
	if err != nil {
		i.tb.Fatalf("asking for the last event: %v", err)
	}
	return r.GetLastId()
}

// Await waits for the first event after an id with this code about this subject:
// the name of a process or check, or node, shadow or monitor.
func (i *told) Await(after uint64, code ha.Code, subject string) *gemelv1.Event {
	i.tb.Helper()
	bound := time.NewTimer(Bound)
	defer bound.Stop()
	for {
		events, more, err := i.record.look(after)
		for _, e := range events {
			if e.GetCode() == uint32(code) && about(e) == subject {
				return e
			}
		}
		if err != nil {
			i.tb.Fatal(err)
		}
		select {
		case <-more:
		case <-bound.C:
			i.tb.Fatalf("no event %d (%s) about %s within %v; there were, after %d:\n%s%s", code, code, subject, Bound, after, i.record.text(after), i.picture())
		}
	}
}

// Events are those so far after an id, about one subject; "" means all.
func (i *told) Events(after uint64, subject string) []*gemelv1.Event {
	all, _, _ := i.record.look(after)
	return slices.DeleteFunc(slices.Clone(all), func(e *gemelv1.Event) bool { return subject != "" && about(e) != subject })
}

// Classic are the CMM's events so far after an id about one subject, printed as
// the scenario files of the ladder do: code, text, change, severity.
func (i *told) Classic(after uint64, subject string) []string {
	var out []string
	for _, e := range i.Events(after, subject) {
		if e.GetClassic() {
			out = append(out, line(e))
		}
	}
	return out
}

// Status is the present picture.
func (i *told) Status() *gemelv1.Snapshot {
	i.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Bound)
	defer cancel()
	r, err := i.Client.Status(ctx, &gemelv1.StatusRequest{})
	if err != nil {
		i.tb.Fatalf("asking for the status: %v", err)
	}
	return r.GetSnapshot()
}

// Process finds one process in a picture; nil if it is not there.
func Process(s *gemelv1.Snapshot, name string) *gemelv1.ProcessStatus {
	for _, p := range s.GetProcesses() {
		if p.GetName() == name {
			return p
		}
	}
	return nil
}

// Until waits for a picture of the status.
func (i *told) Until(what string, holds func(*gemelv1.Snapshot) bool) *gemelv1.Snapshot {
	i.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Bound)
	defer cancel()
	var last *gemelv1.Snapshot
	for ctx.Err() == nil {
		// The stream ends with each life of a monitor.
		stream, err := i.Client.WatchStatus(ctx, &gemelv1.WatchStatusRequest{IntervalMs: 10})
		if err != nil {
			continue
		}
		for stream.Receive() {
			last = stream.Msg().GetSnapshot()
			if holds(last) {
				_ = stream.Close()
				return last
			}
		}
		_ = stream.Close()
	}
	i.tb.Fatalf("waited %v in vain until %s; the last picture:\n%s\nthe events:\n%s", Bound, what, picture(last), i.record.text(0))
	return nil
}

// Running waits until a process runs and is judged, and returns its status.
func (i *told) Running(name string) *gemelv1.ProcessStatus {
	i.tb.Helper()
	return i.State(name, "running")
}

// State waits until a process is in a state.
func (i *told) State(name, state string) *gemelv1.ProcessStatus {
	i.tb.Helper()
	return Process(i.Until(name+" is "+state, func(s *gemelv1.Snapshot) bool { return Process(s, name).GetState() == state }), name)
}

func (i *told) picture() string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, err := i.Client.Status(ctx, &gemelv1.StatusRequest{})
	if err != nil {
		return err.Error()
	}
	return picture(r.GetSnapshot())
}

func picture(s *gemelv1.Snapshot) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  node: shadow %d, monitor %d, %v, %v\n", s.GetNode().GetShadow(), s.GetNode().GetMonitor(), s.GetNode().GetAdmin(), s.GetNode().GetOp())
	for _, p := range s.GetProcesses() {
		fmt.Fprintf(&b, "  %s: %s, pid %d, start %d, %s\n", p.GetName(), p.GetState(), p.GetPid(), p.GetStart(), p.GetReason())
	}
	for _, c := range s.GetChecks() {
		fmt.Fprintf(&b, "  check %s: %s, %d failures, %s\n", c.GetName(), c.GetState(), c.GetFailures(), c.GetDetail())
	}
	return b.String()
}

// Ask makes one request and fails the test unless it is accepted. Kind is
// process, check or node; the node has no name.
func (i *told) Ask(verb gemelv1.Verb, kind gemelv1.Kind, name string) {
	i.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Bound)
	defer cancel()
	r, err := i.Client.Request(ctx, &gemelv1.RequestRequest{Verb: verb, Target: &gemelv1.Subject{Kind: kind, Name: name}})
	if err != nil || !r.GetOk() {
		i.tb.Fatalf("%v %s: %v, %s", verb, name, err, r.GetReason().GetText())
	}
}
