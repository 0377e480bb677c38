package addr

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"log/slog"
)

func median(d []time.Duration) time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d[len(d)/2]
}

// A second Add of the same changes nothing, a Remove of what is not there is
// none, and what bears another length or is on another device ends up once, where
// it was asked for.
func TestIdempotent(t *testing.T) {
	each(t, func(t *testing.T, vip string) {
		bridge, hosts := lan(t, 1)
		h := hosts[0]
		k, w, _ := h.keep(Config{})
		remove(t, k, vip)
		remove(t, k, vip+"%nothere")
		first := add(t, k, vip)
		if second := add(t, k, vip); second != first || h.has(vip) != 1 {
			t.Errorf("%v, then %v; there %d times", first, second, h.has(vip))
		}
		short := add(t, k, fmt.Sprintf("%s/%d", vip, first.Bits-4))
		if h.has(vip) != 1 || list(t, k) != short.String() {
			t.Errorf("with another length: there %d times, %s", h.has(vip), list(t, k))
		}
		plug(bridge, h, "p9", "eth1")
		moved := add(t, k, vip+"%eth1")
		if h.has(vip) != 1 || list(t, k) != moved.String() || moved.Bits != first.Addr.BitLen() {
			t.Errorf("on another device: there %d times, %s", h.has(vip), list(t, k))
		}
		remove(t, k, vip)
		remove(t, k, vip)
		if h.has(vip) != 0 || list(t, k) != "" {
			t.Errorf("removed: there %d times, %s", h.has(vip), list(t, k))
		}
		if e := w.of(Lost, vip); len(e) > 0 {
			t.Errorf("told as lost: %v", e)
		}
	})
}

// A Keeper that ended, as by a crash, leaves its addresses; the next one lists and
// removes them, or takes them over.
func TestLeftovers(t *testing.T) {
	_, hosts := lan(t, 1)
	h := hosts[0]
	k1, _, stop := h.keep(Config{})
	add(t, k1, "10.9.0.100")
	add(t, k1, "fd09::100")
	add(t, k1, "172.31.0.9/32%eth0")
	stop()
	k2, w, _ := h.keep(Config{})
	if got := list(t, k2); got != "10.9.0.100/24%eth0 172.31.0.9/32%eth0 fd09::100/64%eth0" {
		t.Errorf("left over: %q", got)
	}
	add(t, k2, "10.9.0.100")
	add(t, k2, "172.31.0.9") // in no network: where it was
	remove(t, k2, "fd09::100")
	if got := list(t, k2); got != "10.9.0.100/24%eth0 172.31.0.9/32%eth0" {
		t.Errorf("taken over: %q", got)
	}
	h.ip("addr del 10.9.0.100/24 dev eth0")
	until(t, "it is watched", func() bool { return len(w.of(Lost, "10.9.0.100")) == 1 })
}

// One that somebody else added is taken over as well.
func TestForeign(t *testing.T) {
	_, hosts := lan(t, 1)
	h := hosts[0]
	h.ip("addr add 10.9.0.100/32 dev eth0")
	h.ip("addr add 10.9.0.101/24 dev eth0")
	h.ip("addr add fd09::100/128 dev eth0 nodad")
	h.ip("addr add fd09::101/64 dev eth0 nodad")
	k, _, _ := h.keep(Config{})
	if got := list(t, k); got != "" {
		t.Errorf("addresses of others are listed: %q", got)
	}
	for _, ip := range []string{"10.9.0.100", "10.9.0.101", "fd09::100", "fd09::101"} {
		if add(t, k, ip); h.has(ip) != 1 {
			t.Errorf("%s is there %d times", ip, h.has(ip))
		}
	}
	if got := list(t, k); got != "10.9.0.100/24%eth0 10.9.0.101/24%eth0 fd09::100/64%eth0 fd09::101/64%eth0" {
		t.Errorf("taken over: %q", got)
	}
	for _, ip := range []string{"10.9.0.100", "10.9.0.101", "fd09::100", "fd09::101"} {
		if remove(t, k, ip); h.has(ip) != 0 {
			t.Errorf("%s is there %d times", ip, h.has(ip))
		}
	}
	if h.has("10.9.0.1") != 1 || h.has("fd09::1") != 1 {
		t.Error("the host's own addresses are gone")
	}
}

// A service address that was the first of its network does not take the host's
// own address with it.
func TestFirstOfItsNetwork(t *testing.T) {
	_, hosts := lan(t, 1)
	h := hosts[0]
	k, _, _ := h.keep(Config{})
	add(t, k, "10.10.0.100/24%eth0")
	h.ip("addr add 10.10.0.1/24 dev eth0")
	remove(t, k, "10.10.0.100")
	if h.has("10.10.0.1") != 1 {
		t.Error("the host's own address went with the service address")
	}
}

