package roll

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// The ports of Gemel.
const (
	Port      = 5314 // UDP for heartbeats, TCP for joining, renewing and the way to the store
	storePort = 5316 // of the store's members among each other
)

// way is an address of this machine, and the network that it is in.
type way struct {
	net    network
	at     netip.AddrPort
	device string
}

// device is one address of one network device.
type device struct {
	name   string
	prefix netip.Prefix
}

// devices are the addresses that this machine has, those that it could use by itself
// apart from loopback and from what containers and virtual machines have.
func devices() (usable, all []device, err error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, nil, fmt.Errorf("listing the networks of this machine: %w", err)
	}
	for _, i := range list {
		addrs, err := i.Addrs()
		if err != nil {
			return nil, nil, fmt.Errorf("listing the addresses of %s: %w", i.Name, err)
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err != nil {
				continue
			}
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits())
			d := device{i.Name, p}
			all = append(all, d)
			virtual := slices.ContainsFunc([]string{"docker", "br-", "virbr", "veth", "cni", "flannel", "cali", "lxc", "podman", "tap", "wg", "tun"},
				func(s string) bool { return strings.HasPrefix(i.Name, s) })
			up := i.Flags&net.FlagUp != 0 && i.Flags&(net.FlagLoopback|net.FlagPointToPoint) == 0
			if up && !virtual && p.Addr().IsGlobalUnicast() && p.Bits() < p.Addr().BitLen() {
				usable = append(usable, d)
			}
		}
	}
	return usable, all, nil
}

// found chooses addresses when none is given: the first one of each network, IPv4
// where a device has both, since one network has one version of IP.
func found(usable []device) []way {
	var out []way
	taken := map[string]bool{}
	for _, six := range []bool{false, true} {
		for _, d := range usable {
			if d.prefix.Addr().Is6() != six || taken[d.name] || taken[d.prefix.Masked().String()] {
				continue
			}
			taken[d.name], taken[d.prefix.Masked().String()] = true, true
			name := "net" + strconv.Itoa(len(out)+1)
			out = append(out, way{network{name, d.prefix.Masked()}, netip.AddrPortFrom(d.prefix.Addr(), Port), d.name})
		}
	}
	return out
}

// matched finds this machine's address in each network of a cluster that exists.
func matched(networks []network, usable []device) []way {
	var out []way
	for _, n := range networks {
		i := slices.IndexFunc(usable, func(d device) bool { return n.Prefix.IsValid() && n.Prefix.Contains(d.prefix.Addr()) })
		if i >= 0 {
			out = append(out, way{n, netip.AddrPortFrom(usable[i].prefix.Addr(), Port), usable[i].name})
		}
	}
	return out
}

// given reads addresses of the form NET=IP or NET=IP:PORT, or one without a name.
func given(texts []string, all []device) ([]way, error) {
	var out []way
	for i, text := range texts {
		name, at, ok := strings.Cut(text, "=")
		if !ok {
			name, at = "net"+strconv.Itoa(i+1), text
		}
		a, err := netip.ParseAddrPort(at)
		if err != nil {
			ip, err2 := netip.ParseAddr(strings.Trim(at, "[]"))
			if err2 != nil {
				return nil, fmt.Errorf("the address %q: NET=IP or NET=IP:PORT is needed, as blue=10.0.0.1", text)
			}
			a = netip.AddrPortFrom(ip, Port)
		}
		a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		j := slices.IndexFunc(all, func(d device) bool { return d.prefix.Addr() == a.Addr().WithZone("") })
		w := way{network{Name: name}, a, ""}
		switch {
		case j >= 0:
			w.device, w.net.Prefix = all[j].name, all[j].prefix.Masked()
		case a.Addr().IsLoopback(): // all of 127.0.0.0/8 is there without being listed
			w.device, w.net.Prefix = "lo", netip.PrefixFrom(a.Addr(), a.Addr().BitLen())
		default:
			return nil, fmt.Errorf("the address %s: this machine does not have it; it has %s", a.Addr(), addresses(all))
		}
		if slices.ContainsFunc(out, func(o way) bool { return o.net.Name == name }) {
			return nil, fmt.Errorf("the address %q: the network %s has one already; each node has one address in each network", text, name)
		}
		out = append(out, w)
	}
	return out, nil
}

func addresses(all []device) string {
	var out []string
	for _, d := range all {
		out = append(out, d.prefix.Addr().String()+" ("+d.name+")")
	}
	return strings.Join(out, ", ")
}

// sharing says which networks of a machine are one in truth: what they share fails
// for both.
func sharing(ways []way) error {
	for i, a := range ways {
		for _, b := range ways[:i] {
			if a.net.Prefix == b.net.Prefix && !a.at.Addr().IsLoopback() {
				return fmt.Errorf("%s and %s are both in %s: one network, whatever they are called. Give one address of it, and another network", a.at.Addr(), b.at.Addr(), a.net.Prefix)
			}
		}
	}
	return nil
}

// free tries whether the ports of Gemel can be had on this machine.
func free(ways []way, member bool) error {
	var errs []error
	for _, w := range ways {
		ports := []struct {
			network string
			at      netip.AddrPort
			what    string
		}{{"tcp", w.at, "joining and the way to the store"}, {"udp", w.at, "heartbeats"}}
		if member {
			ports = append(ports, struct {
				network string
				at      netip.AddrPort
				what    string
			}{"tcp", netip.AddrPortFrom(w.at.Addr(), storePort), "the members of the store"})
		}
		for _, p := range ports {
			if err := try(p.network, p.at); err != nil {
				errs = append(errs, fmt.Errorf("%s port %d of %s is needed for %s and cannot be had: %w. End what has it (ss -%snlp sport = :%d shows it), or take another address",
					strings.ToUpper(p.network), p.at.Port(), p.at.Addr(), p.what, err, p.network[:1], p.at.Port()))
			}
		}
	}
	return errors.Join(errs...)
}

func try(network string, at netip.AddrPort) error {
	if network == "udp" {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err != nil {
			return err
		}
		return c.Close()
	}
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		return err
	}
	return l.Close()
}
