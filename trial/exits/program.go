package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// leaveCode is the code of a program that was asked to stop at the end of the
// campaign.
const leaveCode = 77

// program is what Gemel runs: it tells the oracle what it will do, prints all the
// while (so that a broken output would end it by SIGPIPE), and ends.
func program(oracle string) {
	code := 1 + rand.IntN(60)
	life := 20*time.Millisecond + time.Duration(rand.Int64N(int64(1500*time.Millisecond)))
	// Caught from the first moment on: who is known to the oracle can say goodbye.
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	conn, err := net.Dial("unix", oracle)
	if err != nil {
		fmt.Fprintln(os.Stderr, "no oracle:", err)
		os.Exit(78)
	}
	fmt.Fprintf(conn, "%s %s %d %d\n", os.Getenv("GEMEL_PROCESS"), os.Getenv("GEMEL_START"), os.Getpid(), code)
	ack := make([]byte, 1)
	if _, err := conn.Read(ack); err != nil {
		os.Exit(78)
	}
	end := time.NewTimer(life)
	tick := time.NewTicker(5 * time.Millisecond)
	for {
		select {
		case <-end.C:
			os.Exit(code)
		case <-term:
			fmt.Fprintf(conn, "leaving\n")
			os.Exit(leaveCode)
		case <-tick.C:
			fmt.Println("a line of output that goes through the monitor, if there is one")
		}
	}
}
