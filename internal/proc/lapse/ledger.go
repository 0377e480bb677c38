package lapse

import (
	"fmt"
	"time"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/proc"
)

// read takes over what the page says. What cannot be believed is past its deadline.
func (l *ledger) read() {
	now := clock.Now()
	for i, r := range readRows(l.page, l.boot, now) {
		l.set(i, r)
		if r.right.Group != "" {
			l.groups[r.right.Group] = r
		}
		if r.problem != "" {
			l.log.Error("a deadline cannot be read: what it was for ends now", "group", r.right.Group, "why", r.problem)
		}
	}
	for _, e := range l.table.Entries() {
		if e.Member != 0 && l.at(e.Member) == nil {
			l.set(e.Member, doomed(e.Member, now, "there is no deadline for it"))
		}
	}
}

// spare is how long after the kill of what has no deadline that can be read its
// machine is reset.
const spare = 500 * time.Millisecond

func doomed(slot int, now ha.Instant, why string) *group {
	return &group{slot: slot, state: held, problem: why, right: proc.Right{Kill: now, Until: now.Add(spare)}}
}

// readRows reads all rows of a page.
func readRows(p *page, boot string, now ha.Instant) map[int]*group {
	rows := map[int]*group{}
	for i := 1; i < p.count(); i++ {
		r, ok, err := p.row(i)
		switch {
		case err != nil:
			rows[i] = doomed(i, now, err.Error())
		case !ok:
		case r.Boot != boot:
			g := doomed(i, now, "it is of another boot")
			g.right.Group, g.right.Fence, g.right.Withdraw = r.Right.Group, r.Right.Fence, r.Right.Withdraw
			rows[i] = g
		default:
			rows[i] = &group{slot: i, right: r.Right, state: r.State, named: r.Named}
		}
	}
	return rows
}

// former refuses a right of another incarnation while anything of the former may be
// there.
func (l *ledger) former(r proc.Right) error {
	for _, g := range l.slots {
		if g == nil || g.right.Incarnation == r.Incarnation && g.problem == "" {
			continue
		}
		switch {
		case g.kill == nil && g.state != held:
		case g.kill != nil, len(g.right.Withdraw) > 0, g.starts > 0, l.tree == nil, len(alive(l.table, l.tree, g.slot)) > 0:
			return fmt.Errorf("it is of incarnation %q, and something of %q, that of %s, may be there", r.Incarnation, g.right.Incarnation, g.right.Group)
		}
	}
	return nil
}

// room finds a free slot, else one of a group that is over: its fence is forgotten.
func (l *ledger) room() (*group, error) {
	best := 0
	for i := 1; i < slots && best == 0; i++ {
		if l.at(i) == nil && len(l.table.Members(i)) == 0 {
			best = i
		}
	}
	for i := 1; i < len(l.slots) && best == 0; i++ {
		if g := l.slots[i]; g != nil && g.state != held && g.kill == nil && len(l.table.Members(i)) == 0 {
			best = i
		}
	}
	if best == 0 {
		return nil, fmt.Errorf("there are %d groups here, and no room for one more", slots-1)
	}
	if err := l.page.take(best); err != nil {
		return nil, err
	}
	if g := l.at(best); g != nil {
		l.forget(g)
	}
	return &group{slot: best}, nil
}

// at is the group with a number; nil if there is none.
func (l *ledger) at(i int) *group {
	if i < 0 || i >= len(l.slots) {
		return nil
	}
	return l.slots[i]
}

func (l *ledger) set(i int, g *group) {
	if more := i + 1 - len(l.slots); more > 0 {
		l.slots = append(l.slots, make([]*group, more)...)
	}
	l.slots[i] = g
}

// forget gives the slot of a group back.
func (l *ledger) forget(g *group) {
	l.slots[g.slot] = nil
	if l.groups[g.right.Group] == g {
		delete(l.groups, g.right.Group)
	}
	if g.slot < l.page.count() {
		l.page.clear(g.slot)
	}
}

func (l *ledger) write(g *group) {
	if err := l.page.putRow(g.slot, row{l.boot, g.state, g.named, g.right}); err != nil {
		l.log.Error("a deadline cannot be written down", "group", g.right.Group, "err", err)
	}
}
