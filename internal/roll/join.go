package roll

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/mtls"
	"gemel/internal/mtls/join"
	"gemel/internal/secret"
	"gemel/internal/store/disk"
)

const (
	joinTime  = 2 * time.Minute
	clockSpan = time.Second     // over which the rates of two clocks are compared
	wallBound = 5 * time.Second // above it a person is warned
)

// told is what a newcomer was told, kept until it is in: by it a join that was cut off
// goes on where it was.
type told struct {
	Token    string   `json:"token"`
	Name     string   `json:"name"` // for which the certificates are
	Settings settings `json:"settings"`
}

// Join makes this machine a part of the cluster of a token. at are addresses of its
// nodes. It writes files only, and may be repeated with the same token until it has
// come to its end. node.yaml comes last.
func Join(ctx context.Context, s Setup, at []string, text string) (Begun, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	t, err := join.ParseToken(text)
	if err != nil {
		return Begun{}, &Refused{err, "gemel token on a node of the cluster makes a new one"}
	}
	if t.Kind != mtls.Node && t.Kind != mtls.Witness {
		return Begun{}, refused("", "this token is for the role %s: gemel-agent joins by it, not gemel", t.Kind)
	}
	if s.Witness && t.Kind != mtls.Witness {
		return Begun{}, refused("gemel token --witness on a node makes one for a witness", "this token is for a node, and --witness was given")
	}
	if s.Named && t.Name != "" && t.Name != s.Name {
		return Begun{}, refused("leave --name out, or make another token: gemel token --name "+s.Name+" on a node", "this token is for the name %q, not for %q", t.Name, s.Name)
	}
	if t.Name != "" {
		s.Name = t.Name
	}
	if err := s.stranger(); err != nil {
		return Begun{}, err
	}
	if old, err := s.Home.identity(); err == nil && old != nil && !s.Named && t.Name == "" {
		s.Name = string(old.Name) // whom the groups of the cluster name, whatever the host is called
	}
	n := newcomer{Setup: s, token: t, text: text, at: ported(at), witness: t.Kind == mtls.Witness}
	if err := n.look(nil); err != nil {
		return Begun{}, err
	}
	if err := n.ask(ctx); err != nil {
		return Begun{}, err
	}
	return n.enter(ctx)
}

func ported(at []string) []string {
	var out []string
	for _, list := range at {
		for _, a := range strings.Split(list, ",") {
			if a = strings.TrimSpace(a); a == "" {
				continue
			}
			if _, _, err := net.SplitHostPort(a); err != nil {
				a = net.JoinHostPort(strings.Trim(a, "[]"), fmt.Sprint(Port))
			}
			out = append(out, a)
		}
	}
	return out
}

// newcomer is a machine that joins.
type newcomer struct {
	Setup
	token   join.Token
	text    string
	at      []string
	witness bool

	ways  []way
	told  settings
	trip  time.Duration // the slowest way to a node and back
	files *mtls.Files
}

// roles are the certificates that it asks for.
func (n *newcomer) roles() []mtls.Role {
	if n.witness {
		return []mtls.Role{mtls.Witness, mtls.Peer}
	}
	return []mtls.Role{mtls.Node, mtls.Peer, mtls.Manager}
}

// look finds the addresses of this machine: those that were given, else, once the
// networks of the cluster are known, one in each of them.
func (n *newcomer) look(networks []network) error {
	usable, all, err := devices()
	if err != nil {
		return err
	}
	switch {
	case len(n.Addresses) > 0:
		if n.ways, err = given(n.Addresses, all); err != nil {
			return &Refused{err, "see ip -brief address"}
		}
		if networks == nil {
			break
		}
		for i, w := range n.ways {
			if j := slices.IndexFunc(networks, func(o network) bool { return o.Name == w.net.Name }); j < 0 {
				// Without names they are matched by where they are.
				k := slices.IndexFunc(networks, func(o network) bool { return o.Prefix.Contains(w.at.Addr()) })
				if k < 0 || strings.Contains(n.Addresses[i], "=") {
					return refused("give one of them: --address NET=IP; or leave --address out, and they are looked for", "there is no network %s in the cluster; there are %s", w.net.Name, Roll{Networks: networks}.names())
				}
				n.ways[i].net.Name = networks[k].Name
			}
		}
	case networks == nil:
		n.ways = found(usable)
	default:
		n.ways = matched(networks, usable)
		if len(n.ways) < len(networks) && (!n.One || len(n.ways) == 0) {
			return refused("give them: --address NET=IP for each network", "this machine has an address in %d of the %d networks of the cluster %s; it has %s", len(n.ways), len(networks), Roll{Networks: networks}.names(), addresses(all))
		}
	}
	if len(n.ways) == 0 {
		return refused("give it: --address NET=IP", "no address was found by which other machines could reach this one")
	}
	if err := free(n.ways, n.told.Roll.Store == nil && !n.Store.External()); err != nil {
		return &Refused{err, ""}
	}
	return nil
}

