package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"gemel/internal/check"
	"gemel/internal/decide/place"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/status"
)

const (
	factsBelow = "facts/"
	factNode   = factsBelow + "node/"  // what a node says of itself
	factGroup  = factsBelow + "group/" // where a group was, for the count of its failovers

	factFence = factsBelow + "fence/" // what came of the last test of a node's fence device

	factsApart  = 200 * time.Millisecond // at least between two writes of one node
	reachEvery  = 2 * time.Second        // between two questions to a target
	reachBound  = time.Second            // for its answer
	reachMisses = 3                      // in a row, until it counts as not reached
	failsKept   = 64                     // failovers of a group that are remembered
)

// fact is what a node says of itself for the placement of groups. It goes through the
// store, since whoever decides must know it of every node.
type fact struct {
	Release  string            `json:"release,omitempty"`
	Capacity []manifest.Amount `json:"capacity,omitempty"`
	Health   place.Health      `json:"health,omitzero"` // what holds for any group here
	// Groups are those with alarms of their own here: their health, and the node's.
	Groups  map[ha.Group]place.Health `json:"groups,omitempty"`
	Reaches []string                  `json:"reaches,omitempty"`
	Misses  []string                  `json:"misses,omitempty"`
	// Fits are the groups whose parts were asked whether they could be started here; empty:
	// they could, else why not. Nil: this node is of a version that does not tell.
	Fits map[ha.Group]string `json:"fits,omitzero"`
	// Level is the exclusivity that it offers by itself; nil: it is of a version that does
	// not tell, and has a shadow and a guard. Lacks is why it is not more.
	Level *int   `json:"level,omitempty"`
	Lacks string `json:"lacks,omitempty"`
}

// trail is where a group was and is, and when it failed over.
type trail struct {
	Fence ha.Fence    `json:"fence"`
	Node  ha.Node     `json:"node"`
	Fails []time.Time `json:"fails,omitempty"`
}

// facts says what this node knows of itself, and counts the failovers of what it gets.
type facts struct {
	m     *member
	board *status.Board
	wake  chan struct{} // something may have changed

	mu      sync.Mutex
	targets map[string]*reaching
}

// reaching is what is known of one target.
type reaching struct {
	target manifest.Target
	missed int // in a row
	asked  bool
}

func newFacts(m *member) *facts {
	return &facts{m: m, wake: make(chan struct{}, 1), targets: map[string]*reaching{}}
}

// stir has the facts looked at again.
func (f *facts) stir() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// run keeps what the store says of this node true until ctx ends.
func (f *facts) run(ctx context.Context) error {
	g := newGroup(ctx)
	g.start(f.reach)
	g.start(func(ctx context.Context) error {
		pause := time.NewTimer(0)
		defer pause.Stop()
		<-pause.C
		var told []byte
		for {
			shot, changed := f.board.Last()
			if shot != nil {
				told = f.tell(ctx, f.of(shot), told)
				f.count(ctx)
			}
			pause.Reset(factsApart)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-pause.C:
			}
			pause.Reset(wishBound) // what could not be written is tried again
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
			case <-f.wake:
			case <-pause.C:
				told = nil // it is made sure of, also that nobody else wrote it
			}
			pause.Stop()
		}
	})
	return g.wait()
}

// of is what there is to say with a picture of this node.
func (f *facts) of(s *status.Snapshot) fact {
	id := f.m.o.Identity
	out := fact{Release: id.Release, Capacity: id.Capacities}
	if out.Release == "" {
		out.Release = f.m.o.Version
	}
	f.m.mu.Lock()
	groups := f.m.groups
	f.m.mu.Unlock()
	out.Health, out.Groups = health(s.Alarms, groups)
	f.m.mu.Lock()
	before := f.m.wished.facts[f.m.o.Identity.Name].Fits
	f.m.mu.Unlock()
	out.Fits = saysOf(f.m.parts.made, before)
	level, lacks := f.m.parts.levels.of()
	out.Level, out.Lacks = &level, lacks
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, t := range f.targets {
		switch {
		case t.missed >= reachMisses:
			out.Misses = append(out.Misses, name)
		case t.asked && t.missed == 0:
			out.Reaches = append(out.Reaches, name)
		}
	}
	slices.Sort(out.Misses)
	slices.Sort(out.Reaches)
	return out
}

