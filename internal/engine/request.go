package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"gemel/internal/decide/ladder"
	"gemel/internal/ha"
)

// errEnded is told to callers whose question the loop did not come to.
var errEnded = &ha.Error{Kind: ha.ErrUnavailable, Reason: "ending", Hint: "ask again in a moment",
	Err: errors.New("this monitor is ending")}

// requests are the questions that wait for the core's answer.
type requests struct {
	waiting map[string]chan<- reply
	asked   uint64
}

type reply struct {
	answer ha.Answer
	err    error
}

// begin gives a question its id.
func (r *requests) begin(c chan<- reply) (id string) {
	id = strconv.FormatUint(r.asked, 36)
	r.asked++
	r.waiting[id] = c
	return id
}

// answer ends a question. unwritten is why what it promises is not on the disk.
func (r *requests) answer(a ha.Answer, unwritten error) {
	c, ok := r.waiting[a.ID]
	if !ok {
		return
	}
	delete(r.waiting, a.ID)
	p := reply{answer: a}
	if a.OK && unwritten != nil {
		p.err = &ha.Error{Kind: ha.ErrFailed, Reason: "not-on-disk",
			Hint: "make room under the data directory: it is written as soon as that is possible; if gemel ends before, it is lost",
			Err:  fmt.Errorf("it is in force, but not on the disk: %w", unwritten)}
	}
	c <- p
}

// Request asks the core for something and returns its answer. A refusal is an
// answer as well, with OK false. What was asked for after ctx ended is not done.
func (e *Engine) Request(ctx context.Context, r ha.Request) (ha.Answer, error) {
	c := make(chan reply, 1)
	e.inbox.put(item{do: func() ha.Input {
		if ctx.Err() != nil {
			return nil
		}
		r.ID, r.Wall = e.loop.requests.begin(c), time.Now().UTC()
		return r
	}})
	select {
	case <-ctx.Done():
		e.inbox.put(item{do: func() ha.Input { delete(e.loop.requests.waiting, r.ID); return nil }})
		return ha.Answer{}, fmt.Errorf("waiting for the answer to %s %s: %w", r.Verb, r.Target, ctx.Err())
	case <-e.ended:
		return ha.Answer{}, errEnded
	case p := <-c:
		return p.answer, p.err
	}
}

// Turn returns when the loop has worked off everything that was in its inbox
// before: the proof that it is alive.
func (e *Engine) Turn(ctx context.Context) error { return e.visit(ctx, func() {}) }

// Unowned returns the programs of groups that run here by no right: those of a machine
// that has just become the first node of a cluster. It is an error as long as it is not
// known what runs.
func (e *Engine) Unowned(ctx context.Context) ([]ha.Process, error) {
	var list []ha.Process
	known := false
	err := e.visit(ctx, func() { list, known = ladder.Unowned(e.loop.machine), e.loop.settled })
	if err == nil && !known {
		err = errors.New("what runs here is being found out")
	}
	return list, err
}

// visit has the loop call f, and waits for it.
func (e *Engine) visit(ctx context.Context, f func()) error {
	done := make(chan struct{})
	e.inbox.put(item{do: func() ha.Input { f(); close(done); return nil }})
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-e.ended:
		return errEnded
	case <-done:
		return nil
	}
}
