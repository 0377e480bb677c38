package netpath

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

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
