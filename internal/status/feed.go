package status

import (
	"context"
	"errors"
	"sync"

	"gemel/internal/ha"
)

// ErrLagged ends the subscription of a reader that fell too far behind. It may
// subscribe again and read what it missed from the journal, by event id.
var ErrLagged = errors.New("the reader fell too far behind; resume with --since and the last event's id")

// A Feed passes events on to those who follow them. A follower that does not
// keep up is ended and never waited for.
type Feed struct {
	mu        sync.Mutex
	followers map[*follower]struct{}
	last      uint64
}

type follower struct {
	c chan ha.Event
}

// NewFeed returns a feed whose last event had the id given.
func NewFeed(last uint64) *Feed {
	return &Feed{followers: make(map[*follower]struct{}), last: last}
}

// Tell passes e on.
func (f *Feed) Tell(e ha.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = max(f.last, e.ID)
	for w := range f.followers {
		select {
		case w.c <- e:
		default:
			close(w.c)
			delete(f.followers, w)
		}
	}
}

// Follow calls each with every event told from now on until ctx ends, or each
// returns false. It calls begin first, with the id of the last event before:
// whatever is told after that reaches each, so that history read in begin and
// what follows neither overlap nor leave a gap.
func (f *Feed) Follow(ctx context.Context, begin func(last uint64) error, each func(ha.Event) bool) error {
	w := &follower{c: make(chan ha.Event, 1024)}
	f.mu.Lock()
	last := f.last
	f.followers[w] = struct{}{}
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.followers, w)
		f.mu.Unlock()
	}()
	if err := begin(last); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-w.c:
			if !ok {
				return ErrLagged
			}
			if !each(e) {
				return nil
			}
		}
	}
}
