package sim

import (
	"slices"
	"strings"

	"gemel/internal/decide/cluster"
)

// The flaws of what surrounds the machines.
const (
	flawNoDeadline  cluster.Flaw = "no-deadline"   // nobody but the monitor ends what its authority has left
	flawSleepyClock cluster.Flaw = "sleepy-clock"  // deadlines are on a clock that stands still while the machine sleeps
	flawForgetful   cluster.Flaw = "store-forgets" // a store that was away comes back without its last transactions
	flawLooseStart  cluster.Flaw = "loose-start"   // a start is carried out although its right has ended meanwhile
	flawStaleRead   cluster.Flaw = "stale-read"    // reads are answered by a member of the store that is behind
	flawResumed     cluster.Flaw = "resumed-incarnation"
)

// Plants are all flaws that can be planted. Each must be found out.
func Plants() []cluster.Flaw {
	return append(cluster.Flaws(), flawNoDeadline, flawSleepyClock, flawForgetful, flawLooseStart, flawStaleRead)
}

// where says which faults bring a flaw to light. The others are met by all alike.
func where(f cluster.Flaw) []string {
	switch f {
	case "no-former-wait":
		return []string{"clone", "alone", "apart"}
	case flawResumed:
		return []string{"crash", "kill"}
	case "sure-by-time":
		return []string{"sleep", "sleep", "apart"}
	case "any-proof":
		return []string{"alone", "cut", "mute", "freeze", "apart"}
	case "wait-from-send":
		return []string{"alone", "apart", "slow", "mute"}
	case "authority-from-answer":
		return []string{"alone", "alone", "apart", "slow"}
	case "wait-outlives-key":
		return []string{"mute", "mute", "alone", "freeze", "slow"}
	case "kept-incarnation":
		return []string{"leave", "leave", "slow", "slow", "kill"}
	case flawLooseStart:
		return []string{"sleep", "sleep", "move", "freeze"}
	case "blind-clear", "blind-suspect":
		return []string{"mute", "alone", "slow", "slow", "freeze", "apart"}
	}
	return nil
}

// Planted is the run of a seed with a flaw in it.
func Planted(seed uint64, f cluster.Flaw) Config {
	c := Draw(seed)
	c.Plant, c.Kinds = []cluster.Flaw{f}, where(f)
	c.Fences = c.Fences || f == "any-proof" || f == "sure-by-time"
	c.Quiet = 0
	c.Faults = Faults(c, 24)
	return c
}

// Twice reports whether a group ran on two nodes, or under a fence that was not its
// own.
func (r Result) Twice() bool {
	return slices.ContainsFunc(r.Bad, func(s string) bool { return !strings.HasSuffix(s, atEnd) })
}

// Shrink leaves out every fault without which a run still fails in the same way, and
// shortens the others.
func Shrink(c Config) Config {
	twice := Run(c).Twice()
	fails := func(c Config) bool {
		r := Run(c)
		return twice && r.Twice() || !twice && len(r.Bad) > 0
	}
	for again := true; again; {
		again = false
		for i := range c.Faults {
			less := c
			less.Faults = slices.Delete(slices.Clone(c.Faults), i, i+1)
			if fails(less) {
				c, again = less, true
				break
			}
			less.Faults = slices.Clone(c.Faults)
			if less.Faults[i].For /= 2; less.Faults[i].For > 0 && fails(less) && c.Faults[i].For > c.Timers.Stop {
				c, again = less, true
				break
			}
		}
	}
	return c
}
