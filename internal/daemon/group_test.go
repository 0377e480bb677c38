package daemon

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
)

// TestLatest: what is given while the call before still runs waits for it, the
// last one is carried out, and what was overtaken is not.
func TestLatest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t.Context())
		var got []int
		hold := make(chan struct{})
		give := latest(g, func(_ context.Context, n int) {
			got = append(got, n)
			<-hold
		})
		give(1)
		synctest.Wait()
		give(2)
		give(3)
		close(hold)
		synctest.Wait()
		give(4)
		synctest.Wait()
		g.cancel(nil)
		_ = g.wait()
		if !slices.Equal(got, []int{1, 3, 4}) {
			t.Errorf("called with %v", got)
		}
	})
}
