package roll

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"gemel/internal/config"
	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// A Roll is who is in a cluster. It is a value: changes make another one.
type Roll struct {
	Cluster manifest.Cluster `json:"cluster"`
	// Era grows with each restore of the store; a fence of an older one counts less.
	Era      uint64          `json:"era"`
	Profile  string          `json:"profile"`
	Timers   manifest.Timers `json:"timers"`
	Networks []network       `json:"networks"`
	// One says that somebody knows that there is one network only.
	One   bool   `json:"one-network,omitempty"`
	Nodes []Node `json:"nodes"` // in the order in which they become brain
	// Store is the etcd in which the cluster keeps its truth; nil: it keeps it itself.
	Store *outer `json:"store,omitempty"`
	// Restored is how this era began; nil: by gemel init.
	Restored *restored `json:"restored,omitempty"`
}

// network is one of those that join the nodes. By its prefix a newcomer finds its own
// address in it.
type network struct {
	Name   string       `json:"name"`
	Prefix netip.Prefix `json:"prefix"`
}

// A Node is one machine of the cluster.
type Node struct {
	Name      ha.Node                   `json:"name"`
	Witness   bool                      `json:"witness,omitempty"`
	Voter     bool                      `json:"voter,omitempty"` // it has, or is about to have, a vote in the store
	Addresses map[string]netip.AddrPort `json:"addresses"`       // by network
	Store     []netip.AddrPort          `json:"store"`           // where its member of the store is, or would be
	Joined    time.Time                 `json:"joined"`
}

// Bounds of a cluster.
const (
	maxNodes     = 16
	maxWitnesses = 2
)

// Node returns the entry of a machine; false: it is not in the cluster.
func (r Roll) Node(name ha.Node) (Node, bool) {
	i := slices.IndexFunc(r.Nodes, func(n Node) bool { return n.Name == name })
	if i < 0 {
		return Node{}, false
	}
	return r.Nodes[i], true
}

// count returns how many nodes and witnesses there are.
func (r Roll) count() (nodes, witnesses int) {
	for _, n := range r.Nodes {
		if n.Witness {
			witnesses++
		} else {
			nodes++
		}
	}
	return nodes, witnesses
}

// voters are the names of those that are to vote, sorted.
func (r Roll) voters() []string {
	var out []string
	for _, n := range r.Nodes {
		if n.Voter {
			out = append(out, string(n.Name))
		}
	}
	slices.Sort(out)
	return out
}

// elected gives the votes: one as long as there are less than three machines, then
// three, and five from five on. Witnesses come first, since they are there for
// nothing else; then those that have a vote, so that none changes without need.
func (r Roll) elected() Roll {
	want := 1
	switch n := len(r.Nodes); {
	case r.Store != nil:
		want = 0 // who votes is the etcd's to say
	case n >= 5:
		want = 5
	case n >= 3:
		want = 3
	}
	order := make([]int, len(r.Nodes))
	for i := range order {
		order[i] = i
	}
	rank := func(n Node) int {
		switch {
		case n.Witness && want > 1:
			return 0
		case n.Voter && !n.Witness:
			return 1
		case !n.Witness:
			return 2
		}
		return 3
	}
	slices.SortStableFunc(order, func(a, b int) int { return rank(r.Nodes[a]) - rank(r.Nodes[b]) })
	r.Nodes = slices.Clone(r.Nodes)
	for at, i := range order {
		r.Nodes[i].Voter = at < want
	}
	return r
}

