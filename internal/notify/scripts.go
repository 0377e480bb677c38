package notify

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

const (
	handlersAtOnce = 4    // of different subjects
	handlersWait   = 1024 // of all subjects
	handlerBound   = 10 * time.Second
)

// A Runner runs a command to its end and kills its whole tree after timeout. This
// package never forks by itself.
type Runner func(ctx context.Context, argv, env []string, timeout time.Duration) error

// Scripts runs handlers: the commands that a manifest names for the rungs of a
// ladder and for the events of the node. Those of one subject run one after the
// other, in order; a few subjects go on at once, so that a handler that hangs
// does not hold up everybody's.
type Scripts struct {
	run    Runner
	failed func(ha.Event, error)

	mu    sync.Mutex
	lanes map[ha.Subject][]script // waiting; a subject that runs has an entry
	ready []ha.Subject            // has work and does not run
	count int
	wake  chan struct{}
}

type script struct {
	handler manifest.Handler
	rung    string
	event   ha.Event
}

// NewScripts makes the queue of all handlers. failed is told of each that ended
// badly, took too long, or found no room; it must not block.
func NewScripts(run Runner, failed func(ha.Event, error)) *Scripts {
	return &Scripts{run: run, failed: failed, lanes: map[ha.Subject][]script{}, wake: make(chan struct{}, 1)}
}

// Offer asks for one run of h and returns at once. rung is the rung that it
// stands beside; empty for an event of the node. A handler without a command is
// none.
func (s *Scripts) Offer(h manifest.Handler, rung string, e ha.Event) {
	if len(h.Command) == 0 {
		return
	}
	if !s.enqueue(script{h, rung, e}) {
		s.failed(e, fmt.Errorf("handler %s: %d handlers wait already; it was not run", h.Command[0], handlersWait))
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Scripts) enqueue(w script) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count == handlersWait {
		return false
	}
	s.count++
	lane, busy := s.lanes[w.event.Subject]
	s.lanes[w.event.Subject] = append(lane, w)
	if !busy {
		s.ready = append(s.ready, w.event.Subject)
	}
	return true
}

func (s *Scripts) take() (w script, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ready) == 0 {
		return script{}, false
	}
	subject := s.ready[0]
	s.ready = s.ready[1:]
	lane := s.lanes[subject]
	s.lanes[subject] = lane[1:]
	s.count--
	return lane[0], true
}

func (s *Scripts) done(subject ha.Subject) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lanes[subject]) == 0 {
		delete(s.lanes, subject)
		return
	}
	s.ready = append(s.ready, subject)
}

// Run runs what is offered until ctx ends; handlers that run then are ended by
// the Runner, and those that wait are not run.
func (s *Scripts) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, handlersAtOnce)
	for {
		select {
		case <-ctx.Done():
			return nil
		case slots <- struct{}{}:
		}
		w, ok := s.take()
		for !ok {
			select {
			case <-ctx.Done():
				return nil
			case <-s.wake:
			}
			w, ok = s.take()
		}
		wg.Go(func() {
			s.one(ctx, w)
			s.done(w.event.Subject)
			<-slots
			select {
			case s.wake <- struct{}{}:
			default:
			}
		})
	}
}

func (s *Scripts) one(ctx context.Context, w script) {
	bound := w.handler.Timeout
	if bound <= 0 {
		bound = handlerBound
	}
	err := s.run(ctx, w.handler.Command, environment(w), bound)
	if err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		s.failed(w.event, fmt.Errorf("handler %s: %w", w.handler.Command[0], err))
	}
}

// environment is what a handler is told.
func environment(w script) []string {
	e := w.event
	env := []string{
		"GEMEL_EVENT_ID=" + strconv.FormatUint(e.ID, 10),
		"GEMEL_EVENT_CODE=" + strconv.Itoa(int(e.Code)),
		"GEMEL_EVENT_TEXT=" + e.Text,
		"GEMEL_EVENT_SUBJECT=" + e.Subject.String(),
		"GEMEL_EVENT_SEVERITY=" + e.Severity.String(),
		"GEMEL_EVENT_CHANGE=" + e.Change.String(),
		"GEMEL_EVENT_DETAIL=" + e.Detail,
		"GEMEL_EVENT_REASON=" + e.Why.Text,
		"GEMEL_RUNG=" + w.rung,
	}
	for i := range env {
		env[i] = strings.ReplaceAll(env[i], "\x00", " ")
	}
	return env
}
