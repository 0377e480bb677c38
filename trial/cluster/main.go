// Command cluster is the campaign "never twice, and soon again": a nemesis does one
// fault after the other to a cluster of real nodes in network namespaces, and heals
// it; between two faults there is a quiet time in which the group must be active on
// exactly one node, and the cluster whole. Meanwhile manifests are written through all nodes,
// and none that was acknowledged may be lost. What the nodes did is judged by an oracle
// outside of them: the exclusive program notes each millisecond in which it is
// active, and the kernels tell where the service address is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/lab/rack"
)

func main() {
	if os.Getenv("RACK") != "" {
		fmt.Fprintln(os.Stderr, rack.Play(os.Args[1:]))
		os.Exit(1)
	}
	var c campaign
	var only string
	flag.StringVar(&c.o.Gemel, "gemel", "bin/gemel", "the binary under trial")
	flag.StringVar(&c.next, "next", "", "another build, for rolling upgrades; empty: none")
	flag.IntVar(&c.n, "n", 100, "how many faults")
	flag.Uint64Var(&c.seed, "seed", uint64(time.Now().UnixNano()), "seed of the schedule")
	flag.StringVar(&only, "only", "", "names of faults, with commas between; empty: all")
	flag.StringVar(&c.o.Dir, "dir", "", "where the nodes' data is; empty: in memory")
	flag.DurationVar(&c.bound, "bound", 45*time.Second, "how long the cluster may take to be whole after a fault was healed")
	flag.BoolVar(&c.verbose, "v", false, "show what the nodes say after each fault in which the program was started")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if only != "" {
		c.only = strings.Split(only, ",")
	}
	if err := c.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "trial-cluster:", err)
		os.Exit(2)
	}
	fmt.Printf("seed %d\n", c.seed)
	fmt.Printf("trial-cluster: %d trials, %d violations\n", c.done, c.violations)
	if c.violations > 0 {
		os.Exit(1)
	}
}

// campaign is one run.
//
//budget:fields it is a world
type campaign struct {
	o     rack.Options
	next  string
	n     int
	seed  uint64
	only  []string
	bound time.Duration
	// verbose shows what all nodes say after each fault in which the program was started.
	verbose bool

	rand       *rand.Rand
	rack       *rack.Rack
	active     *rack.Node
	done       int
	violations int
	told       int // violations of the oracle that were printed
	writes     *writes
	lost       int // violations of the manifest's promise that were printed
	tally      map[string]*tally
}

// tally is what came of one kind of fault.
type tally struct {
	times, moved, started int
	outages               []time.Duration
	resumed               time.Duration
}

func (c *campaign) run(ctx context.Context) (err error) {
	c.rand = rand.New(rand.NewPCG(c.seed, 1))
	c.o.Nodes = 2 + int(c.seed%3/2) // two of three seeds: two nodes and a witness
	c.o.Managed = c.seed%2 == 1
	if c.o.Dir == "" {
		c.o.Disk = 512 << 20 // a log of the store takes 64 MiB, and it keeps some
	}
	c.o.Log = os.Stdout
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	c.o.Program, c.tally = []string{exe}, map[string]*tally{}
	for _, p := range []*string{&c.o.Gemel, &c.next} {
		if *p != "" {
			if *p, err = filepath.Abs(*p); err != nil {
				return err
			}
		}
	}
	fmt.Printf("seed %d: %d nodes, service manager announced: %v\n", c.seed, c.o.Nodes, c.o.Managed)
	if c.rack, err = rack.New(c.o); err != nil {
		return err
	}
	defer func() {
		if err != nil || c.violations > 0 {
			c.rack.Keep()
			fmt.Println("kept:", c.rack.Dir)
		}
		err = errors.Join(err, c.rack.Close())
	}()
	if err := c.rack.Begin(c.bound); err != nil {
		return fmt.Errorf("the cluster did not begin: %w\n%s", err, c.rack.Evidence())
	}
	if c.writes, err = newWrites(c.rack, c.seed); err != nil {
		return fmt.Errorf("writing manifests: %w", err)
	}
	c.writes.begin()
	defer c.writes.rest()
	list := c.faults()
	for c.done < c.n && ctx.Err() == nil {
		if err := c.trial(ctx, list); errors.Is(err, errBroken) {
			break
		} else if err != nil {
			return err
		}
	}
	c.report()
	return nil
}

// errBroken ends a campaign early.
var errBroken = errors.New("the cluster did not become whole again")

