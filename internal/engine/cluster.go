package engine

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"gemel/internal/clock"
	"gemel/internal/decide/cluster"
	"gemel/internal/decide/place"
	"gemel/internal/ha"
)

// Store is the cluster's store, as far as authority and brain need it. Its answers
// lack their ID.
type Store interface {
	Node(context.Context, ha.Node) ha.NodeRead
	Read(context.Context) ha.StoreRead
	Write(context.Context, ha.WriteStore) ha.StoreWritten
	// Watch calls f with a revision at or after each change until ctx ends. It never
	// waits for f.
	Watch(ctx context.Context, f func(ha.Rev))
}

// ClusterSetup is what a Cluster is made of.
type ClusterSetup struct {
	Clock clock.Clock
	Log   *slog.Logger
	Store Store
	Self  cluster.Self
	Mind  cluster.Mind // of the brain
	// Hear returns whom the heartbeats were heard of; Say changes what ours say.
	Hear func() []ha.Heard
	Say  func(ha.Said)
	// Rights hands the shadow what this node may run, before anything is started by it.
	Rights func([]ha.Right)
	// There is told of which groups something may be here, when that changes, and after
	// Rights; nil: nobody wants to know.
	There func([]ha.Group)
	Draw  func() ha.Incarnation
	// TurnOff has a fence device turn a node off, and answers with ha.Off; nil: there
	// is none.
	TurnOff func(ha.TurnOff)
	Engine  *Engine
}

// A Cluster is the loop of a node's place in its cluster: its authority, and its
// brain. It is apart from the Engine, so that neither a long row of programs nor a
// slow disk holds up a renewal. Only what is more than a renewal is written to the
// journal.
type Cluster struct {
	s     ClusterSetup
	inbox *inbox[turn]
	wg    sync.WaitGroup

	auth  *cluster.Authority
	brain *cluster.Brain
	given []ha.Right    // as the engine knows them
	there []ha.Group    // as was told; nil: nothing was
	known bool          // the store has answered once
	again bool          // it is told at the next renewal, whether or not they changed
	left  chan struct{} // closed when this node has left the cluster

	mu   sync.Mutex // guards what others look at
	seen ha.StoreRead
	away ha.Instant
}

// NewCluster makes a Cluster; nothing runs before Run.
func NewCluster(s ClusterSetup) *Cluster {
	c := &Cluster{s: s, inbox: newInbox[turn](), auth: cluster.NewAuthority(s.Self), brain: cluster.NewBrain(s.Mind), left: make(chan struct{})}
	if s.Self.Away { // an alarm of a former life says so, and is not told anew
		c.away = max(s.Mind.Start, 1)
	}
	return c
}

// turn is one thing for the loop: a fact for one of the two machines, or work on the
// loop's own state.
type turn struct {
	m  machine
	in ha.Input
	do func()
}

// machine is what both have in common.
type machine interface {
	Step(ha.Instant, ha.Input) []ha.Action
	Wake() (ha.Instant, bool)
}

// Account takes what of the groups is not seen stopped on this node.
func (c *Cluster) Account(h ha.Holds) { c.tell(c.auth, h) }

// Lapsed takes the news that the shadow killed a group: the engine is told of its
// right again when that was renewed.
func (c *Cluster) Lapsed() {
	c.inbox.put(turn{do: func() { c.again = true }})
}

// Confirm takes the confirmation of a fence device.
func (c *Cluster) Confirm(o ha.Off) { c.tell(c.brain, o) }

// Heard says that a heartbeat told something new.
func (c *Cluster) Heard() { c.tell(c.brain, ha.Hearing{Nodes: c.s.Hear()}) }

// Want changes what is asked for, and what is known of the nodes beside their keys.
func (c *Cluster) Want(groups []place.Group, facts []place.Node) {
	c.inbox.put(turn{do: func() { c.brain.Want(groups, facts) }})
}

// Fences says which nodes a fence device can turn off.
func (c *Cluster) Fences(nodes []ha.Node) {
	c.inbox.put(turn{do: func() { cluster.Fences(c.brain, nodes) }})
}

// Vouch says of which incarnations an operator has confirmed that their machine is off.
func (c *Cluster) Vouch(off map[ha.Node]ha.Incarnation) {
	c.inbox.put(turn{do: func() { cluster.Vouch(c.brain, off) }})
}

// Plan returns where groups would belong if this was asked for, these were the facts, and
// those nodes lost. It is as good as what this node knows.
func (c *Cluster) Plan(ctx context.Context, groups []place.Group, facts []place.Node, lost ...ha.Node) (place.Answer, error) {
	// The loop only says what is: what follows from it takes longer, and holds up nobody.
	problem := make(chan place.Problem, 1)
	c.inbox.put(turn{do: func() { problem <- cluster.Supposed(c.brain, groups, facts, lost...) }})
	select {
	case <-ctx.Done():
		return place.Answer{}, fmt.Errorf("planning: %w", context.Cause(ctx))
	case p := <-problem:
		return place.Plan(p), nil
	}
}

// Seen returns what the store said last of everything that is decided by.
func (c *Cluster) Seen() ha.StoreRead {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

// Away returns since when the store does not answer; zero: it does.
func (c *Cluster) Away() ha.Instant {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.away
}

// Depart has this node leave the cluster: it gives up everything, and says so when
// all is stopped. It returns when that is in the store, or ctx ends.
func (c *Cluster) Depart(ctx context.Context) error {
	c.tell(c.auth, ha.Departs{})
	select {
	case <-ctx.Done():
		return fmt.Errorf("leaving the cluster: %w", context.Cause(ctx))
	case <-c.left:
		return nil
	}
}

func (c *Cluster) tell(m machine, in ha.Input) {
	c.inbox.put(turn{m: m, in: in})
}

// Run decides until ctx ends. It returns when everything that it started has
// returned. Run may be called once.
func (c *Cluster) Run(ctx context.Context) error {
	alarm, err := c.s.Clock.Alarm()
	if err != nil {
		return fmt.Errorf("starting the authority: %w", err)
	}
	defer alarm.Stop()
	defer c.wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.wg.Go(func() {
		c.s.Store.Watch(ctx, func(at ha.Rev) {
			c.tell(c.auth, ha.Stirred{At: at})
			c.tell(c.brain, ha.Stirred{At: at})
		})
	})
	var set ha.Instant
	c.due(ctx, true)
	for {
		if at := c.wake(); at != set {
			alarm.Set(at)
			set = at
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-alarm.C():
			set = 0
			c.due(ctx, false)
		case <-c.inbox.wake:
			for _, it := range c.inbox.take() {
				if it.do != nil {
					it.do()
				} else {
					c.step(ctx, it.m, it.in)
				}
			}
		}
	}
}

// wake is when one of the two wants to be asked again; zero: neither does.
func (c *Cluster) wake() (at ha.Instant) {
	for _, m := range []machine{c.auth, c.brain} {
		if t, ok := m.Wake(); ok && (at == 0 || t < at) {
			at = t
		}
	}
	return at
}

// due gives a tick to whom it is due.
func (c *Cluster) due(ctx context.Context, all bool) {
	now := c.s.Clock.Now()
	for _, m := range []machine{c.auth, c.brain} {
		if t, ok := m.Wake(); all || ok && t <= now {
			c.step(ctx, m, ha.Tick{})
		}
	}
}
