package daemon

import (
	"context"
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

// fenceTest is the time between two tests of the ways to the fence devices.
const fenceTest = time.Hour

// fences are the devices by which nodes are turned off.
type fences struct {
	m *member

	mu     sync.Mutex
	known  map[ha.Node]manifest.Fence
	tested map[ha.Node]time.Time
	busy   map[ha.Node]*sync.Mutex // a device does one thing at a time
}

func newFences(m *member) *fences {
	return &fences{m: m, known: map[ha.Node]manifest.Fence{}, tested: map[ha.Node]time.Time{}, busy: map[ha.Node]*sync.Mutex{}}
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
		if last, ok := f.tested[n]; ok && time.Since(last) < fenceTest {
			continue
		}
		f.tested[n] = time.Now()
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
			about := ha.Subject{Kind: ha.KindNode, Name: string(n)}
			switch {
			case m.h.group.ctx.Err() != nil:
			case o.Kind != contract.Done:
				m.h.engine.Note(ha.FenceFailed, about, "at a test of its device: "+strings.TrimSpace(o.Reason))
			default:
				m.h.engine.Note(ha.FenceWorks, about, o.Reason)
			}
		})
	}
}
