package config

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

const (
	maxNetworks  = 8
	maxVoters    = 5
	watchdogTime = 2 * time.Second
)

// A nodeJudge fills in the defaults of an identity that depend on other keys, and
// finds what takes more than one key to see.
type nodeJudge struct {
	*reader
	id *manifest.Identity
}

// settle fills in what follows from other keys.
func (j *nodeJudge) settle() {
	id := j.id
	if id.Level.Watchdog != "" && id.Level.WatchdogTime == 0 {
		id.Level.WatchdogTime = watchdogTime
	}
	own := id.Timers
	id.Timers, _ = manifest.Profile(id.Profile)
	keep := func(to *time.Duration, written time.Duration) {
		if written != 0 {
			*to = written
		}
	}
	keep(&id.Timers.Heartbeat, own.Heartbeat)
	keep(&id.Timers.Silence, own.Silence)
	keep(&id.Timers.Life, own.Life)
	keep(&id.Timers.Settle, own.Settle)
	keep(&id.Timers.Election, own.Election)
	if own.Drift != 0 {
		id.Timers.Drift = own.Drift
	}
	if id.Store.External() {
		id.Timers.Election = id.Store.Election
	}
	usual := defaultTimers(id)
	id.Timers.Stop, id.Timers.Tick = usual.Stop, usual.Tick
	keep(&id.Timers.Stop, own.Stop)
	keep(&id.Timers.Tick, own.Tick)
	j.settlePeers()
}

func (j *nodeJudge) settlePeers() {
	id := j.id
	if len(id.Peers) == 0 && !j.given("peers") && id.Name != "" {
		id.Peers = []manifest.Peer{{Name: id.Name, Witness: id.Witness}}
	}
	for i := range id.Peers {
		p := &id.Peers[i]
		if p.Name != id.Name {
			continue
		}
		for _, n := range id.Networks {
			if _, ok := p.On(n.Name); !ok && n.Address.IsValid() {
				p.Addresses = append(p.Addresses, manifest.PeerAddress{Network: n.Name, At: netip.AddrPortFrom(n.Address, uint16(n.Port))})
			}
		}
		sortAddresses(p.Addresses)
	}
	if id.Store.External() {
		return
	}
	said := false
	for i := range id.Peers {
		said = said || j.given(item("peers", i)+".voter")
	}
	if !said {
		elect(id.Peers)
	}
	for i := range id.Peers {
		if p := &id.Peers[i]; p.Voter && len(p.Store) == 0 {
			p.Store = defaultStore(p)
		}
	}
}

// elect makes voters of the witnesses and of the first nodes (DESIGN 5.1).
func elect(peers []manifest.Peer) {
	left := 3
	if len(peers) > 4 {
		left = 5
	}
	for _, witness := range []bool{true, false} {
		for i := range peers {
			if peers[i].Witness == witness && left > 0 {
				peers[i].Voter = true
				left--
			}
		}
	}
}

func (j *nodeJudge) run() {
	j.networks()
	if n := len(j.id.Peers); n > maxNodes+maxVoters {
		j.refuse("peers", fmt.Sprintf("found %d peers; allowed: up to %d nodes, and witnesses", n, maxNodes), "make a cluster of its own of the others")
	} else {
		j.peers()
		j.voters()
	}
	j.timers()
	id := j.id
	if why, hint := halves(id.Store); why != "" {
		j.refuse("store", why, hint)
	}
	if id.Witness && len(id.Capacities) > 0 {
		j.refuse("capacities", "capacities has no effect with role: witness, which runs no group", "remove it")
	}
	if id.Level.Watchdog == "" && j.given("level.watchdog-time") {
		j.refuse("level.watchdog-time", "watchdog-time has no effect without watchdog", "add watchdog: /dev/watchdog, or remove it")
	}
}

// networks: each its own.
func (j *nodeJudge) networks() {
	names, at := map[string]bool{}, map[addrPort]string{}
	if n := len(j.id.Networks); n == 0 && j.given("networks") && !j.wrongBelow("networks") || n > maxNetworks {
		j.refuse("networks", fmt.Sprintf("found %d networks; allowed: 1 to %d", n, maxNetworks), "")
	}
	for i, n := range j.id.Networks {
		path := item("networks", i)
		if names[n.Name] && n.Name != "" {
			j.refuse(path+".name", "there is a network "+n.Name+" already", "give each its own name")
		}
		names[n.Name] = true
		if !n.Address.IsValid() {
			continue
		}
		own := netip.AddrPortFrom(n.Address, uint16(n.Port))
		if first, twice := at[own]; twice {
			j.refuse(path+".address", fmt.Sprintf("found %s, which is the address in network %s already", own, first), "networks that share an address are one network")
		}
		at[own] = n.Name
	}
}

