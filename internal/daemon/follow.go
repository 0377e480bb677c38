package daemon

import (
	"context"
	"time"

	"gemel/internal/ha"
)

// weighAfter is how long after a decision the wishes are looked at again.
const weighAfter = 100 * time.Millisecond

// follow keeps what is asked for current until ctx ends.
func (w wishing) follow(ctx context.Context) error {
	m := w.m
	docs, decided := make(chan struct{}, 1), make(chan struct{}, 1)
	stir := func(c chan struct{}) func(ha.Rev) {
		return func(ha.Rev) {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
	g := newGroup(ctx)
	g.start(func(ctx context.Context) error {
		m.client.WatchDocs(ctx, "", stir(docs))
		return ctx.Err()
	})
	g.start(func(ctx context.Context) error {
		m.client.Watch(ctx, stir(decided))
		return ctx.Err()
	})
	g.start(func(ctx context.Context) error {
		var refused string
		look := func() {
			w.ask(ctx)
			refused = tellRefused(m, refused, m.shared.take(ctx))
		}
		look()
		for {
			again := time.NewTimer(wishBound) // in case a change was missed, or a failback window opens
			select {
			case <-ctx.Done():
				again.Stop()
				return ctx.Err()
			case <-docs:
				look()
			case <-again.C:
				look()
			case <-decided:
				w.weigh(ctx, decided)
			}
			again.Stop()
		}
	})
	return g.wait()
}

// ask reads what is asked for, and what the nodes say of themselves.
func (w wishing) ask(ctx context.Context) {
	m := w.m
	within, cancel := context.WithTimeout(ctx, wishBound)
	defer cancel()
	docs, _, err := m.client.Docs(within, wishes)
	said, _, err2 := m.client.Docs(within, factsBelow)
	m.parts.fences.follow(within)
	m.look(within)
	if err != nil || err2 != nil {
		return
	}
	m.mu.Lock()
	before := m.wished.groups
	m.wished.read(append(docs, said...))
	freed := m.wished.freed(before, m.o.Identity.Name)
	m.mu.Unlock()
	for _, g := range freed {
		m.h.engine.Tell(ha.GroupFreed{Group: g})
	}
	m.want()
	m.facts.stir()
}

// weigh looks at the wishes again after something was decided: a move that was asked for
// may have come about. It has time: a group that is on its way comes first, and one look
// serves for all its steps.
func (w wishing) weigh(ctx context.Context, decided chan struct{}) {
	pause := time.NewTimer(weighAfter)
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return
	case <-pause.C:
	}
	select {
	case <-decided:
	default:
	}
	within, cancel := context.WithTimeout(ctx, wishBound)
	defer cancel()
	w.m.look(within)
	w.m.want()
	w.m.facts.stir()
}

// tellRefused tells once why the cluster's manifest is not in force here.
func tellRefused(m *member, before string, err error) string {
	if err == nil {
		return ""
	}
	if text := err.Error(); text != before {
		m.h.engine.Note(ha.ManifestRefused, ha.OfNode(), text)
		return text
	}
	return before
}
