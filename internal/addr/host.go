package addr

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A host is this machine's network, or one namespace of it, as it is asked.
type host struct {
	enter func(func()) // runs what opens sockets in the namespace; tests have several
	log   *slog.Logger
	sock  *socket
	links *netlink.Handle
}

func openHost(enter func(func()), log *slog.Logger) (*host, error) {
	h := &host{enter: enter, log: log}
	var err error
	enter(func() {
		if h.sock, err = openSocket(); err != nil {
			return
		}
		if h.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			err = fmt.Errorf("opening a netlink socket: %w", err)
		}
	})
	if err == nil {
		err = h.links.SetSocketTimeout(time.Second)
	}
	if err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

func (h *host) close() {
	if h.sock != nil {
		_ = h.sock.close()
	}
	if h.links != nil {
		h.links.Close()
	}
}

// put makes the kernel have an address exactly once where it belongs; before is
// the index of the device where it was put last.
func (h *host) put(a Address, dev device, before int) error {
	add := func() error { return h.sock.add(a.Addr, a.Bits, dev.index, dev.name) }
	if a.Addr.Is4() && a.Bits < 32 {
		if err := h.sock.promote(dev.index); err != nil {
			return fmt.Errorf("setting promote_secondaries: %w", err)
		}
	}
	other := func(e *entry) bool {
		if e.addr != a.Addr {
			return false
		}
		if e.index == dev.index {
			return e.bits != a.Bits
		}
		return e.ours || e.index == before
	}
	if a.Addr.Is6() {
		// A device has an IPv6 address once: the one with another length must go first.
		if err := h.sock.clear(other); err != nil {
			return err
		}
		return add()
	}
	if err := add(); err != nil {
		return err
	}
	return h.sock.clear(other)
}

// entries lists the addresses of this machine, all from one moment.
func (h *host) entries() ([]entry, error) {
	for tries := 0; ; tries++ {
		var all []entry
		err := h.sock.each(func(e entry) { all = append(all, e) })
		if !errors.Is(err, errAgain) || tries == 8 {
			return all, err
		}
	}
}

// named looks at the device with a name.
func (h *host) named(name string) (device, error) {
	l, err := h.links.LinkByName(name)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return device{}, fmt.Errorf("there is no interface %q; there are %s", name, h.names())
	}
	if err != nil {
		return device{}, fmt.Errorf("looking at interface %s: %w", name, err)
	}
	return deviceOf(l), h.usable(l)
}

// usable refuses the parts of a bridge or a bond: an address on one is not
// reached.
func (h *host) usable(l netlink.Link) error {
	a := l.Attrs()
	if a.MasterIndex == 0 {
		return nil
	}
	whole, err := h.links.LinkByIndex(a.MasterIndex)
	if err != nil {
		return nil // it has just left it
	}
	switch whole.Type() {
	case "bridge", "bond", "team", "openvswitch":
		return fmt.Errorf("interface %s is a part of the %s %s, and an address on it would not be reached; name %s",
			a.Name, whole.Type(), whole.Attrs().Name, whole.Attrs().Name)
	}
	return nil
}

// again looks at a device that was seen before. One that is gone is down.
func (h *host) again(d device) device {
	l, err := h.links.LinkByIndex(d.index)
	var none netlink.LinkNotFoundError
	switch {
	case errors.As(err, &none):
		d.up = false
	case err != nil:
		h.log.Warn("looking at an interface", "name", d.name, "error", err)
	default:
		return deviceOf(l)
	}
	return d
}

// own reports whether a hardware address is of this machine.
func (h *host) own(m mac) bool {
	links, err := h.links.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		h.log.Warn("listing the interfaces", "error", err)
		return false
	}
	for _, l := range links {
		if string(l.Attrs().HardwareAddr) == string(m[:]) {
			return true
		}
	}
	return false
}

// forwards reports whether this machine routes IPv6 on a device, which an
// advertisement says: a wrong "no" makes neighbours drop it as their router.
func (h *host) forwards(device string) (yes bool) {
	h.enter(func() {
		b, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + device + "/forwarding")
		yes = err == nil && len(b) > 0 && b[0] != '0'
	})
	return yes
}

// subscribe opens a socket that hears of every change of links and addresses.
func (h *host) subscribe() (s *nl.NetlinkSocket, err error) {
	h.enter(func() {
		s, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
	})
	if err != nil {
		return nil, fmt.Errorf("subscribing to changes of addresses: %w", err)
	}
	return s, nil
}

// names lists the interfaces with their addresses, for an error.
func (h *host) names() string {
	links, err := h.links.LinkList()
	if err != nil {
		return "interfaces that cannot be listed: " + err.Error()
	}
	all, err := h.entries()
	if err != nil {
		all = nil
	}
	var words []string
	for _, l := range links {
		var own []string
		for _, e := range all {
			if e.index == l.Attrs().Index {
				own = append(own, netip.PrefixFrom(e.addr, e.bits).String())
			}
		}
		words = append(words, strings.TrimSpace(l.Attrs().Name+" ("+strings.Join(own, ", ")+")"))
	}
	const most = 20
	if n := len(words); n > most {
		words = append(slices.Clip(words[:most]), fmt.Sprintf("and %d more", n-most))
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.ReplaceAll(strings.Join(words, ", "), " ()", " (no address)")
}
