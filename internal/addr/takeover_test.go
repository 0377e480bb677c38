package addr

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The point of it all: a client that talks to the address on one host talks to it
// on the other, without having looked it up again.
func TestTakeover(t *testing.T) {
	each(t, func(t *testing.T, vip string) {
		_, hosts := lan(t, 3)
		one, two, client := hosts[0], hosts[1], hosts[2]
		k1, _, _ := one.keep(Config{})
		k2, w2, _ := two.keep(Config{})
		got := add(t, k1, vip)
		if got.Device != "eth0" || got.Bits != map[bool]int{true: 24, false: 64}[got.Addr.Is4()] {
			t.Errorf("added as %v", got)
		}
		client.speak(vip)
		until(t, "the client knows the first host", func() bool { return client.neighbour(vip) == one.mac("eth0") })

		remove(t, k1, vip)
		if one.has(vip) != 0 {
			t.Error("it is still on the first host")
		}
		add(t, k2, vip)
		until(t, "the client knows the second host", func() bool { return client.neighbour(vip) == two.mac("eth0") })
		if w := w2.of(Conflict, vip); len(w) > 0 {
			t.Errorf("a conflict was told: %v", w)
		}
	})
}

// The address can be used at once, and is used by nobody who did not ask for it:
// such a connection would break when the group moves.
func TestUsable(t *testing.T) {
	each(t, func(t *testing.T, vip string) {
		_, hosts := lan(t, 2)
		h := hosts[0]
		k, _, _ := h.keep(Config{})
		add(t, k, vip)
		var source net.Addr
		var err error
		h.do(func() {
			var own net.PacketConn
			if own, err = net.ListenPacket("udp", net.JoinHostPort(vip, "0")); err != nil {
				return
			}
			_ = own.Close()
			var c net.Conn
			if c, err = net.Dial("udp", net.JoinHostPort(strings.TrimSuffix(vip, "100")+"2", "9")); err == nil {
				source = c.LocalAddr()
				_ = c.Close()
			}
		})
		if err != nil || strings.Contains(source.String(), vip) {
			t.Errorf("%v; a connection comes from %v", err, source)
		}
	})
}

// What was said while the network was cut is said again on demand.
func TestAnnounce(t *testing.T) {
	each(t, func(t *testing.T, vip string) {
		bridge, hosts := lan(t, 3)
		one, two, client := hosts[0], hosts[1], hosts[2]
		k1, _, _ := one.keep(Config{})
		k2, _, _ := two.keep(Config{After: []time.Duration{time.Hour}})
		add(t, k1, vip)
		client.speak(vip)
		until(t, "the client knows the first host", func() bool { return client.neighbour(vip) == one.mac("eth0") })
		bridge.ip("link set p2 nomaster")
		remove(t, k1, vip)
		add(t, k2, vip)
		bridge.ip("link set p2 master br0")
		if client.neighbour(vip) == two.mac("eth0") {
			t.Error("the client knows of it although the network was cut")
		}
		// The bridge forwards soon, not at once.
		until(t, "the client knows the second host", func() bool {
			if err := k2.Announce(parse(t, vip)); err != nil {
				t.Fatal(err)
			}
			return client.neighbour(vip) == two.mac("eth0")
		})
		remove(t, k2, vip)
		if err := k2.Announce(parse(t, vip)); err == nil || !strings.Contains(err.Error(), "add it first") {
			t.Errorf("announcing what is not held: %v", err)
		}
	})
}

// Another machine with the address is told with its hardware address, when it comes
// later and when it was there before; on both sides.
func TestConflict(t *testing.T) {
	each(t, func(t *testing.T, vip string) {
		_, hosts := lan(t, 2)
		one, two := hosts[0], hosts[1]
		k1, w1, _ := one.keep(Config{After: []time.Duration{}, Every: -1})
		add(t, k1, vip)
		// The first says nothing more by itself; the second hears of it only by asking. Again,
		// since the kernel of the first joins the group that is asked a moment after the add.
		k2, w2, _ := two.keep(Config{After: []time.Duration{}, Every: 20 * time.Millisecond})
		add(t, k2, vip)
		for _, x := range []struct {
			w     *witness
			other *ns
		}{{w1, two}, {w2, one}} {
			until(t, "the conflict is told", func() bool { return len(x.w.of(Conflict, vip)) > 0 })
			if e := x.w.of(Conflict, vip)[0]; e.MAC.String() != x.other.mac("eth0") || e.Address.Device != "eth0" || e.At == 0 {
				t.Errorf("told as %+v; the other is %s", e, x.other.mac("eth0"))
			}
		}
	})
}

// With a probe, the address is not added at all.
func TestProbe(t *testing.T) {
	each(t, func(t *testing.T, vip string) {
		_, hosts := lan(t, 2)
		one, two := hosts[0], hosts[1]
		suffix := map[bool]string{true: "/24", false: "/64 nodad"}[strings.Contains(vip, ".")]
		one.ip("addr add " + vip + suffix[:3] + " dev eth0" + suffix[3:])
		k2, _, _ := two.keep(Config{Probe: 10 * time.Second})
		_, err := k2.Add(t.Context(), parse(t, vip))
		if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), one.mac("eth0")) || two.has(vip) != 0 {
			t.Errorf("%v; there %d times", err, two.has(vip))
		}
		// It ends with its caller, and does not keep the address from others.
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		one.ip("addr del " + vip + suffix[:3] + " dev eth0")
		if _, err := k2.Add(ctx, parse(t, vip)); !errors.Is(err, context.DeadlineExceeded) || two.has(vip) != 0 {
			t.Errorf("interrupted: %v; there %d times", err, two.has(vip))
		}
		k3, _, _ := two.keep(Config{Probe: 20 * time.Millisecond})
		add(t, k3, vip)
		if two.has(vip) != 1 {
			t.Error("it was not added although nobody has it")
		}
	})
}

