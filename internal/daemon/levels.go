package daemon

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"gemel/internal/decide/place"
	"gemel/internal/ha"
	"gemel/internal/proc"
)

// levels is what makes the exclusivity level that this node offers by itself: what the
// shadow tells of the guard and of the watchdog.
type levels struct {
	m *member

	mu    sync.Mutex
	alone time.Time           // since when there is no guard although there should be; zero: there is
	time  time.Duration       // of the watchdog; zero: it is not armed
	why   string              // it is not
	told  bool                // the alarm stands that it is not
	there []ha.Group          // as the shadow was told; nil: it was not
	next  map[ha.Group]string // what the loss of its node would do
}

// guardGrace is how long a guard may take to be there again before the level falls: one
// that ended is started anew at once.
const guardGrace = 10 * time.Second

func newLevels(m *member) *levels {
	return &levels{m: m, told: slices.ContainsFunc(m.was.alarms, func(e ha.Event) bool { return e.Code == ha.WatchdogUnarmed })}
}

// report takes what the shadow tells.
func (l *levels) report(r proc.Report) {
	switch r.Kind {
	case proc.ReportGuard:
		l.mu.Lock()
		if r.PID != 0 {
			l.alone = time.Time{}
		} else if l.alone.IsZero() {
			l.alone = time.Now()
		}
		l.mu.Unlock()
	case proc.ReportWatchdog:
		l.watchdog(r.Life, r.Error)
	case proc.ReportHello, proc.ReportUpgraded, proc.ReportShadowBack:
		l.repeat() // a new one does not know it
	}
}

// watchdog takes how the watchdog is. That the shadow is gone changes nothing: it goes on
// to count, and resets the machine if no other shadow takes it over.
func (l *levels) watchdog(t time.Duration, why string) {
	if why != "" {
		t = 0
	}
	l.mu.Lock()
	l.time, l.why = t, why
	news := l.told != (why != "")
	l.told = why != ""
	l.mu.Unlock()
	about := ha.Subject{Kind: ha.KindNode, Name: string(l.m.o.Identity.Name)}
	switch {
	case why != "":
		l.m.h.engine.Alarm(ha.WatchdogUnarmed, about, ha.Minor, why)
	case news:
		l.m.h.engine.Alarm(ha.WatchdogUnarmed, about, ha.OK, "it is armed, with a time of "+ha.Span(t))
	}
	l.m.facts.stir()
}

// of is the level, and what stands against the next one.
func (l *levels) of() (int, string) {
	x := l.m.o.Identity.Level
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !x.Guard:
		return 0, "node.yaml says guard: false"
	case !l.alone.IsZero() && time.Since(l.alone) > guardGrace:
		return 0, "gemel guard does not run"
	case x.Watchdog == "":
		return 1, "node.yaml names no watchdog"
	case l.time == 0 && l.why == "":
		return 1, "the watchdog is not armed yet"
	case l.time == 0:
		return 1, l.why
	}
	return 2, ""
}

// holds tells the shadow of which groups something may be here. One that keeps no watchdog
// has no use for it.
func (l *levels) holds(groups []ha.Group) {
	l.mu.Lock()
	l.there = append([]ha.Group{}, groups...)
	l.mu.Unlock()
	l.repeat()
}

func (l *levels) repeat() {
	l.mu.Lock()
	groups := l.there
	l.mu.Unlock()
	if groups == nil || l.m.o.Identity.Level.Watchdog == "" {
		return
	}
	if err := l.m.h.link.Send(proc.Order{Kind: proc.OrderThere, Groups: groups}); err != nil {
		l.m.o.Log.Error("the shadow was not told what is here of groups", "error", err)
	}
}

// foreseeEvery is how often this node looks what the next loss of a node would do.
const foreseeEvery = 2 * time.Second

// foresee keeps for each group what the loss of the node that has it would do: what status
// says of the next failure.
func (l *levels) foresee(ctx context.Context) error {
	m := l.m
	t := time.NewTicker(foreseeEvery)
	defer t.Stop()
	type basis struct {
		groups []place.Group
		nodes  []place.Node
		have   []ha.KeyedNode
	}
	var of basis
	for first := true; ; first = false {
		if !first {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-t.C:
			}
		}
		seen := m.seen()
		now := basis{m.problem(), m.known(), seen.Nodes}
		if reflect.DeepEqual(now, of) { // as nearly always
			continue
		}
		of = now
		next := map[ha.Group]string{}
		for _, n := range seen.Nodes {
			if len(n.Grants) == 0 {
				continue
			}
			a, err := m.loop.Plan(ctx, now.groups, now.nodes, n.Node)
			if err != nil {
				return err
			}
			for _, g := range n.Grants {
				if c, ok := a.Choice(g.Group); ok {
					next[g.Group] = lossOf(m, n.Node, c)
				}
			}
		}
		l.mu.Lock()
		l.next = next
		l.mu.Unlock()
	}
}

// loss is what was foreseen of a group; empty: nothing was.
func (l *levels) loss(g ha.Group) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next[g]
}

// lossOf says what the loss of a node would do to a group.
func lossOf(m *member, lost ha.Node, c place.Choice) string {
	if c.Node == "" {
		why := []string{c.Reason.Text}
		for _, n := range c.Not {
			if r := n.Reason; r.Rule != "place.witness" && r.Rule != "place.not-listed" && n.Node != lost && r.Text != c.Reason.Text && len(why) < 4 {
				why = append(why, r.Text)
			}
		}
		return fmt.Sprintf("if %s is lost it runs nowhere: %s", lost, strings.Join(why, "; "))
	}
	text := fmt.Sprintf("if %s is lost it goes to %s", lost, c.Node)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range m.groups {
		if own := m.wished.facts[lost].Level; g.Name == c.Group && g.RequireLevel >= 2 && (own == nil || g.RequireLevel > *own) {
			return text + ", once it is confirmed that " + string(lost) + " is off"
		}
	}
	return text
}
