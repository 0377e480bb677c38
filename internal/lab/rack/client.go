package rack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
)

// An Answer is one that the client got: when it had asked, and from whom, with what
// fence and when by the program's own word.
type Answer struct {
	Sent  ha.Instant
	Node  ha.Node
	Fence ha.Fence
	At    ha.Instant
}

// A Client asks at the service address, a question each millisecond, and notes the
// answers. It is on the service network and no fault touches it.
type Client struct {
	rack  *Rack
	conn  *net.UDPConn
	to    netip.AddrPort
	names map[uint64]ha.Node
	stop  chan struct{}
	wg    sync.WaitGroup

	mu      sync.Mutex
	sent    []ha.Instant // by the number of the question, less first
	first   uint64
	answers []Answer // in the order of their arrival
}

func newClient(r *Rack) (*Client, error) {
	c := &Client{rack: r, to: netip.AddrPortFrom(r.Address(), port), names: names(r), stop: make(chan struct{})}
	err := r.sw.do(func() (err error) {
		c.conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address(Service, clientNumber)), 0)))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("making the client: %w", err)
	}
	c.wg.Go(c.ask)
	c.wg.Go(c.listen)
	return c, nil
}

// names tells the nodes by the inodes of their namespaces.
func names(r *Rack) map[uint64]ha.Node {
	m := map[uint64]ha.Node{}
	for _, n := range r.nodes {
		m[n.space.ino] = n.Name
	}
	return m
}

func (c *Client) close() {
	close(c.stop)
	_ = c.conn.Close()
	c.wg.Wait()
}

func (c *Client) ask() {
	prompt()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	b := make([]byte, 8)
	for {
		select {
		case <-c.stop:
			return
		case <-tick.C:
		}
		c.mu.Lock()
		binary.BigEndian.PutUint64(b, c.first+uint64(len(c.sent)))
		c.sent = append(c.sent, clock.Now())
		c.mu.Unlock()
		_, _ = c.conn.WriteToUDPAddrPort(b, c.to) // no answer will say it
	}
}

func (c *Client) listen() {
	prompt()
	b := make([]byte, replySize+1)
	for {
		n, _, err := c.conn.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n != replySize {
			continue // the kernel's word that nobody is there
		}
		word := func(i int) uint64 { return binary.BigEndian.Uint64(b[8*i:]) }
		c.mu.Lock()
		if i := word(0) - c.first; i < uint64(len(c.sent)) {
			c.answers = append(c.answers, Answer{Sent: c.sent[i], Node: c.names[word(1)],
				Fence: ha.Fence{Era: word(2), Counter: word(3)}, At: ha.Instant(word(4))})
		}
		c.mu.Unlock()
	}
}

// last is the newest answer.
func (c *Client) last() (Answer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.answers) == 0 {
		return Answer{}, false
	}
	return c.answers[len(c.answers)-1], true
}

// Outage is the longest time between two questions that were answered, of those asked
// from an instant on until now.
func (c *Client) Outage(from ha.Instant) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	longest, at := time.Duration(0), from
	for _, a := range c.answers {
		if a.Sent >= from {
			longest, at = max(longest, a.Sent.Sub(at)), max(at, a.Sent)
		}
	}
	return max(longest, clock.Now().Sub(at))
}

// Answers are those that were given from an instant on.
func (c *Client) Answers(from ha.Instant) []Answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []Answer
	for _, a := range c.answers {
		if a.At >= from {
			all = append(all, a)
		}
	}
	return all
}

// Forget drops what a long campaign needs no more; the newest answer stays.
func (c *Client) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.sent) - 2000; n > 0 { // questions that may be answered yet
		c.sent, c.first = append([]ha.Instant(nil), c.sent[n:]...), c.first+uint64(n)
	}
	if n := len(c.answers) - 1; n > 0 {
		c.answers = append([]Answer(nil), c.answers[n:]...)
	}
}

// prompt has this goroutine go before what else the machine does, as the nodes do. It
// ends with its thread.
func prompt() {
	runtime.LockOSThread()
	// Where it is not allowed, a late look is all that comes of it.
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 2, Flags: unix.SCHED_FLAG_RESET_ON_FORK}, 0)
}
