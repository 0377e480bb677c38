package addr

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// Somebody else takes the address away: it is told once, and what the Keeper
// removes itself is not.
func TestLost(t *testing.T) {
	each(t, func(t *testing.T, vip string) {
		_, hosts := lan(t, 1)
		h := hosts[0]
		k, w, _ := h.keep(Config{})
		a := add(t, k, vip)
		h.ip(fmt.Sprintf("addr del %s/%d dev eth0", vip, a.Bits))
		until(t, "the loss is told", func() bool { return len(w.of(Lost, vip)) == 1 })
		if got := list(t, k); got != "" {
			t.Errorf("listed: %s", got)
		}
		add(t, k, vip)
		h.ip("link del eth0")
		until(t, "the loss of the device is told", func() bool { return len(w.of(Lost, vip)) == 2 && len(w.of(LinkDown, vip)) == 1 })
		remove(t, k, vip)
	})
}

// A link that was away announces when it is back: the other side may be a new
// switch, or a neighbour that was elsewhere meanwhile. So does a new hardware address.
func TestLink(t *testing.T) {
	each(t, func(t *testing.T, vip string) {
		bridge, hosts := lan(t, 2)
		h, client := hosts[0], hosts[1]
		asked := 0 // with the Keeper's lock held
		cfg := Config{After: []time.Duration{}, Every: -1, Allow: func(netip.Addr) bool { asked++; return true }}
		k, w, _ := h.keep(cfg) // nothing is announced without a reason
		rounds := func() int { k.mu.Lock(); defer k.mu.Unlock(); return asked }
		add(t, k, vip)
		client.speak(vip)
		until(t, "the client knows the host", func() bool { return client.neighbour(vip) == h.mac("eth0") })
		bridge.ip("link set p1 down") // the cable, not the interface
		until(t, "the loss of the link is told", func() bool { return len(w.of(LinkDown, vip)) == 1 })
		if n := rounds(); n != 0 {
			t.Errorf("%d rounds without a reason", n)
		}
		bridge.ip("link set p1 up")
		until(t, "the link is told as up", func() bool { return len(w.of(LinkUp, vip)) == 1 })
		until(t, "it is announced for the link", func() bool { return rounds() > 0 })
		client.speak(vip)
		until(t, "the network is there again", func() bool { return client.neighbour(vip) == h.mac("eth0") })
		h.ip("link set eth0 address 02:00:00:00:07:01")
		until(t, "the client knows the new hardware address", func() bool { return client.neighbour(vip) == "02:00:00:00:07:01" })
		if len(w.of(Lost, vip)) != 0 {
			t.Error("the address is told as lost")
		}
	})
}

// An interface that is set down keeps its IPv4 addresses and loses those of IPv6.
func TestInterfaceDown(t *testing.T) {
	_, hosts := lan(t, 1)
	h := hosts[0]
	k, w, _ := h.keep(Config{})
	add(t, k, "10.9.0.100")
	add(t, k, "fd09::100")
	h.ip("link set eth0 down")
	until(t, "IPv6 is told as lost", func() bool { return len(w.of(Lost, "fd09::100")) == 1 })
	until(t, "IPv4 is told as without a link", func() bool { return len(w.of(LinkDown, "10.9.0.100")) == 1 })
	// Adding goes on, and says that nobody will see it.
	add(t, k, "10.9.0.101")
	until(t, "a new one is told as without a link", func() bool { return len(w.of(LinkDown, "10.9.0.101")) == 1 })
	h.ip("link set eth0 up")
	for _, ip := range []string{"10.9.0.100", "10.9.0.101"} {
		until(t, "the link is back", func() bool { return len(w.of(LinkUp, ip)) == 1 })
	}
	if n := len(w.of(Lost, "10.9.0.100")); n != 0 {
		t.Errorf("IPv4 is told as lost %d times", n)
	}
	add(t, k, "fd09::100/64%eth0") // the host's own address of that network is gone as well
	if h.has("fd09::100") != 1 {
		t.Error("IPv6 cannot be added again")
	}
}

