package engine

import (
	"context"
	"fmt"
	"strconv"

	"gemel/internal/ha"
)

// Request asks the core for something and returns its answer. A refusal is an
// answer as well, with OK false.
func (e *Engine) Request(ctx context.Context, r ha.Request) (ha.Answer, error) {
	c := make(chan ha.Answer, 1)
	e.inbox.put(item{do: func() ha.Input {
		r.ID = strconv.FormatUint(e.picture.asked, 36)
		e.picture.asked++
		e.waiting[r.ID] = c
		return r
	}})
	select {
	case <-ctx.Done():
		return ha.Answer{}, fmt.Errorf("waiting for the answer to %s %s: %w", r.Verb, r.Target, ctx.Err())
	case a := <-c:
		return a, nil
	}
}

// answer ends a request.
func (e *Engine) answer(a ha.Answer) {
	if c, ok := e.waiting[a.ID]; ok {
		delete(e.waiting, a.ID)
		c <- a
	}
}

// Turn returns when the loop has worked off everything that was in its inbox
// before: the proof that it is alive.
func (e *Engine) Turn(ctx context.Context) error {
	done := make(chan struct{})
	e.inbox.put(item{do: func() ha.Input { close(done); return nil }})
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-done:
		return nil
	}
}
