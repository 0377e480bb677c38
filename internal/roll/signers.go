package roll

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"gemel/internal/ha"
	"gemel/internal/mtls"
	"gemel/internal/mtls/authority"
	"gemel/internal/secret"
	"gemel/internal/store"
)

// An authority is replaced in three steps, each of which begins when every machine has
// taken the one before: all trust the new one as well, and each node has its key; it signs,
// and all have certificates of it; nobody trusts the old one any more.

const (
	signKey    = "cluster/authority/"    // and the plane
	signSeen   = "cluster/authority-at/" // and plane/name: how far that machine is
	signerPath = "/v1/cluster/signer"
)

// The stages of a handover.
const (
	stageTrust = "trust"
	stageSign  = "sign"
	stageAlone = "alone"
)

// handover is how far the authority of a plane has been replaced.
type handover struct {
	Step  uint64  `json:"step"` // grows
	New   string  `json:"new"`  // number of the one that stays
	Stage string  `json:"stage"`
	From  ha.Node `json:"from"` // that made it
}

func (h handover) at(n Node) string { return fmt.Sprintf("%d %d", h.Step, n.Joined.Unix()) }

// succession is the handover of one plane as a machine sees it.
type succession struct {
	handover
	c     *Clerk
	role  mtls.Role // that the authority vouches for first
	plane string
	roll  Roll
	docs  map[string]store.Doc
}

func successionOf(c *Clerk, role mtls.Role, r Roll, docs map[string]store.Doc) (succession, error) {
	s := succession{c: c, role: role, plane: role.Authority(c.books.cluster).Name, roll: r, docs: docs}
	if d, ok := docs[signKey+s.plane]; ok {
		if err := json.Unmarshal(d.Value, &s.handover); err != nil {
			return s, fmt.Errorf("reading how far the authority of %s has been replaced: %w", s.plane, err)
		}
	}
	return s, nil
}

func (s succession) underWay() bool { return s.Stage == stageTrust || s.Stage == stageSign }

// behind are the machines that have not taken this step, of those that run what which says.
func (s succession) behind(which func(Node) bool) (names []ha.Node) {
	for _, n := range s.roll.Nodes {
		if which(n) && string(s.docs[signSeen+s.plane+"/"+string(n.Name)].Value) != s.at(n) {
			names = append(names, n.Name)
		}
	}
	return names
}

func anyOf(Node) bool      { return true }
func nodeOnly(n Node) bool { return !n.Witness }

// succeed takes the step of each handover that is under way, says so, and, on a node, goes
// on when all have. What this machine trusts by the same documents is on its disk already.
func succeed(ctx context.Context, c *Clerk, r Roll, docs map[string]store.Doc) error {
	me, in := r.Node(c.me)
	for _, role := range planes() {
		s, err := successionOf(c, role, r, docs)
		if err != nil {
			return err
		}
		if !in || !s.underWay() {
			continue
		}
		done, err := s.take(ctx)
		if err != nil {
			return fmt.Errorf("taking up the new authority of %s: %w", s.plane, err)
		}
		seen := docs[signSeen+s.plane+"/"+string(c.me)]
		switch {
		case done && string(seen.Value) != s.at(me):
			if _, err := c.Store.PutDoc(ctx, signSeen+s.plane+"/"+string(c.me), seen.Rev, []byte(s.at(me))); lost(err) != nil {
				return err
			}
		case c.role == mtls.Node && len(s.behind(anyOf)) == 0:
			if err := s.next(ctx); lost(err) != nil {
				return err
			}
		}
	}
	return nil
}

// take does what this machine has to do in this step, and reports whether all of it is done.
func (s succession) take(ctx context.Context) (bool, error) {
	c := s.c
	if c.role == mtls.Node {
		if ok, err := s.signer(ctx); !ok || err != nil {
			return false, err
		}
	}
	if s.Stage != stageSign {
		return true, nil
	}
	var old []mtls.Role
	for _, role := range c.roles() {
		if role.Authority(c.books.cluster).Name != s.plane {
			continue
		}
		id, err := c.Home.Files(role).Identity()
		if err != nil {
			return false, err
		}
		if id.By != s.New {
			old = append(old, role)
		}
	}
	if len(old) == 0 {
		return true, nil
	}
	if c.role != mtls.Node && len(s.behind(nodeOnly)) > 0 {
		return false, nil // a node signs for it, and not every one does with the new key yet
	}
	return false, renew(ctx, c, old) // looked at again
}

func (h Home) nextSigner(plane string) string { return h.signer(plane + ".next") }

// numberIn is the number of the authority in a file; empty: there is none.
func numberIn(path string) (string, error) {
	a, err := authority.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return a.Identity().By, nil
}

// signer sees to it that this node has the key of the new authority, and signs with it from
// when that is due.
func (s succession) signer(ctx context.Context) (bool, error) {
	h := s.c.Home
	if is, err := numberIn(h.signer(s.plane)); err != nil || is == s.New {
		return err == nil, err
	}
	next, err := numberIn(h.nextSigner(s.plane))
	if err != nil {
		return false, err
	}
	if next != s.New {
		if err := s.fetch(ctx); err != nil {
			return false, err
		}
	}
	if s.Stage == stageSign {
		return true, os.Rename(h.nextSigner(s.plane), h.signer(s.plane))
	}
	return true, nil
}

