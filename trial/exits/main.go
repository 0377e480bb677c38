// Command exits is the campaign "never in the way, nothing lost": it kills the
// monitor, the shadow, or both at random instants while programs end with known
// codes, and then compares what Gemel recorded with what the programs did.
//
// An oracle outside of Gemel holds a connection to every program: the program
// says at its start who it is and with which code it will end, and the kernel
// closes the connection when it is gone. So the oracle sees a program that runs
// twice, one that was started again although it did not end, and one that ended
// otherwise than it meant to (SIGPIPE, a kill).
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "program" {
		program(os.Args[2])
		return
	}
	var c campaign
	var upgrades string
	flag.StringVar(&c.gemel, "gemel", "bin/gemel", "the binary under trial")
	flag.StringVar(&upgrades, "upgrade", "", "a second build: upgrade and downgrade between the two instead of killing")
	flag.IntVar(&c.n, "n", 200, "how many kills, or pairs of upgrade and downgrade")
	flag.IntVar(&c.programs, "programs", 50, "how many programs")
	flag.Uint64Var(&c.seed, "seed", uint64(time.Now().UnixNano()), "seed of the schedule")
	flag.StringVar(&c.dir, "dir", "", "where to work; empty: a temporary directory that is removed when all is well")
	lazy := flag.Bool("init", false, "leave orphans to the machine's own init instead of one that takes them at once")
	flag.Parse()
	if !*lazy && os.Getenv(innerEnv) == "" {
		code, err := reaper()
		if err != nil {
			fmt.Fprintln(os.Stderr, "trial-exits:", err)
		}
		os.Exit(code)
	}
	c.other = upgrades
	c.managed, c.fixed = c.seed%2 == 1, c.seed/2%2 == 1
	c.rand = rand.New(rand.NewPCG(c.seed, 1))
	fmt.Printf("seed %d, service manager announced: %v, it starts only the first build: %v\n", c.seed, c.managed, c.fixed)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	violations, err := c.run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "trial-exits:", err)
		os.Exit(2)
	}
	for i, v := range violations {
		if i == 40 {
			fmt.Printf("... and %d more\n", len(violations)-i)
			break
		}
		fmt.Println("VIOLATION:", v)
	}
	name := "trial-exits"
	if c.other != "" {
		name = "trial-upgrade"
	}
	fmt.Printf("seed %d\n", c.seed)
	fmt.Printf("%s: %d trials, %d violations\n", name, c.n, len(violations))
	if len(violations) > 0 {
		os.Exit(1)
	}
}
