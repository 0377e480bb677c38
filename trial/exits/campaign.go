package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// campaign is one run: a service manager, a nemesis, an oracle, and a judge.
//
//budget:fields it is a world
type campaign struct {
	gemel, other string // other: a second build, for upgrades
	n, programs  int
	seed         uint64
	dir          string
	rand         *rand.Rand

	// managed: the halves know of a service manager, and the monitor leaves it to
	// it to start a new shadow; else both do, and one of them is refused.
	managed bool
	fixed   bool // the service manager starts the first build whatever was upgraded to

	data, rund string
	oracle     *oracle
	pair       *pair

	hits, during, ends [3]int // by victim: kills, those while programs ended, how many did
	tally              tally  // of upgrades
}

func (c *campaign) run(ctx context.Context) (violations []string, err error) {
	if c.dir != "" {
		if err := os.MkdirAll(c.dir, 0o700); err != nil {
			return nil, err
		}
	} else {
		if c.dir, err = os.MkdirTemp("", "exits"); err != nil {
			return nil, err
		}
		defer func() {
			if err == nil && len(violations) == 0 {
				_ = os.RemoveAll(c.dir)
			} else {
				fmt.Println("kept:", c.dir)
			}
		}()
	}
	for _, p := range []*string{&c.gemel, &c.other} {
		if *p == "" {
			continue
		}
		if *p, err = filepath.Abs(*p); err != nil {
			return nil, err
		}
		if *p, err = filepath.EvalSymlinks(*p); err != nil {
			return nil, err
		}
	}
	c.data, c.rund = filepath.Join(c.dir, "data"), filepath.Join(c.dir, "run")
	file := filepath.Join(c.dir, "gemel.yaml")
	if err := c.manifest(file); err != nil {
		return nil, err
	}
	if c.oracle, err = listen(filepath.Join(c.dir, "oracle")); err != nil {
		return nil, err
	}
	c.pair = &pair{exe: c.gemel, data: c.data, run: c.rund, file: file, log: filepath.Join(c.dir, "gemel.log"), managed: c.managed}
	if err := c.pair.begin(ctx); err != nil {
		return nil, err
	}
	err = c.nemesis(ctx)
	c.oracle.finish()
	err = errors.Join(err, c.pair.end())
	c.oracle.close()
	if err != nil {
		return nil, err
	}
	c.premise()
	judged, err := c.judge()
	return slices.Concat(c.oracle.violations, c.tally.violations, judged), err
}

// manifest writes one process for each program, each of which ends again and
// again and is started again at once.
func (c *campaign) manifest(file string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString("processes:\n")
	for i := range c.programs {
		fmt.Fprintf(&b, "  p%03d:\n    command: [%q, program, %q]\n    ramp-up: 0s\n    restarts: {limit: 10000, within: 1s, delay: 0s}\n    spare: %v\n",
			i, self, filepath.Join(c.dir, "oracle"), i%5 == 0) // some have a parked child
	}
	return os.WriteFile(file, []byte(b.String()), 0o600)
}

// nemesis kills, or upgrades, n times.
func (c *campaign) nemesis(ctx context.Context) error {
	for i := range c.n {
		pause := 100*time.Millisecond + time.Duration(c.rand.Int64N(int64(500*time.Millisecond)))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		var err error
		if c.other != "" {
			err = c.upgrade(ctx)
		} else {
			err = c.kill(ctx, c.rand.IntN(3))
		}
		if err != nil {
			return fmt.Errorf("trial %d of %d: %w", i+1, c.n, err)
		}
		if (i+1)%20 == 0 {
			fmt.Printf("%d of %d, %d starts so far\n", i+1, c.n, c.oracle.starts())
		}
	}
	return nil
}

var victims = [3]string{"the monitor", "the shadow", "both"}

// premise says what the kills met: a campaign in which nothing ended shows nothing.
func (c *campaign) premise() {
	if c.other != "" {
		fmt.Println(c.tally)
	}
	for i, v := range victims {
		if c.hits[i] > 0 {
			fmt.Printf("killed %s %d times; while it was not replaced yet, programs ended in %d of them, %d in all\n",
				v, c.hits[i], c.during[i], c.ends[i])
		}
	}
}

// kill kills the monitor (0), the shadow (1), or both (2), and waits until a
// complete pair answers again.
func (c *campaign) kill(ctx context.Context, which int) error {
	shadow, monitor, err := c.pair.whole(ctx)
	if err != nil {
		return err
	}
	before := c.oracle.ended()
	hit := struct{ shadow, monitor int }{shadow, monitor}
	switch which {
	case 0:
		c.pair.kill(monitor)
		hit.shadow = 0
	case 1:
		c.pair.kill(shadow)
		hit.monitor = 0
	case 2:
		first, second := shadow, monitor
		if c.rand.IntN(2) == 0 {
			first, second = second, first
		}
		c.pair.killBoth(first, second, time.Duration(c.rand.Int64N(int64(3*time.Millisecond))))
	}
	s, m, err := c.pair.whole(ctx)
	if err != nil {
		return fmt.Errorf("after killing %s: %w", victims[which], err)
	}
	if s == hit.shadow || m == hit.monitor {
		return fmt.Errorf("killing %s had no effect: shadow %d, monitor %d", victims[which], s, m)
	}
	c.hits[which]++
	if n := c.oracle.ended() - before; n > 0 {
		c.during[which]++
		c.ends[which] += n
	}
	return nil
}
