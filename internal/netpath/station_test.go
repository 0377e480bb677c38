package netpath

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
)

// bubble runs f with a hub on virtual time.
func bubble(t *testing.T, f func(t *testing.T, h *hub, clk clock.Clock)) {
	synctest.Test(t, func(t *testing.T) { f(t, newHub(), clock.Bubble()) })
}

func TestNodesHearEachOther(t *testing.T) {
	bubble(t, func(t *testing.T, h *hub, clk clock.Clock) {
		cfg := ring(1, 3)
		cfg.Payload = func(b []byte) []byte { return append(b, "from n1"...) }
		start(t, cfg, clk, h.open)
		s2, _ := start(t, ring(2, 3), clk, h.open)
		s3, _ := start(t, ring(3, 3), clk, h.open)
		time.Sleep(time.Second + beat/2)
		for _, s := range []*Station{s2, s3} {
			for _, network := range []string{"net1", "net2"} {
				got := of(t, s, "n1", network)
				if clk.Now().Sub(got.Last) > beat || clk.Now().Sub(got.Alive) > 3*beat {
					t.Errorf("%s: last %v, alive %v, now %v", network, got.Last, got.Alive, clk.Now())
				}
				if string(got.Payload) != "from n1" || got.Lost != 0 || got.Sessions != 1 || got.RTT == 0 {
					t.Errorf("%s: %+v", network, got)
				}
				if got.Received < 17 || got.Received > 21 {
					t.Errorf("%s: %d received in a second at %v", network, got.Received, beat)
				}
			}
		}
	})
}

func TestOneNetworkIsCut(t *testing.T) {
	bubble(t, func(t *testing.T, h *hub, clk clock.Clock) {
		s1, _ := start(t, ring(1, 2), clk, h.open)
		start(t, ring(2, 2), clk, h.open)
		time.Sleep(time.Second)
		h.with(func() { h.lost = func(_, to netip.AddrPort) bool { return to == at(1, 1) } })
		cut := clk.Now()
		time.Sleep(time.Second)
		if got := of(t, s1, "n2", "net1"); got.Last > cut {
			t.Errorf("heard at %v on a network that was cut at %v", got.Last, cut)
		}
		if got := of(t, s1, "n2", "net2"); clk.Now().Sub(got.Last) > 2*beat {
			t.Errorf("silent on the network that was not cut: %v, now %v", got.Last, clk.Now())
		}
		h.with(func() { h.lost = func(_, _ netip.AddrPort) bool { return false } })
		time.Sleep(2 * beat)
		got := of(t, s1, "n2", "net1")
		if clk.Now().Sub(got.Last) > 2*beat || got.Lost < 18 || got.Lost > 22 {
			t.Errorf("after the return: %+v, now %v", got, clk.Now())
		}
	})
}

// A rebooted node has another session, and is heard again within three beats.
func TestPeerIsStartedAnew(t *testing.T) {
	bubble(t, func(t *testing.T, h *hub, clk clock.Clock) {
		s1, _ := start(t, ring(1, 2), clk, h.open)
		_, stop := start(t, ring(2, 2), clk, h.open)
		time.Sleep(time.Second)
		before := of(t, s1, "n2", "net1")
		stop()
		time.Sleep(time.Second)
		again := clk.Now()
		start(t, ring(2, 2), clk, h.open)
		time.Sleep(3 * beat)
		for _, network := range []string{"net1", "net2"} {
			got := of(t, s1, "n2", network)
			if got.Last < again || got.Session == before.Session || got.Sessions != 2 || got.Lost != 0 || got.Since < again {
				t.Errorf("started anew at %v: %+v", again, got)
			}
		}
	})
}