// trial does one fault, or two at once, and waits until all is well again.
func (c *campaign) trial(ctx context.Context, list []fault) error {
	var err error
	if c.active, err = c.rack.Active(c.bound); err != nil {
		return err
	}
	before, err := c.rack.Oracle.Lives()
	if err != nil {
		return err
	}
	at, names := clock.Now(), []string{}
	for range 1 + c.rand.IntN(4)/3 { // one time in four, a second one into the first
		f := list[c.rand.IntN(len(list))]
		names = append(names, f.name)
		c.rack.Note("-- fault %d: %s", c.done+1, f.name)
		if err := f.do(c); err != nil {
			return fmt.Errorf("fault %q: %w", f.name, err)
		}
	}
	lasts := time.Duration(500+c.rand.IntN(5000)) * time.Millisecond
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(lasts):
	}
	if err := c.heal(); err != nil {
		return fmt.Errorf("healing %q: %w", names, err)
	}
	healed := clock.Now()
	if err := c.settle(); err != nil {
		c.violate("after %s, lasting %v: %v", strings.Join(names, " and "), lasts, err)
		fmt.Println(c.rack.Evidence())
		fmt.Println("the cluster is not what it was: a fault after this one would show nothing")
		c.done++
		return errBroken
	}
	c.done++
	return c.judge(before, strings.Join(names, " + "), at, healed)
}

// settle is the quiet time.
func (c *campaign) settle() error {
	if _, err := c.rack.Active(c.bound); err != nil {
		return err
	}
	if err := c.rack.Whole(c.bound); err != nil {
		return err
	}
	return c.writes.settle(c.bound)
}

// judge asks the oracle, and notes what came of the fault.
func (c *campaign) judge(before []rack.Life, name string, at, healed ha.Instant) error {
	if err := c.judgeWrites(name); err != nil {
		return err
	}
	v, err := c.rack.Oracle.Judge()
	if err != nil {
		return err
	}
	if len(v.Violations) > c.told {
		for _, s := range v.Violations[c.told:] {
			c.violate("%s: %s", name, s)
		}
		fmt.Println(c.rack.Evidence())
		c.told = len(v.Violations)
	}
	t := c.tally[name]
	if t == nil {
		t = &tally{}
		c.tally[name] = t
	}
	now, err := c.rack.Active(c.bound)
	if err != nil {
		return err
	}
	out := c.rack.Client.Outage(at)
	t.times++
	t.started += len(v.Lives) - len(before)
	t.resumed = max(t.resumed, v.Resumed)
	t.outages = append(t.outages, out)
	if now != c.active {
		t.moved++
	}
	c.rack.Note("   %s: active on %s, outage %v, %d starts, whole %v after the end of it", name, now.Name,
		out.Round(time.Millisecond), len(v.Lives)-len(before), clock.Now().Sub(healed).Round(time.Millisecond))
	c.rack.Client.Forget()
	if c.verbose && len(v.Lives) > len(before) {
		fmt.Println(c.rack.Evidence())
	}
	return nil
}

// judgeWrites judges all manifests that were written so far, and has the writers go on.
func (c *campaign) judgeWrites(name string) error {
	wrong, err := c.writes.history.Judge()
	if err != nil {
		return fmt.Errorf("judging the writes of the manifest: %w", err)
	}
	for _, s := range wrong[min(c.lost, len(wrong)):] {
		c.violate("%s: the manifest: %s", name, s)
	}
	c.lost = max(c.lost, len(wrong))
	c.writes.begin()
	return nil
}

func (c *campaign) violate(format string, args ...any) {
	c.violations++
	fmt.Println("VIOLATION:", fmt.Sprintf(format, args...))
}

// report prints what each fault did: a campaign in which nothing moved shows nothing.
func (c *campaign) report() {
	names := make([]string, 0, len(c.tally))
	for n := range c.tally {
		names = append(names, n)
	}
	slices.Sort(names)
	fmt.Printf("manifests: %v\n", c.writes.history.Tally())
	fmt.Printf("%-60s %5s %5s %6s %9s %9s\n", "fault", "times", "moved", "starts", "median", "longest")
	for _, n := range names {
		t := c.tally[n]
		slices.Sort(t.outages)
		fmt.Printf("%-60s %5d %5d %6d %9v %9v\n", n, t.times, t.moved, t.started,
			t.outages[len(t.outages)/2].Round(time.Millisecond), t.outages[len(t.outages)-1].Round(time.Millisecond))
	}
}
