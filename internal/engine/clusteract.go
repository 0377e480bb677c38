package engine

import (
	"context"
	"slices"
	"time"

	"gemel/internal/decide/cluster"
	"gemel/internal/ha"
	"gemel/internal/journal"
)

// step decides, has written down what is to be remembered, and acts.
func (c *Cluster) step(ctx context.Context, m machine, in ha.Input) {
	now, wall := c.s.Clock.Now(), time.Now()
	if r, ok := in.(ha.StoreRead); ok && r.Error == "" {
		c.mu.Lock()
		c.seen = r
		// The brain goes on to note what it writes in what it has read.
		c.seen.Nodes, c.seen.Groups = slices.Clone(r.Nodes), slices.Clone(r.Groups)
		c.mu.Unlock()
	}
	actions := m.Step(now, in)
	if c.matters(actions) {
		wait := slices.ContainsFunc(actions, func(a ha.Action) bool { k, ok := a.(ha.Keep); return ok && k.Sync })
		c.s.Engine.record(journal.Step{At: now, Wall: wall, Input: in, Actions: slices.Clone(actions)}, wait)
	}
	for _, a := range actions {
		c.act(ctx, m, a)
	}
	if there, ok := cluster.There(c.auth); ok && c.s.There != nil && (c.there == nil || !slices.Equal(there, c.there)) {
		c.there = append([]ha.Group{}, there...)
		c.s.There(there)
	}
	c.gone() // a step that finds it so may have no action
	// Perhaps that there is nothing. A suspicion is no such answer: it is cleared in a
	// moment, and what a life before had begun goes on to its deadlines meanwhile.
	if r, ok := in.(ha.NodeRead); ok && r.Error == "" && !c.known && r.Record.State != ha.NodeSuspect {
		c.known = true
		c.s.Engine.Tell(ha.MayRun{Groups: c.given})
	}
}

// matters reports whether a step is more than one of the many that only renew. The
// journal would hold nothing else.
func (c *Cluster) matters(actions []ha.Action) bool {
	return slices.ContainsFunc(actions, func(a ha.Action) bool {
		switch a := a.(type) {
		case ha.ReadNode, ha.ReadStore, ha.Listen, ha.Say:
			return false
		case ha.Rights:
			return !same(a.Groups, c.given)
		}
		return true
	})
}

// same compares rights but for how long they last.
func same(a, b []ha.Right) bool {
	return slices.EqualFunc(a, b, func(x, y ha.Right) bool { return x.Grant == y.Grant && x.Leaving == y.Leaving })
}

func (c *Cluster) act(ctx context.Context, m machine, a ha.Action) {
	switch a := a.(type) {
	case ha.Emit:
		if a.Event.Code == ha.StoreAway {
			c.mu.Lock()
			if c.away = 0; a.Event.Change == ha.Assert {
				c.away = a.Event.At
			}
			c.mu.Unlock()
		}
	case ha.ReadNode:
		c.ask(ctx, m, func(ctx context.Context) ha.Input {
			in := c.s.Store.Node(ctx, c.s.Self.Node)
			in.ID = a.ID
			return in
		})
	case ha.ReadStore:
		c.ask(ctx, m, func(ctx context.Context) ha.Input {
			in := c.s.Store.Read(ctx)
			in.ID = a.ID
			return in
		})
	case ha.WriteStore:
		c.ask(ctx, m, func(ctx context.Context) ha.Input {
			in := c.s.Store.Write(ctx, a)
			in.ID = a.ID
			return in
		})
	case ha.Rights:
		c.s.Rights(a.Groups) // to the shadow first: what it does not know of, it starts nothing for
		if c.again || !same(a.Groups, c.given) {
			c.again, c.given = false, a.Groups
			c.s.Engine.Tell(ha.MayRun{Rights: a.Number, Groups: a.Groups})
		}
	case ha.Say:
		c.s.Say(a.Said)
		c.tell(c.brain, ha.Hearing{Nodes: c.s.Hear()}) // it may be this very word that a move waits for
	case ha.Draw:
		c.tell(m, ha.Drawn{Incarnation: c.s.Draw()})
	case ha.Listen:
		c.tell(m, ha.Hearing{Nodes: c.s.Hear()})
	case ha.TurnOff:
		if c.s.TurnOff != nil {
			c.s.TurnOff(a)
		}
	}
}

// gone tells those who wait for it that this node is out of the cluster.
func (c *Cluster) gone() {
	if !c.auth.Gone() {
		return
	}
	select {
	case <-c.left:
	default:
		close(c.left)
	}
}

// ask asks the store, and tells the answer to who asked. An answer that takes longer
// than an authority lasts is worth nothing.
func (c *Cluster) ask(ctx context.Context, m machine, f func(context.Context) ha.Input) {
	c.wg.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, c.s.Self.Timers.Life)
		defer cancel()
		c.tell(m, f(ctx))
	})
}

// record writes a step of the cluster's machines to the journal, and tells its
// events. With wait set it returns when that is done.
func (e *Engine) record(s journal.Step, wait bool) {
	done := make(chan struct{})
	e.inbox.put(item{do: func() ha.Input {
		defer close(done)
		l := e.loop
		s.Sync = l.teller.complete(s.Actions, s.At, s.Wall)
		err := l.s.Journal.Step(s)
		for _, a := range s.Actions {
			if ev, ok := a.(ha.Emit); ok {
				l.tell(ev.Event)
			}
		}
		l.wrote(err)
		return nil
	}})
	if !wait {
		return
	}
	select {
	case <-done:
	case <-e.ended:
	}
}
