package netpath

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gemel/internal/clock"
	"gemel/internal/ha"
)

func TestConfigIsChecked(t *testing.T) {
	if err := ring(1, 3).Check(); err != nil {
		t.Fatalf("a good one: %v", err)
	}
	addr := netip.MustParseAddrPort
	for _, c := range []struct {
		name, want string
		change     func(c *Config)
	}{
		{"node", "the name of this node", func(c *Config) { c.Node = "" }},
		{"cluster", "the cluster's id", func(c *Config) { c.Cluster = strings.Repeat("x", 256) }},
		{"too quick", "10ms to 10s", func(c *Config) { c.Interval = time.Millisecond }},
		{"too slow", "10ms to 10s", func(c *Config) { c.Interval = time.Minute }},
		{"mark", "DSCP 64: 0 to 63", func(c *Config) { c.DSCP = 64 }},
		{"no network", "no network", func(c *Config) { c.Networks = nil }},
		{"no key", "0 keys", func(c *Config) { c.Keys = nil }},
		{"three keys", "3 keys", func(c *Config) { c.Keys = []Key{oldKey, newKey, {3, oldKey.Secret}} }},
		{"short key", "has 31 bytes", func(c *Config) { c.Keys = []Key{{1, make([]byte, 31)}} }},
		{"zero key", "all zero", func(c *Config) { c.Keys = []Key{{1, make([]byte, 32)}} }},
		{"one id for two keys", "a new id", func(c *Config) { c.Keys = []Key{oldKey, {1, newKey.Secret}} }},
		{"network twice", `two networks have the name "net1"`, func(c *Config) { c.Networks[1].Name = "net1" }},
		{"network without a name", "its name", func(c *Config) { c.Networks[0].Name = "" }},
		{"address twice", "the same local address", func(c *Config) { c.Networks[1].Local = c.Networks[0].Local }},
		{"no address", "an IP address and a port", func(c *Config) { c.Networks[0].Local = netip.AddrPort{} }},
		{"no port", "a port from 1", func(c *Config) { c.Networks[0].Local = addr("10.0.0.1:0") }},
		{"everywhere", "cannot tell the networks apart", func(c *Config) { c.Networks[0].Local = addr("0.0.0.0:5") }},
		{"multicast", "of one node", func(c *Config) { c.Networks[0].Peers[0].Addr = addr("224.0.0.1:5") }},
		{"broadcast", "of one node", func(c *Config) { c.Networks[0].Peers[0].Addr = addr("255.255.255.255:5") }},
		{"mapped", "write it as an IPv4", func(c *Config) { c.Networks[0].Peers[0].Addr = addr("[::ffff:10.0.0.9]:5") }},
		{"link-local", "fe80::1%eth0", func(c *Config) { c.Networks[0].Local = addr("[fe80::1]:5") }},
		{"versions", "other IP version", func(c *Config) { c.Networks[0].Peers[0].Addr = addr("[fd00::1]:5") }},
		{"device", "no interface", func(c *Config) { c.Networks[0].Device = "longer-than-fifteen" }},
		{"itself", "this node itself", func(c *Config) { c.Networks[0].Peers[0].Node = "n1" }},
		{"peer without a name", "name of a peer", func(c *Config) { c.Networks[0].Peers[0].Node = "" }},
		{"peer twice", "given twice", func(c *Config) { c.Networks[0].Peers[1].Node = "n2" }},
		{"two at an address", "have the same address", func(c *Config) { c.Networks[0].Peers[1].Addr = at(1, 2) }},
		{"at our address", "have the same address", func(c *Config) { c.Networks[0].Peers[1].Addr = at(1, 1) }},
	} {
		cfg := ring(1, 3)
		c.change(&cfg)
		if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if _, err := New(cfg, clock.Machine(), slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s: a station was made", c.name)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	k := Key{7, []byte("canary-canary-canary-canary-1234")}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, x := range []any{k, &k, []Key{k}, Config{Keys: []Key{k}}} {
			out := fmt.Sprintf(verb, x)
			if strings.Contains(out, "canary") || strings.Contains(out, fmt.Sprintf("%d %d", 'c', 'a')) || strings.Contains(out, "0x63, 0x61") {
				t.Errorf("%s of %T shows the secret: %s", verb, x, out)
			}
		}
	}
	var b bytes.Buffer
	slog.New(slog.NewJSONHandler(&b, nil)).LogAttrs(context.Background(), slog.LevelInfo, "x", slog.Any("key", k), slog.Any("keys", []Key{k}))
	if strings.Contains(b.String(), "Y2FuYXJ5") {
		t.Errorf("a log in JSON shows the secret: %s", b.String())
	}
}

