package roll

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/mtls"
	"gemel/internal/mtls/authority"
	"gemel/internal/mtls/join"
	"gemel/internal/secret"
	"gemel/internal/store/disk"
)

// A Setup is what a person says of this machine.
type Setup struct {
	Home Home
	Name string // of the node
	// Named says that a person gave the name: a token for another one is refused.
	Named bool
	// Addresses are NET=IP or NET=IP:PORT; none: they are looked for.
	Addresses []string
	// One says that there is one network only, and that somebody knows what follows
	// from that.
	One bool
	// Witness says that the token has to be one for a witness.
	Witness bool
	// Anew says that what this machine was before, in a cluster that is no more, is to be
	// forgotten.
	Anew    bool
	Profile string // of a new cluster; empty: normal
	Cluster string // the name of a new cluster; empty: cluster
	// Store is an etcd of somebody's own; one without endpoints: the cluster keeps its truth
	// itself. For a Join: where this machine finds the one that the cluster has.
	Store manifest.Store
	// Say is told in sentences what is done and what was found; nil: nobody listens.
	Say func(text string)
}

// A Begun is what became of a Begin or a Join.
type Begun struct {
	Cluster string        // id
	Name    string        // of the cluster
	Node    string        // of this machine
	Ways    []string      // NETWORK=ADDRESS on DEVICE
	Doors   []string      // where others join
	Token   string        // for the second node; empty after a join
	Until   time.Time     // of the token
	Fsync   time.Duration // what a write costs on this disk, the 99th of 100
	File    string        // the manifest to run; empty: none was brought
	Missing string        // what the cluster lacks still; empty: nothing
}

// seed is what is to be in a store that has just begun.
type seed struct {
	Roll    Roll                   `json:"roll"`
	Trust   map[string]*mtls.Trust `json:"trust"`
	CRL     []byte                 `json:"crl"`
	Tickets []join.Ticket          `json:"tickets"`
	// Restored: the store has what it had in the era before, and all of that is changed.
	Restored bool `json:"restored,omitempty"`
}

func (s Setup) say(format string, args ...any) {
	if s.Say != nil {
		s.Say(fmt.Sprintf(format, args...))
	}
}

// Refused is a refusal that changed nothing, and what to do instead.
type Refused struct {
	Err  error
	Hint string
}

func (r *Refused) Error() string { return r.Err.Error() }

// Unwrap returns what was wrong.
func (r *Refused) Unwrap() error { return r.Err }

func refused(hint, format string, args ...any) error {
	return &Refused{fmt.Errorf(format, args...), hint}
}

// Begin makes a cluster of which this machine is the first node. It writes files
// only: a daemon that runs here has to be told.
func Begin(ctx context.Context, s Setup) (Begun, error) {
	if err := s.stranger(); err != nil {
		return Begun{}, err
	}
	usable, all, err := devices()
	if err != nil {
		return Begun{}, err
	}
	ways, err := given(s.Addresses, all)
	if err != nil {
		return Begun{}, &Refused{err, "see ip -brief address"}
	}
	if len(s.Addresses) == 0 {
		ways = found(usable)
	}
	if err := s.shape(ways); err != nil {
		return Begun{}, err
	}
	if err := free(ways, !s.Store.External()); err != nil {
		return Begun{}, &Refused{err, ""}
	}
	timers, ok := manifest.Profile(s.Profile)
	if !ok {
		return Begun{}, refused("", "there is no profile %q; there are normal, fast and guarded", s.Profile)
	}
	b := Begun{Node: s.Name, Name: s.Cluster, Ways: texts(ways)}
	if b.Cluster, err = newID(); err != nil {
		return b, err
	}
	var at *outer
	if s.Store.External() {
		at, timers, err = s.anchor(ctx, b.Cluster, timers)
	} else {
		b.Fsync, err = s.disk(timers, 0)
	}
	if err != nil {
		return b, err
	}
	if err := clear(s.Home); err != nil {
		return b, err
	}
	return b, s.found(&b, ways, timers, at)
}

// newID draws what tells a cluster from all others.
func newID() (string, error) {
	id := make([]byte, 5)
	if _, err := rand.Read(id); err != nil {
		return "", fmt.Errorf("drawing the cluster's id: %w", err)
	}
	return strings.ToLower(base32.StdEncoding.EncodeToString(id)), nil
}

// clear takes away what a begin or a join that was cut off has left.
func clear(h Home) error {
	if err := os.RemoveAll(h.dir()); err != nil {
		return fmt.Errorf("making room for the cluster's keys: %w", err)
	}
	return disk.Wipe(h.StoreDir())
}