// More changes than the socket holds: what was lost in them is seen all the same.
func TestOverflow(t *testing.T) {
	_, hosts := lan(t, 1)
	h := hosts[0]
	k, w, _ := h.keep(Config{})
	add(t, k, "10.9.0.100")
	add(t, k, "10.9.0.101")
	if err := k.watch.SetReceiveBufferSize(1, false); err != nil {
		t.Fatal(err)
	}
	var batch []string
	for i := range 1000 {
		batch = append(batch, fmt.Sprintf("addr add 10.200.%d.%d/32 dev eth0", i/250, i%250))
	}
	batch = append(batch, "addr del 10.9.0.100/24 dev eth0")
	before := k.watch
	k.mu.Lock() // the watch stops at the first message
	h.ip("-batch -", batch...)
	k.mu.Unlock()
	until(t, "the loss is told", func() bool { return len(w.of(Lost, "10.9.0.100")) == 1 })
	until(t, "the watch has a new socket", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.watch != before
	})
	h.ip("addr del 10.9.0.101/24 dev eth0")
	until(t, "the watch goes on", func() bool { return len(w.of(Lost, "10.9.0.101")) == 1 })
}

// Announcements come again by themselves, each while the address is there and is
// allowed, and no more after that.
func TestSchedule(t *testing.T) {
	each(t, func(t *testing.T, vip string) {
		_, hosts := lan(t, 2)
		h, client := hosts[0], hosts[1]
		allowed, asked := true, 0
		var k *Keeper
		k, _, _ = h.keep(Config{After: []time.Duration{5 * time.Millisecond}, Every: 5 * time.Millisecond, Allow: func(ip netip.Addr) bool {
			asked++ // k.mu is held
			return allowed
		}})
		asks := func(atLeast int) func() bool {
			return func() bool { k.mu.Lock(); defer k.mu.Unlock(); return asked >= atLeast }
		}
		a := add(t, k, vip)
		client.speak(vip)
		until(t, "the client knows the host", func() bool { return client.neighbour(vip) == h.mac("eth0") })
		spoil := func() {
			client.ip(fmt.Sprintf("neigh replace %s lladdr 02:00:00:00:00:99 dev eth0 nud permanent", vip))
			client.ip(fmt.Sprintf("neigh replace %s lladdr 02:00:00:00:00:99 dev eth0 nud stale", vip))
		}
		spoil()
		until(t, "it is announced again", func() bool { return client.neighbour(vip) == h.mac("eth0") })

		k.mu.Lock()
		allowed = false
		n := asked
		k.mu.Unlock()
		spoil()
		until(t, "rounds go by", asks(n+5))
		if client.neighbour(vip) == h.mac("eth0") {
			t.Error("it is announced without being allowed")
		}
		// Taken away while nobody here looked, as by the other process at its deadline.
		k.mu.Lock()
		n = asked
		h.ip(fmt.Sprintf("addr del %s/%d dev eth0", vip, a.Bits))
		allowed = true
		for _, h := range k.held {
			h.lost = false
			err := k.announce(h, false)
			if err != nil {
				t.Error(err)
			}
		}
		if asked != n+1 {
			t.Error("the round did not take place")
		}
		k.mu.Unlock()
		if client.neighbour(vip) == h.mac("eth0") {
			t.Error("an address is announced that is not there")
		}
	})
}

// A device on which nobody asks for hardware addresses, and one that takes nothing.
func TestSilentDevices(t *testing.T) {
	h := newNS(t)
	h.ip("link add veth7 type veth peer name veth8")
	h.ip("link set veth7 arp off up")
	h.ip("link set veth8 up")
	k, w, _ := h.keep(Config{})
	add(t, k, "10.9.0.100/32%veth7")
	add(t, k, "10.9.0.101/32%lo")
	if err := k.Announce(parse(t, "10.9.0.100")); err != nil {
		t.Error(err)
	}
	add(t, k, "10.9.0.102/32%veth8")
	k.mu.Lock()
	h2 := k.held[netip.MustParseAddr("10.9.0.102")]
	var broken *line
	var err error
	h.do(func() { broken, err = openLine(h2.dev, false) })
	if err != nil {
		t.Fatal(err)
	}
	_ = broken.conn.Close()
	working := k.lines.all[lineKey{h2.dev.index, false}]
	k.lines.all[lineKey{h2.dev.index, false}] = broken
	k.lines.discard(working)
	k.mu.Unlock()
	if err := k.Announce(parse(t, "10.9.0.102")); err == nil || !strings.Contains(err.Error(), "veth8") {
		t.Errorf("announcing through a broken socket: %v", err)
	}
	until(t, "it is told", func() bool { return len(w.of(Unannounced, "10.9.0.102")) == 1 })
	if err := k.Announce(parse(t, "10.9.0.102")); err != nil {
		t.Errorf("with a new socket: %v", err)
	}
	if e := w.of(Unannounced, "10.9.0.100"); len(e) != 0 {
		t.Errorf("told: %v", e)
	}
}
