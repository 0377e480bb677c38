package status

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"gemel/internal/ha"
)

// A reader that waits gets the newest picture, not each one in between.
func TestBoard(t *testing.T) {
	var b Board
	first, changed := b.Last()
	if first != nil {
		t.Error("a picture before the first")
	}
	b.Publish(&Snapshot{Revision: 1})
	<-changed
	b.Publish(&Snapshot{Revision: 2})
	b.Publish(&Snapshot{Revision: 3})
	s, changed := b.Last()
	if s.Revision != 3 {
		t.Errorf("revision %d", s.Revision)
	}
	select {
	case <-changed:
		t.Error("nothing newer was published")
	default:
	}
	if _, again := b.Last(); again != changed {
		t.Error("two readers wait for different things")
	}
}

// What is told after begin reaches each once and in order, without a gap to the
// history that begin read.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFeed(4)
		f.Tell(ha.Event{ID: 5})
		ctx, cancel := context.WithCancel(t.Context())
		var got []uint64
		done := make(chan error)
		go func() {
			done <- f.Follow(ctx, func(last uint64) error {
				got = append(got, last)
				f.Tell(ha.Event{ID: 6}) // while history is being read
				return nil
			}, func(e ha.Event) bool { got = append(got, e.ID); return e.ID < 8 })
		}()
		synctest.Wait()
		f.Tell(ha.Event{ID: 7})
		f.Tell(ha.Event{ID: 8})
		if err := <-done; err != nil {
			t.Error(err)
		}
		for i, id := range got {
			if id != uint64(5+i) {
				t.Errorf("got %v", got)
				break
			}
		}
		go func() {
			done <- f.Follow(ctx, func(uint64) error { return nil }, func(ha.Event) bool { return true })
		}()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if len(f.followers) != 0 {
			t.Errorf("%d followers are left", len(f.followers))
		}
		wrong := errors.New("no history")
		if err := f.Follow(t.Context(), func(uint64) error { return wrong }, nil); !errors.Is(err, wrong) {
			t.Errorf("%v", err)
		}
	})
}

// Who does not keep up is ended, and holds up nobody.
func TestLagging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFeed(0)
		hold := make(chan struct{})
		done := make(chan error)
		n := 0
		go func() {
			done <- f.Follow(t.Context(), func(uint64) error { return nil }, func(ha.Event) bool { <-hold; n++; return true })
		}()
		synctest.Wait()
		for i := range 5000 {
			f.Tell(ha.Event{ID: uint64(i + 1)})
		}
		close(hold)
		if err := <-done; !errors.Is(err, ErrLagged) {
			t.Errorf("%v", err)
		}
		if n == 0 || n == 5000 {
			t.Errorf("%d events came", n)
		}
	})
}