// ask asks for the certificates. Those of a cluster that this machine was in before go
// only when a node has taken the token.
func (n *newcomer) ask(ctx context.Context) error {
	if old, ok := n.asked(); !n.Anew || ok && old.Token == n.text {
		return n.request(ctx)
	}
	home := n.Home
	n.Home.Data = home.at("joining")
	err := n.request(ctx)
	fresh := n.Home
	if n.Home = home; err != nil {
		return err
	}
	aside := home.dir() + ".joined"
	if err := errors.Join(os.RemoveAll(aside), os.Rename(fresh.dir(), aside)); err != nil {
		return fmt.Errorf("putting the new keys in their place: %w", err)
	}
	if err := clear(home); err != nil {
		return err
	}
	if err := os.Rename(aside, home.dir()); err != nil {
		return fmt.Errorf("putting the new keys in their place: %w", err)
	}
	return n.open()
}

// asked is what a join before was told.
func (n *newcomer) asked() (old told, ok bool) {
	raw, err := secret.Read(n.Home.at(askedFile))
	return old, err == nil && json.Unmarshal(raw, &old) == nil
}

// request makes keys and has a node certify them, or goes on with those of a join that was
// cut off.
func (n *newcomer) request(ctx context.Context) error {
	if old, ok := n.asked(); ok && old.Token == n.text {
		if old.Name != n.Name { // nobody has looked whether that one is another machine's
			return refused("with --name "+old.Name+" the same command goes on; for another name: gemel token on a node makes another token",
				"this machine was let in as %s by this token, and its certificates are for that name; now it is to be %s", old.Name, n.Name)
		}
		n.told = old.Settings
		n.say("going on with a join that was cut off")
		return n.open()
	}
	if _, err := os.Lstat(n.Home.at(askedFile)); err == nil || !errors.Is(err, fs.ErrNotExist) || n.other() {
		if err := clear(n.Home); err != nil {
			return err
		}
	}
	if err := n.Home.make(n.roles()...); err != nil {
		return err
	}
	if err := secret.Write(n.Home.at("token"), []byte(n.text)); err != nil {
		return err
	}
	files := map[mtls.Role]*mtls.Files{}
	for _, r := range n.roles() {
		files[r] = n.Home.Files(r)
	}
	csrs, err := join.Ask(files)
	if err != nil {
		return err
	}
	me := entry(n.Name, n.witness, n.ways, time.Now())
	claims, err := json.Marshal(facts{Addresses: me.Addresses, Store: me.Store})
	if err != nil {
		return fmt.Errorf("writing what this machine says of itself: %w", err)
	}
	door := join.Door{Addresses: n.at, Path: certificates}
	var answer join.Answer
	err = insist(ctx, func() error {
		answer, err = door.Join(ctx, n.token, join.Request{Name: n.Name, CSRs: csrs, Facts: claims})
		return err
	})
	if err != nil {
		return &Refused{err, "nothing was changed here; gemel token on a node of the cluster makes a new token"}
	}
	if err := json.Unmarshal(answer.Settings, &n.told); err != nil {
		return fmt.Errorf("reading the settings of the cluster: %w", err)
	}
	if err := answer.Install(files); err != nil {
		return err
	}
	if err := n.Home.adopt(answer.Trust, n.told.CRL); err != nil {
		return err
	}
	if err := n.keep(); err != nil {
		return err
	}
	return n.open()
}

// other reports whether what lies here is of another join than this.
func (n *newcomer) other() bool {
	b, err := secret.Read(n.Home.at("token"))
	return err != nil && !errors.Is(err, fs.ErrNotExist) || err == nil && string(b) != n.text
}

// keep writes what was told: keys first, and what says that they are there last.
func (n *newcomer) keep() error {
	if err := secret.Write(n.Home.at(keyFile), []byte(n.told.Key)); err != nil {
		return err
	}
	for plane, b := range n.told.Signers {
		if plane != "nodes" && plane != "store" && plane != "agents" {
			return fmt.Errorf("the cluster told of an authority for %q, which there is not", plane)
		}
		if err := secret.Write(n.Home.signer(plane), b); err != nil {
			return err
		}
	}
	raw, err := json.Marshal(told{n.text, n.Name, n.told})
	if err != nil {
		return fmt.Errorf("writing what the cluster told: %w", err)
	}
	return secret.Write(n.Home.at(askedFile), raw)
}

