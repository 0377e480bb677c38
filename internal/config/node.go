package config

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

const (
	probePort = 5314 // UDP for probes, TCP for API and replication
	storePort = 5316 // of the store's members among each other
)

// ParseNode reads a node.yaml. The file is only a name for the errors. If
// anything is wrong there is no identity, and the error is an Errors with
// everything that is.
func ParseNode(file string, b []byte) (*manifest.Identity, error) {
	id, _, err := ReadNode(file, b)
	return id, err
}

// ReadNode is ParseNode, and tells what is not wrong with a node.yaml but is less
// than a cluster should have.
func ReadNode(file string, b []byte) (*manifest.Identity, Errors, error) {
	o := identityObject()
	t, r, err := begin(file, b, Error{Text: "the node file is empty; allowed: a map with " + anyOf(o.keys()),
		Hint: "gemel init and gemel join write it"}, "node file")
	if err != nil {
		return nil, nil, err
	}
	id := o.fresh()
	o.fill(r, "", t, &id)
	n := &nodeJudge{reader: r, id: &id}
	n.settle()
	n.run()
	if len(r.errs) > 0 {
		return nil, nil, r.errs.sorted()
	}
	n.remark()
	return &id, r.errs.sorted(), nil
}

// ParseStore reads a file that says where an etcd is, for gemel init: the map that
// store of a node.yaml becomes.
func ParseStore(file string, b []byte) (manifest.Store, error) {
	o := storeObject()
	t, r, err := begin(file, b, Error{Text: "the file of the store is empty; allowed: a map with " + anyOf(o.keys()), Hint: "endpoints: [10.0.0.21:2379]"}, "file of the store")
	if err != nil {
		return manifest.Store{}, err
	}
	s := o.fresh()
	o.fill(r, "", t, &s)
	if why, hint := halves(s); why != "" {
		r.refuse("", why, hint)
	}
	if len(r.errs) > 0 {
		return manifest.Store{}, r.errs.sorted()
	}
	return s, nil
}

// halves finds what is half of something in a store.
func halves(s manifest.Store) (why, hint string) {
	switch {
	case (s.Certificate == "") != (s.Key == ""):
		return "found one of certificate and key; allowed: both or none", "add the other one"
	case (s.User == "") != (s.Password == ""):
		return "found one of user and password-file; allowed: both or none", "add the other one"
	}
	return "", ""
}

// EncodeNode writes an identity in its canonical form, as Encode does a manifest.
// ParseNode reads it back to an equal one. It fails only for one that ParseNode
// would refuse.
func EncodeNode(id *manifest.Identity) ([]byte, error) {
	var b strings.Builder
	emitMap(&b, identityObject().tree(id), 0)
	out := []byte(b.String())
	if _, err := ParseNode("", out); err != nil {
		return out, errors.Join(errors.New("the identity of the node cannot be written in a form that is valid"), err)
	}
	return out, nil
}

