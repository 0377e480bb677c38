package engine

import (
	"sync"

	"gemel/internal/ha"
)

// An item is one thing for the loop: a fact, or work on the loop's own state that
// ends in a fact.
type item struct {
	in ha.Input
	do func() ha.Input // run by the loop; a nil result means that there is no fact
}

// inbox is an unbounded queue: an edge that reports must never wait for the
// engine, since the engine may be handing that very edge an order. What can be
// in it is bounded by the number of programs and checks.
type inbox[T any] struct {
	wake chan struct{} // holds one token while there may be items

	mu    sync.Mutex
	items []T
}

func newInbox[T any]() *inbox[T] { return &inbox[T]{wake: make(chan struct{}, 1)} }

func (q *inbox[T]) put(it T) {
	q.mu.Lock()
	q.items = append(q.items, it)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns everything that is in the queue.
func (q *inbox[T]) take() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.items = nil
	return items
}
