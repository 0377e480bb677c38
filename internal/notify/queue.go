package notify

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"gemel/internal/ha"
)

const (
	queueSize = 1024 // events of one sink that wait
	sendBound = 2 * time.Second
	lastBound = time.Second // for all that waits when the end comes
	retryMin  = 100 * time.Millisecond
	retryMax  = 5 * time.Second
)

// A Queue stands before one sink: in order, bounded, never in the way. When it is
// full the oldest event goes, for the newest tells how things are; the next one
// that is sent says how many are missing. They are all in the journal.
type Queue struct {
	sink Sink
	log  *slog.Logger
	wake chan struct{}

	mu      sync.Mutex
	waiting []ha.Event
	dropped int
}

// NewQueue makes the queue of a sink. It sends nothing before Run.
func NewQueue(s Sink, log *slog.Logger) *Queue {
	return &Queue{sink: s, log: log, wake: make(chan struct{}, 1)}
}

// Offer gives an event to the queue and returns at once.
func (q *Queue) Offer(e ha.Event) {
	q.mu.Lock()
	if len(q.waiting) == queueSize {
		q.waiting = append(q.waiting[:0], q.waiting[1:]...)
		q.dropped++
	}
	q.waiting = append(q.waiting, e)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns the oldest event, with the number of those dropped before it.
func (q *Queue) take() (e ha.Event, dropped int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return ha.Event{}, 0, false
	}
	e, dropped = q.waiting[0], q.dropped
	q.waiting = q.waiting[1:]
	q.dropped = 0
	return e, dropped, true
}

// Run sends what is offered until ctx ends; then it gives what still waits one
// short chance.
func (q *Queue) Run(ctx context.Context) error {
	var failing bool
	for {
		e, dropped, ok := q.take()
		if !ok {
			select {
			case <-ctx.Done():
				return nil
			case <-q.wake:
			}
			continue
		}
		for pause := retryMin; ; pause = min(2*pause, retryMax) {
			if ctx.Err() != nil {
				q.last(e, dropped)
				return nil
			}
			err := q.send(ctx, e, dropped)
			if err == nil {
				if failing {
					q.log.Info("events are taken again", "sink", q.sink.Name())
				}
				failing = false
				break
			}
			if !failing && ctx.Err() == nil {
				failing = true
				q.log.Warn("events are not taken", "sink", q.sink.Name(), "error", err)
			}
			if n := q.overflow(); n > 0 {
				dropped += n
			}
			wait(ctx, pause)
		}
	}
}

// overflow takes over what was dropped while an event is being tried.
func (q *Queue) overflow() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.dropped
	q.dropped = 0
	return n
}

func (q *Queue) send(ctx context.Context, e ha.Event, dropped int) error {
	if dropped > 0 {
		e.Detail = note(e.Detail, dropped)
	}
	ctx, cancel := context.WithTimeout(ctx, sendBound)
	defer cancel()
	return q.sink.Send(ctx, e)
}

func (q *Queue) last(e ha.Event, dropped int) {
	ctx, cancel := context.WithTimeout(context.Background(), lastBound)
	defer cancel()
	for ok := true; ok; e, dropped, ok = q.take() {
		if err := q.send(ctx, e, dropped); err != nil {
			q.log.Warn("events were left when the end came", "sink", q.sink.Name(), "error", err)
			return
		}
	}
}

func note(detail string, dropped int) string {
	s := fmt.Sprintf("%d events were dropped around here: this sink did not take them", dropped)
	if detail != "" {
		s = detail + "; " + s
	}
	return s
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