// identityObject is the table of node.yaml.
func identityObject() object[manifest.Identity] {
	type I = manifest.Identity
	always := func(*I) bool { return false }
	profiles := []string{"normal", "fast", "guarded"}
	release := textKind[string]("numbers with points, as 1.4.2", schema{"type": []string{"string", "number"}, "pattern": `^[0-9]+([.][0-9]+)*$`},
		func(s string) (string, bool) {
			if rest, ok := strings.CutPrefix(s, "v"); ok && rest != "" {
				return "write " + clip(rest), false
			}
			for _, part := range strings.Split(s, ".") {
				if part == "" || len(part) > 9 || strings.Trim(part, "0123456789") != "" {
					return "", false
				}
			}
			return "", len(s) < 64
		})
	return object[I]{fresh: freshIdentity, fields: []field[I]{
		at("name", nameKind[ha.Node]("node"), func(i *I) *ha.Node { return &i.Name }, "The name of this node.").must(),
		at("cluster", clusterObject().kind(), func(i *I) *manifest.Cluster { return &i.Cluster }, "Which cluster it belongs to.").must(),
		at("role", choiceKind([]string{"node", "witness"}, []bool{false, true}), func(i *I) *bool { return &i.Witness },
			"A witness only votes: it runs no group and decides nothing."),
		at("release", release, func(i *I) *string { return &i.Release },
			"What file sets between versions go by, and moves: a node takes no group from a newer one. Without it: Gemel's own version."),
		at("networks", objectList(networkObject(), "networks, as [{name: blue, address: 10.0.0.1}]"), func(i *I) *[]manifest.Network { return &i.Networks },
			"The independent networks that join the nodes, in order of preference. One is needed; two let a cable be pulled.").must(),
		at("peers", objectList(peerObject(), "nodes, as [{name: alpha, addresses: {blue: 10.0.0.1}}]"), func(i *I) *[]manifest.Peer { return &i.Peers },
			"All nodes of the cluster, this one among them, in the order in which they become brain. Without it: this one alone.").unless(always),
		at("store", storeKind(), func(i *I) *manifest.Store { return &i.Store },
			"Where the cluster's truth is kept: embedded, or {endpoints: [...], election-timeout: 1s} of an etcd that somebody else runs. Without it: embedded."),
		at("profile", choiceKind(profiles, profiles), func(i *I) *string { return &i.Profile },
			"The times of the cluster: normal, fast (takeover in half a second, for networks and disks that keep up) or guarded (slow, for hardware watchdogs)."),
		timersField(),
		at("capacities", amountsKind(1), func(i *I) *[]manifest.Amount { return &i.Capacities },
			"What the groups on this node may weigh together, by the name of the resource. What is not named has no bound."),
		at("level", levelObject().kind(), func(i *I) *manifest.Level { return &i.Level }, "What makes the exclusivity that this node offers."),
		at("data-dir", pathKind("directory"), func(i *I) *string { return &i.DataDir }, "Where Gemel keeps its data. Without it: what the daemon is told, or /var/lib/gemel."),
	}}
}

func freshIdentity() manifest.Identity {
	return manifest.Identity{Profile: "normal", Level: manifest.Level{Guard: true}}
}

func clusterObject() object[manifest.Cluster] {
	type C = manifest.Cluster
	id := textKind[string]("letters, digits and hyphens, up to 64", schema{"type": "string"}, func(s string) (string, bool) {
		return "", nameShape(s) && !strings.ContainsAny(s, "._")
	})
	return object[C]{fresh: func() C { return C{} }, fields: []field[C]{
		at("id", id, func(c *C) *string { return &c.ID }, "Drawn by gemel init; it tells the cluster from all others.").must(),
		at("name", nameKind[string]("cluster"), func(c *C) *string { return &c.Name }, "Its name, for people.").must(),
		at("token", id, func(c *C) *string { return &c.Token }, "Of the store's first members; a restore draws a new one. Without it: the id."),
	}}
}

func networkObject() object[manifest.Network] {
	type N = manifest.Network
	return object[N]{fresh: func() N { return N{Port: probePort} }, fields: []field[N]{
		at("name", nameKind[string]("network"), func(n *N) *string { return &n.Name }, "Its name, the same on all nodes.").must(),
		at("address", nodeAddrKind(), func(n *N) *addr { return &n.Address }, "The address of this node in it.").must(),
		at("port", intKind(1, 65535), func(n *N) *int { return &n.Port }, "UDP for probes, TCP for API and replication."),
		at("device", deviceKind(), func(n *N) *string { return &n.Device }, "The network device that it is on. Without it: whichever has the address."),
	}}
}

func peerObject() object[manifest.Peer] {
	type P = manifest.Peer
	return object[P]{fresh: func() P { return P{} }, fields: []field[P]{
		at("name", nameKind[ha.Node]("node"), func(p *P) *ha.Node { return &p.Name }, "The name of the node.").must(),
		at("witness", boolKind(), func(p *P) *bool { return &p.Witness }, "It only votes."),
		at("voter", boolKind(), func(p *P) *bool { return &p.Voter },
			"It has a member of the embedded store. If no node says so: witnesses and the first nodes, three in all, five from five machines on."),
		at("addresses", peerAddressesKind(), func(p *P) *[]manifest.PeerAddress { return &p.Addresses },
			"Its address in each network: {blue: 10.0.0.2}, with a port if it is not 5314. Those of this node are known from networks."),
		at("store", listKind("addresses", addrPortKind(storePort), listing{least: 1, unique: true, single: true}), func(p *P) *[]addrPort { return &p.Store },
			"Where its member of the store is reached by the others. Without it: its addresses, at port 5316.").
			unless(func(p *P) bool { return len(p.Store) == 0 || slices.Equal(p.Store, defaultStore(p)) }),
	}}
}