// What was recorded does not make a dead node live: not for who heard it, not for
// who was started after, not on the other network.
func TestRecordings(t *testing.T) {
	bubble(t, func(t *testing.T, h *hub, clk clock.Clock) {
		s1, stop1 := start(t, ring(1, 2), clk, h.open)
		_, stop2 := start(t, ring(2, 2), clk, h.open)
		time.Sleep(time.Second)
		// The last ones are withheld: nobody has seen their numbers.
		h.with(func() { h.lost = func(_, to netip.AddrPort) bool { return to == at(1, 1) } })
		time.Sleep(time.Second)
		stop2()
		h.with(func() { h.lost = func(_, _ netip.AddrPort) bool { return false } })
		start3 := clk.Now()
		_, stop3 := start(t, ring(2, 2), clk, h.open)
		time.Sleep(time.Second)
		stop3()
		time.Sleep(beat)
		var recorded []packet
		h.with(func() { recorded = h.all })
		replay := func() {
			for i, p := range recorded {
				if p.from == at(1, 2) || p.from == at(2, 2) {
					h.inject(p)
				}
				if i%20 == 0 {
					synctest.Wait()
				}
			}
			time.Sleep(beat)
		}
		died := clk.Now()
		replay()
		for _, network := range []string{"net1", "net2"} {
			got := of(t, s1, "n2", network)
			if got.Last > died || got.Last < start3 || got.Sessions != 2 {
				t.Errorf("a recording counted on %s: %+v, dead since %v", network, got, died)
			}
			if got.Unproven < died {
				t.Errorf("the older session was not told on %s: %+v", network, got)
			}
		}
		if r := s1.Links()[0].Refused; r["replayed"] < 15 || r["unproven"] < 15 {
			t.Errorf("refused: %v", r)
		}
		stop1()
		s1, _ = start(t, ring(1, 2), clk, h.open)
		time.Sleep(beat)
		replay()
		if got := of(t, s1, "n2", "net1"); got.Last != 0 || got.Sessions != 0 || got.Unproven == 0 {
			t.Errorf("a recording made a node live for one that was started anew: %+v", got)
		}
	})
}

func TestRefusals(t *testing.T) {
	bubble(t, func(t *testing.T, h *hub, clk clock.Clock) {
		s1, _ := start(t, ring(1, 3), clk, h.open)
		start(t, ring(2, 3), clk, h.open)
		start(t, ring(3, 3), clk, h.open)
		other := ring(2, 3)
		other.Cluster = "other"
		other.Networks = other.Networks[:1]
		other.Networks[0].Local = at(9, 2)
		start(t, other, clk, h.open)
		time.Sleep(time.Second)
		h.with(func() { h.lost = func(_, _ netip.AddrPort) bool { return true } })
		time.Sleep(beat)
		var all []packet
		h.with(func() { all = h.all })
		last := func(from, to netip.AddrPort) []byte {
			for i := len(all) - 1; i >= 0; i-- {
				if all[i].from == from && all[i].to == to {
					return append([]byte(nil), all[i].b...)
				}
			}
			t.Fatalf("nothing was sent from %v to %v", from, to)
			return nil
		}
		changed := func(b []byte, i int, x byte) []byte { b[i] ^= x; return b }
		for _, c := range []struct {
			name string
			want refusal
			b    []byte
			from netip.AddrPort
			to   netip.AddrPort
		}{
			{"empty", refusedSize, nil, at(1, 2), at(1, 1)},
			{"short", refusedSize, last(at(1, 2), at(1, 1))[:minSize-1], at(1, 2), at(1, 1)},
			{"long", refusedSize, make([]byte, maxSize+1), at(1, 2), at(1, 1)},
			{"zeros", refusedForeign, make([]byte, minSize), at(1, 2), at(1, 1)},
			{"version", refusedForeign, changed(last(at(1, 2), at(1, 1)), 3, 2), at(1, 2), at(1, 1)},
			{"cluster", refusedCluster, last(at(9, 2), at(1, 1)), at(1, 2), at(1, 1)},
			{"network", refusedNetwork, last(at(2, 2), at(2, 1)), at(1, 2), at(1, 1)},
			{"reflected by a peer", refusedReflected, last(at(1, 1), at(1, 2)), at(1, 2), at(1, 1)},
			{"reflected by itself", refusedReflected, last(at(1, 1), at(1, 2)), at(1, 1), at(1, 1)},
			{"from elsewhere", refusedStranger, last(at(1, 2), at(1, 1)), at(1, 7), at(1, 1)},
			{"from another peer", refusedStranger, last(at(1, 2), at(1, 1)), at(1, 3), at(1, 1)},
			{"key", refusedKey, changed(last(at(1, 2), at(1, 1)), 7, 8), at(1, 2), at(1, 1)},
			{"made for a third node", refusedForged, last(at(1, 2), at(1, 3)), at(1, 2), at(1, 1)},
			{"session", refusedForged, changed(last(at(1, 2), at(1, 1)), 33, 1), at(1, 2), at(1, 1)},
			{"number", refusedForged, changed(last(at(1, 2), at(1, 1)), 40, 1), at(1, 2), at(1, 1)},
			{"body", refusedForged, changed(last(at(1, 2), at(1, 1)), headSize, 1), at(1, 2), at(1, 1)},
			{"seal", refusedForged, changed(last(at(1, 2), at(1, 1)), minSize-1, 1), at(1, 2), at(1, 1)},
			{"twice", refusedReplayed, last(at(1, 2), at(1, 1)), at(1, 2), at(1, 1)},
		} {
			if c.want == refusedReplayed { // the first time it is fine: it was withheld
				h.inject(packet{c.b, c.from, c.to})
				synctest.Wait()
			}
			before, heard := s1.Links()[0].Refused[c.want.String()], of(t, s1, "n2", "net1").Last
			h.inject(packet{c.b, c.from, c.to})
			synctest.Wait()
			if got := s1.Links()[0].Refused[c.want.String()]; got != before+1 {
				t.Errorf("%s: not refused as %v: %v", c.name, c.want, s1.Links()[0].Refused)
			}
			if got := of(t, s1, "n2", "net1").Last; got != heard {
				t.Errorf("%s: it was heard", c.name)
			}
		}
	})
}