// found writes everything that the first node has. node.yaml comes last.
func (s Setup) found(b *Begun, ways []way, timers manifest.Timers, at *outer) error {
	me := entry(s.Name, false, ways, time.Now())
	me.Voter = at == nil
	sow := seed{Trust: map[string]*mtls.Trust{}, Roll: Roll{
		Cluster: manifest.Cluster{ID: b.Cluster, Name: s.Cluster}, Era: 1, Profile: s.Profile, Timers: timers, One: len(ways) == 1, Nodes: []Node{me}, Store: at,
	}}
	for _, w := range ways {
		sow.Roll.Networks = append(sow.Roll.Networks, w.net)
	}
	if err := sow.Roll.check(); err != nil {
		return err
	}
	return s.raise(b, sow, func() error { return nil })
}

// raise makes all that proves who somebody is, for a cluster of this machine alone, and
// writes it, and what the store is to be told. node.yaml comes last, after last.
func (s Setup) raise(b *Begun, sow seed, last func() error) error {
	now, me := time.Now(), sow.Roll.Nodes[0]
	key, err := newKey()
	if err != nil {
		return err
	}
	roles := []mtls.Role{mtls.Node, mtls.Peer, mtls.Manager}
	if err := s.Home.make(roles...); err != nil {
		return err
	}
	signers := map[string]*authority.Authority{}
	for _, role := range planes() {
		plane := role.Authority(b.Cluster).Name
		a, err := authority.Create(s.Home.signer(plane), b.Cluster, role, now)
		if err != nil {
			return err
		}
		signers[plane], sow.Trust[plane] = a, a.Trust(now)
	}
	if err := s.certify(&sow, signers, roles, me, now); err != nil {
		return err
	}
	token, ticket, err := join.Mint(signers["nodes"].Identity(), mtls.Node, "", now, 0)
	if err != nil {
		return err
	}
	sow.Tickets = []join.Ticket{ticket}
	b.Token, b.Until = token.Text(), token.Expires
	if sow.CRL, err = signers["store"].CRL(sow.Trust["store"], now); err != nil {
		return err
	}
	raw, err := json.Marshal(sow)
	if err != nil {
		return fmt.Errorf("writing what the store begins with: %w", err)
	}
	if err := errors.Join(s.Home.adopt(sow.Trust, sow.CRL), secret.Write(s.Home.at(seedFile), raw),
		secret.Write(s.Home.at(keyFile), []byte(key+"\n"))); err != nil {
		return err
	}
	if err := last(); err != nil {
		return err
	}
	b.Doors = doors(me)
	b.Missing = sow.Roll.Lacks()
	return errors.Join(s.Home.write(sow.Roll, me.Name), secret.Remove(LeftFile(s.Home)), secret.Remove(filepath.Join(s.Home.Data, restoring)))
}

// newKey draws a key of the heartbeats, as it is in its file.
func newKey() (string, error) {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return "", fmt.Errorf("drawing the key of the heartbeats: %w", err)
	}
	return hex.EncodeToString(key), nil
}

// certify signs the first node's own certificates.
func (s Setup) certify(sow *seed, signers map[string]*authority.Authority, roles []mtls.Role, me Node, now time.Time) error {
	answer := join.Answer{Certificates: map[mtls.Role][]byte{}, Trust: sow.Trust}
	files := map[mtls.Role]*mtls.Files{}
	for _, role := range roles {
		answer.Name = mtls.Name{Cluster: sow.Roll.Cluster.ID, Role: role, Name: string(me.Name)}
		plane := role.Authority(answer.Name.Cluster).Name
		files[role] = s.Home.Files(role)
		csr, err := files[role].Request()
		if err != nil {
			return err
		}
		if answer.Certificates[role], sow.Trust[plane], err = signers[plane].Issue(csr, leaf(answer.Name, me), sow.Trust[plane], now); err != nil {
			return err
		}
	}
	return answer.Install(files)
}

// leaf is what a certificate of a machine says.
func leaf(name mtls.Name, n Node) authority.Leaf {
	l := authority.Leaf{Name: name}
	for _, at := range n.Addresses {
		l.IPs = append(l.IPs, at.Addr().WithZone(""))
	}
	return l
}

func entry(name string, witness bool, ways []way, now time.Time) Node {
	n := Node{Name: ha.Node(name), Witness: witness, Addresses: map[string]netip.AddrPort{}, Joined: now.UTC().Truncate(time.Second)}
	for _, w := range ways {
		n.Addresses[w.net.Name] = w.at
		if w.at.Addr().Zone() == "" { // the store takes no address with one
			n.Store = append(n.Store, netip.AddrPortFrom(w.at.Addr(), storePort))
		}
	}
	return n
}

