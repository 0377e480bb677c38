// Beats is a program of several goroutines that each say that they are well.
//
//	go run ./examples/go [GOROUTINES [INTERVAL]]
//
// SIGUSR1 hangs the first one, as a deadlock would: under a manifest with a
// watchdog Gemel names it, keeps evidence, and starts the program again. SIGTERM
// ends it in good order.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"gemel"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "beats:", err)
		os.Exit(2)
	}
}

func run(args []string) error {
	n, pause := 4, 200*time.Millisecond
	var err error
	if len(args) > 0 {
		if n, err = strconv.Atoi(args[0]); err != nil || n < 1 || n > 10000 {
			return fmt.Errorf("%q: the number of goroutines is 1 to 10000", args[0])
		}
	}
	if len(args) > 1 {
		if pause, err = time.ParseDuration(args[1]); err != nil || pause <= 0 {
			return fmt.Errorf("%q: the interval is a duration as 200ms", args[1])
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	hang := make(chan os.Signal, 1)
	signal.Notify(hang, syscall.SIGUSR1)

	var claimed, all sync.WaitGroup
	for i := range n {
		claimed.Add(1)
		all.Go(func() {
			beat := gemel.Thread(fmt.Sprintf("worker-%d", i))
			defer beat.Done()
			claimed.Done()
			var hung <-chan os.Signal
			if i == 0 {
				hung = hang
			}
			work(ctx, beat, pause, hung)
		})
	}
	claimed.Wait()
	if err := gemel.Status("all goroutines run"); err != nil {
		return err
	}
	if err := gemel.Ready(); err != nil {
		return err
	}
	fmt.Printf("beats: %d goroutines, pid %d\n", n, os.Getpid())
	<-ctx.Done()
	err = gemel.Stopping()
	all.Wait()
	return err
}

// work beats until ctx ends, or until hung says that it is to hang.
func work(ctx context.Context, beat *gemel.Beat, pause time.Duration, hung <-chan os.Signal) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		beat.Beat()
		select {
		case <-ctx.Done():
			return
		case <-hung:
			<-ctx.Done()
			return
		case <-tick.C:
		}
	}
}
