package lab

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"gemel"
)

// helpers are the programs that the test binary plays.
func helpers() map[string]func([]string) {
	return map[string]func([]string){"threads": threads, "eat": eat, "flood": flood, "slow": slow, "answer": answer}
}

// threads beats with two threads until SIGUSR1: from then on the one named worker
// hangs and the other goes on.
func threads([]string) {
	hang := make(chan os.Signal, 1)
	signal.Notify(hang, unix.SIGUSR1)
	var hung atomic.Bool
	run := func(name string, dies bool) {
		b := gemel.Thread(name)
		for {
			if !dies || !hung.Load() {
				b.Beat()
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	go run("ticker", false)
	go run("worker", true)
	if err := gemel.Ready(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	<-hang
	hung.Store(true)
	for { // select {} would end as a deadlock without cgo
		_, _ = unix.Poll(nil, -1)
	}
}

// slow takes longer than it may to become ready and to end, and says so; the
// argument is how long.
func slow(args []string) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGTERM)
	takes, err := time.ParseDuration(args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	busy := func() {
		c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
		if err == nil {
			_, err = c.Write([]byte("EXTEND_TIMEOUT_USEC=60000000"))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		c.Close()
		time.Sleep(takes)
	}
	busy()
	if err := gemel.Ready(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	<-asked
	busy()
	os.Exit(7)
}

// answer tells whoever connects to an address the name of the machine that it runs on.
func answer(args []string) {
	l, err := net.Listen("tcp", args[0])
	for err == nil {
		var c net.Conn
		if c, err = l.Accept(); err == nil {
			name, _ := os.Hostname()
			fmt.Fprintln(c, name)
			c.Close()
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// eat takes memory until it is killed for it.
func eat([]string) {
	var all [][]byte
	for {
		b := make([]byte, 1<<20)
		for i := range b {
			b[i] = byte(i)
		}
		all = append(all, b)
		runtime.KeepAlive(all)
	}
}

// flood writes what its arguments say and then marks a file: lines, a megabyte of
// noise, or four megabytes without an end of line.
func flood(args []string) {
	switch args[0] {
	case "lines":
		for n := range 10_000 {
			fmt.Printf("line %d\n", n)
		}
	case "binary":
		b := make([]byte, 256)
		for i := range b {
			b[i] = byte(i)
		}
		for range 4096 {
			_, _ = os.Stdout.Write(b)
		}
	case "endless":
		line := []byte(strings.Repeat("x", 64<<10))
		for range 64 {
			_, _ = os.Stdout.Write(line)
		}
	}
	if err := os.WriteFile(args[1], nil, 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	_ = exec.Command("sleep", "100000").Run()
}
