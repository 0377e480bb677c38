package netpath

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"gemel/internal/clock"
	"gemel/internal/ha"
)

// A hub joins stations in memory, so that whole networks run in a bubble.
type hub struct {
	mu    sync.Mutex
	wires map[netip.AddrPort]*hubWire
	// lost says which datagrams do not arrive.
	lost func(from, to netip.AddrPort) bool
	// refuse is what a write or an open at an address fails with.
	refuse func(at netip.AddrPort, opening bool) error
	opens  int
	all    []packet // everything that was sent
}

type packet struct {
	b        []byte
	from, to netip.AddrPort
}

type hubWire struct {
	hub  *hub
	at   netip.AddrPort
	in   chan packet
	bell chan struct{}
}

func newHub() *hub {
	return &hub{
		wires: map[netip.AddrPort]*hubWire{}, lost: func(_, _ netip.AddrPort) bool { return false },
		refuse: func(netip.AddrPort, bool) error { return nil },
	}
}

func (h *hub) open(n Network, _ int) (wire, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.opens++
	if err := h.refuse(n.Local, true); err != nil {
		return nil, err
	}
	w := &hubWire{h, n.Local, make(chan packet, 1000), make(chan struct{}, 10)}
	h.wires[n.Local] = w
	return w, nil
}

// with changes the hub while stations run.
func (h *hub) with(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// inject delivers a datagram as if it came from somewhere.
func (h *hub) inject(p packet) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w := h.wires[p.to]; w != nil {
		w.in <- packet{bytes.Clone(p.b), p.from, p.to}
	}
}

func (w *hubWire) write(b []byte, to netip.AddrPort) error {
	w.hub.mu.Lock()
	err, lost := w.hub.refuse(w.at, false), w.hub.lost(w.at, to)
	p := packet{bytes.Clone(b), w.at, to}
	if err == nil {
		w.hub.all = append(w.hub.all, p)
	}
	w.hub.mu.Unlock()
	if err == nil && !lost {
		w.hub.inject(p)
	}
	return err
}

func (w *hubWire) read(b []byte, due, now ha.Instant) (int, netip.AddrPort, error) {
	select {
	case p := <-w.in:
		return copy(b, p.b), p.from, nil
	case <-w.bell:
		return 0, netip.AddrPort{}, errNothing
	case <-time.After(due.Sub(now)):
		return 0, netip.AddrPort{}, errNothing
	}
}

func (w *hubWire) wake() { w.bell <- struct{}{} }

func (w *hubWire) close() error {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	delete(w.hub.wires, w.at)
	return nil
}

const beat = 50 * time.Millisecond

var (
	oldKey = Key{1, bytes.Repeat([]byte{1}, keySize)}
	newKey = Key{2, bytes.Repeat([]byte{2}, keySize)}
)

// at is the address of node i on network n of the rigs below.
func at(n, i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n), byte(i)}), 5316)
}

// ring is the configuration of node i of several, on two networks.
func ring(i, nodes int) Config {
	c := Config{Node: ha.Node(fmt.Sprintf("n%d", i)), Cluster: "test", Keys: []Key{oldKey}, Interval: beat}
	for n := 1; n <= 2; n++ {
		net := Network{Name: fmt.Sprintf("net%d", n), Local: at(n, i)}
		for j := 1; j <= nodes; j++ {
			if j != i {
				net.Peers = append(net.Peers, Peer{ha.Node(fmt.Sprintf("n%d", j)), at(n, j)})
			}
		}
		c.Networks = append(c.Networks, net)
	}
	return c
}

// start runs a station until the returned function is called, which waits.
func start(t testing.TB, cfg Config, clk clock.Clock, open func(Network, int) (wire, error)) (*Station, func()) {
	t.Helper()
	s, err := New(cfg, clk, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	if open != nil {
		s.open = open
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return s, stop
}

// of returns what a station heard of a peer on a network.
func of(t testing.TB, s *Station, node, network string) Heard {
	t.Helper()
	for _, h := range s.Heard(nil) {
		if string(h.Node) == node && h.Network == network {
			return h
		}
	}
	t.Fatalf("nothing is known of %s on %s", node, network)
	return Heard{}
}

var errGone = errors.New("the interface is gone")
