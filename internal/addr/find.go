package addr

import (
	"fmt"
	"maps"
	"net/netip"
)

// A finder says where an address goes, from what the machine has at one moment.
type finder struct {
	host *host
	all  []entry
	held map[netip.Addr]*holding
}

// find says where an address goes: its device and the length of its network.
func (k *Keeper) find(a Address) (Address, device, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return a, device{}, errClosed
	}
	all, err := k.host.entries()
	if err != nil {
		return a, device{}, fmt.Errorf("listing the addresses of this machine: %w", err)
	}
	m := &finder{k.host, all, k.held}
	dev, err := m.device(a)
	if err != nil {
		return a, dev, err
	}
	a.Device = dev.name // it may have been an alternative name
	if a.Bits == 0 {
		a.Bits = m.length(a.Addr, dev.index)
	}
	return a, dev, nil
}

// device is the one that an address names, or else the one whose network it is in.
func (m *finder) device(a Address) (device, error) {
	if a.Device != "" {
		return m.host.named(a.Device)
	}
	index, err := m.around(a.Addr)
	if err != nil {
		return device{}, err
	}
	l, err := m.host.links.LinkByIndex(index)
	if err != nil {
		return device{}, fmt.Errorf("looking at interface %d: %w", index, err)
	}
	return deviceOf(l), m.host.usable(l)
}

// foreign reports whether an entry is a network of the machine itself, and not one
// that a service address brought.
func (m *finder) foreign(e *entry) bool {
	h := m.held[e.addr]
	return !e.ours && (h == nil || h.dev.index != e.index) && e.bits < e.addr.BitLen() && !e.addr.IsLoopback()
}

// around finds the device whose network contains an address, the smallest network
// first; without one, the device that has the address from before.
func (m *finder) around(ip netip.Addr) (int, error) {
	best, indexes := -1, map[int]bool{}
	for _, e := range m.all {
		if !m.foreign(&e) || !netip.PrefixFrom(e.peer, e.bits).Contains(ip) || e.bits < best {
			continue
		}
		if e.bits > best {
			best = e.bits
			clear(indexes)
		}
		indexes[e.index] = true
	}
	if len(indexes) == 0 {
		for _, e := range m.all {
			if e.addr == ip && e.ours {
				return e.index, nil
			}
		}
		return 0, fmt.Errorf("no interface has a network that contains it; name one, as %v%%eth0; there are %s", ip, m.host.names())
	}
	if len(indexes) > 1 {
		return 0, fmt.Errorf("%d interfaces have the network %v; name one, as %v%%eth0; there are %s",
			len(indexes), netip.PrefixFrom(ip, best).Masked(), ip, m.host.names())
	}
	for index := range maps.Keys(indexes) {
		return index, nil
	}
	return 0, nil
}

// length is that of the smallest network on a device that contains an address.
func (m *finder) length(ip netip.Addr, index int) int {
	best, kept := 0, 0
	for _, e := range m.all {
		switch {
		case e.index != index:
		case m.foreign(&e) && netip.PrefixFrom(e.peer, e.bits).Contains(ip):
			best = max(best, e.bits)
		case e.addr == ip:
			kept = e.bits // as it was added before
		}
	}
	if best > 0 {
		return best
	}
	if kept > 0 {
		return kept
	}
	return ip.BitLen()
}