// with adds a machine, or gives one that is there other addresses.
func (r Roll) with(n Node) (Roll, error) {
	nodes, witnesses := r.count()
	_, again := r.Node(n.Name)
	switch {
	case n.Witness && r.Store != nil:
		return r, errors.New("the store of this cluster is an etcd of its own, which has its votes: a witness would have none. Two nodes need none")
	case again:
	case n.Witness && nodes == 1:
		return r, errors.New("there is one node yet, and a witness beside it would be the second of two voters: when either of the two died, the store would stop, " +
			"and with it every group. Join the second node first, then the witness")
	case n.Witness && witnesses >= maxWitnesses:
		return r, fmt.Errorf("there are %d witnesses; more only vote slower", witnesses)
	case !n.Witness && nodes >= maxNodes:
		return r, fmt.Errorf("there are %d nodes, which is all that a cluster takes: make a cluster of its own of the others", nodes)
	}
	r.Nodes = slices.Clone(r.Nodes)
	if again {
		i := slices.IndexFunc(r.Nodes, func(o Node) bool { return o.Name == n.Name })
		n.Voter, n.Joined = r.Nodes[i].Voter, r.Nodes[i].Joined
		r.Nodes[i] = n
	} else {
		r.Nodes = append(r.Nodes, n)
		r = r.elected()
	}
	return r, r.check()
}

// without takes machines away.
func (r Roll) without(names ...ha.Node) (Roll, error) {
	r.Nodes = slices.DeleteFunc(slices.Clone(r.Nodes), func(n Node) bool { return slices.Contains(names, n.Name) })
	nodes, witnesses := r.count()
	switch {
	case nodes == 0:
		return r, errors.New("it is the last node: without it there is no cluster. gemel shutdown ends Gemel here")
	case nodes == 1 && witnesses > 0:
		return r, errors.New("one node and a witness would be left, and two voters: when either of the two died, the store would stop, and with it every group. " +
			"Let the witness leave with it: gemel leave --with-witness")
	}
	r = r.elected()
	return r, r.check()
}

// check finds what is wrong with a roll, as each of its machines would see it.
func (r Roll) check() error {
	for _, n := range r.Nodes {
		if _, err := r.Identity(n.Name, nil); err != nil {
			return err
		}
	}
	return nil
}

// Identity is the node.yaml of a machine. What a person may have changed in the one
// that is there, old, stays: devices, capacities, level, release. old may be nil.
func (r Roll) Identity(name ha.Node, old *manifest.Identity) (*manifest.Identity, error) {
	me, ok := r.Node(name)
	if !ok {
		return nil, fmt.Errorf("%s is not in the cluster %s", name, r.Cluster.Name)
	}
	id := manifest.Identity{Level: manifest.Level{Guard: true}}
	if old != nil {
		id = *old
	}
	id.Name, id.Cluster, id.Witness, id.Profile, id.Timers = name, r.Cluster, me.Witness, r.Profile, r.Timers
	id.Networks, id.Peers, id.Store = nil, nil, manifest.Store{}
	if r.Store != nil {
		id.Store = r.Store.own(old)
	}
	for _, n := range r.Networks {
		at, ok := me.Addresses[n.Name]
		if !ok {
			continue
		}
		net := manifest.Network{Name: n.Name, Address: at.Addr(), Port: int(at.Port())}
		if old != nil {
			for _, o := range old.Networks {
				if o.Name == n.Name {
					net.Device = o.Device
				}
			}
		}
		id.Networks = append(id.Networks, net)
	}
	for _, n := range r.Nodes {
		p := manifest.Peer{Name: n.Name, Witness: n.Witness, Voter: n.Voter}
		if n.Voter {
			p.Store = n.Store
		}
		for _, at := range slices.Sorted(maps.Keys(n.Addresses)) {
			if _, mine := me.Addresses[at]; mine {
				p.Addresses = append(p.Addresses, manifest.PeerAddress{Network: at, At: n.Addresses[at]})
			}
		}
		if len(p.Addresses) == 0 {
			return nil, fmt.Errorf("%s and %s have no network in common", name, n.Name)
		}
		id.Peers = append(id.Peers, p)
	}
	b, err := config.EncodeNode(&id)
	if err != nil {
		return nil, err
	}
	return config.ParseNode("", b)
}

// parse reads a roll, from the store or from the disk.
func parse(b []byte) (Roll, error) {
	var r Roll
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("reading who is in the cluster: %w", err)
	}
	return r, r.check()
}
