package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/lab/rack"
	"gemel/internal/lab/register"
	"gemel/internal/rpc"
)

const (
	writeAtOnce = 2                      // writers
	writePause  = 100 * time.Millisecond // the mean between two writes of one
	viewPause   = 150 * time.Millisecond // between two looks at what a node has in force
	listPause   = 200 * time.Millisecond // between two readings of the store
	readBound   = 2 * time.Second
	writeBound  = 8 * time.Second // more than the node itself waits for its store
)

// writes puts one manifest after the other into force while faults are done, through
// nodes that change, and reads what is in force from each: no write that was acknowledged
// may be lost. One differs from the other by a time in which nothing is counted.
type writes struct {
	rack    *rack.Rack
	history register.History
	text    string // the manifest that the rack began with

	mu   sync.Mutex
	rand *rand.Rand
	last int // the number of the last write

	stop context.CancelFunc
	wg   sync.WaitGroup
}

// counted is what a manifest of ours is told by: the program of the group is never given up,
// however many milliseconds its restarts are counted in.
const counted = "within: 1m"

func newWrites(r *rack.Rack, seed uint64) (*writes, error) {
	b, err := os.ReadFile(r.Nodes()[0].Path("gemel.yaml"))
	if err != nil {
		return nil, err
	}
	w := &writes{rack: r, text: string(b), rand: rand.New(rand.NewPCG(seed, 2))}
	if strings.Count(w.text, counted) != 1 {
		return nil, errors.New("the manifest of the rack has nothing that can be written")
	}
	// What is in force before the first write is what all follows from.
	for end := clock.Now().Add(writeBound); ; {
		if err = w.list(context.Background(), r.Nodes()[0]); err == nil || clock.Now() > end {
			return w, err
		}
	}
}

// manifest is that of one write: its text, and the name by which it is told.
func (w *writes) manifest(number int, bad bool) (id string, text []byte) {
	s := strings.Replace(w.text, counted, fmt.Sprintf("within: %dms", 60_000+number), 1)
	if bad {
		s += "nonsense: true\n"
	}
	return fmt.Sprintf("write-%d", number), []byte(s)
}

// told is the write that a manifest is of, by its name if its text says the same.
func (w *writes) told(name string, text []byte) string {
	var n int
	if string(text) == w.text {
		return first(name)
	}
	if _, err := fmt.Sscanf(name, "write-%d", &n); err == nil {
		if _, want := w.manifest(n, false); string(want) == string(text) {
			return name
		}
	}
	return fmt.Sprintf("%s with a text that is not its own: %.200q", name, text)
}

// first is the one name of what the rack began with: each node has a file of its own of it.
func first(name string) string {
	if strings.HasSuffix(name, "/gemel.yaml") {
		return "begin"
	}
	return name
}

// draw takes a number from the schedule.
func (w *writes) draw(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rand.IntN(n)
}

// begin has the writers and readers go on until rest.
func (w *writes) begin() {
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	nodes := w.rack.Nodes()
	loop := func(pause func() time.Duration, f func()) {
		w.wg.Go(func() {
			for ctx.Err() == nil {
				f()
				select {
				case <-ctx.Done():
				case <-time.After(pause()):
				}
			}
		})
	}
	for range writeAtOnce {
		loop(func() time.Duration { return time.Duration(w.draw(2 * int(writePause))) }, func() {
			// Some callers are gone before the answer: what they asked for may happen all the same.
			bound := writeBound
			if w.draw(4) == 0 {
				bound = time.Duration(1+w.draw(300)) * time.Millisecond
			}
			w.write(nodes[w.draw(len(nodes))], bound, w.draw(8) == 0)
		})
	}
	for _, n := range nodes {
		loop(func() time.Duration { return viewPause }, func() { _, _ = w.view(ctx, n) }) // one that does not answer says nothing
	}
	loop(func() time.Duration { return listPause }, func() { _ = w.list(ctx, nodes[w.draw(len(nodes))]) })
}

// rest ends the writers and readers. Writes under way get their answer.
func (w *writes) rest() {
	if w.stop != nil {
		w.stop()
		w.wg.Wait()
		w.stop = nil
	}
}

