package roll

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"gemel/internal/ha"
	"gemel/internal/mtls"
	"gemel/internal/mtls/authority"
	"gemel/internal/mtls/join"
	"gemel/internal/secret"
	"gemel/internal/store"
)

// A ledger is what the store has of a cluster's machines. All changes are guarded by
// what was read, so that any node may make them.
type ledger struct {
	home     Home
	store    *store.Client
	cluster  string
	manifest func() []byte
}

// claim is a name that somebody is about to have.
type claim struct {
	Pin string    `json:"pin"` // of his key
	At  time.Time `json:"at"`
}

const claimTime = time.Hour

// admit signs for a newcomer, or for a party that renews.
func (l ledger) admit(ctx context.Context, a join.Applicant) (join.Answer, error) {
	var f facts
	if len(a.Facts) > 0 {
		if err := json.Unmarshal(a.Facts, &f); err != nil {
			return join.Answer{}, fmt.Errorf("what it says of itself cannot be read: %w", err)
		}
	}
	r, _, err := l.read(ctx)
	if err != nil {
		return join.Answer{}, err
	}
	name := ha.Node(a.Request.Name)
	n, in := r.Node(name)
	switch {
	case a.Kind != mtls.Node && a.Kind != mtls.Witness:
		return join.Answer{}, fmt.Errorf("agents cannot join with this version")
	case a.Token == "" && (!in || n.Witness != (a.Kind == mtls.Witness)):
		return join.Answer{}, fmt.Errorf("%s is not in the cluster any more", name)
	case a.Token == "":
		f.Addresses, f.Store = n.Addresses, n.Store
	default:
		if err := l.newcomer(ctx, a, r); err != nil {
			return join.Answer{}, err
		}
	}
	leaves := map[mtls.Role]authority.Leaf{}
	for role, id := range a.Names {
		leaves[role] = leaf(id, Node{Addresses: f.Addresses})
	}
	out, crl, err := l.sign(ctx, a.CSRs, leaves)
	if err != nil {
		return out, err
	}
	tell := settings{Roll: r, CRL: crl}
	if a.Token != "" {
		if err := l.confide(&tell, a.Kind); err != nil {
			return out, err
		}
	}
	if out.Settings, err = json.Marshal(tell); err != nil {
		return out, fmt.Errorf("writing the settings of the cluster: %w", err)
	}
	return out, nil
}

// newcomer refuses a name that is somebody's. Each name is claimed until it is in the
// roll, so that two who come at once do not both get it. Who asks again is let in only if
// the claim is his: that he had the token and was refused the name gives him no name.
func (l ledger) newcomer(ctx context.Context, a join.Applicant, r Roll) error {
	name := a.Request.Name
	d, err := l.store.Doc(ctx, claimKeys+name)
	if err != nil {
		return err
	}
	var old claim
	pin := a.Pins[a.Kind]
	claimed := d.Rev != 0 && json.Unmarshal(d.Value, &old) == nil && time.Since(old.At) < claimTime
	if n, ok := r.Node(ha.Node(name)); ok && !(a.Again && claimed && old.Pin == pin) {
		var t join.Ticket
		if err := (book{l.store}).Update(ctx, a.Token, func(x *join.Ticket) error { t = *x; return errSeen }); !errors.Is(err, errSeen) {
			return err
		}
		if t.Name != name {
			return fmt.Errorf("there is a %s %s already. Give another name: --name NAME. If that machine is broken and this one takes its place: gemel token --name %s on a node, and join by that token",
				map[bool]string{true: "witness", false: "node"}[n.Witness], name, name)
		}
		if n.Witness != (a.Kind == mtls.Witness) {
			return fmt.Errorf("%s is in the cluster with another role", name)
		}
		if err := l.revoke(ctx, name, "replaced by another machine"); err != nil {
			return err
		}
		if err := nextSecond(ctx); err != nil {
			return err
		}
	}
	if claimed && old.Pin != pin {
		return fmt.Errorf("another machine is just joining as %s (since %s): give another name with --name, or wait an hour", name, old.At.Format(time.RFC3339))
	}
	raw, err := json.Marshal(claim{pin, time.Now().UTC()})
	if err != nil {
		return fmt.Errorf("claiming the name: %w", err)
	}
	_, err = l.store.PutDoc(ctx, d.Key, d.Rev, raw)
	return err
}

