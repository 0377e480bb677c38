// Command hello is a service and its client, to see what becomes of a group that
// moves.
//
//	hello serve ADDRESS   answers who it is: the node's part of its group's name and fence
//	hello ask ADDRESS     asks each millisecond, and tells each time that nobody answered
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sort"
	"strings"
	"sync"
	"time"
)

const patience = 300 * time.Millisecond // of one question

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: hello serve|ask ADDRESS")
		os.Exit(2)
	}
	var err error
	switch os.Args[1] {
	case "serve":
		err = serve(os.Args[2])
	case "ask":
		err = ask(os.Args[2])
	default:
		err = fmt.Errorf("%q is neither serve nor ask", os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "hello:", err)
		os.Exit(1)
	}
}

// serve answers every connection with one line.
func serve(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	if n := os.Getenv("HELLO_NODE"); n != "" {
		host = n
	}
	line := fmt.Sprintf("%s fence %s\n", host, os.Getenv("GEMEL_FENCE"))
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			continue
		}
		go func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			_, _ = io.WriteString(c, line)
		}()
	}
}

// asked is one question.
type asked struct {
	at  time.Time
	who string // who answered; empty: nobody did in time
}

// client judges what was asked in the order in which it was: an answer that comes
// late is no outage, and a question that waits in vain is one from its beginning.
type client struct {
	mu      sync.Mutex
	pending []asked

	who    string
	since  time.Time // of the first question without an answer
	missed int
}

// ask asks for ever.
func ask(address string) error {
	var c client
	look := time.Now()
	for now := range time.Tick(time.Millisecond) {
		go func() {
			at := time.Now()
			who, err := question(address)
			if err != nil {
				who = ""
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.pending = append(c.pending, asked{at, who})
		}()
		if now.Sub(look) > 100*time.Millisecond {
			look = now
			c.judge(now.Add(-2 * patience))
		}
	}
	return nil
}

// judge tells what became of all that was asked before an instant.
func (c *client) judge(before time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sort.Slice(c.pending, func(i, j int) bool { return c.pending[i].at.Before(c.pending[j].at) })
	for len(c.pending) > 0 && c.pending[0].at.Before(before) {
		q := c.pending[0]
		c.pending = c.pending[1:]
		if q.who == "" {
			c.missed++
			if c.since.IsZero() {
				c.since = q.at
			}
			continue
		}
		if !c.since.IsZero() && c.who != "" {
			fmt.Printf("%s  nobody answered for %d ms (%d questions)\n", stamp(q.at), q.at.Sub(c.since).Milliseconds(), c.missed)
		}
		c.since, c.missed = time.Time{}, 0
		if q.who != c.who {
			c.who = q.who
			fmt.Printf("%s  %s answers\n", stamp(q.at), q.who)
		}
	}
}

func question(address string) (string, error) {
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

func stamp(at time.Time) string { return at.Format("15:04:05.000") }
