package daemon

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"gemel/internal/clock"
	"gemel/internal/decide/cluster"
	"gemel/internal/decide/place"
	"gemel/internal/engine"
	"gemel/internal/ha"
	"gemel/internal/journal"
	"gemel/internal/manifest"
	"gemel/internal/netpath"
	"gemel/internal/places"
	"gemel/internal/proc"
	"gemel/internal/roll"
	"gemel/internal/status"
	"gemel/internal/store"
)

// NodeFile is where node.yaml of an instance is: in its data directory, and for the
// usual one in /etc/gemel.
func NodeFile(p places.Places) string { return roll.HomeOf(p).Node }

// Identify reads who this node is; nil if it is of no cluster.
func Identify(p places.Places) (*manifest.Identity, error) { return roll.HomeOf(p).Identity() }

// The places of a node's cluster, in its data and run directories.
func (o Options) clusterDir() string  { return filepath.Join(o.Places.Data, "cluster") }
func (o Options) storeSocket() string { return o.Places.StoreSocket() }

// storeProcess is the name of the store's member among the programs of the node.
const storeProcess ha.Process = "gemel-store"

// self is this node in the list of its cluster.
func self(id *manifest.Identity) manifest.Peer {
	for _, p := range id.Peers {
		if p.Name == id.Name {
			return p
		}
	}
	return manifest.Peer{}
}

// own are the programs of Gemel's own that this node runs.
func (o Options) own() ([]ha.Own, error) {
	if o.Identity == nil || o.Identity.Store.External() || !self(o.Identity).Voter {
		return nil, nil
	}
	exe, err := o.exe()
	if err != nil {
		return nil, err
	}
	return []ha.Own{{Name: storeProcess, Command: []string{exe, "store",
		"--data-dir", o.Places.Data, "--run-dir", o.Places.Run, "--socket", o.Places.Socket}}}, nil
}

// hurry has this process of a node scheduled in real time, where that is allowed.
func (o Options) hurry() {
	if o.Identity == nil {
		return
	}
	if err := proc.Urgent(); err != nil {
		o.Log.Warn("a machine that is busy can make this node lose its authority", "why", err)
	}
}

// timers are those of the machines.
// brainRest is how long who decides does so before it hands over to a node without groups.
const brainRest = 10 * time.Minute

func timers(t manifest.Timers) cluster.Timers {
	return cluster.Timers{Silence: t.Silence, Life: t.Life, Stop: t.Stop, Drift: t.Drift, Settle: t.Settle, Rest: brainRest}
}

// member is one life of this node's place in its cluster.
type member struct {
	o       Options
	h       *hands // set before anything runs
	client  *store.Client
	heart   *heart
	station *netpath.Station
	loop    *engine.Cluster // nil on a witness
	parts   *parts
	clerk   *roll.Clerk // nil: the cluster was set up by hand
	facts   *facts
	was     former
	shared  *sharing

	mu     sync.Mutex
	wished wished
	groups []manifest.Group // of the manifest in force

	sight sight // of a witness
}

// former is what a node brings to its cluster from before.
type former struct {
	boot        string
	incarnation ha.Incarnation
	alarms      []ha.Event // that stand
}

// alarmed are the groups of which an alarm says that they have no node, and whether one
// says that the store is away.
func (f former) alarmed() (groups []ha.Group, away bool) {
	for _, e := range f.alarms {
		switch e.Code {
		case ha.GroupUnplaced:
			groups = append(groups, ha.Group(e.Subject.Name))
		case ha.StoreAway:
			away = true
		}
	}
	return groups, away
}

// sight is what a witness, which has no brain to tell it, last read of the store.
type sight struct {
	sync.Mutex
	seen ha.StoreRead
}

// look reads the store for a witness.
func (m *member) look(ctx context.Context) {
	if m.loop != nil {
		return
	}
	r := m.client.Read(ctx)
	if r.Error != "" {
		return
	}
	m.sight.Lock()
	defer m.sight.Unlock()
	m.sight.seen = r
}