// storeKind is the word embedded, or a map that says where an etcd is.
func storeKind() kind[manifest.Store] {
	type S = manifest.Store
	o := storeObject()
	return kind[S]{
		read: func(r *reader, path string, n *tree) (S, bool) {
			if n.kind == treeMap {
				v := o.fresh()
				ok := o.fill(r, path, n, &v)
				return v, ok
			}
			if n.kind != treeScalar || n.text != "embedded" {
				hint := ""
				if n.kind == treeScalar {
					hint = didYouMean(n.text, []string{"embedded"})
				}
				r.wrong(path, n, "embedded, or a map with "+anyOf(o.keys()), hint)
				return S{}, false
			}
			return S{}, true
		},
		write:  func(s S) *tree { return o.tree(&s) },
		schema: schema{"oneOf": []schema{{"const": "embedded"}, o.describe()}},
	}
}

func storeObject() object[manifest.Store] {
	type S = manifest.Store
	endpoint := textKind[string]("host:port", schema{"type": "string", "pattern": ":[0-9]+$"}, func(s string) (string, bool) {
		if rest, ok := strings.CutPrefix(s, "https://"); ok {
			return "it is always reached by TLS: write " + clip(strings.TrimSuffix(rest, "/")), false
		}
		if strings.Contains(s, "://") || strings.HasPrefix(s, "/") {
			return "it is reached by TLS only, at host:port", false
		}
		if !strings.Contains(s, ":") {
			return "add the port, as " + clip(s) + ":2379", false
		}
		return dialRule(s)
	})
	prefix := textKind[string]("a text that begins with /, as /gemel", schema{"type": "string", "pattern": "^/"}, func(s string) (string, bool) {
		return "", strings.HasPrefix(s, "/") && len(s) < maxWord
	})
	pem := func(what string) kind[string] { return pathKind("file of " + what + " (PEM)") }
	return object[S]{fresh: func() S { return S{Prefix: "/gemel"} }, fields: []field[S]{
		at("endpoints", listKind("endpoints", endpoint, listing{least: 1, unique: true}), func(s *S) *[]string { return &s.Endpoints }, "The members of the etcd, as host:port.").must(),
		at("prefix", prefix, func(s *S) *string { return &s.Prefix }, "Before every key; the id of the cluster is added."),
		at("election-timeout", durationKind(10*time.Millisecond, time.Minute), func(s *S) *time.Duration { return &s.Election },
			"The election time-out that the etcd was started with. Gemel cannot ask for it, and the law of the timers needs it.").must(),
		at("ca", pem("certificates"), func(s *S) *string { return &s.CA }, "The certificates that vouch for the etcd. Without it: those of the machine."),
		at("certificate", pem("a certificate"), func(s *S) *string { return &s.Certificate }, "With which Gemel shows itself."),
		at("key", pem("a key"), func(s *S) *string { return &s.Key }, "Of the certificate."),
		at("user", nameKind[string]("user of the etcd"), func(s *S) *string { return &s.User },
			"As whom Gemel asks, if the etcd has users and knows them by password. One that goes by certificates takes the common name of the certificate."),
		at("password-file", pathKind("file of a password"), func(s *S) *string { return &s.Password },
			"The file that holds the user's password, and nothing else. It is read at each new connection."),
	}}
}

// timersObject has no defaults: they are those of the profile.
func timersObject() object[manifest.Timers] {
	type T = manifest.Timers
	const ms = time.Millisecond
	return object[T]{fresh: func() T { return T{} }, fields: []field[T]{
		at("heartbeat", durationKind(5*ms, 10*time.Second), func(t *T) *time.Duration { return &t.Heartbeat }, "From one probe to the next."),
		at("silence", durationKind(15*ms, time.Minute), func(t *T) *time.Duration { return &t.Silence }, "S: after it a node is suspected. At least three heartbeats."),
		at("life", durationKind(100*ms, 10*time.Minute), func(t *T) *time.Duration { return &t.Life }, "L: how long a node may run its groups after it asked the store."),
		at("stop", durationKind(5*ms, 10*time.Minute), func(t *T) *time.Duration { return &t.Stop }, "How long before the end of L the programs are killed. Without it: a tenth of life."),
		at("drift", floatKind(0.0001, 0.1), func(t *T) *float64 { return &t.Drift }, "By how much the rates of two clocks may differ. Without it: 0.01."),
		at("settle", durationKind(ms, time.Hour), func(t *T) *time.Duration { return &t.Settle }, "How long a cluster that begins waits for all nodes. Without it: 30s."),
		at("election", durationKind(10*ms, 50*time.Second), func(t *T) *time.Duration { return &t.Election }, "The election time-out of the embedded store."),
		at("tick", durationKind(ms, 10*time.Second), func(t *T) *time.Duration { return &t.Tick }, "The heartbeat of the embedded store. Without it: a fifth of election."),
	}}
}

