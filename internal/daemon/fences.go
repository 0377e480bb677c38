package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"gemel/internal/contract"
	"gemel/internal/contract/hold"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/store"
)

// fenceKey begins the keys that say how each node is turned off. A node writes its own,
// out of its node.yaml: who is to turn it off must know beforehand.
const fenceKey = "fence/"

const (
	fenceTest  = time.Hour   // between two tests of the way to a fence device
	fenceAgain = time.Minute // and after one that failed
	fenceFails = 2           // in a row, until a device that worked does not count any more
)

// fenceTested is what came of the last test of a node's device. It is in the store, so that
// each node that comes to decide knows which nodes offer level 3.
type fenceTested struct {
	Device string  `json:"device"` // digest of how the device is used
	Works  bool    `json:"works"`
	Why    string  `json:"why,omitempty"` // it does not
	By     ha.Node `json:"by"`
}

// trial is what the node that decides knows of its tests of one device.
type trial struct {
	last  time.Time
	fails int // in a row
}

// fences are the devices by which nodes are turned off.
type fences struct {
	m *member

	mu     sync.Mutex
	known  map[ha.Node]manifest.Fence
	tested map[ha.Node]trial
	busy   map[ha.Node]*sync.Mutex // a device does one thing at a time
}

func newFences(m *member) *fences {
	return &fences{m: m, known: map[ha.Node]manifest.Fence{}, tested: map[ha.Node]trial{}, busy: map[ha.Node]*sync.Mutex{}}
}

// follow makes known what the store says, and this node's own device to the others. It
// is called again and again.
func (f *fences) follow(ctx context.Context) {
	m := f.m
	if m.loop == nil {
		return
	}
	docs, _, err := m.client.Docs(ctx, fenceKey)
	if err != nil {
		return // it is asked for again
	}
	if err := f.publish(ctx, docs); err != nil && !errors.Is(err, store.ErrRefused) {
		m.o.Log.Warn("the other nodes do not know how this one is turned off", "error", err)
	}
	known := map[ha.Node]manifest.Fence{}
	for _, p := range m.o.Identity.Peers {
		for _, d := range docs {
			var x manifest.Fence
			if d.Key == fenceKey+string(p.Name) && json.Unmarshal(d.Value, &x) == nil && x.Agent != "" {
				known[p.Name] = x
			}
		}
	}
	f.mu.Lock()
	same := reflect.DeepEqual(known, f.known)
	for n := range f.tested {
		if !reflect.DeepEqual(known[n], f.known[n]) {
			delete(f.tested, n)
		}
	}
	f.known = known
	f.mu.Unlock()
	if !same {
		m.loop.Fences(slices.Sorted(maps.Keys(known)))
	}
	f.test()
}

// publish writes this node's own device, if the store says something else.
func (f *fences) publish(ctx context.Context, docs []store.Doc) error {
	m := f.m
	key := fenceKey + string(m.o.Identity.Name)
	var now store.Doc
	for _, d := range docs {
		if d.Key == key {
			now = d
		}
	}
	var value []byte
	if own := m.o.Identity.Level.Fence; own != nil {
		var err error
		if value, err = json.Marshal(own); err != nil {
			return fmt.Errorf("writing down the fence device of this node: %w", err)
		}
	}
	if string(value) == string(now.Value) {
		return nil
	}
	_, err := m.client.PutDoc(ctx, key, now.Rev, value)
	return err
}

// device is how a node is turned off; false: in no way.
func (f *fences) device(n ha.Node) (contract.Fence, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x, ok := f.known[n]
	return contract.Fence{Agent: x.Agent, Options: x.Parameters, Timeout: x.Timeout, Run: RunPart(hold.As{}, nil)}, ok
}

// hold waits until nothing else is asked of the device of a node.
func (f *fences) hold(n ha.Node) (free func()) {
	f.mu.Lock()
	l := f.busy[n]
	if l == nil {
		l = &sync.Mutex{}
		f.busy[n] = l
	}
	f.mu.Unlock()
	l.Lock()
	return l.Unlock
}