// wanted asks for the key of an authority.
type wanted struct {
	Plane string `json:"plane"`
	New   string `json:"new"`
}

// fetch gets the key of the new authority from a node that has it.
func (s succession) fetch(ctx context.Context) error {
	c := s.c
	config, err := c.files.Client([]string{overHTTP}, mtls.Name{Cluster: c.books.cluster, Role: mtls.Node})
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range s.roll.Nodes {
		if n.Witness || n.Name == c.me {
			continue
		}
		r, err := asker{config}.once(ctx, doors(n), signerPath, wanted{s.plane, s.New})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", n.Name, err))
			continue
		}
		a, err := authority.Parse(r.Signer)
		if err != nil || a.Identity().By != s.New {
			errs = append(errs, fmt.Errorf("%s sent another key than that of %s: %w", n.Name, s.New, err))
			continue
		}
		return secret.Write(c.Home.nextSigner(s.plane), r.Signer)
	}
	return fmt.Errorf("no node gives its key: %w", errors.Join(errs...))
}

// signer gives a node the key of an authority, as a newcomer gets it.
func (d *porch) signer(ctx context.Context, who mtls.Identity, b []byte) (reply, error) {
	var q wanted
	if err := json.Unmarshal(b, &q); err != nil {
		return reply{}, &Refused{fmt.Errorf("the question cannot be read: %w", err), ""}
	}
	if who.Name.Role != mtls.Node {
		return reply{}, &Refused{fmt.Errorf("%s is no node: it signs nothing", who.Name), ""}
	}
	if !slices.ContainsFunc(planes(), func(p mtls.Role) bool { return p.Authority(d.clerk.books.cluster).Name == q.Plane }) {
		return reply{}, &Refused{fmt.Errorf("there is no authority for %.40q", q.Plane), ""}
	}
	r, _, err := d.clerk.books.read(ctx)
	if err != nil {
		return reply{}, err
	}
	if n, in := r.Node(ha.Node(who.Name.Name)); !in || n.Witness {
		return reply{}, &Refused{fmt.Errorf("%s is no node of the cluster any more", who.Name.Name), ""}
	}
	h := d.clerk.Home
	for _, path := range []string{h.signer(q.Plane), h.nextSigner(q.Plane)} {
		if is, err := numberIn(path); err != nil || is != q.New || is == "" {
			continue
		}
		raw, err := secret.Read(path)
		return reply{Signer: raw}, err
	}
	return reply{}, &Refused{fmt.Errorf("the key of the authority %s is not here", q.New), ""}
}

// next makes the next step, for all.
func (s succession) next(ctx context.Context) error {
	n := s.handover
	n.Step++
	switch n.Stage {
	case stageTrust:
		n.Stage = stageSign
	case stageSign:
		n.Stage = stageAlone
		if err := s.dismiss(ctx); err != nil {
			return err
		}
	}
	return s.put(ctx, n)
}

func (s succession) put(ctx context.Context, n handover) error {
	raw, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("writing how far an authority has been replaced: %w", err)
	}
	_, err = s.c.Store.PutDoc(ctx, signKey+s.plane, s.docs[signKey+s.plane].Rev, raw)
	return err
}

// dismiss takes away every authority of the plane but the new one.
func (s succession) dismiss(ctx context.Context) error {
	trust, docs, err := s.c.books.trust(ctx)
	if err != nil {
		return err
	}
	t := trust[s.plane]
	for _, der := range t.Authorities {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("reading an authority: %w", err)
		}
		id, err := mtls.Identify(cert)
		if err != nil {
			return err
		}
		if id.By == s.New {
			continue
		}
		if t, err = t.Without(id.Pin, time.Now()); err != nil {
			return err
		}
	}
	trust[s.plane] = t
	_, err = s.c.books.put(ctx, trust, docs)
	return err
}

// begin makes a new authority and has everybody trust it.
func (s succession) begin(ctx context.Context) error {
	c, h := s.c, s.c.Home
	if s.underWay() {
		return fmt.Errorf("the authority of %s is being replaced already: that waits for %s", s.plane, listed(s.behind(anyOf)))
	}
	trust, docs, err := c.books.trust(ctx)
	if err != nil {
		return err
	}
	if trust[s.plane] == nil {
		return fmt.Errorf("the store does not say whom to trust for %s", s.plane)
	}
	// One that a begin before has left was perhaps never trusted: it is used.
	a, err := authority.Open(h.nextSigner(s.plane))
	if errors.Is(err, fs.ErrNotExist) {
		a, err = authority.Create(h.nextSigner(s.plane), c.books.cluster, s.role, time.Now())
	}
	if err != nil {
		return err
	}
	if trust[s.plane], err = trust[s.plane].With(a.Certificate(), time.Now()); err != nil {
		return err
	}
	if _, err := c.books.put(ctx, trust, docs); err != nil {
		return err
	}
	return s.put(ctx, handover{s.Step + 1, a.Identity().By, stageTrust, c.me})
}