// Two interfaces of one machine in one network: Linux answers on both, which is no
// conflict.
func TestOwnSecondInterface(t *testing.T) {
	each(t, func(t *testing.T, vip string) {
		bridge, hosts := lan(t, 2)
		plug(bridge, hosts[0], "p9", "eth1")
		k, w, _ := hosts[0].keep(Config{})
		add(t, k, vip+"%eth0")
		k2, _, _ := hosts[1].keep(Config{})
		add(t, k2, vip) // a true conflict, after which the others would have been seen
		until(t, "the conflict is told", func() bool { return len(w.of(Conflict, vip)) > 0 })
		for _, e := range w.of(Conflict, vip) {
			if e.MAC.String() != hosts[1].mac("eth0") {
				t.Errorf("a conflict with %v", e.MAC)
			}
		}
	})
}

// What a plain probe of another machine says is no claim: the kernel defends the
// address by itself.
func TestClaims(t *testing.T) {
	m1, m2 := mac{2, 0, 0, 0, 0, 1}, mac{2, 0, 0, 0, 0, 2}
	for _, s := range []string{"192.0.2.1", "2001:db8::1"} {
		ip := netip.MustParseAddr(s)
		frames, err := announcement(ip, m1, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range frames {
			if got, m, ok := claim(f.bytes); !ok || got != ip || m != m1 {
				t.Errorf("%s: claim is %v %v %v", s, got, m, ok)
			}
			for n := range f.bytes {
				claim(f.bytes[:n]) // cut short: no panic
			}
		}
		ask, err := probe(ip, m2)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, ok := claim(ask.bytes); ok {
			t.Errorf("%s: a probe is a claim", s)
		}
		if !ip.Is4() {
			continue
		}
		for i, f := range append(frames, ask) {
			op, size := binary.BigEndian.Uint16(f.bytes[20:]), len(f.bytes)
			if want := []uint16{arpRequest, arpReply, arpRequest}[i]; size != 42 || op != want {
				t.Errorf("ARP frame %d has %d bytes and operation %d; want %d", i, size, op, want)
			}
		}
	}
}

func FuzzClaim(f *testing.F) {
	for _, s := range []string{"192.0.2.1", "2001:db8::1"} {
		frames, err := announcement(netip.MustParseAddr(s), mac{2}, true)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frames[0].bytes)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if ip, _, ok := claim(b); ok && (!ip.IsValid() || ip.IsUnspecified()) {
			t.Errorf("a claim to %v", ip)
		}
	})
}

// The Remover needs nothing of the Keeper, whose goroutines stand still here, and
// finds the address wherever and however it is.
func TestRemover(t *testing.T) {
	_, hosts := lan(t, 1)
	h := hosts[0]
	k, w, _ := h.keep(Config{})
	four, six := add(t, k, "10.9.0.100"), add(t, k, "fd09::100")
	h.ip("addr add 10.9.0.100/32 dev lo") // somebody's own, on another device
	var r *Remover
	var err error
	h.do(func() { r, err = OpenRemover() })
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	k.mu.Lock() // frozen
	begin := time.Now()
	err = r.Remove(four, six, parse(t, "10.9.0.77"), parse(t, "fd09::77%eth7"))
	took := time.Since(begin)
	k.mu.Unlock()
	if err != nil || h.has("10.9.0.100") != 1 || h.has("fd09::100") != 0 {
		t.Errorf("%v; there %d and %d times", err, h.has("10.9.0.100"), h.has("fd09::100"))
	}
	t.Logf("two addresses removed and seen removed in %v", took)
	for _, ip := range []string{"10.9.0.100", "fd09::100"} {
		until(t, "it is told as lost", func() bool { return len(w.of(Lost, ip)) == 1 })
	}
	// Without a device: from all of them.
	if err := r.Remove(parse(t, "10.9.0.100")); err != nil || h.has("10.9.0.100") != 0 {
		t.Errorf("from every device: %v", err)
	}
	// A device that got another name meanwhile.
	four = add(t, k, "10.9.0.100")
	h.ip("link set eth0 down")
	h.ip("link set eth0 name wan0")
	h.ip("link set wan0 up")
	if err := r.Remove(four); err != nil || h.has("10.9.0.100") != 0 {
		t.Errorf("from a device with a new name: %v", err)
	}
	if h.has("10.9.0.1") != 1 {
		t.Error("the host's own address is gone")
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	if err := r.Remove(four); !errors.Is(err, unix.EBADF) {
		t.Errorf("after Close: %v", err)
	}
}

// Budgets of time. On a loaded machine only the best of several says something.
func TestQuick(t *testing.T) {
	each(t, func(t *testing.T, vip string) {
		_, hosts := lan(t, 1)
		k, _, _ := hosts[0].keep(Config{})
		const rounds = 21
		var added, removed []time.Duration
		for range rounds {
			begin := time.Now()
			add(t, k, vip)
			middle := time.Now()
			remove(t, k, vip)
			added, removed = append(added, middle.Sub(begin)), append(removed, time.Since(middle))
		}
		t.Logf("median of %d: added and announced in %v (first %v), removed and seen removed in %v", rounds, median(added), added[0], median(removed))
		if a, r := slices.Min(added), slices.Min(removed); a > 5*time.Millisecond || r > 5*time.Millisecond {
			t.Errorf("too slow: adding takes %v and removing %v at best", a, r)
		}
	})
}