// doors are the addresses at which a node can be asked, in the order of the networks.
func doors(n Node) []string {
	var out []string
	for _, at := range n.Addresses {
		out = append(out, at.String())
	}
	slices.Sort(out)
	return out
}

func texts(ways []way) []string {
	var out []string
	for _, w := range ways {
		out = append(out, fmt.Sprintf("%s=%s on %s", w.net.Name, w.at, w.device))
	}
	return out
}

// stranger refuses a machine that is in a cluster already.
func (s Setup) stranger() error {
	id, err := s.Home.identity()
	if err != nil {
		return err
	}
	if id != nil && s.Anew {
		return nil
	}
	if id != nil {
		return refused("gemel status shows it; gemel leave takes this machine out of it", "this machine is %s of the cluster %s (%s) already: it says so in %s", id.Name, id.Cluster.Name, id.Cluster.ID, s.Home.Node)
	}
	if err := os.MkdirAll(s.Home.Data, 0o700); err != nil {
		return fmt.Errorf("making the data directory: %w", err)
	}
	if _, err := os.Stat(LeftFile(s.Home)); err == nil {
		return nil // what lies here is of a membership that is over
	}
	if list, err := os.ReadDir(s.Home.StoreDir()); err == nil && len(list) > 0 {
		return refused("if nothing of it is needed any more: rm -r "+s.Home.StoreDir(), "%s holds the data of a store, but this machine is in no cluster", s.Home.StoreDir())
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking for a store: %w", err)
	}
	return nil
}

// oneNetwork is the sequence of events for which one network is refused.
const oneNetwork = "with one network, one cable or switch that fails leaves each machine alone: the nodes hear nothing of each other and of the store, " +
	"all but the side with most voters stop their groups, and if the switch itself died, nobody has most voters and every group stops"

// shape refuses networks that would not carry a cluster.
func (s Setup) shape(ways []way) error {
	if len(ways) == 0 {
		return refused("give it: --address net1=IP", "no address was found by which other machines could reach this one")
	}
	if err := sharing(ways); err != nil {
		return &Refused{err, ""}
	}
	if len(ways) == 1 && !s.One {
		return refused("give a second one, --address NET=IP for each, or say that you know it: --one-network", "there is one network only (%s): %s", texts(ways)[0], oneNetwork)
	}
	return nil
}

// writes is how many appends measure a disk: the 99th of 100 needs some hundreds.
const writes = 300

// disk measures what a write of the store costs here, and refuses a disk that would
// break the law of the timers (DESIGN 5.3.12). trip is the way to the other nodes and
// back.
func (s Setup) disk(t manifest.Timers, trip time.Duration) (time.Duration, error) {
	_, p99, err := disk.Fsync(s.Home.Data, writes)
	if err != nil {
		return 0, err
	}
	s.say("a write to %s takes up to %s", s.Home.Data, p99.Round(10*time.Microsecond))
	if p99+trip < t.Spare() {
		return p99, nil
	}
	need := (2*t.Election + p99 + trip) * 10 / 7
	return p99, refused(fmt.Sprintf("use a quicker disk, or begin the cluster with a slower profile (--profile guarded), or with timers: life above %s", need.Round(time.Millisecond)),
		"the disk below %s is too slow for these timers: a write takes up to %s and the way to the others %s, and the law of the timers leaves %s. "+
			"When the leader of the store died, the next one would be elected and have written too late, and each node would stop its groups though nothing but the leader is wrong",
		filepath.Clean(s.Home.Data), p99.Round(10*time.Microsecond), trip.Round(10*time.Microsecond), t.Spare())
}

// Lacks says in one sentence what a cluster needs before it bears a failure, and what
// one failure would do until then; empty: it bears one.
func (r Roll) Lacks() string {
	nodes, witnesses := r.count()
	switch {
	case nodes == 1 && r.Store != nil:
		return "a second node is missing: if this node dies, its groups stay down until it is back"
	case r.Store != nil:
		return ""
	case nodes == 1:
		return "a second node and a witness are missing: if this node dies, its groups stay down until it is back"
	case nodes == 2 && witnesses == 0:
		voter := "the voter"
		if v := r.voters(); len(v) > 0 {
			voter = v[0]
		}
		return fmt.Sprintf("a witness is missing: if %s dies, nothing moves and every group stops, since only %s votes; if the other one dies, its groups move", voter, voter)
	}
	return ""
}