// nextSecond waits until certificates that are made now are younger than a revocation that was
// made before: both have times in whole seconds.
func nextSecond(ctx context.Context) error {
	now := time.Now()
	t := time.NewTimer(now.Truncate(time.Second).Add(time.Second + 10*time.Millisecond).Sub(now))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("waiting for the next second: %w", context.Cause(ctx))
	case <-t.C:
		return nil
	}
}

// unclaim ends the claim on a name that is in the roll: whoever replaces that machine claims
// it anew, also within the hour.
func (l ledger) unclaim(ctx context.Context, name string) error {
	d, err := l.store.Doc(ctx, claimKeys+name)
	if err != nil || d.Rev == 0 {
		return err
	}
	_, err = l.store.PutDoc(ctx, d.Key, d.Rev, nil)
	return err
}

var errSeen = errors.New("seen")

// confide adds what only newcomers are told.
func (l ledger) confide(tell *settings, kind mtls.Role) error {
	key, err := secret.Read(l.home.at(keyFile))
	if err != nil {
		return err
	}
	tell.Key = string(key)
	if kind != mtls.Node {
		return nil
	}
	if l.manifest != nil {
		tell.Manifest = l.manifest()
	}
	tell.Signers = map[string][]byte{}
	for _, role := range planes() {
		plane := role.Authority(tell.Roll.Cluster.ID).Name
		if tell.Signers[plane], err = secret.Read(l.home.signer(plane)); err != nil {
			return fmt.Errorf("this node cannot hand on what signs: %w", err)
		}
	}
	return nil
}

// sign signs requests, and notes in the store what was given out before anybody gets it.
func (l ledger) sign(ctx context.Context, csrs map[mtls.Role][]byte, leaves map[mtls.Role]authority.Leaf) (join.Answer, []byte, error) {
	for range writeAgain {
		trust, docs, err := l.trust(ctx)
		if err != nil {
			return join.Answer{}, nil, err
		}
		out := join.Answer{Certificates: map[mtls.Role][]byte{}}
		for role, want := range leaves {
			plane := role.Authority(l.cluster).Name
			a, err := l.home.open(role, l.cluster)
			if err != nil {
				return out, nil, err
			}
			if trust[plane] == nil {
				return out, nil, fmt.Errorf("the store does not say whom to trust for %s", plane)
			}
			if out.Certificates[role], trust[plane], err = a.Issue(csrs[role], want, trust[plane], time.Now()); err != nil {
				return out, nil, err
			}
		}
		out.Trust = trust
		crl, err := l.put(ctx, trust, docs)
		if errors.Is(err, store.ErrRefused) {
			continue
		}
		return out, crl, err
	}
	return join.Answer{}, nil, errors.New("the store took no change of whom to trust: try again")
}

// revoke takes back everything that a name was given.
func (l ledger) revoke(ctx context.Context, name, why string) error {
	id := l.cluster
	for range writeAgain {
		trust, docs, err := l.trust(ctx)
		if err != nil {
			return err
		}
		for _, role := range []mtls.Role{mtls.Node, mtls.Witness, mtls.Peer, mtls.Manager} {
			plane := role.Authority(id).Name
			whose := mtls.Name{Cluster: id, Role: role, Name: name}
			if trust[plane], err = trust[plane].Revoke(mtls.Revocation{Name: &whose, At: time.Now(), Why: why}); err != nil {
				return err
			}
		}
		if _, err = l.put(ctx, trust, docs); !errors.Is(err, store.ErrRefused) {
			return err
		}
	}
	return errors.New("the store took no change of whom to trust: try again")
}

