package daemon

import (
	"context"
	"fmt"
	"slices"
	"time"

	"gemel/internal/ha"
	"gemel/internal/store"
)

const (
	// spaceLook is the time between two looks at the room in the store, and how long a
	// voter has its turn to tidy up: a member answers nobody meanwhile.
	spaceLook  = 5 * time.Second
	spaceBound = 30 * time.Second
)

// lookAfter looks after the room in the store: a store without any takes no write, so that no
// node could join, be evicted or be given a group. What runs goes on, since authority
// is renewed by reads. Each voter tidies its own member up, one at a time.
func lookAfter(ctx context.Context, m *member) error {
	id := m.o.Identity
	var voters []ha.Node
	for _, p := range id.Peers {
		if p.Voter {
			voters = append(voters, p.Name)
		}
	}
	slices.Sort(voters)
	me := slices.Index(voters, id.Name)
	client := m.client
	if !id.Store.External() && self(id).Voter {
		own, err := store.Dial(store.Config{Socket: m.o.storeSocket(), Prefix: "/gemel/" + id.Cluster.ID + "/"})
		if err != nil {
			return fmt.Errorf("preparing to look after the store: %w", err)
		}
		defer own.Close()
		client = own
	}
	told := slices.ContainsFunc(m.was.alarms, func(e ha.Event) bool { return e.Code == ha.StoreFull })
	next := time.NewTicker(spaceLook)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-next.C:
			turn := me >= 0 && now.Unix()/int64(spaceLook/time.Second)%int64(len(voters)) == int64(me)
			told = roomy(ctx, m, client, turn, told)
		}
	}
}

// roomy looks once, and tidies up if it is this node's turn. It reports whether the alarm stands.
func roomy(ctx context.Context, m *member, c *store.Client, turn, told bool) bool {
	ctx, cancel := context.WithTimeout(ctx, spaceBound)
	defer cancel()
	var done string
	var tidied error
	if turn {
		if done, tidied = c.Tidy(ctx); done != "" {
			m.o.Log.Warn("the store was tidied up", "done", done)
		}
	}
	s, err := c.Space(ctx)
	if err != nil {
		return told // that it does not answer is told by the authority
	}
	switch {
	case s.Full && (!told || tidied != nil):
		text := fmt.Sprintf("%d KiB of %d are used, %d of them are needed: it is being tidied up", s.Size>>10, s.Quota>>10, s.Used>>10)
		if m.o.Identity.Store.External() {
			text = fmt.Sprintf("%d KiB of %d are used: it is an etcd of somebody else's, who has to compact, defragment and disarm it", s.Size>>10, s.Quota>>10)
		}
		if tidied != nil {
			text = tidied.Error()
		}
		m.h.engine.Alarm(ha.StoreFull, ha.OfNode(), ha.Critical, text)
		return true
	case !s.Full && told:
		m.h.engine.Alarm(ha.StoreFull, ha.OfNode(), ha.OK, fmt.Sprintf("it takes writes again: %d KiB of %d are used", s.Size>>10, s.Quota>>10))
		return false
	}
	return told
}
