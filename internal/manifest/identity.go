package manifest

import (
	"net/netip"
	"slices"
	"time"

	"gemel/internal/ha"
)

// Identity is what makes a machine a node of a cluster: node.yaml, which gemel
// init and gemel join write (DESIGN 10). It is immutable once config returned it,
// with every default filled in.
//
//budget:fields one for each key of node.yaml
type Identity struct {
	Name       ha.Node
	Cluster    Cluster
	Witness    bool      // `role: witness`: it only votes
	Release    string    // dotted numbers; empty: Gemel's own version
	Networks   []Network // at least one, in order of preference
	Peers      []Peer    // all nodes of the cluster, this one among them, in the order in which they become brain
	Store      Store
	Profile    string // normal (default), fast or guarded
	Timers     Timers
	Capacities []Amount // sorted by resource; one that is not here has no bound
	Level      Level
	DataDir    string // empty: where it is without node.yaml
}

// Cluster is which cluster the node belongs to.
type Cluster struct {
	ID    string // drawn once, by gemel init
	Name  string
	Token string // of the store's first members; a restore makes a new one. Empty: the id
}

// Network is one of the independent networks that join the nodes.
type Network struct {
	Name    string
	Address netip.Addr // of this node
	Port    int        // UDP for probes, TCP for API and replication; default 5314
	Device  string     // empty: whichever has the address
}

// Peer is one node of the cluster as the others reach it.
type Peer struct {
	Name      ha.Node
	Witness   bool
	Voter     bool             // it has a member of the embedded store; no node has with an external one
	Addresses []PeerAddress    // sorted by network
	Store     []netip.AddrPort // of a voter: where its member of the store is reached
}

// PeerAddress is where a node is on one network.
type PeerAddress struct {
	Network string
	At      netip.AddrPort
}

// On returns where the peer is on a network; false if it is not on it.
func (p Peer) On(network string) (netip.AddrPort, bool) {
	i := slices.IndexFunc(p.Addresses, func(a PeerAddress) bool { return a.Network == network })
	if i < 0 {
		return netip.AddrPort{}, false
	}
	return p.Addresses[i].At, true
}

// Store is where the cluster's truth is kept. Without endpoints it is embedded.
type Store struct {
	Endpoints   []string      // host:port, always by TLS
	Prefix      string        // default /gemel; the store adds the id of the cluster
	Election    time.Duration // election time-out of the external etcd, for the law of the timers
	CA          string
	Certificate string
	Key         string
	User        string // of the etcd; empty: the certificate says who we are, or nobody asks
	Password    string // the file that holds its password
}

// External reports whether the store is an etcd that somebody else runs.
func (s Store) External() bool { return len(s.Endpoints) > 0 }

// Timers are the times of the cluster (DESIGN 5.3). All nodes have the same.
type Timers struct {
	Heartbeat time.Duration // from one probe to the next
	Silence   time.Duration // S: after it a node is suspected
	Life      time.Duration // L: how long a read gives authority
	Stop      time.Duration // budget of a stop at the end of an authority; default a tenth of Life
	Settle    time.Duration // how long a cluster that begins waits for all nodes; default 30s
	Election  time.Duration // time-out of an election of the store
	Tick      time.Duration // heartbeat of the embedded store; default a fifth of Election; 0 if the store is external
	Drift     float64       // bound of the rates of two clocks; default 0.01
}

// Profile returns the figures of a profile; false for one that there is not.
func Profile(name string) (Timers, bool) {
	t := Timers{Settle: 30 * time.Second, Drift: 0.01}
	const ms = time.Millisecond
	switch name {
	case "normal":
		t.Heartbeat, t.Silence, t.Life, t.Election = 50*ms, 200*ms, 1500*ms, 400*ms
	case "fast":
		t.Heartbeat, t.Silence, t.Life, t.Election = 20*ms, 60*ms, 400*ms, 100*ms
	case "guarded":
		t.Heartbeat, t.Silence, t.Life, t.Election = 200*ms, 1000*ms, 5000*ms, 1000*ms
	default:
		return Timers{}, false
	}
	return t.Filled(), true
}

// Filled is t with what follows from its other times where it is zero.
func (t Timers) Filled() Timers {
	if t.Stop == 0 {
		t.Stop = t.Life / 10
	}
	if t.Tick == 0 {
		t.Tick = t.Election / 5
	}
	return t
}

// Spare is what the law of the timers (DESIGN 5.3.12) leaves for a write of the
// store and its way there and back: 0.8 Life - Stop - 2 Election. The machine's
// measured times must be less; without a spare no machine can be.
func (t Timers) Spare() time.Duration { return t.Life*8/10 - t.Stop - 2*t.Election }

// Wait is how long the brain waits after a suspicion (W), at least.
func (t Timers) Wait() time.Duration {
	return time.Duration(float64(t.Life+t.Stop) * (1 + t.Drift) / (1 - t.Drift))
}

// Proof is how old a proof of authority may be by which a watchdog of some time is petted
// (DESIGN 5.3.9): who is frozen between his look and his pet is reset after up to two of
// its times, and all of that must fit into the wait of the others. ok: proofs of that age
// are there all the time, since authority is renewed ten times in its life.
func (t Timers) Proof(watchdog time.Duration) (age time.Duration, ok bool) {
	// Wait is life and stop, with what the rates of two clocks may differ.
	age = t.Life + t.Stop - 2*watchdog
	return age, age >= t.Life/5
}

// What is done when something of a group is there at the end of its authority and cannot
// be killed.
const (
	ResetAuto  = "auto"  // as sysrq where systemd runs the machine and Gemel as its service, else as none
	ResetSysrq = "sysrq" // the kernel restarts the machine at once, without a sync
	ResetNone  = "none"
)

// Level is what makes the exclusivity level that a node offers (DESIGN 5.3.9).
type Level struct {
	Guard        bool          // default true; without it the level is 0
	Reset        string        // one of Resets; how the machine is reset when something cannot be stopped
	Watchdog     string        // a device, as /dev/watchdog; empty: none
	WatchdogTime time.Duration // after which it resets the machine; default 2s; 0 without one
	Fence        *Fence        // nil: none
}

// Fence is how the other nodes turn this one off.
type Fence struct {
	Agent      string // as fence_ipmilan
	Parameters map[string]string
	Timeout    time.Duration // default 1m
}