// trust reads whom to trust, of each plane.
func (l ledger) trust(ctx context.Context) (map[string]*mtls.Trust, map[string]store.Doc, error) {
	list, _, err := l.store.Docs(ctx, clusterKeys)
	if err != nil {
		return nil, nil, err
	}
	trust, docs := map[string]*mtls.Trust{}, map[string]store.Doc{}
	for _, d := range list {
		docs[d.Key] = d
		plane, ok := strings.CutPrefix(d.Key, trustKeys)
		if !ok {
			continue
		}
		t := &mtls.Trust{}
		if err := json.Unmarshal(d.Value, t); err != nil {
			return nil, nil, err
		}
		trust[plane] = t
	}
	if len(trust) == 0 {
		return nil, nil, errors.New("the store does not say whom to trust yet: try again in a moment")
	}
	return trust, docs, nil
}

// put writes whom to trust, and the list of what counts no more that follows from it.
func (l ledger) put(ctx context.Context, trust map[string]*mtls.Trust, docs map[string]store.Doc) (crl []byte, err error) {
	var write []store.Doc
	for plane, t := range trust {
		raw, err := json.Marshal(t)
		if err != nil {
			return nil, fmt.Errorf("writing whom to trust: %w", err)
		}
		old := docs[trustKeys+plane]
		if string(old.Value) != string(raw) {
			write = append(write, store.Doc{Key: trustKeys + plane, Rev: old.Rev, Value: raw})
		}
	}
	peers, err := l.home.open(mtls.Peer, l.cluster)
	if err != nil {
		return nil, err
	}
	if crl, err = peers.CRL(trust["store"], time.Now()); err != nil {
		return nil, err
	}
	write = append(write, store.Doc{Key: crlKey, Rev: docs[crlKey].Rev, Value: crl})
	if _, err := l.store.PutDocs(ctx, write...); err != nil {
		return nil, err
	}
	return crl, l.home.adopt(trust, crl)
}

// read reads the roll from the store.
func (l ledger) read(ctx context.Context) (Roll, store.Doc, error) {
	d, err := l.store.Doc(ctx, rollKey)
	if err != nil {
		return Roll{}, d, err
	}
	if d.Rev == 0 {
		return Roll{}, d, errors.New("the store does not say who is in the cluster yet: try again in a moment")
	}
	r, err := parse(d.Value)
	return r, d, err
}

// change changes the roll in the store.
func (l ledger) change(ctx context.Context, f func(Roll) (Roll, error)) (Roll, error) {
	for range writeAgain {
		r, d, err := l.read(ctx)
		if err != nil {
			return r, err
		}
		if r, err = f(r); err != nil {
			return r, err
		}
		raw, err := json.Marshal(r)
		if err != nil {
			return r, fmt.Errorf("writing who is in the cluster: %w", err)
		}
		if _, err := l.store.PutDoc(ctx, rollKey, d.Rev, raw); !errors.Is(err, store.ErrRefused) {
			return r, err
		}
	}
	return Roll{}, errors.New("the store took no change of who is in the cluster: try again")
}

// remove takes a machine out of the cluster: its name, its vote, its certificates. with
// takes the witnesses out as well. Whoever asks sees to it that nothing runs there.
func (l ledger) remove(ctx context.Context, name string, with bool) (Roll, error) {
	var gone []ha.Node
	r, _, err := l.read(ctx)
	if err != nil {
		return r, err
	}
	if _, ok := r.Node(ha.Node(name)); !ok {
		return r, fmt.Errorf("there is no %s in the cluster", name)
	}
	gone = []ha.Node{ha.Node(name)}
	for _, n := range r.Nodes {
		if with && n.Witness && !slices.Contains(gone, n.Name) {
			gone = append(gone, n.Name)
		}
	}
	if _, err := r.without(gone...); err != nil {
		return r, err
	}
	for _, n := range gone {
		d, err := l.store.Doc(ctx, goneKeys+string(n))
		if err == nil && d.Rev == 0 {
			_, err = l.store.PutDoc(ctx, d.Key, 0, []byte(time.Now().UTC().Format(time.RFC3339)))
		}
		if err != nil {
			return r, err
		}
	}
	return l.change(ctx, func(r Roll) (Roll, error) { return r.without(gone...) })
}