// health sums the alarms of a node up: those that hold for any group there, and with
// those of its own for each group that has some. A fault that is being recovered from
// does not count: the ladder is at it, and has failover among its rungs. Nor do alarms
// about other nodes or the cluster.
func health(alarms []ha.Event, groups []manifest.Group) (place.Health, map[ha.Group]place.Health) {
	var all place.Health
	own := map[ha.Group]place.Health{}
	for _, e := range alarms {
		switch e.Code {
		case ha.ExistenceRecovering, ha.IntegrityRecovering, ha.WatchdogRecovering, ha.StoreAway, ha.GroupUnplaced, ha.PortShut, ha.StoreFull, ha.WatchdogUnarmed:
			continue
		}
		var of []ha.Group
		for _, g := range groups {
			mine := e.Subject.Kind == ha.KindGroup && e.Subject.Name == string(g.Name) ||
				e.Subject.Kind == ha.KindProcess && (slices.Contains(g.Run, ha.Process(e.Subject.Name)) || slices.Contains(g.Standby, ha.Process(e.Subject.Name)))
			if mine {
				of = append(of, g.Name)
			}
		}
		if len(of) == 0 {
			if e.Subject.Kind != ha.KindGroup {
				all = counted(all, e.Severity)
			}
			continue
		}
		for _, g := range of {
			own[g] = counted(own[g], e.Severity)
		}
	}
	for g, h := range own {
		own[g] = place.Health{Critical: h.Critical || all.Critical, Majors: h.Majors + all.Majors, Minors: h.Minors + all.Minors}
	}
	return all, own
}

func counted(h place.Health, s ha.Severity) place.Health {
	switch s {
	case ha.Critical:
		h.Critical = true
	case ha.Major:
		h.Majors++
	case ha.Minor:
		h.Minors++
	}
	return h
}

// tell writes what this node says of itself, if the store says otherwise, and returns
// what the store says now; nil: that is not known.
func (f *facts) tell(ctx context.Context, now fact, told []byte) []byte {
	ctx, cancel := context.WithTimeout(ctx, wishBound)
	defer cancel()
	b, err := json.Marshal(now)
	if err != nil {
		f.m.o.Log.Error("what this node knows of itself is not told", "error", err)
		return nil
	}
	if bytes.Equal(b, told) {
		return told
	}
	d, err := f.m.client.Doc(ctx, factNode+string(f.m.o.Identity.Name))
	if err == nil && !bytes.Equal(d.Value, b) {
		_, err = f.m.client.PutDoc(ctx, d.Key, d.Rev, b)
	}
	if err != nil {
		f.m.o.Log.Debug("what this node knows of itself is told later", "error", err)
		return nil
	}
	return b
}