func (n *newcomer) open() error {
	n.files = n.Home.Files(n.roles()[0])
	return n.files.Load()
}

// enter checks everything that can be checked from here, and asks to be put into the
// roll.
func (n *newcomer) enter(ctx context.Context) (Begun, error) {
	out := Begun{Cluster: n.token.Cluster, Node: n.Name}
	config, err := n.files.Client([]string{overHTTP}, mtls.Name{Cluster: n.token.Cluster, Role: mtls.Node})
	if err != nil {
		return out, err
	}
	asks := asker{config}
	now, err := asks.ask(ctx, n.at, rollPath, struct{}{}) // more may have joined since it was told
	if err != nil {
		return out, &Refused{err, "the same command may be repeated"}
	}
	if now.Roll == nil {
		return out, errors.New("the cluster's answer does not say who is in it")
	}
	r := *now.Roll
	n.told.Roll, out.Name = r, r.Cluster.Name
	if err := n.look(r.Networks); err != nil {
		return out, err
	}
	out.Ways = texts(n.ways)
	if err := sharing(n.ways); err != nil {
		return out, &Refused{err, ""}
	}
	me := entry(n.Name, n.witness, n.ways, time.Now())
	if err := r.fits(me, n.One); err != nil {
		return out, &Refused{err, "nothing runs here yet, and the same command may be repeated with what is missing"}
	}
	if _, err := r.with(me); err != nil {
		return out, &Refused{err, "the token is good until its end; use it again then"}
	}
	if err := n.paths(ctx, asks); err != nil {
		return out, err
	}
	if err := n.clocks(ctx, asks); err != nil {
		return out, err
	}
	if r.Store == nil && n.Store.External() {
		return out, refused("leave --store out", "the cluster %s keeps its store itself, and --store says where an etcd is", r.Cluster.Name)
	}
	if r.Store != nil {
		n.Store, err = n.dock(ctx, r)
	} else {
		out.Fsync, err = n.disk(r.Timers, n.trip)
	}
	if err != nil {
		return out, err
	}
	here, err := n.files.Server(nil, true, mtls.Node)
	if err != nil {
		return out, err
	}
	var waits []netip.AddrPort // beside where heartbeats and questions come
	if r.Store == nil {
		waits = me.Store
	}
	s, err := waitAt(ctx, n.ways, waits, here)
	if err != nil {
		return out, err
	}
	defer s.end()
	answer, err := asks.ask(ctx, n.at, enlistPath, facts{Addresses: me.Addresses, Store: me.Store, Waits: waits, One: n.One})
	if err != nil {
		return out, &Refused{err, "nothing runs here yet, and the same command may be repeated"}
	}
	if answer.Roll == nil {
		return out, errors.New("the cluster's answer does not say who is in it")
	}
	return n.settle(out, *answer.Roll)
}

// settle writes what makes this machine a part of the cluster.
func (n *newcomer) settle(out Begun, r Roll) (Begun, error) {
	me, ok := r.Node(ha.Node(n.Name))
	if !ok {
		return out, errors.New("the cluster's answer does not have this machine in it")
	}
	if me.Voter {
		if err := errors.Join(disk.Wipe(n.Home.StoreDir()), secret.Write(n.Home.at(joiningFile), nil)); err != nil {
			return out, err
		}
	}
	out.File = filepath.Join(filepath.Dir(n.Home.Node), "gemel.yaml")
	what := n.told.Manifest
	if n.witness {
		what = []byte("# A witness only votes: it runs nothing.\nprocesses: {}\n")
	}
	if err := brought(out.File, what, n.witness); err != nil {
		return out, err
	}
	old, err := n.Home.identity()
	if err != nil {
		return out, err
	}
	if r.Store != nil {
		was := manifest.Identity{Level: manifest.Level{Guard: true}}
		if old != nil {
			was = *old
		}
		was.Store, old = n.Store, &was
	}
	if err := writeAs(n.Home, r, me.Name, old); err != nil {
		return out, err
	}
	out.Missing = r.Lacks()
	return out, errors.Join(secret.Remove(n.Home.at(askedFile)), secret.Remove(n.Home.at("token")), secret.Remove(LeftFile(n.Home)))
}