// write puts the next manifest into force through a node, or tries to: one with bad set
// is refused.
func (w *writes) write(n *rack.Node, bound time.Duration, bad bool) register.Outcome {
	c, err := rpc.Dial(n.Path("run/api.sock"))
	if err != nil {
		return register.Refused // and not noted: nothing was asked
	}
	defer c.Close()
	w.mu.Lock()
	w.last++
	id, text := w.manifest(w.last, bad)
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	call := register.Write{Node: string(n.Name), Start: clock.Now(), Version: register.Version{ID: id}}
	a, err := c.Apply(ctx, &gemelv1.ApplyRequest{Name: id, Manifest: text})
	call.End = clock.Now()
	switch {
	case err == nil && a.GetApplied():
		call.Outcome, call.Number = register.Acknowledged, a.GetVersion()
	case err == nil, refused(err):
		call.Outcome = register.Refused
	default:
		call.Outcome = register.Unknown
	}
	w.history.Wrote(call)
	return call.Outcome
}

// refused reports whether a node said that nothing was changed.
func refused(err error) bool {
	var e *ha.Error
	if !errors.As(rpc.Explain(err), &e) {
		return false
	}
	switch e.Kind {
	case ha.ErrInvalid, ha.ErrNotFound, ha.ErrDenied, ha.ErrRefused, ha.ErrBound:
		return true
	default:
		return strings.Contains(e.Hint, "nothing was changed")
	}
}

// view reads what a node has in force.
func (w *writes) view(ctx context.Context, n *rack.Node) (register.InForce, error) {
	v := register.InForce{Node: string(n.Name), Start: clock.Now()}
	a, err := ask(ctx, n, &gemelv1.ManifestRequest{})
	if err != nil {
		return v, err
	}
	v.End, v.ID, v.Number = clock.Now(), w.told(a.GetName(), a.GetManifest()), a.GetVersion()
	w.history.Saw(v)
	return v, nil
}

// list reads from the store, through a node, which versions there are.
func (w *writes) list(ctx context.Context, n *rack.Node) error {
	l := register.Listed{Node: string(n.Name), Start: clock.Now()}
	a, err := ask(ctx, n, &gemelv1.ManifestRequest{Versions: true})
	if err != nil {
		return err
	}
	l.End = clock.Now()
	for _, v := range a.GetVersions() {
		l.Versions = append(l.Versions, register.Version{Number: v.GetVersion(), ID: first(v.GetName())})
	}
	if len(l.Versions) == 0 {
		return fmt.Errorf("node %s knows of no version of the manifest", n.Name)
	}
	w.history.Read(l)
	return nil
}

func ask(ctx context.Context, n *rack.Node, q *gemelv1.ManifestRequest) (*gemelv1.ManifestResponse, error) {
	c, err := rpc.Dial(n.Path("run/api.sock"))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, readBound)
	defer cancel()
	return c.Manifest(ctx, q)
}

// settle has each node of a cluster that is whole acknowledge one write, and waits until all have the same
// manifest in force, the last one.
func (w *writes) settle(bound time.Duration) error {
	w.rest()
	end := clock.Now().Add(bound)
	for _, n := range w.rack.Nodes() {
		for w.write(n, writeBound, false) != register.Acknowledged {
			if clock.Now() > end {
				return fmt.Errorf("node %s acknowledged no manifest within %v", n.Name, bound)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	for ; ; time.Sleep(20 * time.Millisecond) {
		missing := w.behind()
		if missing == nil {
			return nil
		}
		if clock.Now() > end {
			return fmt.Errorf("the nodes did not come to the same manifest within %v: %w", bound, missing)
		}
	}
}

// behind says which node has not what the store has; nil: none.
func (w *writes) behind() error {
	var missing error
	ctx := context.Background()
	var last register.Version
	for _, n := range w.rack.Nodes() {
		a, err := ask(ctx, n, &gemelv1.ManifestRequest{Versions: true})
		if err == nil && len(a.GetVersions()) > 0 {
			v := a.GetVersions()[len(a.GetVersions())-1]
			last = register.Version{Number: v.GetVersion(), ID: first(v.GetName())}
		}
		v, verr := w.view(ctx, n)
		if err = cmp.Or(err, verr); err != nil {
			missing = errors.Join(missing, fmt.Errorf("node %s: %w", n.Name, err))
		} else if v.Version != last {
			missing = errors.Join(missing, fmt.Errorf("node %s has %s as version %d, and the store %s as %d", n.Name, v.ID, v.Number, last.ID, last.Number))
		}
	}
	return missing
}