// newMember prepares a node's place; nothing is sent before it runs. Nil: this
// machine is of no cluster.
func newMember(o Options, boot string, past journal.Past) (*member, error) {
	id := o.Identity
	if id == nil {
		return nil, nil
	}
	m := &member{o: o, was: former{boot, ha.Incarnation(strings.Trim(past.Kept[cluster.KeptIncarnation], `"`)), past.Alarms},
		heart: &heart{me: id.Name, now: clock.Now, silence: id.Timers.Silence, networks: len(id.Networks), told: map[ha.Node]*hearing{}}}
	for _, p := range id.Peers {
		m.heart.peers = append(m.heart.peers, p.Name)
	}
	cfg := store.Config{Socket: o.storeSocket(), Way: way(m), Prefix: "/gemel/" + id.Cluster.ID + "/"}
	if id.Store.External() {
		var err error
		if cfg, err = o.home().Outside(id); err != nil {
			return nil, err
		}
	}
	var err error
	if m.client, err = store.Dial(cfg); err != nil {
		return nil, fmt.Errorf("preparing for the cluster's store: %w", err)
	}
	m.shared = newSharing(m.client, !id.Witness)
	paths, err := m.paths()
	if err == nil {
		m.station, err = netpath.New(paths, clock.Machine(), o.Log)
	}
	if err == nil {
		m.parts, err = newParts(o, orders{m}.heardOf)
	}
	if err != nil {
		return nil, errors.Join(err, m.client.Close())
	}
	m.parts.made, m.parts.fences = newMade(m), newFences(m)
	if err := m.enrol(); err != nil {
		return nil, errors.Join(err, m.client.Close())
	}
	m.heart.station = m.station
	m.facts, m.parts.levels = newFacts(m), newLevels(m)
	return m, nil
}

// paths says between whom the heartbeats go.
func (m *member) paths() (netpath.Config, error) {
	id := m.o.Identity
	c := netpath.Config{Node: id.Name, Cluster: id.Cluster.ID, Interval: id.Timers.Heartbeat, Payload: m.heart.put, DSCP: 48,
		News: func() {
			if m.loop != nil {
				m.loop.Heard()
			}
		}}
	b, err := os.ReadFile(filepath.Join(m.o.clusterDir(), "heartbeat.key"))
	if err != nil {
		return c, fmt.Errorf("reading the key of the heartbeats: %w", err)
	}
	for i, line := range strings.Fields(string(b)) {
		secret, err := hex.DecodeString(line)
		if err != nil {
			return c, fmt.Errorf("the key of the heartbeats, line %d: %w", i+1, err)
		}
		c.Keys = append(c.Keys, netpath.Key{ID: keyID(secret), Secret: secret})
	}
	for _, n := range id.Networks {
		net := netpath.Network{Name: n.Name, Device: n.Device}
		if at, ok := self(id).On(n.Name); ok {
			net.Local = at
		}
		for _, p := range id.Peers {
			if at, ok := p.On(n.Name); ok && p.Name != id.Name {
				net.Peers = append(net.Peers, netpath.Peer{Node: p.Name, Addr: at})
			}
		}
		c.Networks = append(c.Networks, net)
	}
	return c, nil
}

// keyID tells the keys of the heartbeats apart: by what they are.
func keyID(secret []byte) uint32 {
	var n uint32 = 2166136261 // FNV-1a; who knows it knows nothing of the key but a check
	for _, b := range secret {
		n = (n ^ uint32(b)) * 16777619
	}
	return n
}

