package netpath

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"gemel/internal/ha"
)

// The bounds of an interval, and how long a key is.
const (
	minInterval = 10 * time.Millisecond
	maxInterval = 10 * time.Second
	keySize     = 32
	maxName     = 255
	maxDSCP     = 63
	maxDevice   = 15
)

// A Config says between whom heartbeats go, by which networks and under which
// keys.
type Config struct {
	Node    ha.Node // this node
	Cluster string  // the cluster's id; datagrams of other clusters are refused
	// Networks are independent of each other: each has a socket and a loop of its
	// own, so that one that is stuck holds up no other.
	Networks []Network
	// Keys are one or two. The first seals, both open: a new key is given to all
	// nodes as the second one, then made the first one everywhere, and then the old
	// one is taken away.
	Keys []Key
	// Interval is from one heartbeat to the next, 10 ms to 10 s. It may differ
	// between nodes.
	Interval time.Duration
	// Payload appends what this node has to say to b, at most MaxPayload bytes. It
	// is called once in each interval on each network, by several goroutines; it
	// must be quick and must not keep b. Nil: nothing is said.
	Payload func(b []byte) []byte
	// News is called when a peer says something else than before. It is called by the
	// loops that hear, and must not wait. Nil: nobody is told.
	News func()
	// DSCP marks the datagrams for the routers on their way, 0 to 63. Zero is no
	// mark; 48 (CS6, network control) is what routers give room to.
	DSCP int
}

// A Network is one of the networks that join the nodes.
type Network struct {
	Name string // the same on all nodes
	// Local is this node's own address on it. A socket is bound to just this
	// address: what leaves it has this source, and nothing that came by another
	// network gets in.
	Local netip.AddrPort
	// Device ties the socket to an interface, whatever the routes say. Empty: not.
	Device string
	Peers  []Peer
}

// A Peer is another node, where it is on one network.
type Peer struct {
	Node ha.Node
	Addr netip.AddrPort
}

// A Key is a secret that all nodes of the cluster share.
type Key struct {
	ID     uint32 // stands in clear in each datagram; tells the keys apart
	Secret []byte // 32 random bytes
}

// String names the key without its secret, for whoever prints it by mistake.
func (k Key) String() string { return fmt.Sprintf("key %d", k.ID) }

// GoString is String: %#v shows no secret either.
func (k Key) GoString() string { return k.String() }

// MarshalText is String, for logs and messages in JSON.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Check finds what is wrong with a configuration: all of it at once.
func (c Config) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !named(string(c.Node)) {
		bad("the name of this node is %q: 1 to %d bytes are allowed", c.Node, maxName)
	}
	if !named(c.Cluster) {
		bad("the cluster's id is %q: 1 to %d bytes are allowed", c.Cluster, maxName)
	}
	if c.Interval < minInterval || c.Interval > maxInterval {
		bad("a heartbeat each %v: 10ms to 10s are allowed", ha.Span(c.Interval))
	}
	if c.DSCP < 0 || c.DSCP > maxDSCP {
		bad("DSCP %d: 0 to %d are allowed", c.DSCP, maxDSCP)
	}
	if len(c.Networks) == 0 {
		bad("no network is given: heartbeats need at least one")
	}
	errs = append(errs, checkKeys(c.Keys)...)
	seen := map[string]bool{}
	locals := map[netip.AddrPort]string{}
	for _, n := range c.Networks {
		if seen[n.Name] {
			bad("two networks have the name %q", n.Name)
		}
		seen[n.Name] = true
		if other, ok := locals[n.Local]; ok && n.Local.IsValid() {
			bad("networks %q and %q have the same local address %v: each needs its own", other, n.Name, n.Local)
		}
		locals[n.Local] = n.Name
		errs = append(errs, n.check(c.Node)...)
	}
	return errors.Join(errs...)
}

func named(s string) bool { return s != "" && len(s) <= maxName }

func checkKeys(keys []Key) (errs []error) {
	if len(keys) < 1 || len(keys) > 2 {
		return []error{fmt.Errorf("%d keys are given: one, or two while keys are changed", len(keys))}
	}
	for _, k := range keys {
		if len(k.Secret) != keySize {
			errs = append(errs, fmt.Errorf("the secret of key %d has %d bytes: %d random ones are needed", k.ID, len(k.Secret), keySize))
		} else if [keySize]byte(k.Secret) == [keySize]byte{} {
			errs = append(errs, fmt.Errorf("the secret of key %d is all zero: %d random bytes are needed", k.ID, keySize))
		}
	}
	if len(keys) == 2 && keys[0].ID == keys[1].ID {
		errs = append(errs, fmt.Errorf("both keys have the id %d: a new key needs a new id", keys[0].ID))
	}
	return errs
}

func (n Network) check(own ha.Node) (errs []error) {
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("network %q: "+format, append([]any{n.Name}, args...)...))
	}
	if !named(n.Name) {
		bad("its name must have 1 to %d bytes", maxName)
	}
	if why := unusable(n.Local); why != "" {
		bad("local address %v: %s", n.Local, why)
	}
	if len(n.Device) > maxDevice {
		bad("no interface has a name of more than %d bytes: %q", maxDevice, n.Device)
	}
	nodes := map[ha.Node]bool{}
	addrs := map[netip.AddrPort]ha.Node{n.Local: own}
	for _, p := range n.Peers {
		switch {
		case !named(string(p.Node)):
			bad("the name of a peer is %q: 1 to %d bytes are allowed", p.Node, maxName)
		case p.Node == own:
			bad("%q is this node itself, not a peer", p.Node)
		case nodes[p.Node]:
			bad("peer %q is given twice", p.Node)
		}
		nodes[p.Node] = true
		if why := unusable(p.Addr); why != "" {
			bad("peer %q at %v: %s", p.Node, p.Addr, why)
		} else if n.Local.IsValid() && p.Addr.Addr().Is4() != n.Local.Addr().Is4() {
			bad("peer %q at %v: the local address %v is of the other IP version", p.Node, p.Addr, n.Local)
		}
		if other, ok := addrs[p.Addr]; ok {
			bad("%q and %q have the same address %v", other, p.Node, p.Addr)
		}
		addrs[p.Addr] = p.Node
	}
	return errs
}

// unusable says why an address cannot be one end of a path, or "".
func unusable(a netip.AddrPort) string {
	ip := a.Addr()
	switch {
	case !ip.IsValid():
		return "an IP address and a port are needed"
	case ip.Is4In6():
		return "write it as an IPv4 address"
	case ip.IsUnspecified():
		return "it must be one address of one network: what listens everywhere cannot tell the networks apart"
	case ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "it must be the address of one node"
	case ip.IsLinkLocalUnicast() && ip.Is6() && ip.Zone() == "":
		return "a link-local address needs its interface, as in fe80::1%eth0"
	case a.Port() == 0:
		return "a port from 1 to 65535 is needed"
	}
	return ""
}
