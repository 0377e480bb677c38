package netpath

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"gemel/internal/clock"
	"gemel/internal/ha"
)

// A Station sends the heartbeats of one node and hears those of the others.
type Station struct {
	clk  clock.Clock
	log  *slog.Logger
	open func(Network, int) (wire, error)

	mu    sync.Mutex
	cfg   Config
	book  *book
	links []*link
	stall Stall

	began ha.Instant // Run; from then on all links count their intervals
}

// A Stall is how late this node's own heartbeats were: what it did not hear
// meanwhile says nothing of others.
type Stall struct {
	Count  uint64 // how often one was more than an interval late
	At     ha.Instant
	Length time.Duration // of the last one; it ended at At
}

// A Link is the state of one network at this node.
//
//budget:fields it is a record of observations
type Link struct {
	Network string
	// Open is since when there is a socket; zero: there is none, and Error says why.
	Open ha.Instant
	// Opens counts sockets: the first, and each one that replaced a dead one.
	Opens uint64
	// Received counts all datagrams that came, Refused those that did not count, by
	// reason.
	Received uint64
	Refused  map[string]uint64
	// Failed counts datagrams that the machine did not let go, and failures to open
	// a socket or to read from it. Error is the last one, Failing when it was.
	Failed  uint64
	Error   string
	Failing ha.Instant

	err error // Error, as long as nobody asks
}

// New makes a station. Nothing is sent and heard before Run.
func New(cfg Config, clk clock.Clock, log *slog.Logger) (*Station, error) {
	if err := cfg.Check(); err != nil {
		return nil, fmt.Errorf("heartbeats: %w", err)
	}
	s := &Station{clk: clk, log: log, open: openSocket, book: newBook(draw())}
	for _, n := range cfg.Networks {
		s.links = append(s.links, newLink(s, n.Name))
	}
	if err := s.use(cfg); err != nil {
		return nil, fmt.Errorf("heartbeats: %w", err)
	}
	return s, nil
}

// draw makes the number of a session. It is part of the nonces: never twice.
func draw() uint64 {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		if n := binary.BigEndian.Uint64(b[:]); n != 0 {
			return n
		}
	}
}

// Change replaces the configuration while heartbeats go on: other keys, other
// peers, another interval. The node, the cluster and this node's own end of the
// networks stay; they need a new Station.
func (s *Station) Change(cfg Config) error {
	if err := cfg.Check(); err != nil {
		return fmt.Errorf("changing the heartbeats: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	same := cfg.Node == s.cfg.Node && cfg.Cluster == s.cfg.Cluster && cfg.DSCP == s.cfg.DSCP && len(cfg.Networks) == len(s.cfg.Networks)
	for i := range s.cfg.Networks {
		same = same && cfg.Networks[i].Name == s.cfg.Networks[i].Name &&
			cfg.Networks[i].Local == s.cfg.Networks[i].Local && cfg.Networks[i].Device == s.cfg.Networks[i].Device
	}
	if !same {
		return errors.New("changing the heartbeats: only keys, peers, interval and payload can change while they go on; stop this station and make another one")
	}
	return s.use(cfg)
}

// use makes the seals and targets of a checked configuration. The caller holds
// mu, or is New.
func (s *Station) use(cfg Config) error {
	var tables []*table
	for _, n := range cfg.Networks {
		t, err := newTable(cfg, n, s.book)
		if err != nil {
			return err
		}
		tables = append(tables, t)
	}
	s.cfg = cfg
	s.cfg.Keys = nil // the seals are all that is needed of them
	for i, l := range s.links {
		l.table.Store(tables[i])
	}
	return nil
}

// Run sends and hears until ctx ends. No failure of a network ends it: it is
// counted, and tried again. It is called once.
func (s *Station) Run(ctx context.Context) error {
	var alarms []clock.Alarm
	defer func() {
		for _, a := range alarms {
			a.Stop()
		}
	}()
	for range s.links {
		a, err := s.clk.Alarm()
		if err != nil {
			return fmt.Errorf("heartbeats: %w", err)
		}
		alarms = append(alarms, a)
	}
	s.began = s.clk.Now()
	var wg sync.WaitGroup
	for i, l := range s.links {
		wg.Go(func() { l.run(ctx, alarms[i]) })
	}
	<-ctx.Done()
	for _, l := range s.links {
		l.stop()
	}
	wg.Wait()
	return nil
}

// after returns the next instant at which all links send: they do it together, here and
// so also there, since waking a process costs more than what it then does. What was
// missed is not sent after.
func (s *Station) after(now ha.Instant, interval time.Duration) ha.Instant {
	return now.Add(interval - now.Sub(s.began)%interval)
}

// Heard appends what was observed of every configured peer on every network to
// into, in the order of the configuration. With room in into it costs no memory.
func (s *Station) Heard(into []Heard) []Heard {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.links {
		for _, t := range l.table.Load().targets {
			into = append(into, t.path.observed())
		}
	}
	return into
}

// Hurry makes the next heartbeat due at once on every network: this node has
// something new to say. It costs one datagram to each peer.
func (s *Station) Hurry() {
	for _, l := range s.links {
		l.hurry()
	}
}

// Stalled returns how late this node itself was.
func (s *Station) Stalled() Stall {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stall
}

// Links returns the state of the networks at this node.
func (s *Station) Links() []Link {
	var out []Link
	for _, l := range s.links {
		out = append(out, l.state())
	}
	return out
}

// next takes the next sequence number of a path, and with the last one of a
// session begins another.
func (s *Station) next(p *path) (uint64, uint32, body) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.book.exhausted(p) {
		s.book.restart(draw())
	}
	return s.book.next(p, s.clk.Now())
}

// stalled notes that a heartbeat came late. All networks are late by one stall.
func (s *Station) stalled(now ha.Instant, late time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Add(-late) > s.stall.At {
		s.stall.Count++
	}
	s.stall.At, s.stall.Length = now, late
}