func TestWindow(t *testing.T) {
	const refused = math.MaxUint32
	for _, c := range []struct {
		name string
		in   []uint32
		want []uint32 // by how much the top moved, or refused
	}{
		{"in order", []uint32{1, 2, 3}, []uint32{1, 1, 1}},
		{"zero is none", []uint32{0, 1, 0}, []uint32{refused, 1, refused}},
		{"twice", []uint32{5, 5, 6, 5}, []uint32{1, refused, 1, refused}},
		{"older than the first", []uint32{5, 4, 1}, []uint32{1, refused, refused}},
		{"overtaken", []uint32{1, 4, 2, 3, 2}, []uint32{1, 3, 0, 0, refused}},
		{"edge", []uint32{1, 100, 101 - windowSize, 100 - windowSize, 36}, []uint32{1, 99, 0, refused, refused}},
		{"far", []uint32{1, math.MaxUint32, math.MaxUint32 - 1, 2}, []uint32{1, math.MaxUint32 - 1, 0, refused}},
	} {
		var w window
		for i, seq := range c.in {
			ahead, ok := w.accept(seq)
			if !ok {
				ahead = refused
			}
			if ahead != c.want[i] {
				t.Errorf("%s: number %d (%d): %d, want %d", c.name, i, seq, ahead, c.want[i])
			}
		}
	}
}

// The window never accepts a number twice, and always one that is new.
func TestWindowAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var w window
		seen, top, first := map[uint32]bool{}, uint32(0), uint32(0)
		for range 500 {
			seq := top + uint32(r.IntN(90))
			if seq > 80 {
				seq -= 80
			}
			_, ok := w.accept(seq)
			want := seq != 0 && !seen[seq] && (top == 0 || seq > top || top-seq < windowSize && seq > first)
			if ok != want {
				t.Fatalf("%d with top %d: %v, want %v", seq, top, ok, want)
			}
			if ok {
				seen[seq] = true
				if first == 0 {
					first = seq
				}
				top = max(top, seq)
			}
		}
	}
}

// The rate is found within its bound, whatever delays the network has.
func TestRate(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, off := range []float64{0, 0.0001, -0.004, 0.01, -0.02, 0.5} {
		for _, delay := range []time.Duration{0, 100 * time.Microsecond, 5 * time.Millisecond, 40 * time.Millisecond} {
			var x rater
			base := ha.Instant(12345 * time.Second)
			peer := func(at ha.Instant) ha.Instant { return ha.Instant(float64(at) * (1 + off)) }
			some := func() time.Duration { return time.Duration(float64(delay) * (0.05 + r.ExpFloat64())) }
			if got := x.rate(); !math.IsInf(got.Bound, 1) {
				t.Fatalf("with nothing known: %+v", got)
			}
			came := base
			for i := range 1200 {
				sent := base.Add(time.Duration(i) * beat)
				there := sent.Add(some())
				held := there.Add(20 * time.Millisecond)
				came = max(came, held.Add(some()))
				hold := peer(held).Sub(peer(there))
				x.add(came, peer(held), max(came.Sub(sent)-hold, 1))
			}
			got := x.rate()
			// The time of holding is by the peer's clock; that is of second order.
			slack := math.Abs(off)*float64(20*time.Millisecond)/float64(got.Span) + math.Abs(off)*0.01
			if math.Abs(got.Error-off) > got.Bound+slack || got.Span < 20*time.Second || got.Span > 33*time.Second {
				t.Errorf("rate off by %v, delays of %v: %+v", off, delay, got)
			}
			if want := math.Abs(off) >= 0.01; delay <= 5*time.Millisecond && (got.Exceeds(0.005) != want || got.Exceeds(1)) {
				t.Errorf("rate off by %v, delays of %v: over half a percent: %v", off, delay, !want)
			}
			if delay <= 5*time.Millisecond && got.Bound > 0.0005 {
				t.Errorf("delays of %v: the bound is %v", delay, got.Bound)
			}
		}
	}
}