// decide makes the loop of authority and brain. A witness has none.
func (m *member) decide(e *engine.Engine, rights func([]ha.Right)) {
	id := m.o.Identity
	if id.Witness {
		return
	}
	alarmed, away := m.was.alarmed()
	mind := cluster.Mind{Alarmed: alarmed, Node: id.Name, Era: m.o.era(), Timers: timers(id.Timers), Start: clock.Now(), Facts: m.known()}
	for _, p := range id.Peers {
		mind.Listed = append(mind.Listed, p.Name)
		if p.Witness {
			mind.Voters = append(mind.Voters, p.Name)
		}
	}
	m.loop = engine.NewCluster(engine.ClusterSetup{
		Clock: clock.Machine(), Log: m.o.Log, Store: m.client, Engine: e, Mind: mind,
		Self: cluster.Self{Node: id.Name, Boot: m.was.boot, Era: m.o.era(), Timers: timers(id.Timers), Incarnation: m.was.incarnation, Away: away},
		Hear: m.heart.hear, Say: m.heart.say, Rights: rights,
		Draw:    func() ha.Incarnation { return ha.Incarnation(rand.Text()) },
		TurnOff: m.parts.fences.turnOff, There: m.parts.levels.holds,
	})
}

// known is what is known of the nodes beside their keys.
func (m *member) known() []place.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []place.Node
	now := time.Now()
	whole := now.Before(m.wished.nodes[wholeCluster].Until)
	for _, p := range m.o.Identity.Peers {
		w := m.wished.nodes[p.Name]
		n := place.Node{Name: p.Name, Witness: p.Witness, Level: -1, Drained: w.Drained, Maintenance: whole || now.Before(w.Until)}
		n.Fenced = m.parts.fences.works(p.Name, m.wished.fences[p.Name])
		if f, ok := m.wished.facts[p.Name]; ok {
			if n.Level = 1; f.Level != nil {
				n.Level = *f.Level
			}
			n.Release, n.Health, n.Reaches, n.Misses = f.Release, f.Health, f.Reaches, f.Misses
			for _, c := range f.Capacity {
				n.Capacity = append(n.Capacity, place.Amount(c))
			}
		}
		all = append(all, n)
	}
	return all
}

// problemOf is what groups of a manifest, and operators, ask for.
func (m *member) problemOf(groups []manifest.Group) []place.Group {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []place.Group
	now := time.Now()
	for _, g := range groups {
		w := m.wished.groups[g.Name]
		p := place.Group{Name: g.Name, Rules: place.RulesOf(g, now), Locked: w.Locked, Maintenance: now.Before(w.Until),
			Failovers: m.wished.trails[g.Name].lately(g.FailoverLimit, now)}
		if k, ok := m.record(g.Name); ok && w.Node != "" && (!w.Fence.Less(k.Fence) || k.Node == w.Node) {
			p.Request = place.Request{Node: w.Node, Forced: w.Forced}
		}
		for _, n := range m.o.Identity.Peers {
			at := place.At{Node: n.Name}
			if b, ok := w.Barred[n.Name]; ok && now.Before(b.Until) {
				at.Barred = b.Why
			}
			if h, ok := m.wished.facts[n.Name].Groups[g.Name]; ok {
				at.Health = &h
			}
			at.Unfit, at.Unasked = fitOf(m, g, n.Name)
			if at.Barred != "" || at.Health != nil || at.Unfit != "" || at.Unasked {
				p.At = append(p.At, at)
			}
		}
		all = append(all, p)
	}
	return all
}

// want tells the brain what is asked for.
func (m *member) want() {
	if m.loop == nil {
		return
	}
	off := map[ha.Node]ha.Incarnation{}
	m.mu.Lock()
	for n, w := range m.wished.nodes {
		if w.Off != "" {
			off[n] = w.Off
		}
	}
	m.mu.Unlock()
	m.loop.Vouch(off)
	m.loop.Want(m.problem(), m.known())
}

// seen is what the store said last, of everything that is decided by.
func (m *member) seen() ha.StoreRead {
	if m.loop != nil {
		return m.loop.Seen()
	}
	m.sight.Lock()
	defer m.sight.Unlock()
	return m.sight.seen
}