// turnOff carries out what the brain of this node orders, beside its loop. Nothing but a
// confirmation is told to it: without one it waits as for a node without a device.
func (f *fences) turnOff(a ha.TurnOff) {
	m := f.m
	m.h.group.wg.Go(func() {
		defer f.hold(a.Node)()
		about := ha.Subject{Kind: ha.KindNode, Name: string(a.Node)}
		d, ok := f.device(a.Node)
		if !ok {
			m.h.engine.Note(ha.FenceFailed, about, "its device is not known any more")
			return
		}
		o := d.Off(m.h.group.ctx)
		if o.Kind != contract.Done {
			m.h.engine.Note(ha.FenceFailed, about, o.Reason)
			return
		}
		m.loop.Confirm(ha.Off{Node: a.Node, Key: a.Key})
		m.h.engine.Note(ha.NodeFenced, about, o.Reason)
	})
}

// test has the node that decides ask each device now and then whether it could be used:
// one that fails is told before the day on which it is needed.
func (f *fences) test() {
	m := f.m
	if m.seen().Brain.Node != m.o.Identity.Name {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for n := range f.known {
		t := f.tested[n]
		every := fenceTest
		if t.fails > 0 {
			every = fenceAgain
		}
		if !t.last.IsZero() && time.Since(t.last) < every {
			continue
		}
		t.last = time.Now()
		f.tested[n] = t
		m.h.group.wg.Go(func() {
			defer f.hold(n)()
			d, ok := f.device(n)
			if !ok {
				return
			}
			o := d.Validate(m.h.group.ctx)
			if o.Kind == contract.Done {
				o = d.Check(m.h.group.ctx)
			}
			if m.h.group.ctx.Err() != nil {
				return
			}
			f.judge(n, digestOf(d), o)
		})
	}
}

// judge tells what came of a test, in an event when that is new, and in the store.
func (f *fences) judge(n ha.Node, device string, o contract.Outcome) {
	m := f.m
	about := ha.Subject{Kind: ha.KindNode, Name: string(n)}
	x := fenceTested{Device: device, Works: o.Kind == contract.Done, By: m.o.Identity.Name}
	m.mu.Lock()
	was, known := m.wished.fences[n]
	m.mu.Unlock()
	known = known && was.Device == device
	f.mu.Lock()
	t := f.tested[n]
	if t.fails++; x.Works {
		t.fails = 0
	}
	f.tested[n] = t
	f.mu.Unlock()
	switch {
	case x.Works:
		m.h.engine.Note(ha.FenceWorks, about, o.Reason)
	default:
		x.Why = strings.TrimSpace(o.Reason)
		if t.fails == 1 || t.fails == fenceFails { // the others in a row say nothing new
			m.h.engine.Note(ha.FenceFailed, about, "at a test of its device: "+x.Why)
		}
		if known && was.Works && t.fails < fenceFails {
			return // groups leave a node for that: once may be chance
		}
	}
	if known && was.Works == x.Works {
		return
	}
	if err := (wishing{m}).change(m.h.group.ctx, factFence+string(n), func([]byte) (any, error) { return x, nil }); err != nil {
		m.o.Log.Warn("what came of the test of a fence device is not known to the others", "node", n, "error", err)
		f.mu.Lock()
		f.tested[n] = trial{last: time.Now().Add(fenceAgain - fenceTest), fails: t.fails} // soon again
		f.mu.Unlock()
	}
}

// works reports whether a device was tested as it is now, and worked.
func (f *fences) works(n ha.Node, t fenceTested) bool {
	d, ok := f.device(n)
	return ok && t.Works && t.Device == digestOf(d)
}

// judged reports whether something is known of the device of a node, if it has one.
func (f *fences) judged(n ha.Node, t fenceTested) bool {
	d, ok := f.device(n)
	return !ok || t.Device == digestOf(d)
}

// digestOf tells one way to use a device from another.
func digestOf(d contract.Fence) string {
	b, _ := json.Marshal([]any{d.Agent, d.Options, d.Timeout}) // strings and a number
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}
