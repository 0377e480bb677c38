package config

import (
	"cmp"
	"net/netip"
	"slices"

	"gemel/internal/manifest"
)

type (
	addr     = netip.Addr
	addrPort = netip.AddrPort
)

// oneNode reports whether an address can be one node's. Loopback can: several
// nodes on one machine are a way to try a cluster.
func oneNode(a addr) (hint string, ok bool) {
	switch linkLocal := a.Is6() && a.IsLinkLocalUnicast(); {
	case linkLocal && a.Zone() == "":
		return "a link-local address needs its device, as " + a.String() + "%eth0", false
	case !linkLocal && a.Zone() != "":
		return "only a link-local address has a device behind %: write " + a.WithZone("").String(), false
	case a.IsUnspecified():
		return "it must be one address of one network: what listens everywhere cannot tell the networks apart", false
	case a.IsLoopback():
		return "", true
	}
	return unicast(a)
}

// nodeAddrKind is the address of a node, without a length and a port.
func nodeAddrKind() kind[addr] {
	return scalarKind("an IP address, as 10.0.0.1 or 2001:db8::1", func(t *tree) (addr, string, bool) {
		a, err := netip.ParseAddr(t.text)
		if err != nil {
			if p, err := netip.ParsePrefix(t.text); err == nil {
				return addr{}, "write it without the length: " + p.Addr().String(), false
			}
			if p, err := netip.ParseAddrPort(t.text); err == nil {
				return addr{}, "port is a key of its own: write " + p.Addr().String(), false
			}
			return addr{}, "a name would need somebody to resolve it before the cluster is there", false
		}
		hint, ok := oneNode(a)
		return a, hint, ok
	}, func(a addr) *tree { return word(a.String()) }, schema{"type": "string"})
}

// addrPortKind is the address of a node with a port, or without the usual one.
func addrPortKind(usual uint16) kind[addrPort] {
	return scalarKind("an IP address, with a port or without, such as 10.0.0.2, 10.0.0.2:5414 or [2001:db8::2]:5414", func(t *tree) (addrPort, string, bool) {
		p, err := netip.ParseAddrPort(t.text)
		if err != nil {
			a, err := netip.ParseAddr(t.text)
			if err != nil {
				return addrPort{}, "", false
			}
			p = netip.AddrPortFrom(a, usual)
		}
		if p.Port() == 0 {
			return addrPort{}, "the port is a number from 1 to 65535", false
		}
		hint, ok := oneNode(p.Addr())
		return p, hint, ok
	}, func(p addrPort) *tree {
		if p.Port() == usual {
			return word(p.Addr().String())
		}
		return word(p.String())
	}, schema{"type": "string"})
}

// peerAddressesKind is a map from networks to addresses.
func peerAddressesKind() kind[[]manifest.PeerAddress] {
	type A = manifest.PeerAddress
	value := addrPortKind(probePort)
	return kind[[]A]{
		read: func(r *reader, path string, n *tree) ([]A, bool) {
			if n.kind != treeMap {
				r.wrong(path, n, "a map from the name of each network to an address, such as {blue: 10.0.0.2}", "")
				return nil, false
			}
			before := len(r.errs)
			var out []A
			for _, p := range n.pairs {
				below := sub(path, p.key)
				r.spots[below] = p.at
				if p.value.kind == treeNull {
					p.value.at = p.at
				}
				if v, ok := value.read(r, below, p.value); ok {
					out = append(out, A{Network: p.key, At: v})
				}
			}
			sortAddresses(out)
			return out, len(r.errs) == before
		},
		write: func(all []A) *tree {
			t := &tree{kind: treeMap}
			for _, a := range all {
				t.put(a.Network, value.write(a.At))
			}
			return t
		},
		schema: schema{"type": "object", "propertyNames": schema{"pattern": namePattern}, "additionalProperties": value.schema},
	}
}

func sortAddresses(all []manifest.PeerAddress) {
	slices.SortFunc(all, func(a, b manifest.PeerAddress) int { return cmp.Compare(a.Network, b.Network) })
}

// defaultStore is where a voter's member of the store is if nothing is written.
func defaultStore(p *manifest.Peer) []addrPort {
	var out []addrPort
	for _, a := range p.Addresses {
		if at := netip.AddrPortFrom(a.At.Addr(), storePort); !slices.Contains(out, at) {
			out = append(out, at)
		}
	}
	return out
}
