package roll

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"gemel/internal/decide/cluster"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/mtls"
	"gemel/internal/secret"
)

// A Copy is what the program of the store is asked about a backup: what a key was, or, with
// Dir, to make the data of a member from it.
type Copy struct {
	File string   `json:"file"`
	Key  string   `json:"key,omitempty"` // a star stands for anything without a slash
	Dir  string   `json:"dir,omitempty"`
	Name string   `json:"name,omitempty"`
	At   []string `json:"at,omitempty"`
	// Token tells the new store from the one before.
	Token string `json:"token,omitempty"`
}

// A Backup is what a cluster begins anew from.
type Backup struct {
	File string
	Off  []string // the nodes that somebody says are off
	// Ask has the program of the store do what a Copy says.
	Ask func(context.Context, Copy) ([]byte, error)
}

// restored says in a roll how its era began.
type restored struct {
	At  time.Time `json:"at"`
	Off []string  `json:"off,omitempty"` // the nodes that an operator said were off
}

// restoring is the file that is there while a restore is under way. It says what it must
// not forget when it is begun again.
const restoring = "restoring.json"

type unfinished struct {
	Roll Roll `json:"roll"` // of before
}

// Unfinished reports whether a restore was begun on this machine and has not come to its
// end: nothing may run then.
func (h Home) Unfinished() bool {
	_, err := secret.Read(filepath.Join(h.Data, restoring))
	return !errors.Is(err, fs.ErrNotExist)
}

// Restore makes the cluster anew from a backup, in a new era, with this machine, which was
// a node of it, as its only one. Everything that proved who somebody is is made anew, so
// that nothing of the era before is heard, and what was granted is forgotten. Nothing may
// run here. It writes files only, and may be repeated until it has come to its end.
func (from Backup) Restore(ctx context.Context, s Setup) (Begun, error) {
	old, err := from.roll(ctx, s.Home)
	if err != nil {
		return Begun{}, err
	}
	id, err := s.Home.identity()
	if err != nil {
		return Begun{}, err
	}
	if id != nil {
		s.Name = string(id.Name)
	}
	me, ok := old.Node(ha.Node(s.Name))
	switch {
	case !ok:
		return Begun{}, refused("--name says which one's place it takes, with the addresses that one had", "%s was no node of the cluster %s: %s were", s.Name, old.Cluster.Name, names(old.Nodes))
	case me.Witness:
		return Begun{}, refused("do it on a node", "%s is a witness, which runs nothing and has nothing to sign with", s.Name)
	}
	ways, err := s.places(old, me)
	if err != nil {
		return Begun{}, err
	}
	if err := from.others(ctx, s, old); err != nil {
		return Begun{}, err
	}
	b := Begun{Cluster: old.Cluster.ID, Name: old.Cluster.Name, Node: s.Name, Ways: texts(ways)}
	if b.Fsync, err = s.disk(old.Timers, 0); err != nil {
		return b, err
	}
	note, err := json.Marshal(unfinished{old})
	if err != nil {
		return b, fmt.Errorf("noting that a restore is under way: %w", err)
	}
	if err := secret.Write(filepath.Join(s.Home.Data, restoring), note); err != nil {
		return b, err
	}
	// From here on this machine votes for nothing of before.
	if err := clear(s.Home); err != nil {
		return b, err
	}
	gone := time.Now()
	next, err := renewed(old, me, from.Off)
	if err != nil {
		return b, err
	}
	var at []string
	for _, a := range me.Store {
		at = append(at, a.String())
	}
	if _, err := from.Ask(ctx, Copy{File: from.File, Dir: s.Home.StoreDir(), Name: s.Name, At: at, Token: next.Cluster.Token}); err != nil {
		return b, err
	}
	sow := seed{Restored: true, Roll: next, Trust: map[string]*mtls.Trust{}}
	return b, s.raise(&b, sow, func() error { return s.outlast(ctx, old.Timers, gone) })
}

