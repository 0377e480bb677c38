package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gemel/internal/clock"
	"gemel/internal/decide/cluster"
	"gemel/internal/decide/place"
	"gemel/internal/ha"
	"gemel/internal/proc"
)

// shelf is a store in memory.
type shelf struct {
	mu     sync.Mutex
	rev    ha.Rev
	nodes  map[ha.Node]ha.KeyedNode
	groups map[ha.Group]ha.KeyedGroup
	brain  ha.BrainRecord
	epoch  ha.Rev
	away   bool
	watch  []func(ha.Rev)
	reads  int
}

func newShelf() *shelf {
	return &shelf{nodes: map[ha.Node]ha.KeyedNode{}, groups: map[ha.Group]ha.KeyedGroup{}}
}

func (s *shelf) setAway(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
}

// Node is Store's.
func (s *shelf) Node(ctx context.Context, n ha.Node) ha.NodeRead {
	s.mu.Lock()
	away := s.away
	k := s.nodes[n]
	in := ha.NodeRead{At: s.rev, Key: k.Key, Record: k.NodeRecord}
	s.reads++
	s.mu.Unlock()
	if away {
		<-ctx.Done()
		return ha.NodeRead{Error: "no answer"}
	}
	return in
}

// Read is Store's.
func (s *shelf) Read(ctx context.Context) ha.StoreRead {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return ha.StoreRead{Error: "no answer"}
	}
	in := ha.StoreRead{At: s.rev, Epoch: s.epoch, Brain: s.brain}
	for _, n := range s.nodes {
		in.Nodes = append(in.Nodes, n)
	}
	for _, g := range s.groups {
		in.Groups = append(in.Groups, g)
	}
	slices.SortFunc(in.Nodes, func(a, b ha.KeyedNode) int { return strings.Compare(string(a.Node), string(b.Node)) })
	slices.SortFunc(in.Groups, func(a, b ha.KeyedGroup) int { return strings.Compare(string(a.Group), string(b.Group)) })
	return in
}

// Write is Store's.
func (s *shelf) Write(ctx context.Context, w ha.WriteStore) ha.StoreWritten {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return ha.StoreWritten{Error: "no answer"}
	}
	if w.Epoch != 0 && w.Epoch != s.epoch {
		return ha.StoreWritten{Refused: true}
	}
	for _, p := range w.Puts {
		var has ha.Rev
		switch {
		case p.Key == ha.BrainKey:
			has = s.epoch
		case strings.HasPrefix(p.Key, "nodes/"):
			has = s.nodes[ha.Node(strings.TrimPrefix(p.Key, "nodes/"))].Key
		default:
			has = s.groups[ha.Group(strings.TrimPrefix(p.Key, "groups/"))].Key
		}
		if has != p.Guard {
			return ha.StoreWritten{Refused: true}
		}
	}
	s.rev++
	for _, p := range w.Puts {
		switch {
		case p.Node != nil:
			s.nodes[p.Node.Node] = ha.KeyedNode{NodeRecord: *p.Node, Key: s.rev}
		case p.Group != nil:
			s.groups[p.Group.Group] = ha.KeyedGroup{GroupRecord: *p.Group, Key: s.rev}
		case p.Brain != nil:
			s.brain, s.epoch = *p.Brain, s.rev
		}
	}
	for _, f := range s.watch {
		f(s.rev)
	}
	return ha.StoreWritten{OK: true, At: s.rev}
}

// Watch is Store's.
func (s *shelf) Watch(ctx context.Context, f func(ha.Rev)) {
	s.mu.Lock()
	s.watch = append(s.watch, f)
	s.mu.Unlock()
	<-ctx.Done()
}

// join runs the cluster's loop beside an engine.
func join(t *testing.T, c *Cluster) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the cluster's loop ended: %v", err)
		}
	})
}

func newCluster(r *rig, s *shelf, kept ha.Incarnation) *Cluster {
	timers := cluster.Timers{Silence: 200 * time.Millisecond, Life: 1500 * time.Millisecond, Stop: 150 * time.Millisecond, Drift: 0.01, Settle: time.Second}
	drawn := 0
	clk := clock.Bubble()
	return NewCluster(ClusterSetup{
		Clock: clk, Log: r.e.loop.s.Log, Store: s, Engine: r.e,
		Self: cluster.Self{Node: "here", Boot: "this", Era: 1, Timers: timers, Incarnation: kept},
		Mind: cluster.Mind{Node: "here", Era: 1, Timers: timers, Listed: []ha.Node{"here", "w"}, Voters: []ha.Node{"w"},
			Groups: []place.Group{{Name: "web", Rules: place.Rules{Nodes: []ha.Node{"here"}}}}, Start: clk.Now()},
		Hear: func() []ha.Heard {
			return []ha.Heard{{Node: "here", At: clk.Now()}, {Node: "w", At: clk.Now()}}
		},
		Say: func(s ha.Said) { r.note("say %s key %d holds %v", s.Incarnation, s.Key, s.Holds) },
		Rights: func(all []ha.Right) {
			for _, x := range all {
				if x.Until <= clk.Now() {
					r.note("a right in the past: %v", x)
				}
			}
		},
		Draw: func() ha.Incarnation { drawn++; return ha.Incarnation(fmt.Sprint("i", drawn)) },
	})
}

// settled is a node that has joined its cluster and got its group.
func settled(t *testing.T) (*shelf, *rig, *Cluster) {
	t.Helper()
	s := newShelf()
	var c *Cluster
	r := newRig(t, grouped, func(s *Setup) {
		s.Booted.Cluster = true
		s.Edges.Account = func(h ha.Holds) { c.Account(h) }
	})
	c = newCluster(r, s, "")
	join(t, c)
	r.settle()
	time.Sleep(3 * time.Second) // of the bubble
	return s, r, c
}