// New keys go out while heartbeats go on, one node after the other.
func TestKeysChange(t *testing.T) {
	bubble(t, func(t *testing.T, h *hub, clk clock.Clock) {
		var ss []*Station
		for i := 1; i <= 3; i++ {
			s, _ := start(t, ring(i, 3), clk, h.open)
			ss = append(ss, s)
		}
		time.Sleep(time.Second)
		for _, keys := range [][]Key{{oldKey, newKey}, {newKey, oldKey}, {newKey}} {
			for i, s := range ss {
				cfg := ring(i+1, 3)
				cfg.Keys = keys
				if err := s.Change(cfg); err != nil {
					t.Fatal(err)
				}
				time.Sleep(3 * beat)
			}
		}
		for _, s := range ss {
			for _, got := range s.Heard(nil) {
				if got.Lost != 0 || clk.Now().Sub(got.Last) > 2*beat || got.Sessions != 1 {
					t.Errorf("after the change of keys: %+v, now %v", got, clk.Now())
				}
			}
			for _, l := range s.Links() {
				if l.Refused["key"] != 0 || l.Refused["forged"] != 0 {
					t.Errorf("refused meanwhile: %v", l.Refused)
				}
			}
		}
		// One that missed the change is not heard.
		late := ring(3, 3)
		if err := ss[2].Change(late); err != nil {
			t.Fatal(err)
		}
		gone := clk.Now()
		time.Sleep(time.Second)
		if got := of(t, ss[0], "n3", "net1"); got.Last > gone.Add(2*beat) {
			t.Errorf("heard under a key that was taken away: %+v", got)
		}
		if r := ss[0].Links()[0].Refused["key"]; r == 0 {
			t.Error("not counted as a matter of keys")
		}
	})
}