func TestRoundTrip(t *testing.T) {
	b := newBook(7)
	p := b.path(route{"net1", "n2"})
	now := ha.Instant(time.Hour)
	peerNow := ha.Instant(5 * time.Hour)
	for i := range 100 {
		_, seq, m := b.next(p, now)
		back := body{stamp: peerNow, echo: echo{7, seq, m.stamp, 30 * time.Millisecond}}
		now, peerNow = now.Add(32*time.Millisecond), peerNow.Add(32*time.Millisecond)
		if r := b.admit(p, head{session: 9, seq: uint32(i + 1)}, back, now); r != accepted {
			t.Fatal(r)
		}
	}
	got := p.observed()
	if got.RTT != 2*time.Millisecond || got.Smooth != 2*time.Millisecond || got.Jitter > time.Microsecond {
		t.Errorf("%+v", got)
	}
	if got.Alive != now.Add(-32*time.Millisecond) || got.Echoed != now || got.Last != now {
		t.Errorf("at %v: %+v", now, got)
	}
}

func TestLoss(t *testing.T) {
	b := newBook(7)
	p := b.path(route{"net1", "n2"})
	b.next(p, 1)
	for i, seq := range []uint32{3, 4, 7, 9, 8, 6, 6, 100, 20, 101} {
		b.admit(p, head{session: 9, seq: seq}, body{echo: echo{7, 1, 1, 0}, stamp: ha.Instant(i + 1)}, ha.Instant(i+2))
	}
	// Of 3 to 101 there came 3 4 6 7 8 9 100 101; 20 was too old to tell.
	if h := p.observed(); h.Received != 8 || h.Lost != 99-8 {
		t.Errorf("received %d, lost %d", h.Received, h.Lost)
	}
}

