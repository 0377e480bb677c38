package lapse

import (
	"fmt"
	"time"

	"gemel/internal/clock"
	"gemel/internal/ha"
)

// Against says what stands against petting a watchdog: a group whose authority is old, one
// that is being ended, or one of which somebody says, or nobody can say, that it is not
// stopped. Empty: nothing. Old is how long before the end of an authority it counts as
// that: see manifest.Timers.Proof. There says whether something of a group is there beside
// what a shadow sees.
func (k *Keeper) Against(old time.Duration, there func(ha.Group) bool) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := clock.Now()
	for _, g := range k.slots {
		switch {
		case g == nil:
		case g.kill != nil:
			return fmt.Sprintf("group %s is ended, and not all of it is seen gone", g.right.Group)
		case g.state == held && now > g.right.Until.Add(-old) && !k.left(g, there):
			return fmt.Sprintf("the authority for group %s was renewed too long ago", g.right.Group)
		case g.state != held && g.right.Beyond && there(g.right.Group):
			return fmt.Sprintf("group %s has parts that are stopped by commands, and nobody says that they are", g.right.Group)
		}
	}
	return ""
}

// Idle reports whether nothing of any group is there.
func (k *Keeper) Idle(there func(ha.Group) bool) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, g := range k.slots {
		if g != nil && (g.kill != nil || there(g.right.Group) || g.state == held && !k.left(g, there)) {
			return false
		}
	}
	return true
}

// left reports whether a group whose deadline is to come has left in good order.
func (l *ledger) left(g *group, there func(ha.Group) bool) bool {
	return !g.named && g.starts == 0 && !there(g.right.Group) && l.tree != nil && len(alive(l.table, l.tree, g.slot)) == 0
}
