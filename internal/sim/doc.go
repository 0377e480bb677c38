// Package sim plays whole clusters of the real machines of decide in one thread on
// virtual time: their clocks with different rates, a store that answers late, twice
// or never, machines that crash, freeze and sleep, networks that are cut. A seed
// gives a schedule of faults, and the same seed always gives the same run.
//
// A run has two phases. In the first the faults come, and no group may ever run on
// two nodes. In the second there are none, and every group must run.
//
// A machine that its host pauses as a whole and resumes later runs for an instant of
// which nothing on it can know: only a group that needs an external fence is held to
// that. While such a machine sleeps, the group counts as running there.
package sim

import (
	"fmt"
	"time"

	"gemel/internal/decide/cluster"
)

// Config is one run.
type Config struct {
	Seed   uint64
	Nodes  int // that run groups; a witness comes to two
	Groups int
	Timers cluster.Timers
	Fences bool     // every node can be turned off by a device, and the first group needs the proof of it
	Kinds  []string // of faults, drawn alike; empty: all, each as often as is usual
	Faults []Fault
	Length time.Duration // of the phase with faults
	Quiet  time.Duration // of the phase without
	Plant  []cluster.Flaw
	Trace  bool // keep what happened, line by line
}

// Result is what became of a run.
type Result struct {
	Steps   int           // of the machines
	Overlap time.Duration // the longest time that a group ran on two nodes
	Bad     []string      // how a promise was broken; empty: none was
	Hash    uint64        // of everything that happened
	Seen    Seen
	Trace   []string
}

// Seen counts what a run went through: a promise that was never tried was not kept.
type Seen struct {
	Suspected, Cleared, Evicted, Granted, Moved, Joined, Left, Epochs int
	Deadlines                                                         int // groups that were killed at the end of their authority
	Late                                                              int // transactions that were committed when nobody waited any more
	Fenced                                                            int
	Switched                                                          int // of the epoch, as planned
	Starts                                                            int
}

// Draw makes a run of a seed: how many nodes and groups, which profile, what is
// there to help, and what goes wrong.
func Draw(seed uint64) Config {
	d := dice(seed ^ 0xd2a3)
	c := Config{Seed: seed, Nodes: 2 + d.upTo(3), Groups: 1 + d.upTo(3), Fences: d.chance(4), Length: 30 * time.Second, Quiet: 20 * time.Second}
	c.Timers = cluster.Timers{Silence: 200 * time.Millisecond, Life: 1500 * time.Millisecond, Stop: 150 * time.Millisecond, Drift: 0.01, Settle: 3 * time.Second}
	if d.chance(4) {
		c.Timers.Silence, c.Timers.Life, c.Timers.Stop = 60*time.Millisecond, 400*time.Millisecond, 40*time.Millisecond
		c.Length, c.Quiet = 12*time.Second, 15*time.Second
	}
	if seed%2 == 0 {
		c.Timers.Rest = 10 * c.Timers.Silence // ten minutes are never over here
	}
	c.Faults = Faults(c, 16+d.upTo(16))
	return c
}

// Large is Draw for the largest cluster that is promised: 16 nodes and 300 groups.
func Large(seed uint64) Config {
	c := Draw(seed)
	c.Nodes, c.Groups = 16, 300
	c.Faults = Faults(c, 4*len(c.Faults))
	return c
}

// Run plays a cluster.
func Run(c Config) Result {
	w := newWorld(c)
	for _, n := range w.listed() {
		n.boot()
	}
	for _, f := range c.Faults {
		w.at(f.At, func() { w.strike(f) })
	}
	w.run(c.Length)
	w.heal()
	w.run(c.Length + c.Quiet)
	w.judge()
	w.res.Hash = w.hash
	return w.res
}

// Add sums up.
func (s *Seen) Add(o Seen) {
	for _, p := range [...]struct {
		to   *int
		more int
	}{
		{&s.Suspected, o.Suspected}, {&s.Cleared, o.Cleared}, {&s.Evicted, o.Evicted}, {&s.Granted, o.Granted}, {&s.Moved, o.Moved},
		{&s.Joined, o.Joined}, {&s.Left, o.Left}, {&s.Epochs, o.Epochs}, {&s.Deadlines, o.Deadlines}, {&s.Late, o.Late},
		{&s.Fenced, o.Fenced}, {&s.Switched, o.Switched}, {&s.Starts, o.Starts},
	} {
		*p.to += p.more
	}
}

// String tells how a run ended.
func (r Result) String() string {
	if len(r.Bad) == 0 {
		return fmt.Sprintf("%d steps, no violation", r.Steps)
	}
	return fmt.Sprintf("%d steps, %d violations, overlap %v: %s", r.Steps, len(r.Bad), r.Overlap, r.Bad[0])
}