// brought writes the manifest that the cluster gave. One that is there already is a
// person's and stays, but that of a witness.
func brought(file string, b []byte, witness bool) error {
	if _, err := os.Lstat(file); err == nil && !witness || len(b) == 0 {
		return nil
	}
	return secret.Write(file, b)
}

// paths goes to each node on each network that both have.
func (n *newcomer) paths(ctx context.Context, asks asker) error {
	var errs []error
	for _, o := range n.told.Roll.Nodes {
		if o.Name == ha.Node(n.Name) {
			continue
		}
		for _, w := range n.ways {
			at, ok := o.Addresses[w.net.Name]
			if !ok || o.Witness {
				continue
			}
			began := time.Now()
			if err := w.reach(ctx, at); err != nil {
				errs = append(errs, fmt.Errorf("%s is not reached on %s at %s from %s: %w", o.Name, w.net.Name, at, w.at.Addr(), err))
				continue
			}
			n.trip = max(n.trip, time.Since(began))
		}
		// A vote that never comes would be noticed much later.
		for _, at := range o.Store {
			i := slices.IndexFunc(n.ways, func(w way) bool { return w.net.Prefix.Contains(at.Addr()) })
			if i < 0 || !o.Voter || n.told.Roll.Store != nil {
				continue
			}
			if err := n.ways[i].reach(ctx, at); err != nil {
				errs = append(errs, fmt.Errorf("the member of the store of %s is not reached on %s at %s from %s: %w", o.Name, n.ways[i].net.Name, at, n.ways[i].at.Addr(), err))
			}
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return &Refused{fmt.Errorf("%w. A cluster that begins with a network that does not work has no second one: when the other fails, each machine is alone", errors.Join(errs...)),
		"let TCP and UDP 5314, and TCP 5316, through between all machines, and try again; if a node is down, wait for it"}
}

// reach goes over a way to an address.
func (w way) reach(ctx context.Context, at netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, visitTime)
	defer cancel()
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: w.at.Addr().AsSlice(), Zone: w.at.Addr().Zone()}}).DialContext(ctx, "tcp", at.String())
	if err != nil {
		return err
	}
	return conn.Close()
}

// clocks compares the clocks of this machine with those of a node: how fast they run,
// on which every wait of the cluster rests, and what they show, on which only
// certificates and people rest.
func (n *newcomer) clocks(ctx context.Context, asks asker) error {
	type sample struct {
		far        times
		near       time.Duration // the middle of the question and the answer
		wall, half time.Duration
	}
	take := func() (sample, error) {
		var best sample
		for i := range 3 {
			before := timesNow()
			r, err := asks.ask(ctx, n.at, clockPath, struct{}{})
			if err == nil && r.Times == nil {
				err = errors.New("the answer does not say what time it is")
			}
			if err != nil {
				return best, fmt.Errorf("asking for the time: %w", err)
			}
			after := timesNow()
			s := sample{*r.Times, (before.Boot + after.Boot) / 2, r.Times.Wall.Sub(before.Wall.Add((after.Boot - before.Boot) / 2)), (after.Boot - before.Boot) / 2}
			if i == 0 || s.half < best.half {
				best = s
			}
		}
		return best, nil
	}
	a, err := take()
	if err != nil {
		return err
	}
	pause(ctx, clockSpan)
	b, err := take()
	if err != nil {
		return err
	}
	if d := b.wall.Abs(); d > wallBound {
		n.say("warning: the clock of this machine and that of the cluster show times that are %s apart. Nothing of Gemel's own waits by it, but certificates and logs do: set it (chrony, systemd-timesyncd)", d.Round(time.Second))
	}
	mine, theirs := float64(b.near-a.near), float64(b.far.Boot-a.far.Boot)
	off := math.Abs(theirs-mine) / mine
	unsure := float64(a.half+b.half) / mine
	n.say("the clocks run alike to within %.2g %%", 100*(off+unsure))
	if off-unsure > n.told.Roll.Timers.Drift/2 {
		return refused("see why: dmesg | grep -i clocksource, and chronyc tracking; a virtual machine may be paused by its host",
			"the clocks of this machine and of the cluster run at rates that are %.2g %% apart; %.2g %% is the bound. A node gives up its groups when L is over by its own clock, and the others start them when "+
				"W is over by theirs: with rates so far apart the others could start a group before this node has stopped it", 100*off, 100*n.told.Roll.Timers.Drift/2)
	}
	return nil
}