// wrongBelow reports whether something at or below a key is wrong already.
func (j *nodeJudge) wrongBelow(key string) bool {
	return slices.ContainsFunc(j.errs, func(e Error) bool {
		return len(e.Path) >= len(key) && e.Path[:len(key)] == key
	})
}

// peers: who is where.
func (j *nodeJudge) peers() {
	id := j.id
	if len(id.Peers) == 0 {
		if id.Name != "" && j.given("peers") && !j.wrongBelow("peers") {
			j.refuse("peers", "found an empty list; allowed: all nodes of the cluster, this one among them", "add - {name: "+string(id.Name)+"}, or leave peers out")
		}
		return
	}
	names, at := map[ha.Node]bool{}, map[addrPort]ha.Node{}
	nodes := 0
	for i := range id.Peers {
		p, path := &id.Peers[i], item("peers", i)
		if names[p.Name] && p.Name != "" {
			j.refuse(path+".name", "there is a node "+string(p.Name)+" already", "give each its own name")
		}
		names[p.Name] = true
		if !p.Witness {
			nodes++
		}
		if p.Name == id.Name && p.Witness != id.Witness {
			what := map[bool]string{true: "witness", false: "node"}
			j.refuse(path, fmt.Sprintf("%s is this node, whose role is %s, and is a %s here", p.Name, what[id.Witness], what[p.Witness]), "make role and witness agree")
		}
		j.reach(path, p, at)
	}
	switch {
	case id.Name != "" && !names[id.Name]:
		j.refuse("peers", "this node, "+string(id.Name)+", is not among them; allowed: all nodes of the cluster, in the same order everywhere", "add - {name: "+string(id.Name)+"} where it belongs")
	case nodes == 0:
		at := "peers"
		if !j.given(at) {
			at = "role"
		}
		j.refuse(at, "all of them are witnesses: nobody could run a group", "add the nodes")
	case nodes > maxNodes:
		j.refuse("peers", fmt.Sprintf("found %d nodes; allowed: up to %d", nodes, maxNodes), "make a cluster of its own of the others")
	}
}

// reach: where one peer is.
func (j *nodeJudge) reach(path string, p *manifest.Peer, at map[addrPort]ha.Node) {
	var known []string
	for _, n := range j.id.Networks {
		known = append(known, n.Name)
	}
	if len(p.Addresses) == 0 && !j.wrongBelow(path) && !j.wrongBelow("networks") {
		j.refuse(path, string(p.Name)+" has no address; allowed: one in at least one network", "add addresses: {NETWORK: ADDRESS}")
	}
	for _, a := range p.Addresses {
		where := sub(path+".addresses", a.Network)
		i := slices.Index(known, a.Network)
		if i < 0 {
			if !j.wrongBelow("networks") {
				j.refuse(where, "there is no network "+quoted(a.Network), didYouMean(a.Network, known))
			}
			continue
		}
		n := j.id.Networks[i]
		own := netip.AddrPortFrom(n.Address, uint16(n.Port))
		switch first, twice := at[a.At]; {
		case twice:
			j.refuse(where, fmt.Sprintf("found %s, which is an address of %s already", a.At, first), "each node has its own in each network")
		case p.Name == j.id.Name && a.At != own:
			j.refuse(where, fmt.Sprintf("found %s, and this node is at %s by networks", a.At, own), "leave it out: the addresses of this node are known from networks")
		case p.Name != j.id.Name && a.At == own:
			j.refuse(where, fmt.Sprintf("found %s, which is this node's own address", a.At), "each node has its own in each network")
		case n.Address.IsValid() && a.At.Addr().Is4() != n.Address.Is4():
			j.refuse(where, fmt.Sprintf("found %s, and this node is at %s: one network has one version of IP", a.At.Addr(), n.Address), "make a network of each version")
		}
		at[a.At] = p.Name
	}
}