// record is what the store said last of a group. The zero record: nobody ever had it.
func (m *member) record(name ha.Group) (ha.GroupRecord, bool) {
	seen := m.seen()
	for _, g := range seen.Groups {
		if g.Group == name {
			return g.GroupRecord, true
		}
	}
	return ha.GroupRecord{}, seen.At != 0
}

// offers are the exclusivity levels of the nodes.
func offers(m *member) map[ha.Node]int {
	all := map[ha.Node]int{}
	for _, n := range m.known() {
		all[n.Name] = n.Offers()
	}
	return all
}

// view is how this node sees its cluster.
func (m *member) view() *status.ClusterStatus {
	if m == nil {
		return nil
	}
	id := m.o.Identity
	c := &status.ClusterStatus{ID: id.Cluster.ID, Name: id.Cluster.Name, Profile: id.Profile}
	if m.clerk != nil {
		c.Lacks = m.clerk.Lacks()
	}
	seen := m.seen()
	c.Brain = seen.Brain.Node
	if m.loop != nil {
		c.Away = m.loop.Away()
	}
	heard, offer := m.station.Heard(nil), offers(m)
	m.mu.Lock()
	defer m.mu.Unlock()
	wall := time.Now()
	left := func(until time.Time) time.Time {
		if !wall.Before(until) {
			return time.Time{}
		}
		return until
	}
	c.Until = left(m.wished.nodes[wholeCluster].Until)
	for _, p := range id.Peers {
		n := status.MemberStatus{Name: p.Name, Witness: p.Witness, Self: p.Name == id.Name, State: "unknown", Drained: m.wished.nodes[p.Name].Drained,
			Until: left(m.wished.nodes[p.Name].Until), Level: offer[p.Name], Lacks: m.wished.facts[p.Name].Lacks}
		if p.Witness {
			n.State = "votes"
		}
		for _, k := range seen.Nodes {
			if k.Node == p.Name {
				n.State = string(k.State)
				for _, g := range k.Grants {
					n.Groups = append(n.Groups, g.Group)
				}
			}
		}
		now := clock.Now()
		for _, h := range heard {
			if h.Node != p.Name {
				continue
			}
			n.Heard = max(n.Heard, h.Last)
			if h.Last != 0 && now.Sub(h.Last) < id.Timers.Silence {
				n.Hears = append(n.Hears, h.Network)
			} else {
				n.Misses = append(n.Misses, h.Network)
			}
		}
		c.Nodes = append(c.Nodes, n)
	}
	for _, g := range m.groups {
		p := status.Placed{Name: g.Name, Wanted: m.wished.groups[g.Name].Node, Locked: m.wished.groups[g.Name].Locked, Until: left(m.wished.groups[g.Name].Until)}
		for _, k := range seen.Groups {
			if k.Group == g.Name {
				p.Fence = k.Fence
			}
		}
		for _, k := range seen.Nodes {
			for _, x := range k.Grants {
				if x.Group == g.Name {
					p.Node = k.Node
				}
			}
		}
		p.Level, p.Needs, p.Next = offer[p.Node], g.RequireLevel, m.parts.levels.loss(g.Name)
		c.Groups = append(c.Groups, p)
	}
	return c
}

// run runs the loops of the node's place in its cluster.
func (m *member) run(ctx context.Context) error {
	g := newGroup(ctx)
	g.start(m.station.Run)
	g.start(m.parts.keeper.Run)
	g.start(m.parts.made.run)
	g.start(m.parts.made.validate)
	m.enrolled(g)
	if m.loop != nil {
		g.start(func(ctx context.Context) error {
			if err := m.o.home().Settled(ctx); err != nil {
				return err
			}
			return m.loop.Run(ctx)
		})
		g.start(m.parts.levels.foresee)
		g.start(m.facts.run) // a witness has nothing to say of itself
	}
	g.start(wishing{m}.follow)
	g.start(m.listen)
	g.start(newPorts(m).run)
	g.start(func(ctx context.Context) error { return lookAfter(ctx, m) })
	g.start(m.lead)
	return errors.Join(g.wait(), m.client.Close())
}