// timersField writes what differs from the profile.
func timersField() field[manifest.Identity] {
	type I = manifest.Identity
	o := timersObject()
	f := at("timers", o.kind(), func(i *I) *manifest.Timers { return &i.Timers }, "What differs from the profile. The same on all nodes.")
	f.write = func(i *I) *tree {
		own, usual := i.Timers, defaultTimers(i)
		a, b := reflect.ValueOf(&own).Elem(), reflect.ValueOf(usual)
		for k := range a.NumField() {
			if a.Field(k).Equal(b.Field(k)) {
				a.Field(k).SetZero()
			}
		}
		if own == (manifest.Timers{}) {
			return nil
		}
		return o.tree(&own)
	}
	return f.unless(func(i *I) bool { return f.write(i) == nil })
}

// defaultTimers are the timers of an identity whose profile, life and election
// are as they are, if nothing else is written.
func defaultTimers(i *manifest.Identity) manifest.Timers {
	t, _ := manifest.Profile(i.Profile)
	derived := manifest.Timers{Life: i.Timers.Life, Election: i.Timers.Election}.Filled()
	t.Stop, t.Tick = derived.Stop, derived.Tick
	if i.Store.External() {
		t.Election, t.Tick = i.Store.Election, 0
	}
	return t
}

func levelObject() object[manifest.Level] {
	type L = manifest.Level
	type F = manifest.Fence
	fence := object[F]{fresh: func() F { return F{Timeout: time.Minute} }, fields: []field[F]{
		at("agent", textKind[string]("the name of a fence agent, as fence_ipmilan, or its absolute path", schema{"type": "string"}, func(s string) (string, bool) {
			return "", nameShape(s) || strings.HasPrefix(s, "/") && len(s) < maxWord
		}), func(f *F) *string { return &f.Agent }, "The fence agent.").must(),
		at("parameters", pairsKind("a name of letters, digits and underscores", parameterRule), func(f *F) *map[string]string { return &f.Parameters },
			"What the agent is told. Secrets are safe here as far as the file is: Gemel writes it for root alone."),
		at("timeout", durationKind(100*time.Millisecond, time.Hour), func(f *F) *time.Duration { return &f.Timeout }, "After which an attempt has failed."),
	}}
	k := fence.kind()
	pointer := kind[*F]{
		read: func(r *reader, path string, n *tree) (*F, bool) {
			v, ok := k.read(r, path, n)
			return &v, ok
		},
		write: func(f *F) *tree {
			if f == nil {
				return nil
			}
			return k.write(*f)
		},
		schema: k.schema,
	}
	resets := []string{manifest.ResetAuto, manifest.ResetSysrq, manifest.ResetNone}
	return object[L]{fresh: func() L { return L{Guard: true, Reset: manifest.ResetAuto} }, fields: []field[L]{
		at("guard", boolKind(), func(l *L) *bool { return &l.Guard }, "Run gemel guard, which ends what no half of Gemel holds any more. Without it the node offers level 0."),
		at("reset", choiceKind(resets, resets), func(l *L) *string { return &l.Reset },
			"What is done when a program of a group can't be killed by the end of its authority: sysrq (the kernel restarts the machine at once), none, or auto: sysrq where Gemel is the unit gemel.service of systemd, and not in a container."),
		at("watchdog", pathKind("watchdog device"), func(l *L) *string { return &l.Watchdog }, "A hardware watchdog, as /dev/watchdog: level 2."),
		at("watchdog-time", durationKind(100*time.Millisecond, 10*time.Minute), func(l *L) *time.Duration { return &l.WatchdogTime },
			"After which the watchdog resets the machine. Without it: 2s.").
			unless(func(l *L) bool { return l.Watchdog == "" || l.WatchdogTime == watchdogTime }),
		at("fence", pointer, func(l *L) **F { return &l.Fence }, "How the other nodes turn this one off: level 3."),
	}}
}