// judged is a link that hears n2, and a datagram of n2's that counts.
func judged(t testing.TB, payload []byte) (*link, []byte) {
	t.Helper()
	s, err := New(ring(1, 3), clock.Machine(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l := s.links[0]
	session, seq, m := s.next(l.table.Load().targets[0].path)
	return l, sealed(t, head{key: 1, session: 99, seq: 1}, body{m.stamp, echo{session, seq, m.stamp, 1}, payload}, oldKey)
}

// sealed is a datagram from n2 to n1 on the first network.
func sealed(t testing.TB, h head, m body, k Key) []byte {
	t.Helper()
	out, err := newSeal(k, direction{"test", "net1", "n2", "n1"})
	if err != nil {
		t.Fatal(err)
	}
	h.cluster, h.network, h.sender = tagOf("cluster", "test", ""), tagOf("network", "test", "net1"), tagOf("node", "test", "n2")
	return pack(nil, h, m, out)
}

// Nothing that is refused costs memory, and neither does a heartbeat.
func TestNothingIsAllocated(t *testing.T) {
	l, good := judged(t, []byte("payload"))
	from := at(1, 2)
	if r := l.judge(bytes.Clone(good), from, ha.Instant(time.Hour*1e4)); r != accepted {
		t.Fatal(r)
	}
	scratch := make([]byte, maxSize)
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	foreign := make([]byte, 100)
	unknown := sealed(t, head{key: 1, session: 98, seq: 1}, body{stamp: 5}, oldKey)
	for _, c := range []struct {
		name string
		b    []byte
		from netip.AddrPort
		want refusal
	}{
		{"size", nil, from, refusedSize},
		{"foreign", foreign, from, refusedForeign},
		{"stranger", good, at(1, 9), refusedStranger},
		{"forged", forged, from, refusedForged},
		{"replayed", good, from, refusedReplayed},
		{"unproven", unknown, from, refusedUnproven},
	} {
		if n := testing.AllocsPerRun(200, func() {
			b := scratch[:copy(scratch, c.b)]
			if r := l.judge(b, c.from, ha.Instant(time.Hour*1e4)); r != c.want {
				t.Fatalf("%s: %v", c.name, r)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
	heard := make([]Heard, 0, 8)
	if n := testing.AllocsPerRun(200, func() { heard = l.s.Heard(heard[:0]) }); n != 0 {
		t.Errorf("Heard: %v allocations", n)
	}
	tbl := l.table.Load()
	l.loop.w = silent{}
	l.round(tbl, 1)
	if n := testing.AllocsPerRun(200, func() { l.round(tbl, 1) }); n != 0 {
		t.Errorf("a round: %v allocations", n)
	}
}

type silent struct{}

func (silent) read([]byte, ha.Instant, ha.Instant) (int, netip.AddrPort, error) { select {} }
func (silent) write([]byte, netip.AddrPort) error                               { return nil }
func (silent) wake()                                                            {}
func (silent) close() error                                                     { return nil }

// FuzzDatagram: whatever comes, judging it does not panic, and what was not made
// with the key is not accepted.
func FuzzDatagram(f *testing.F) {
	l, good := judged(f, []byte("payload"))
	f.Add([]byte{}, false)
	f.Add(good, true)
	f.Add(good[:minSize], false)
	f.Add(make([]byte, maxSize+1), false)
	f.Add(sealed(f, head{key: 2, session: 99, seq: 5}, body{stamp: 1, echo: echo{1, 1, 1, -1}}, newKey), false)
	f.Add(sealed(f, head{key: 1, session: 99, seq: 5}, body{stamp: -1}, newKey), false)
	f.Add(sealed(f, head{key: 1, session: 0, seq: 0}, body{stamp: math.MinInt64, echo: echo{1, 1, math.MinInt64, math.MinInt64}}, oldKey), true)
	f.Fuzz(func(t *testing.T, b []byte, own bool) {
		genuine := bytes.Equal(b, good)
		if r := l.judge(bytes.Clone(b), at(1, 2), ha.Instant(time.Hour*1e4)); r == accepted && !genuine {
			t.Fatalf("accepted: %x", b)
		}
		if !own {
			return
		}
		// The same bytes as what a holder of the key says: any of it may be refused,
		// none of it may panic, and a changed bit never passes.
		field := func(i int) uint64 {
			var x [8]byte
			if i < len(b) {
				copy(x[:], b[i:])
			}
			return uint64(x[0]) | uint64(x[1])<<8 | uint64(x[6])<<48 | uint64(x[7])<<56
		}
		m := body{ha.Instant(field(0)), echo{field(8), uint32(field(16)), ha.Instant(field(24)), time.Duration(field(32))}, b[:min(len(b), MaxPayload)]}
		h := head{key: 1, session: field(40), seq: uint32(field(48))}
		d := sealed(t, h, m, oldKey)
		broken := bytes.Clone(d)
		broken[field(50)%uint64(len(d))] ^= byte(field(51)) | 1
		if r := l.judge(broken, at(1, 2), 1); r == accepted {
			t.Fatalf("accepted with a changed bit: %x", broken)
		}
		again, r := open(bytes.Clone(d), l.table.Load().targets[0].in[0])
		if r != accepted || again.stamp != m.stamp || again.echo != m.echo || !bytes.Equal(again.payload, m.payload) {
			t.Fatalf("%+v came back as %+v, %v", m, again, r)
		}
		l.judge(d, at(1, 2), ha.Instant(field(52)))
	})
}