// A peer that goes and comes back is sent numbers that were not used: they are
// nonces.
func TestNoNonceTwice(t *testing.T) {
	bubble(t, func(t *testing.T, h *hub, clk clock.Clock) {
		s1, _ := start(t, ring(1, 3), clk, h.open)
		s2, _ := start(t, ring(2, 3), clk, h.open)
		time.Sleep(time.Second)
		for range 3 {
			for _, n := range []int{2, 3} {
				if err := s1.Change(ring(1, n)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(3 * beat)
			}
		}
		s1.mu.Lock()
		session := s1.book.session
		for _, p := range s1.book.routes {
			p.seq = ^uint32(0) - 2
		}
		s1.mu.Unlock()
		time.Sleep(time.Second)
		if s1.mu.Lock(); s1.book.session == session {
			t.Error("the numbers of a session are used up, and it goes on")
		}
		s1.mu.Unlock()
		if got := of(t, s1, "n2", "net1"); clk.Now().Sub(got.Alive) > 3*beat {
			t.Errorf("who began anew sees: %+v, now %v", got, clk.Now())
		}
		if got := of(t, s2, "n1", "net1"); clk.Now().Sub(got.Last) > 2*beat || got.Sessions < 2 || clk.Now().Sub(got.Alive) > 3*beat {
			t.Errorf("after the numbers were used up: %+v, now %v", got, clk.Now())
		}
		type nonce struct {
			from, to netip.AddrPort
			n        [nonceSize]byte
		}
		used := map[nonce]bool{}
		var all []packet
		h.with(func() { all = h.all })
		for _, p := range all {
			n := nonce{p.from, p.to, [nonceSize]byte(p.b[nonceAt:])}
			if used[n] {
				t.Fatalf("the nonce %x was used twice from %v to %v", n.n, n.from, n.to)
			}
			used[n] = true
		}
	})
}

// A peer that was started anew and does not hear us on one network counts there
// as soon as the other one has proven who it is.
func TestOneWay(t *testing.T) {
	bubble(t, func(t *testing.T, h *hub, clk clock.Clock) {
		s1, _ := start(t, ring(1, 2), clk, h.open)
		h.with(func() { h.lost = func(_, to netip.AddrPort) bool { return to == at(1, 2) } })
		start(t, ring(2, 2), clk, h.open)
		time.Sleep(time.Second)
		one, two := of(t, s1, "n2", "net1"), of(t, s1, "n2", "net2")
		if clk.Now().Sub(one.Last) > 2*beat || one.Alive != 0 || one.RTT != 0 {
			t.Errorf("the network that works one way: %+v", one)
		}
		if two.Alive == 0 || two.RTT == 0 {
			t.Errorf("the network that works both ways: %+v", two)
		}
		h.with(func() { h.lost = func(_, to netip.AddrPort) bool { return to == at(1, 2) || to == at(2, 2) } })
		deaf := clk.Now()
		time.Sleep(time.Second)
		two = of(t, s1, "n2", "net2")
		if clk.Now().Sub(two.Last) > 2*beat || two.Alive > deaf || two.Echoed > deaf.Add(2*beat) {
			t.Errorf("it hears us no longer, we hear it: %+v, since %v", two, deaf)
		}
	})
}

func TestSocketsAreMadeAgain(t *testing.T) {
	bubble(t, func(t *testing.T, h *hub, clk clock.Clock) {
		open := map[netip.AddrPort]error{at(1, 1): errGone}
		send := map[netip.AddrPort]error{}
		h.refuse = func(a netip.AddrPort, opening bool) error {
			if opening {
				return open[a]
			}
			return send[a]
		}
		s1, _ := start(t, ring(1, 2), clk, h.open)
		start(t, ring(2, 2), clk, h.open)
		time.Sleep(10*time.Second + beat/2) // from here on never at the instant of a beat
		if l := s1.Links()[0]; l.Open != 0 || l.Error == "" || l.Failed < 10 || l.Failed > 20 {
			t.Errorf("an address that is not there: %+v", l)
		}
		if of(t, s1, "n2", "net1").Last != 0 || of(t, s1, "n2", "net2").Last == 0 {
			t.Error("the other network was not heard")
		}
		h.with(func() { delete(open, at(1, 1)) })
		time.Sleep(openAtMost + 3*beat)
		if of(t, s1, "n2", "net1").Last == 0 {
			t.Error("silent after the address came")
		}
		// A filter drops what leaves: the socket stays, and hears.
		h.with(func() { send[at(1, 1)] = fmt.Errorf("sendto: %w", unix.EPERM) })
		time.Sleep(5 * time.Second)
		if l := s1.Links()[0]; l.Opens != 1 || clk.Now().Sub(of(t, s1, "n2", "net1").Last) > 2*beat {
			t.Errorf("behind a filter: %+v", l)
		}
		// The interface goes: the socket is dead.
		h.with(func() { send[at(1, 1)], open[at(1, 1)] = unix.ENODEV, errGone })
		time.Sleep(2 * beat)
		if l := s1.Links()[0]; l.Open != 0 {
			t.Errorf("without its interface: %+v", l)
		}
		h.with(func() { clear(send); clear(open) })
		back := clk.Now()
		time.Sleep(openAtMost + 3*beat)
		if l := s1.Links()[0]; l.Opens != 2 || of(t, s1, "n2", "net1").Last < back {
			t.Errorf("after it came back: %+v", l)
		}
		// All is silent: the socket is tried anew, but rarely.
		h.with(func() { send[at(1, 1)] = unix.ENETUNREACH; send[at(1, 2)] = unix.ENETUNREACH })
		time.Sleep(10 * time.Second)
		if l := s1.Links()[0]; l.Opens < 5 || l.Opens > 12 {
			t.Errorf("in ten seconds of silence: %+v", l)
		}
	})
}

func TestPayloadThatIsTooLong(t *testing.T) {
	bubble(t, func(t *testing.T, h *hub, clk clock.Clock) {
		size := new(atomic.Int64)
		cfg := ring(1, 2)
		cfg.Payload = func(b []byte) []byte { return append(b, make([]byte, size.Load())...) }
		s1, _ := start(t, cfg, clk, h.open)
		s2, _ := start(t, ring(2, 2), clk, h.open)
		for _, n := range []int{0, 1, MaxPayload, MaxPayload + 1} {
			size.Store(int64(n))
			time.Sleep(4 * beat)
			got := of(t, s2, "n1", "net1")
			if want := n % (MaxPayload + 1); len(got.Payload) != want || clk.Now().Sub(got.Last) > 2*beat {
				t.Errorf("payload of %d: %d came at %v, now %v", n, len(got.Payload), got.Last, clk.Now())
			}
		}
		if l := s1.Links()[0]; !strings.Contains(l.Error, "1025 bytes") {
			t.Errorf("not told: %+v", l)
		}
	})
}

func TestChangeOfWhatStays(t *testing.T) {
	bubble(t, func(t *testing.T, h *hub, clk clock.Clock) {
		s, _ := start(t, ring(1, 2), clk, h.open)
		other := ring(1, 2)
		other.Networks[0].Local = at(1, 77)
		if err := s.Change(other); err == nil || !strings.Contains(err.Error(), "make another one") {
			t.Errorf("another address: %v", err)
		}
		if err := s.Change(Config{}); err == nil {
			t.Error("an empty configuration was taken")
		}
		quick := ring(1, 2)
		quick.Interval = 4 * beat
		if err := s.Change(quick); err != nil {
			t.Fatal(err)
		}
		before := of(t, s, "n2", "net1").Sent
		time.Sleep(2 * time.Second)
		if got := of(t, s, "n2", "net1").Sent - before; got < 9 || got > 12 {
			t.Errorf("%d beats in two seconds", got)
		}
	})
}

// Nodes of different intervals, and slow ones, find each other and keep their
// sockets.
func TestIntervals(t *testing.T) {
	for _, c := range []struct{ one, two time.Duration }{{maxInterval, maxInterval}, {minInterval, maxInterval}, {maxInterval, beat}} {
		bubble(t, func(t *testing.T, h *hub, clk clock.Clock) {
			one, two := ring(1, 2), ring(2, 2)
			one.Interval, two.Interval = c.one, c.two
			s1, _ := start(t, one, clk, h.open)
			time.Sleep(time.Second)
			s2, stop2 := start(t, two, clk, h.open)
			time.Sleep(4 * maxInterval)
			for _, s := range []*Station{s1, s2} {
				for _, got := range s.Heard(nil) {
					if got.Last == 0 || got.Alive == 0 || clk.Now().Sub(got.Last) > 2*maxInterval {
						t.Errorf("%v and %v: %+v", c.one, c.two, got)
					}
				}
				if l := s.Links()[0]; l.Opens != 1 || l.Failed != 0 {
					t.Errorf("%v and %v: %+v", c.one, c.two, l)
				}
			}
			stop2()
			again := clk.Now()
			start(t, two, clk, h.open)
			time.Sleep(4 * maxInterval)
			if got := of(t, s1, "n2", "net1"); got.Since < again || got.Sessions != 2 {
				t.Errorf("%v and %v, started anew at %v: %+v", c.one, c.two, again, got)
			}
		})
	}
}

// A loop that was late says so, and sends nothing twice.
func TestStall(t *testing.T) {
	bubble(t, func(t *testing.T, h *hub, clk clock.Clock) {
		stuck := new(atomic.Bool)
		cfg := ring(1, 2)
		cfg.Payload = func(b []byte) []byte {
			if stuck.Swap(false) {
				time.Sleep(time.Second)
			}
			return b
		}
		s, _ := start(t, cfg, clk, h.open)
		time.Sleep(time.Second + beat/2)
		if got := s.Stalled(); got != (Stall{}) {
			t.Errorf("%+v", got)
		}
		before := of(t, s, "n2", "net1").Sent
		stuck.Store(true)
		time.Sleep(time.Second + 2*beat)
		got := s.Stalled()
		if got.Count != 1 || got.Length < 900*time.Millisecond || got.Length > time.Second || clk.Now().Sub(got.At) > 2*beat {
			t.Errorf("%+v, now %v", got, clk.Now())
		}
		if n := of(t, s, "n2", "net1").Sent - before; n > 25 {
			t.Errorf("%d beats after a stall", n)
		}
	})
}

// What is refused is told once, not for each datagram.
func TestLogIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, h *hub, clk clock.Clock) {
		var b bytes.Buffer // written by one loop only: the other network is quiet
		s, err := New(ring(1, 2), clk, slog.New(slog.NewTextHandler(&b, nil)))
		if err != nil {
			t.Fatal(err)
		}
		s.open = h.open
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		time.Sleep(time.Second)
		for range 100 {
			for range 100 {
				h.inject(packet{[]byte("garbage"), at(1, 9), at(1, 1)})
			}
			time.Sleep(beat)
		}
		cancel()
		<-ended
		if n := strings.Count(b.String(), "\n"); n != 1 {
			t.Errorf("%d lines for 10000 datagrams: %s", n, b.String())
		}
		if n := s.Links()[0].Refused["size"]; n != 10000 {
			t.Errorf("%d counted", n)
		}
	})
}
