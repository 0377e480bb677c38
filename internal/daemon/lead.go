package daemon

import (
	"context"
	"slices"
	"time"

	"gemel/internal/ha"
	"gemel/internal/store"
)

const (
	leadLook = 10 * time.Second // between two looks at who leads the store
	leadRest = 10 * time.Minute // between two switches
)

// listen keeps what a witness says current: whom it hears. A node with a brain
// listens for that anyway. A brain believes its silence of a node only when the witness
// has stopped saying that it hears that one: it looks in the instant at which it does.
func (m *member) listen(ctx context.Context) error {
	if m.loop != nil {
		<-ctx.Done()
		return ctx.Err()
	}
	silence := m.o.Identity.Timers.Silence
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		all := m.heart.hear()
		t.Reset(lull(all, m.heart.now(), silence))
	}
}

// lull is how long it takes until the next of those who are heard is silent, if nothing
// more is heard of it, and half a silence at most.
func lull(all []ha.Heard, now ha.Instant, silence time.Duration) time.Duration {
	wait := silence / 2
	for _, h := range all {
		if d := h.At.Add(silence).Sub(now); d > 0 {
			wait = min(wait, d)
		}
	}
	return wait
}

// lead has the witness lead the store: then the death of a node, or a split between
// two nodes that both reach the witness, costs no election. The node that decides
// sees to it.
func (m *member) lead(ctx context.Context) error {
	t := time.NewTicker(leadLook)
	defer t.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		if m.loop == nil || m.o.Identity.Store.External() || m.seen().Brain.Node != m.o.Identity.Name ||
			!last.IsZero() && time.Since(last) < leadRest {
			continue
		}
		if who, ok := m.better(ctx); ok {
			last = time.Now()
			within, cancel := context.WithTimeout(ctx, wishBound)
			err := m.client.Lead(within, who.ID)
			cancel()
			if err != nil {
				m.o.Log.Warn("the witness was to lead the store", "witness", who.Name, "error", err)
				continue
			}
			m.h.engine.Note(ha.StoreLed, ha.Subject{Kind: ha.KindNode, Name: who.Name}, "it only votes: the death of a node costs no election then")
		}
	}
}

// better is a witness that could lead the store and does not.
func (m *member) better(ctx context.Context) (store.Voter, bool) {
	within, cancel := context.WithTimeout(ctx, wishBound)
	defer cancel()
	voters, err := m.client.Voters(within)
	if err != nil {
		return store.Voter{}, false
	}
	witness := func(v store.Voter) bool {
		for _, p := range m.o.Identity.Peers {
			if p.Witness && string(p.Name) == v.Name {
				return true
			}
		}
		return false
	}
	if slices.ContainsFunc(voters, func(v store.Voter) bool { return v.Leader && witness(v) }) {
		return store.Voter{}, false
	}
	i := slices.IndexFunc(voters, func(v store.Voter) bool { return witness(v) && v.Alive && v.Started && !v.Learner })
	if i < 0 {
		return store.Voter{}, false
	}
	return voters[i], true
}
