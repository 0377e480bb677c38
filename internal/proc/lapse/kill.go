package lapse

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/proc/spawn"
)

// kill is the end of a group under way.
type kill struct {
	again ha.Instant // when to look next
	pause time.Duration
	quiet bool // nobody needs to be told: the group had left in good order
	reset bool
	words *withdrawal
}

// withdrawal is one call of Config.Withdraw. Its result is sent once, and waits in
// the channel.
type withdrawal struct {
	result chan error
	over   bool // it succeeded
	err    error
}

// begin begins to take the words back.
func (c *Config) begin(words []string, after func()) *withdrawal {
	w := &withdrawal{result: make(chan error, 1)}
	if len(words) == 0 || c.Withdraw == nil {
		w.over = true
		return w
	}
	go func() { // bounded by the promise of Withdraw; one that breaks it ends with the process
		w.result <- c.Withdraw(words)
		after()
	}()
	return w
}

// done looks whether it has succeeded; a failed one is begun again.
func (w *withdrawal) done(c *Config, words []string, after func()) bool {
	if w.over {
		return true
	}
	select {
	case err := <-w.result:
		if err == nil {
			w.over = true
			return true
		}
		if w.err == nil {
			c.Log.Error("what a group has outside of its programs could not be withdrawn; it is tried again", "words", words, "err", err)
		}
		*w = *c.begin(words, after)
		w.err = err
	default:
	}
	return false
}

// due begins the kill of what is past its deadline.
func (k *Keeper) due(now ha.Instant) {
	for _, g := range k.slots {
		if g == nil || g.state != held || g.kill != nil || now < g.right.Kill {
			continue
		}
		g.kill = &kill{again: now, pause: 500 * time.Microsecond}
		if !g.named && g.starts == 0 && k.tree != nil {
			g.kill.quiet = len(alive(k.table, k.tree, g.slot)) == 0
		}
		if !g.kill.quiet && g.right.Group != "" {
			k.news = append(k.news, News{Group: g.right.Group, Fence: g.right.Fence, At: now})
		}
	}
}

// strikes goes on with each kill that is due.
func (k *Keeper) strikes() {
	for _, g := range k.slots {
		if g != nil && g.kill != nil && k.tree != nil && clock.Now() >= g.kill.again {
			k.strike(g)
		}
	}
}

// longPause is how often what does not go is killed again.
const longPause = 100 * time.Millisecond

// strike kills what is there of g, and looks what is left.
func (k *Keeper) strike(g *group) {
	x := g.kill
	if x.words == nil {
		// Beside the kill: neither waits for the other.
		x.words = k.c.begin(g.right.Withdraw, k.poke)
	}
	left := strike(k.table, k.tree, g.slot)
	withdrawn := x.words.done(&k.c, g.right.Withdraw, k.poke)
	now := clock.Now()
	if len(left) == 0 && withdrawn && g.starts == 0 {
		k.gone(g)
		return
	}
	x.again, x.pause = now.Add(x.pause), min(2*x.pause, longPause)
	if now < g.right.Until {
		x.again = min(x.again, g.right.Until)
		return
	}
	if x.reset {
		return
	}
	x.reset = true
	what := describe(left, withdrawn, x.words.err, g.right.Withdraw)
	k.news = append(k.news, News{Group: g.right.Group, Fence: g.right.Fence, At: now, Stuck: what})
	k.c.reset(g.right.Group, what)
}

func (c *Config) reset(g ha.Group, what string) {
	c.Log.Error("the authority for a group is over, and something of it is there", "group", g, "what", what)
	if c.Reset != nil {
		c.Reset(g, what)
	}
}

func describe(left []spawn.Entry, withdrawn bool, err error, words []string) string {
	var parts []string
	for _, e := range left {
		parts = append(parts, fmt.Sprintf("start %s of %s (pid %d)", e.Start, e.Process, e.PID))
	}
	if !withdrawn {
		text := strings.Join(words, ", ")
		if err != nil {
			text += " (" + err.Error() + ")"
		}
		parts = append(parts, text)
	}
	if len(parts) == 0 {
		parts = append(parts, "a start that does not come to its end")
	}
	return strings.Join(parts, "; ")
}

// gone ends a kill: all was seen gone.
func (k *Keeper) gone(g *group) {
	g.state = lapsed
	if g.kill.quiet {
		g.state = ended
	}
	g.kill = nil
	if g.problem != "" || g.right.Group == "" {
		// Of what it was, nothing can be said.
		k.ledger.forget(g)
		return
	}
	k.ledger.write(g)
}

// strike sends SIGKILL to all that belongs to a number, and returns what is still
// there.
func strike(table *spawn.Table, tree *spawn.Tree, number int) (left []spawn.Entry) {
	all := table.Members(number)
	groups := make([]*spawn.Cgroup, len(all))
	for i, e := range all {
		groups[i] = groupOf(tree, e)
		if groups[i].Path() != "" {
			_ = groups[i].Kill() // what is left is looked at below, and killed again
		}
	}
	// Each by itself as well: it may have left its group, and where there are no
	// groups this is quicker than to look for all of them.
	for _, e := range all {
		end(e)
	}
	for i, g := range groups {
		if g.Path() == "" {
			_ = g.Kill()
		}
		if all[i].Running() || !g.Empty() {
			left = append(left, all[i])
		}
	}
	return left
}

// alive is what there is of a number, left alone.
func alive(table *spawn.Table, tree *spawn.Tree, number int) (left []spawn.Entry) {
	for _, e := range table.Members(number) {
		if e.Running() || !groupOf(tree, e).Empty() {
			left = append(left, e)
		}
	}
	return left
}

func groupOf(tree *spawn.Tree, e spawn.Entry) *spawn.Cgroup {
	g, ok := tree.At(e.Start)
	if !ok && e.PID > 0 {
		g.Lead(e.PID)
	}
	return g
}

// end kills the first process of an entry. The pidfd is held before the last look, so
// that no stranger with its number is hit.
func end(e spawn.Entry) {
	if e.PID <= 0 || e.Ended {
		return
	}
	fd, err := unix.PidfdOpen(e.PID, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if e.Running() {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // gone is as good
	}
}
