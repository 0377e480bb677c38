// Command gemel-store is the member of a cluster's store, in a program of its own:
// what it is made of, etcd, costs every process memory that has it. gemel carries it
// packed, and runs it for "gemel store"; nobody else does.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"gemel/internal/places"
	"gemel/internal/voter"
)

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "gemel:", err)
		os.Exit(1)
	}
}

// run is given the words of "gemel store" with all places.
func run(args []string) error {
	var p places.Places
	f := flag.NewFlagSet("gemel store", flag.ContinueOnError)
	f.StringVar(&p.Data, "data-dir", "", "")
	f.StringVar(&p.Run, "run-dir", "", "")
	f.StringVar(&p.Socket, "socket", "", "")
	if len(args) < 2 || args[1] != "store" {
		return fmt.Errorf("this is a part of gemel, which runs it")
	}
	if err := f.Parse(args[2:]); err != nil {
		return err
	}
	debug.SetGCPercent(25) // as gemel's own processes: memory rather than speed
	// Run from memory, it is called after a descriptor. A failure leaves it so.
	_ = os.WriteFile("/proc/self/comm", []byte("gemel-store"), 0)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if f.NArg() > 0 {
		return voter.Restore(f.Arg(0), os.Stdout, log)
	}
	signal.Ignore(syscall.SIGPIPE) // whoever reads the log may go away
	return voter.Run(ctx, p, log)
}
