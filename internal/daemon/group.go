package daemon

import (
	"context"
	"errors"
	"sync"
)

// group runs loops that live and end together: the first that returns ends the
// others, and wait returns when all have.
type group struct {
	ctx    context.Context // of the loops; the group is made and used by one call of Monitor
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	mu  sync.Mutex
	err error
}

func newGroup(ctx context.Context) *group {
	g := &group{}
	g.ctx, g.cancel = context.WithCancelCause(ctx)
	return g
}

// start runs a loop. A loop that returns nil or because its context ended is no
// error, but it ends the others as well.
func (g *group) start(run func(context.Context) error) {
	g.wg.Go(func() {
		err := run(g.ctx)
		g.mu.Lock()
		if g.err == nil && err != nil && g.ctx.Err() == nil {
			g.err = err
		}
		g.mu.Unlock()
		g.cancel(err)
	})
}

// wait returns the first error, or the cause for which the group was ended.
func (g *group) wait() error {
	g.wg.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return g.err
	}
	if err := context.Cause(g.ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// latest returns a function that has f called with what it is given, without
// waiting. The calls come one after the other and in order, until the group ends;
// what is overtaken while f runs is left out. It is for one caller at a time.
func latest[T any](g *group, f func(context.Context, T)) func(T) {
	next := make(chan T, 1)
	g.wg.Go(func() {
		for {
			select {
			case <-g.ctx.Done():
				return
			case v := <-next:
				f(g.ctx, v)
			}
		}
	})
	return func(v T) {
		select {
		case <-next:
		default:
		}
		next <- v
	}
}
