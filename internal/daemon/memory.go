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
	little      = 1 << 18 // bytes that were not worth one
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
		if h.read() < quiet && h.worth() {
			before := h.spare()
			debug.FreeOSMemory()
			h.gave(before)
		}
	}
}

// heap is what the runtime tells of its memory, in bytes.
type heap struct {
	samples [5]metrics.Sample
	before  uint64
	// bound is what no collection could give back the last time: spans that are
	// kept by a few small objects each.
	bound uint64
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

// worth reports whether a collection would give something back. What the last one
// could not give is not asked for again, or there would be one every thriftEvery.
func (h *heap) worth() bool {
	h.bound = min(h.bound, h.spare())
	return h.spare() > h.bound+loose+h.live()/4
}

// gave notes what a collection gave back. One that brought much may be followed by
// another that does: pools keep what they hold for one more.
func (h *heap) gave(before uint64) {
	h.read()
	if h.spare()+little > before {
		h.bound = h.spare()
	}
}