// bury takes back the certificates of those that left, once they are no members of the
// store any more: a member whose certificate counts no more cannot even be removed,
// since it is not heard. They stay good for a moment, so that who leaves may ask once
// more whether it is out.
func (l ledger) bury(ctx context.Context, r Roll, have []store.Voter, docs map[string]store.Doc) error {
	for key, d := range docs {
		name, ok := strings.CutPrefix(key, goneKeys)
		left, err := time.Parse(time.RFC3339, string(d.Value))
		if !ok || member(have, name) >= 0 || err == nil && time.Since(left).Abs() < goneTime {
			continue
		}
		if _, in := r.Node(ha.Node(name)); !in {
			if err := l.revoke(ctx, name, "left"); err != nil {
				return err
			}
		}
		if _, err := l.store.PutDocs(ctx, store.Doc{Key: key, Rev: d.Rev}); err != nil {
			return err
		}
	}
	return nil
}

// sow puts into a store that has just begun what is to be there.
func (l ledger) sow(ctx context.Context) error {
	raw, err := secret.Read(l.home.at(seedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var s seed
	if err := json.Unmarshal(raw, &s); err != nil {
		return fmt.Errorf("reading what the store begins with: %w", err)
	}
	d, err := l.store.Doc(ctx, rollKey)
	if err != nil {
		return err
	}
	if s.Restored {
		// It may have been told already: nobody has decided anything by it as yet.
		if err := l.store.Forget(ctx); err != nil {
			return err
		}
	}
	if d.Rev == 0 || s.Restored {
		if err := l.plant(ctx, s); err != nil {
			return err
		}
	}
	if err := os.Remove(l.home.at(seedFile)); err != nil {
		return fmt.Errorf("taking away what the store began with: %w", err)
	}
	return nil
}

// plant writes the documents of a cluster that begins.
func (l ledger) plant(ctx context.Context, s seed) error {
	there, _, err := l.store.Docs(ctx, clusterKeys)
	if err != nil {
		return err
	}
	docs, err := s.docs(there)
	if err != nil {
		return err
	}
	_, err = l.store.PutDocs(ctx, docs...)
	return err
}

// docs are what the store begins with. What is there of such documents in a store that
// was restored is taken away; in a new one it is a token that somebody has asked for
// already.
func (s seed) docs(there []store.Doc) ([]store.Doc, error) {
	var docs []store.Doc
	for _, d := range there {
		if s.Restored {
			docs = append(docs, store.Doc{Key: d.Key, Rev: d.Rev})
		}
	}
	set := func(key string, raw []byte) {
		i := slices.IndexFunc(docs, func(d store.Doc) bool { return d.Key == key })
		if i < 0 {
			docs = append(docs, store.Doc{Key: key})
			i = len(docs) - 1
		}
		docs[i].Value = raw
	}
	add := func(key string, v any) error {
		raw, err := json.Marshal(v)
		set(key, raw)
		return err
	}
	err := add(rollKey, s.Roll)
	for plane, t := range s.Trust {
		err = errors.Join(err, add(trustKeys+plane, t))
	}
	for _, t := range s.Tickets {
		err = errors.Join(err, add(ticketKey+t.ID, t))
	}
	if err != nil {
		return nil, fmt.Errorf("writing what the store begins with: %w", err)
	}
	set(crlKey, s.CRL)
	return docs, nil
}