const grouped = `
processes:
  p: {command: [/bin/p], ramp-up: 1s}
groups:
  web: {nodes: [here], run: [p]}
`

// A node joins, is granted its group by its own brain, and its program is started
// only then; when the store goes away the rights end; what is only renewed is not in
// the journal.
func TestCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r, _ := settled(t)
		said := r.since()
		want(t, said, "journal drawn keep", "event 2067 info", "event 2064 info", "journal may-run", "order start p 1 0")
		never(t, said, "a right in the past")
		r.reports <- started("p", 1, 100)
		r.since()
		time.Sleep(10 * time.Second)
		if said := r.since(); len(said) > 2 { // its ramp-up is over
			t.Errorf("nothing happens, and yet: %v", said)
		}
		s.mu.Lock()
		reads := s.reads
		s.mu.Unlock()
		if reads < 60 {
			t.Errorf("%d reads in 13 s: each tenth of a life was ordered", reads)
		}
		s.setAway(true)
		time.Sleep(1600 * time.Millisecond)
		want(t, r.since(), "journal may-run keep arm stop", "event 2072 assert")
		r.reports <- exited("p", 1, 0)
		s.setAway(false)
		time.Sleep(time.Second)
		said = r.since()
		want(t, said, "event 2072 clear")
		want(t, said, "journal may-run", "order start p")
	})
}

// A life that begins while the alarm of the one before stands knows that the store is away:
// it is not told to it anew.
func TestAwayFromBefore(t *testing.T) {
	self := cluster.Self{Node: "here", Away: true}
	if c := NewCluster(ClusterSetup{Self: self, Mind: cluster.Mind{Node: "here", Start: 7}}); c.Away() != 7 {
		t.Errorf("away since %v", c.Away())
	}
	self.Away = false
	if c := NewCluster(ClusterSetup{Self: self, Mind: cluster.Mind{Node: "here", Start: 7}}); c.Away() != 0 {
		t.Errorf("nothing stands, and it is away since %v", c.Away())
	}
}

// A node that leaves stops what it has first, and says so in the store.
func TestDepart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r, c := settled(t)
		r.reports <- started("p", 1, 100)
		r.since()
		left := make(chan error, 1)
		go func() { left <- c.Depart(context.Background()) }()
		want(t, r.since(), "journal departs keep", "order stop p 1")
		select {
		case err := <-left:
			t.Fatalf("it left while its program ran: %v", err)
		default:
		}
		r.reports <- exited("p", 1, 0)
		synctest.Wait()
		time.Sleep(200 * time.Millisecond)
		if err := <-left; err != nil {
			t.Fatal(err)
		}
		if n := s.nodes["here"]; n.State != ha.NodeLeft {
			t.Errorf("the store says %v", n)
		}
	})
}

// A monitor that was away for longer than a silence finds itself suspected. That is no
// reason to stop what the one before had begun.
func TestSuspectedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		s.rev = 9
		s.nodes["here"] = ha.KeyedNode{Key: 8, NodeRecord: ha.NodeRecord{Node: "here", Incarnation: "i7", Boot: "this", Era: 1,
			State: ha.NodeSuspect, Life: 1500 * time.Millisecond, Grants: []ha.Grant{{Group: "web", Fence: ha.Fence{Era: 1, Counter: 1}}}}}
		s.groups["web"] = ha.KeyedGroup{Key: 5, GroupRecord: ha.GroupRecord{Group: "web", Fence: ha.Fence{Era: 1, Counter: 1}, Node: "here", Incarnation: "i7"}}
		var c *Cluster
		r := newRig(t, grouped, func(s *Setup) {
			s.Booted.Cluster = true
			s.Edges.Account = func(h ha.Holds) { c.Account(h) }
			s.Past.Kept = map[string]string{"group/web": `{"fence":{"era":1,"counter":1}}`, "process/p": `{"boot":"this","start":1,"ready":1,"of":"web"}`}
		})
		c = newCluster(r, s, "i7")
		r.reports <- proc.Report{Kind: proc.ReportHello, PID: 11}
		r.reports <- proc.Report{Kind: proc.ReportRunning, Process: "p", Start: 1, PID: 100}
		r.reports <- proc.Report{Kind: proc.ReportSynced}
		join(t, c)
		time.Sleep(3 * time.Second)
		said := r.since()
		never(t, said, "order stop")
		want(t, said, "journal may-run")
		if n := s.nodes["here"]; n.State != ha.NodeMember || len(n.Grants) != 1 {
			t.Errorf("the store says %v", n)
		}
	})
}

// A life that is asked to leave before it was a member, as one that took the place of a
// monitor that was about to leave, has nothing to give up: it does not wait.
func TestDepartOfNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		s.rev = 9
		s.nodes["here"] = ha.KeyedNode{Key: 8, NodeRecord: ha.NodeRecord{Node: "here", Incarnation: "i7", Boot: "this", Era: 1,
			State: ha.NodeMember, Life: 1500 * time.Millisecond}}
		var c *Cluster
		r := newRig(t, grouped, func(s *Setup) {
			s.Booted.Cluster = true
			s.Edges.Account = func(h ha.Holds) { c.Account(h) }
		})
		c = newCluster(r, s, "")
		began := time.Now()
		left := make(chan error, 1)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		go func() { left <- c.Depart(ctx) }()
		synctest.Wait() // it was asked before it looked for the first time
		join(t, c)
		r.settle()
		if err := <-left; err != nil || time.Since(began) > 2*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}