func TestWhere(t *testing.T) {
	bridge, hosts := lan(t, 1)
	h := hosts[0]
	plug(bridge, h, "p8", "eth1")
	plug(bridge, h, "p9", "eth2")
	h.ip("addr add 10.9.0.200/28 dev eth1")
	h.ip("addr add 10.20.0.1/16 dev eth1")
	h.ip("addr add 10.20.0.2/16 dev eth2")
	h.ip("link add br9 type bridge")
	h.ip("link set eth2 master br9")
	k, _, _ := h.keep(Config{})
	for in, want := range map[string]string{
		"10.9.0.100":       "10.9.0.100/24%eth0",
		"10.9.0.100/30":    "10.9.0.100/30%eth0",
		"10.9.0.202":       "10.9.0.202/28%eth1", // the smaller network
		"fd09::100":        "fd09::100/64%eth0",
		"fe80::9%eth1":     "fe80::9/64%eth1",
		"10.77.0.1%eth1":   "10.77.0.1/32%eth1",
		"fd77::1%eth0":     "fd77::1/128%eth0",
		"10.9.0.101%eth1":  "10.9.0.101/32%eth1",
		"10.77.0.2/8%eth0": "10.77.0.2/8%eth0",
	} {
		if got := add(t, k, in); got.String() != want {
			t.Errorf("%s was added as %v; want %s", in, got, want)
		}
		remove(t, k, in)
	}
	for in, want := range map[string]string{
		"10.88.0.1":      "no interface has a network that contains it; name one, as 10.88.0.1%eth0; there are lo (127.0.0.1/8, ::1/128), eth0 (10.9.0.1/24,",
		"10.20.0.9":      "2 interfaces have the network 10.20.0.0/16; name one",
		"10.9.0.5%nope0": `there is no interface "nope0"; there are lo (`,
		"10.9.0.5%eth2":  "interface eth2 is a part of the bridge br9, and an address on it would not be reached; name br9",
	} {
		_, err := k.Add(t.Context(), parse(t, in))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", in, err, want)
		}
	}
	if got := list(t, k); got != "" {
		t.Errorf("what was refused is there: %s", got)
	}
}

// Who may not is told what he needs; nothing is told as done.
func TestForbidden(t *testing.T) {
	_, hosts := lan(t, 1)
	h := hosts[0]
	add(t, func() *Keeper { k, _, _ := h.keep(Config{}); return k }(), "10.9.0.101")
	var k *Keeper
	var r *Remover
	var err, err2, removed error
	h.do(func() {
		if k, err = New(Config{}, clock.Machine(), slog.New(slog.DiscardHandler)); err != nil {
			return
		}
		if r, err = OpenRemover(); err != nil {
			return
		}
		// Capabilities are those of a thread, and this one ends with the test.
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		none := make([]unix.CapUserData, 2)
		if err = unix.Capset(&head, &none[0]); err != nil {
			return
		}
		_, err2 = k.Add(context.Background(), Address{Addr: parse(t, "10.9.0.100").Addr})
		removed = r.Remove(parse(t, "10.9.0.101"))
	})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	defer r.Close()
	for what, err := range map[string]error{"adding": err2, "removing": removed} {
		if err == nil || !strings.Contains(err.Error(), "CAP_NET_ADMIN") || !strings.Contains(err.Error(), "10.9.0.10") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if h.has("10.9.0.100") != 0 || h.has("10.9.0.101") != 1 {
		t.Error("it was done all the same")
	}
	k.Close()
	if _, err := k.Add(t.Context(), parse(t, "10.9.0.100")); err == nil {
		t.Error("a closed keeper adds")
	}
}

func TestParse(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "",
		"10.0.0.1/33":               "is not from 1 to 32",
		"10.0.0.1/0":                "is not from 1 to 32",
		"fd00::1/129":               "is not from 1 to 128",
		"10.0.0":                    "write it as 192.0.2.10/24",
		"10.0.0.1%":                 "the device after % is empty",
		"10.0.0.1%a/b":              "no interface can have the name",
		"10.0.0.1%0123456789abcdef": "no interface can have the name",
		"127.0.0.1":                 "loopback",
		"::1":                       "loopback",
		"0.0.0.0":                   "stands for no machine",
		"255.255.255.255":           "stands for no machine",
		"::":                        "stands for no machine",
		"224.0.0.1":                 "multicast",
		"ff02::1":                   "multicast",
		"::ffff:10.0.0.1":           "write 10.0.0.1",
		"fe80::1":                   "name its device, as fe80::1%eth0",
	} {
		if a, err := Parse(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v; want an error with %q", in, a, err, want)
		}
	}
	for _, s := range []string{"10.0.0.1", "10.0.0.1/24", "10.0.0.1/24%eth0", "fd00::1/64%eth0.5", "fe80::1%eth0"} {
		if a := parse(t, s); a.String() != s {
			t.Errorf("%q is written as %q", s, a)
		}
	}
	if _, err := (&Keeper{}).Add(t.Context(), Address{}); err == nil {
		t.Error("an empty address is added")
	}
}
