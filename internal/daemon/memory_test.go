package daemon

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// TestGiveBack: after a burst the garbage does not stay.
func TestGiveBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- giveBack(ctx) }()
		h := newHeap()
		burst := make([][]byte, 64)
		for i := range burst {
			burst[i] = make([]byte, 1<<20)
		}
		runtime.KeepAlive(burst)
		burst = nil
		time.Sleep(3 * thriftEvery)
		synctest.Wait()
		h.read()
		if h.spare() > 32<<20 {
			t.Errorf("%d bytes are held for nothing, %d live", h.spare(), h.live())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
