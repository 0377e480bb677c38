package daemon

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// What giveBack goes by.
const (
	thriftEvery = 3 * time.Second
	quiet       = 1 << 20 // bytes allocated within thriftEvery by who is not busy
	loose       = 2 << 20 // bytes beyond a quarter of the living ones that are worth a collection
)

// giveBack returns memory to the machine when a burst is over: reading a manifest
// and starting its programs leaves several times what is kept, which a heap that
// hardly allocates any more would hold for hours. Each half has one.
func giveBack(ctx context.Context) error {
	t := time.NewTicker(thriftEvery)
	defer t.Stop()
	h := newHeap()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if h.read() < quiet && h.spare() > loose+h.live()/4 {
			debug.FreeOSMemory()
		}
	}
}

// heap is what the runtime tells of its memory, in bytes.
type heap struct {
	samples [5]metrics.Sample
	before  uint64
}

func newHeap() *heap {
	h := &heap{}
	for i, name := range [...]string{
		"/gc/heap/allocs:bytes", "/gc/heap/live:bytes", "/memory/classes/heap/objects:bytes",
		"/memory/classes/heap/free:bytes", "/memory/classes/heap/unused:bytes",
	} {
		h.samples[i].Name = name
	}
	h.read()
	return h
}

// read measures anew and returns what was allocated since the last time.
func (h *heap) read() uint64 {
	metrics.Read(h.samples[:])
	now := h.samples[0].Value.Uint64()
	since := now - h.before
	h.before = now
	return since
}

func (h *heap) live() uint64 { return h.samples[1].Value.Uint64() }

// spare is what the machine does not get although nothing lives in it.
func (h *heap) spare() uint64 {
	held := h.samples[2].Value.Uint64() + h.samples[3].Value.Uint64() + h.samples[4].Value.Uint64()
	return held - min(held, h.live())
}