// count notes the groups that are here now and were elsewhere before. Who gets a group
// counts, once for each fence, so that a change of who decides counts nothing twice.
func (f *facts) count(ctx context.Context) {
	m := f.m
	me := m.o.Identity.Name
	ctx, cancel := context.WithTimeout(ctx, wishBound)
	defer cancel()
	m.mu.Lock()
	groups, trails, wished := m.groups, m.wished.trails, m.wished
	m.mu.Unlock()
	for _, g := range groups {
		k, ok := m.record(g.Name)
		if !ok || k.Node != me || !trails[g.Name].Fence.Less(k.Fence) {
			continue
		}
		key := factGroup + string(g.Name)
		d, err := m.client.Doc(ctx, key)
		if err != nil {
			return
		}
		var t trail
		_ = json.Unmarshal(d.Value, &t) // of a newer version: it begins anew
		if !t.Fence.Less(k.Fence) {
			continue
		}
		asked := wished.groups[g.Name].Node == me || wished.nodes[t.Node].Drained
		home := g.Automatic() && len(g.Nodes) > 0 && g.Nodes[0] == me
		if t.Node != "" && t.Node != me && !asked && !home {
			t.Fails = append(t.Fails, time.Now().UTC())
			t.Fails = t.Fails[max(0, len(t.Fails)-failsKept):]
		}
		t.Fence, t.Node = k.Fence, me
		b, err := json.Marshal(t)
		if err != nil {
			return
		}
		if _, err := m.client.PutDoc(ctx, key, d.Rev, b); err != nil {
			return // tried again at the next look
		}
	}
}

// reach asks the targets of the groups that may be here, each at its turn.
func (f *facts) reach(ctx context.Context) error {
	next := time.NewTicker(reachEvery)
	defer next.Stop()
	g := newGroup(ctx)
	g.start(func(ctx context.Context) error {
		for {
			f.aim()
			var wg sync.WaitGroup
			for _, t := range f.aims() {
				wg.Go(func() {
					within, cancel := context.WithTimeout(ctx, reachBound)
					defer cancel()
					f.asked(t.String(), check.Reach(within, t))
				})
			}
			wg.Wait()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-next.C:
			}
		}
	})
	return g.wait()
}

// aim makes the list of targets that of the manifest.
func (f *facts) aim() {
	me := f.m.o.Identity.Name
	f.m.mu.Lock()
	want := map[string]manifest.Target{}
	for _, g := range f.m.groups {
		if len(g.Nodes) > 0 && !slices.Contains(g.Nodes, me) {
			continue
		}
		for _, t := range g.Targets {
			want[t.String()] = t
		}
	}
	f.m.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	for name := range f.targets {
		if _, ok := want[name]; !ok {
			delete(f.targets, name)
			f.stir()
		}
	}
	for name, t := range want {
		if f.targets[name] == nil {
			f.targets[name] = &reaching{target: t}
		}
	}
}

func (f *facts) aims() (all []manifest.Target) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.targets {
		all = append(all, t.target)
	}
	return all
}

// asked takes the answer of a target.
func (f *facts) asked(name string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.targets[name]
	if t == nil {
		return
	}
	was := t.asked && (t.missed == 0 || t.missed >= reachMisses)
	before := t.missed
	t.asked = true
	if err != nil {
		t.missed++
	} else {
		t.missed = 0
	}
	switch {
	case t.missed == reachMisses:
		f.m.o.Log.Warn("a target is not reached", "target", name, "error", err)
		f.stir()
	case t.missed == 0 && before >= reachMisses:
		f.m.o.Log.Info("a target is reached again", "target", name)
		f.stir()
	case t.missed == 0 && !was:
		f.stir()
	}
}

// said is what the nodes say of themselves, as the store had it last.
func (w *wished) said(key string, value []byte) {
	if name, ok := strings.CutPrefix(key, factNode); ok {
		var n fact
		if json.Unmarshal(value, &n) == nil {
			w.facts[ha.Node(name)] = n
		}
	}
	if name, ok := strings.CutPrefix(key, factFence); ok {
		var t fenceTested
		if json.Unmarshal(value, &t) == nil {
			w.fences[ha.Node(name)] = t
		}
	}
	if name, ok := strings.CutPrefix(key, factGroup); ok {
		var t trail
		if json.Unmarshal(value, &t) == nil {
			w.trails[ha.Group(name)] = t
		}
	}
}

// lately counts the failovers of a group that its limit is about.
func (t trail) lately(b manifest.Budget, now time.Time) (n int) {
	for _, at := range t.Fails {
		if b.Within == 0 || now.Sub(at) < b.Within {
			n++
		}
	}
	return n
}
