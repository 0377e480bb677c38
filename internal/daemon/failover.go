package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"gemel/internal/decide/place"
	"gemel/internal/ha"
)

const (
	// failoverBound is how long a failover that a program asked for may take; what is
	// not seen moved by then is told as refused, and its wish is taken back.
	failoverBound = 30 * time.Second
	failoverLook  = 50 * time.Millisecond
	// barFor is for how long a node that gave a program up gets its group not back.
	barFor = time.Hour
)

// escape has groups leave this node because a program of theirs failed. Its member is
// nil on a machine of no cluster.
type escape struct{ m *member }

// failover has the groups of a program, or all of this node's, move away, and
// answers the ladder. On a machine of no cluster nothing can.
func (o escape) failover(tell func(ha.Input)) func(ha.Failover) {
	m := o.m
	if m == nil {
		return alone(tell)
	}
	return func(f ha.Failover) {
		m.h.group.wg.Go(func() {
			ctx, cancel := context.WithTimeout(m.h.group.ctx, failoverBound)
			defer cancel()
			out := ha.FailedOver{Process: f.Process, Group: f.Group, Outcome: ha.Refused}
			if f.Nowhere {
				o.nowhere(f)
				return
			}
			if f.Group != "" {
				out.Outcome, out.Detail = ha.Moved, fmt.Sprintf("%s runs elsewhere", f.Group)
				if err := o.shun(ctx, f.Group, f); err != nil {
					out.Outcome, out.Detail, out.StillActive = ha.Refused, err.Error(), true
				}
				tell(out)
				return
			}
			var why []string
			groups := o.concerned(f)
			for _, g := range groups {
				if err := o.away(ctx, g, f); err != nil {
					why = append(why, err.Error())
				} else {
					why = append(why, fmt.Sprintf("%s runs on %s", g, m.holder(g)))
				}
			}
			for _, g := range groups {
				out.StillActive = out.StillActive || m.holder(g) == m.o.Identity.Name
			}
			if !out.StillActive {
				out.Outcome = ha.Moved
			}
			if len(groups) == 0 {
				why = []string{"no group is active on this node"}
			}
			out.Detail = strings.Join(why, "; ")
			tell(out)
		})
	}
}

// concerned are the groups of this node that a failover is about.
func (o escape) concerned(f ha.Failover) []ha.Group {
	m := o.m
	var all []ha.Group
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range m.groups {
		if (f.All || slices.Contains(g.Run, f.Process)) && m.holder(g.Name) == m.o.Identity.Name {
			all = append(all, g.Name)
		}
	}
	return all
}

// holder is the node that has a group, as the store said last; empty: none.
func (m *member) holder(g ha.Group) ha.Node {
	for _, n := range m.seen().Nodes {
		if _, ok := n.Grant(g); ok {
			return n.Node
		}
	}
	return ""
}

// away has one group leave this node, and returns when it is another's.
func (o escape) away(ctx context.Context, g ha.Group, f ha.Failover) error {
	m := o.m
	me := m.o.Identity.Name
	w := wishing{m}
	answer, err := w.move(ctx, ha.Request{Verb: ha.VerbMove, Target: ha.OfGroup(g), By: fmt.Sprintf("the ladder of %s on %s", culprit(f), me)})
	if err != nil {
		return fmt.Errorf("%s does not move: %w", g, err)
	}
	if !answer.OK {
		return fmt.Errorf("%s does not move: %s", g, answer.Why.Text)
	}
	if f.Bar {
		if err := w.bar(ctx, g, time.Now().Add(barFor), culprit(f)+" was given up there", me); err != nil {
			return err
		}
	}
	return o.gone(ctx, g)
}

// shun has a group leave this node for a start that failed: it is barred here, and where
// it goes is the placement's matter, with the guards and the limit of failovers of a group
// that was given up. If it would go nowhere, nothing is done.
func (o escape) shun(ctx context.Context, g ha.Group, f ha.Failover) error {
	m := o.m
	me := m.o.Identity.Name
	groups := m.problem()
	i := slices.IndexFunc(groups, func(x place.Group) bool { return x.Name == g })
	if i < 0 {
		return fmt.Errorf("there is no group %s", g)
	}
	why := culprit(f) + " failed there"
	at := slices.IndexFunc(groups[i].At, func(a place.At) bool { return a.Node == me })
	if at < 0 {
		at = len(groups[i].At)
		groups[i].At = append(groups[i].At, place.At{Node: me})
	}
	groups[i].At[at].Barred = why
	if groups[i].Request.Node == me {
		groups[i].Request = place.Request{} // it was carried out, and came to nothing
	}
	answer, err := m.loop.Plan(ctx, groups, m.known())
	if err != nil {
		return fmt.Errorf("looking where %s could go: %w", g, err)
	}
	if c, _ := answer.Choice(g); c.Node == me || c.Node == "" {
		return fmt.Errorf("%s stays: %s", g, whyStays(c))
	}
	err = wishing{m}.change(ctx, wishGroup+string(g), func(old []byte) (any, error) {
		var w groupWish
		_ = json.Unmarshal(old, &w)
		if w.Node == me {
			w.Node, w.Forced = "", false
		}
		if w.Barred == nil {
			w.Barred = map[ha.Node]bar{}
		}
		w.Barred[me] = bar{time.Now().Add(barFor).UTC(), why}
		return w, nil
	})
	if err != nil {
		return err
	}
	return o.gone(ctx, g)
}

// whyStays says why a group that should leave does not.
func whyStays(c place.Choice) string {
	for _, r := range c.Refused {
		return r.Text
	}
	return c.Reason.Text
}

// gone returns when a group is another node's.
func (o escape) gone(ctx context.Context, g ha.Group) error {
	m := o.m
	me := m.o.Identity.Name
	look := time.NewTicker(failoverLook)
	defer look.Stop()
	for {
		if on := m.holder(g); on != "" && on != me {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s was not seen on another node within %s", g, ha.Span(failoverBound))
		case <-look.C:
		}
	}
}

// culprit is for what a failover is.
func culprit(f ha.Failover) string {
	if f.Process != "" {
		return string(f.Process)
	}
	if f.Part == "" {
		return "its start"
	}
	return string(f.Part)
}

// forGood is how long a group is barred that is to be started nowhere: until an operator
// clears it.
const forGood = 100 * 365 * 24 * time.Hour

// nowhere bars a group from every node, until that is in the store. The node that has it
// does not start it meanwhile.
func (o escape) nowhere(f ha.Failover) {
	m := o.m
	var all []ha.Node
	for _, p := range m.o.Identity.Peers {
		if !p.Witness {
			all = append(all, p.Name)
		}
	}
	for {
		err := wishing{m}.bar(m.h.group.ctx, f.Group, time.Now().Add(forGood), f.Why.Text, all...)
		if err == nil {
			return
		}
		m.o.Log.Warn("a group is to be started on no node, and the store does not know that yet", "group", f.Group, "error", err)
		again := time.NewTimer(time.Second)
		select {
		case <-m.h.group.ctx.Done():
			again.Stop()
			return
		case <-again.C:
		}
	}
}
