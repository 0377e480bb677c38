// Trial-sim plays clusters of the real machines that decide, on virtual time, with
// faults that a seed draws: no group may run twice, and every group must run when
// the faults are over. N schedules from SEED on, and LARGE (one for each 1,000) of 16 nodes and 300
// groups; then each flaw that can be planted must be found out. GEMEL_SHORT=1 plays 2,000 and plants
// none. Arguments are seeds to play alone, as 7 or large:7, with all that happens, after their
// faults were made as few as possible.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gemel/internal/decide/cluster"
	"gemel/internal/sim"
)

// most is how many seeds are tried to find a flaw out.
const most = 20_000

func main() {
	if len(os.Args) > 1 {
		for _, a := range os.Args[1:] {
			draw := sim.Draw
			text, large := strings.CutPrefix(a, "large:")
			if large {
				draw = sim.Large
			}
			seed, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				fmt.Fprintf(os.Stderr, "trial-sim: %q is no seed: %v\n", a, err)
				os.Exit(2)
			}
			show(draw(seed))
		}
		return
	}
	n, seed := number("N", 100_000), number("SEED", 1)
	short := os.Getenv("GEMEL_SHORT") != ""
	if short {
		n = number("N", 2_000)
	}
	large := number("LARGE", min(n/1000, 100))
	wrong := clean("", seed, n, sim.Draw)
	wrong += clean("large:", seed, large, sim.Large)
	if !short { // the tests of internal/sim plant each flaw as well, near a seed that brings it to light
		wrong += planted(seed)
	}
	fmt.Printf("trial-sim: %d trials, %d violations\n", n+large, wrong)
	if wrong > 0 || n == 0 {
		os.Exit(1)
	}
}

func number(name string, other uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return other
	}
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		fmt.Fprintf(os.Stderr, "trial-sim: %s=%s is no number: %v\n", name, text, err)
		os.Exit(2)
	}
	return v
}

// all calls do for the numbers below n on all cores, until one returns false.
func all(n uint64, do func(i uint64) bool) {
	var next atomic.Uint64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for !stop.Load() {
				i := next.Add(1) - 1
				if i >= n {
					return
				}
				if !do(i) {
					stop.Store(true)
				}
			}
		})
	}
	wg.Wait()
}

// clean plays the protocol as it is.
func clean(prefix string, seed, n uint64, draw func(uint64) sim.Config) (wrong int) {
	began := time.Now()
	var mu sync.Mutex
	var seen sim.Seen
	steps := 0
	all(n, func(i uint64) bool {
		r := sim.Run(draw(seed + i))
		mu.Lock()
		defer mu.Unlock()
		seen.Add(r.Seen)
		steps += r.Steps
		if len(r.Bad) > 0 {
			wrong++
			fmt.Printf("seed %s%d: %s\n", prefix, seed+i, r)
		}
		return wrong < 10
	})
	took := time.Since(began)
	fmt.Printf("%d schedules%s, %d steps in %v (%.0f schedules a minute): %d violations\n", n, map[bool]string{true: " of 16 nodes and 300 groups"}[prefix != ""], steps, took.Round(time.Second), float64(n)/took.Minutes(), wrong)
	fmt.Printf("what happened in them: %+v\n", seen)
	return wrong
}

// planted plays it without each of its clauses.
func planted(seed uint64) (missed int) {
	for _, f := range sim.Plants() {
		began := time.Now()
		var mu sync.Mutex
		found := most + seed
		all(most, func(i uint64) bool {
			if !sim.Run(sim.Planted(seed+i, f)).Twice() {
				return true
			}
			mu.Lock()
			defer mu.Unlock()
			found = min(found, seed+i)
			return false
		})
		if found == most+seed {
			missed++
			fmt.Printf("%-24s NOT FOUND OUT in %d schedules\n", f, most)
			continue
		}
		fmt.Println(line(f, found, time.Since(began)))
	}
	return missed
}

func line(f cluster.Flaw, seed uint64, took time.Duration) string {
	c := sim.Planted(seed, f)
	n := len(c.Faults)
	c = sim.Shrink(c)
	r := sim.Run(c)
	text := fmt.Sprintf("%-24s found at seed %d in %v, %d of %d faults: %s", f, seed, took.Round(10*time.Millisecond), len(c.Faults), n, r.Bad[0])
	c.Plant = nil
	if r := sim.Run(c); r.Twice() {
		text += "; WITHOUT THE FLAW AS WELL: " + r.Bad[0]
	}
	return text
}

// show plays one run with everything that happens in it.
func show(c sim.Config) {
	if len(sim.Run(c).Bad) > 0 {
		c = sim.Shrink(c)
	}
	c.Trace = true
	r := sim.Run(c)
	for _, l := range r.Trace {
		fmt.Println(l)
	}
	fmt.Println(r)
}
