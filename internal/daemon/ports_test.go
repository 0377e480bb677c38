package daemon

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
	"gemel/internal/netpath"
)

// What is said of two nodes names both, the direction, the port and the network; where
// everything passes, or nothing, there is nothing to say.
func TestDisagree(t *testing.T) {
	late := &net.OpError{Op: "dial", Err: context.DeadlineExceeded}
	store := func(misses int, err error) tried {
		return tried{port{"b", "blue", netip.MustParseAddrPort("10.0.0.2:5316"), false}, misses, err}
	}
	door := func(misses int, err error) tried {
		return tried{port{"b", "blue", netip.MustParseAddrPort("10.0.0.2:5314"), true}, misses, err}
	}
	red := tried{port{"b", "red", netip.MustParseAddrPort("[fd00::2]:5316"), false}, 0, nil}
	for _, c := range []struct {
		name string
		nets map[string]passing
		want []string // words of each sentence
	}{
		{"all passes", map[string]passing{"blue": {true, true, []tried{store(0, nil), door(0, nil)}}}, nil},
		{"nothing passes", map[string]passing{"blue": {false, false, []tried{store(9, late), door(9, late)}}}, nil},
		{"one miss", map[string]passing{"blue": {true, true, []tried{store(2, late)}}}, nil},
		{"the store's port is shut", map[string]passing{"blue": {true, true, []tried{store(3, late), door(0, nil)}}},
			[]string{"TCP 5316 from a to b does not pass over blue (10.0.0.2:5316: no answer within 1s), and heartbeats of b do: let it through in the firewalls of a and b"}},
		{"nobody listens", map[string]passing{"blue": {true, true, []tried{store(3, unix.ECONNREFUSED)}}}, []string{"refused), and heartbeats of b do: see that gemel listens there on b"}},
		{"both ports", map[string]passing{"blue": {true, true, []tried{store(3, late), door(3, late)}}}, []string{"TCP 5314 from a to b", "TCP 5316 from a to b"}},
		{"no heartbeats arrive", map[string]passing{"blue": {false, false, []tried{store(0, nil), door(0, nil)}}}, []string{"UDP from b to a does not pass over blue, and TCP from a to b does: let UDP 5314 from b through at a"}},
		{"the other monitor is gone", map[string]passing{"blue": {false, false, []tried{store(0, nil), door(3, unix.ECONNREFUSED)}}}, nil},
		{"no heartbeats arrive over one network", map[string]passing{"blue": {false, false, []tried{store(0, nil)}}, "red": {true, true, []tried{red}}}, []string{"UDP from b to a does not pass over blue"}},
		{"ours do not arrive", map[string]passing{"blue": {true, false, []tried{store(0, nil)}}}, []string{"UDP from a to b does not pass over blue, and TCP from a to b does: let UDP 5314 from a through at b"}},
		{"an address of no network", map[string]passing{"": {tcp: []tried{{port{"b", "", netip.MustParseAddrPort("192.0.2.1:5316"), false}, 3, late}}}, "blue": {true, true, nil}}, []string{"TCP 5316 from a to b does not pass (192.0.2.1:5316"}},
	} {
		got := disagree("a", "b", c.nets)
		if len(got) != len(c.want) {
			t.Errorf("%s: %q", c.name, got)
			continue
		}
		for i, want := range c.want {
			if !strings.Contains(got[i], want) {
				t.Errorf("%s: %q lacks %q", c.name, got[i], want)
			}
		}
	}
}

// A port that accepts and never says a word is open; one that nobody has is refused; one
// that does not answer holds nothing up for longer than its bound.
func TestConnect(t *testing.T) {
	for _, host := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		at := netip.MustParseAddrPort(l.Addr().String())
		if err := connect(t.Context(), at); err != nil {
			t.Errorf("%s, open: %v", at, err)
		}
		_ = l.Close()
		if err := connect(t.Context(), at); said(err) != "refused" {
			t.Errorf("%s, closed: %v", at, err)
		}
	}
}

func TestPulses(t *testing.T) {
	now := ha.Instant(100 * time.Second)
	for _, c := range []struct {
		h           netpath.Heard
		here, there bool
	}{
		{netpath.Heard{}, false, false},
		{netpath.Heard{Last: now - 1, Echoed: now - 1}, true, true},
		{netpath.Heard{Last: now - 1}, true, false},
		{netpath.Heard{Last: now.Add(-portsStill), Echoed: now.Add(-portsStill)}, false, false},
	} {
		if here, there := pulses(c.h, now); here != c.here || there != c.there {
			t.Errorf("%+v: %v, %v", c.h, here, there)
		}
	}
}