// voters: who has a member of the embedded store.
func (j *nodeJudge) voters() {
	external := j.id.Store.External()
	var voters []string
	at := map[addrPort]ha.Node{}
	for i := range j.id.Peers {
		p, path := &j.id.Peers[i], item("peers", i)
		for _, key := range []string{"voter", "store"} {
			if external && j.given(path+"."+key) {
				j.refuse(path+"."+key, key+" has no effect with an external store", "remove it")
			}
		}
		if external {
			continue
		}
		if p.Voter {
			voters = append(voters, string(p.Name))
		} else if p.Witness {
			j.refuse(path, string(p.Name)+" is a witness without a vote, which is nothing", "add voter: true, or remove witness: true")
		} else if j.given(path + ".store") {
			j.refuse(path+".store", "store has no effect: "+string(p.Name)+" is no voter", "add voter: true, or remove it")
		}
		for _, a := range p.Store {
			if first, twice := at[a]; twice && first != p.Name {
				j.refuse(path+".store", fmt.Sprintf("found %s, where the member of %s is already", a, first), "give each its own address or port")
			}
			at[a] = p.Name
		}
	}
	if external || len(j.id.Peers) == 0 || j.wrongBelow("peers") {
		return
	}
	switch n := len(voters); {
	case n == 0:
		j.refuse("peers", "nobody is a voter; allowed: 1, 3 or 5 voters", "remove each voter: false, and Gemel chooses")
	case n == 2:
		j.refuse("peers", "found 2 voters, "+anyAnd(voters)+"; allowed: 1, 3 or 5 voters. With two, the death of either stops the store: the other cannot know whether it is alone, so that no group could move",
			"add a witness: a third machine, however small, with gemel witness")
	case n != 1 && n != 3 && n != 5:
		j.refuse("peers", fmt.Sprintf("found %d voters; allowed: 1, 3 or 5 voters", n), "an even number survives no more deaths than one less; leave voter out, and Gemel chooses")
	}
}

// timers: the law of DESIGN 5.3, as far as nothing has to be measured for it.
func (j *nodeJudge) timers() {
	t := j.id.Timers
	if j.wrongBelow("timers") || j.wrongBelow("profile") || j.wrongBelow("store") {
		return
	}
	if j.id.Store.External() {
		for _, key := range []string{"election", "tick"} {
			if j.given("timers." + key) {
				j.refuse("timers."+key, key+" has no effect with an external store", "remove it; store.election-timeout says how the etcd was started")
				return
			}
		}
	}
	if t.Silence < 3*t.Heartbeat {
		j.refuse(j.nearest("timers.silence", "timers.heartbeat"), fmt.Sprintf("silence is %s, which is less than three heartbeats of %s: two that are lost would be a suspicion",
			durationText(t.Silence), durationText(t.Heartbeat)), "raise silence, or lower heartbeat")
	}
	if t.Election < 5*t.Tick {
		j.refuse(j.nearest("timers.tick", "timers.election"), fmt.Sprintf("election is %s, which is less than five ticks of %s: the store would not start",
			durationText(t.Election), durationText(t.Tick)), "lower tick, or raise election")
	}
	if t.Spare() <= 0 {
		j.refuse(j.nearest("timers.life", "timers.stop", "timers.election", "store.election-timeout"),
			fmt.Sprintf("the law of the timers is broken: 0.8 of life (%s) less stop (%s) must be more than two elections of the store (%s each), and leave time for a write",
				durationText(t.Life), durationText(t.Stop), durationText(t.Election)),
			"raise life above "+durationText(j.leastLife().Truncate(time.Millisecond)))
	}
	if l := j.id.Level; l.Watchdog != "" {
		if _, ok := t.Proof(l.WatchdogTime); !ok {
			j.refuse(j.nearest("level.watchdog-time", "level.watchdog"), fmt.Sprintf("a watchdog of %s resets after up to two of its times and two renewals of an authority, and a takeover begins after %s: level 2 is out of reach",
				durationText(l.WatchdogTime), durationText(t.Wait().Truncate(time.Millisecond))), "use profile: guarded, raise life, or lower watchdog-time; most devices count whole seconds")
		}
	}
}

// leastLife is the life that the law needs more than, with stop as it is.
func (j *nodeJudge) leastLife() time.Duration {
	t := j.id.Timers
	if j.given("timers.stop") {
		return (2*t.Election + t.Stop) * 10 / 8
	}
	return 2 * t.Election * 10 / 7 // stop is a tenth of life and grows with it
}

// nearest is the first of some keys that is written, else where the profile is chosen.
func (j *nodeJudge) nearest(keys ...string) string {
	for _, k := range keys {
		if j.given(k) {
			return k
		}
	}
	if j.given("timers") {
		return "timers"
	}
	return "profile"
}

// remark tells what is less than a cluster should have.
func (j *nodeJudge) remark() {
	if len(j.id.Peers) < 2 {
		return
	}
	if len(j.id.Networks) == 1 {
		j.refuse("networks", "there is one network: where it fails, the nodes hear nothing of each other",
			"add a second one that shares no cable and no switch with the first")
	}
	for i := range j.id.Peers {
		p := &j.id.Peers[i]
		if len(p.Addresses) < len(j.id.Networks) {
			j.refuse(item("peers", i), fmt.Sprintf("%s is on %d of %d networks", p.Name, len(p.Addresses), len(j.id.Networks)), "add its address in each")
		}
	}
	if !j.id.Level.Guard {
		j.refuse("level.guard", "without the guard this node offers level 0, and groups need level 1 unless they say otherwise", "remove guard: false")
	}
}