// renewed is the roll of the next era.
func renewed(old Roll, me Node, off []string) (Roll, error) {
	var draw [4]byte
	if _, err := rand.Read(draw[:]); err != nil {
		return old, fmt.Errorf("drawing the token of the store: %w", err)
	}
	next := old
	next.Era++
	// The store of before takes the one that follows for a stranger.
	next.Cluster.Token = fmt.Sprintf("%s-%d-%s", old.Cluster.ID, next.Era, hex.EncodeToString(draw[:]))
	me.Voter = true
	next.Nodes = []Node{me}
	next.Restored = &restored{At: time.Now().UTC().Truncate(time.Second), Off: off}
	return next, next.check()
}

// outlast waits until what nodes of before may hold by the vote of this machine is over by
// every clock.
func (s Setup) outlast(ctx context.Context, t manifest.Timers, gone time.Time) error {
	wait := cluster.Timers{Life: t.Life, Stop: t.Stop, Drift: t.Drift}.Wait(t.Life)
	s.say("waiting %s, until every right of the era before is over", ha.Span(wait))
	end := time.NewTimer(time.Until(gone.Add(wait)))
	defer end.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("the restore was interrupted; the same command goes on: %w", context.Cause(ctx))
	case <-end.C:
		return nil
	}
}

// roll is who was in the cluster by the backup. The era is not below that which this
// machine knows of.
func (from Backup) roll(ctx context.Context, h Home) (Roll, error) {
	id, err := h.identity()
	if err != nil {
		return Roll{}, err
	}
	key, whose := "/gemel/*/docs/"+rollKey, "any cluster"
	if id != nil {
		if id.Store.External() {
			return Roll{}, refused("stop Gemel on all nodes, then etcdutl snapshot restore with --bump-revision: the manual has it step by step (docs/cluster.md, with an etcd of your own)",
				"the store of this cluster is an etcd of its own, at %s: Gemel does not restore it, since it cannot know who else writes there meanwhile", strings.Join(id.Store.Endpoints, ", "))
		}
		key, whose = strings.Replace(key, "*", id.Cluster.ID, 1), "the cluster that this machine is in ("+id.Cluster.ID+")"
	}
	raw, err := from.Ask(ctx, Copy{File: from.File, Key: key})
	if err != nil {
		return Roll{}, &Refused{err, "nothing was changed"}
	}
	if len(raw) == 0 {
		return Roll{}, refused("nothing was changed", "%s is no backup of %s", from.File, whose)
	}
	r, err := parse(raw)
	if err != nil {
		return r, err
	}
	// Whoever was in it by what this machine knows, or by the backup, may be there still.
	var cut unfinished
	raw, err = secret.Read(filepath.Join(h.Data, restoring))
	if err == nil {
		if err := json.Unmarshal(raw, &cut); err != nil {
			return r, fmt.Errorf("reading what a restore before had begun with: %w", err)
		}
		r = r.beside(cut.Roll)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	now, err := h.Read()
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	return r.beside(now), err
}

// beside adds to a roll what another one of the same cluster, perhaps a later one, says
// of its machines, its era and its times.
func (r Roll) beside(o Roll) Roll {
	if o.Cluster.ID != r.Cluster.ID {
		return r
	}
	r.Nodes = slices.Clone(r.Nodes)
	for _, n := range o.Nodes {
		if i := slices.IndexFunc(r.Nodes, func(x Node) bool { return x.Name == n.Name }); i < 0 {
			r.Nodes = append(r.Nodes, n)
		} else {
			r.Nodes[i] = n
		}
	}
	r.Era, r.Networks, r.Timers.Life = max(r.Era, o.Era), o.Networks, max(r.Timers.Life, o.Timers.Life)
	return r
}

// places are the addresses of this machine by a roll, which it must have.
func (s Setup) places(r Roll, me Node) ([]way, error) {
	_, all, err := devices()
	if err != nil {
		return nil, err
	}
	var list []string
	for _, n := range r.Networks {
		if at, ok := me.Addresses[n.Name]; ok {
			list = append(list, n.Name+"="+at.String())
		}
	}
	ways, err := given(list, all)
	if err != nil {
		return nil, &Refused{err, "give this machine the addresses that " + string(me.Name) + " had"}
	}
	if err := free(ways, true); err != nil {
		return nil, &Refused{err, "gemel shutdown ends what runs here"}
	}
	return ways, nil
}

func names(nodes []Node) string {
	var out []string
	for _, n := range nodes {
		out = append(out, string(n.Name))
	}
	return strings.Join(out, ", ")
}

const lookAtTime = 2 * time.Second

// others refuses to begin anew beside machines of the cluster that may be alive. That one
// does not answer is no proof that it is off: a node must be said to be.
func (from Backup) others(ctx context.Context, s Setup, r Roll) error {
	var wg sync.WaitGroup
	found := make([]string, len(r.Nodes))
	proved := make([]bool, len(r.Nodes))
	for i, n := range r.Nodes {
		if n.Name != ha.Node(s.Name) {
			wg.Go(func() { found[i], proved[i] = alive(ctx, r.Cluster.ID, n) })
		}
	}
	wg.Wait()
	for _, name := range from.Off {
		if _, ok := r.Node(ha.Node(name)); !ok || name == s.Name {
			return refused("--off names others than this one: "+names(r.Nodes), "there is no other machine %s in the cluster", name)
		}
	}
	var silent []string
	for i, n := range r.Nodes {
		said := slices.Contains(from.Off, string(n.Name))
		switch {
		case n.Name == ha.Node(s.Name):
		case proved[i]:
			return refused("turn it off; if its store works, there is nothing to restore", "%s is not off: it answers at %s and proves that it is %s. With its vote the era before may go on, and its groups would be active there and here", n.Name, found[i], n.Name)
		case found[i] != "" && !said:
			return refused("turn it off, or, if that is another machine: --off "+string(n.Name), "something answers at %s, an address of %s: what is still there of the cluster may go on without this machine, and each group would be active twice", found[i], n.Name)
		case found[i] != "":
			s.say("warning: something answers at %s, an address of %s, which you say is off", found[i], n.Name)
		case !said && !n.Witness:
			silent = append(silent, string(n.Name))
		}
	}
	if len(silent) == 0 {
		return nil
	}
	return refused("make sure that they are off, and say so: --off "+strings.Join(append(slices.Clone(from.Off), silent...), ","),
		"nothing is heard of %s, which is not the same as off: what runs there by another store, or was never stopped, would be active twice", strings.Join(silent, ", "))
}

// alive returns at which address of a machine something answers, and whether it is known
// by a certificate of the cluster to be that machine.
func alive(ctx context.Context, id string, n Node) (where string, proved bool) {
	var all []netip.AddrPort
	for _, at := range n.Addresses {
		all = append(all, at)
	}
	for _, at := range append(all, n.Store...) {
		within, cancel := context.WithTimeout(ctx, lookAtTime)
		conn, err := (&net.Dialer{}).DialContext(within, "tcp", at.String())
		if err == nil {
			where = at.String()
			// Whose certificate it is has to be known, not who vouches for it: this is no
			// reason to trust it with anything.
			c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, NextProtos: []string{overHTTP},
				VerifyConnection: func(cs tls.ConnectionState) error {
					who, err := mtls.Identify(cs.PeerCertificates[0])
					proved = err == nil && who.Name.Cluster == id && who.Name.Name == string(n.Name)
					return nil
				}})
			_ = c.HandshakeContext(within) // it may refuse us after it has said who it is
			_ = conn.Close()
		}
		cancel()
		if proved {
			break
		}
	}
	return where, proved
}
