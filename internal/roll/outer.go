package roll

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/store"
)

// outer is an etcd of somebody's own, in which a cluster keeps its truth.
type outer struct {
	// At is where it is, as the first node said. Files may have other places on the others.
	At manifest.Store `json:"at"`
	ID uint64         `json:"id"` // of the etcd, drawn when that was begun
}

// dialing is how the etcd of a cluster is reached.
func dialing(at manifest.Store, cluster string) store.Config {
	c := store.Config{
		Prefix: strings.TrimSuffix(at.Prefix, "/") + "/" + cluster + "/",
		TLS:    store.TLS{Cert: at.Certificate, Key: at.Key, CA: at.CA},
		User:   at.User, Password: at.Password,
	}
	for _, e := range at.Endpoints {
		c.Endpoints = append(c.Endpoints, "https://"+e)
	}
	return c
}

// Outside is how a node reaches the etcd that its node.yaml tells of. It is refused when
// the rest of the cluster keeps its truth elsewhere: each side would run everything.
func (h Home) Outside(id *manifest.Identity) (store.Config, error) {
	c := dialing(id.Store, id.Cluster.ID)
	r, err := h.Read()
	switch {
	case errors.Is(err, fs.ErrNotExist): // a cluster that was set up by hand
		return c, nil
	case err != nil:
		return c, err
	case r.Store == nil:
		return c, fmt.Errorf("%s says that the store is an etcd at %s, and the cluster %s keeps it itself: all of its machines would have to be others. Write store: embedded", h.Node, id.Store.Endpoints[0], r.Cluster.Name)
	case strings.TrimSuffix(r.Store.At.Prefix, "/") != strings.TrimSuffix(id.Store.Prefix, "/"):
		return c, fmt.Errorf("%s says that the prefix in the etcd is %s, and that of the cluster %s is %s", h.Node, id.Store.Prefix, r.Cluster.Name, r.Store.At.Prefix)
	}
	c.Cluster = r.Store.ID
	if !h.seeded() {
		c.Proof = rollKey
	}
	return c, nil
}

// own is the store of one machine: where it has its files is its own.
func (o outer) own(old *manifest.Identity) manifest.Store {
	if old == nil || !old.Store.External() {
		return o.At
	}
	s := old.Store
	s.Election = o.At.Election
	return s
}

// files refuses an etcd whose files are not on this machine.
func (s Setup) papers(at manifest.Store) error {
	var errs []error
	for _, f := range []struct{ key, path string }{{"ca", at.CA}, {"certificate", at.Certificate}, {"key", at.Key}, {"password-file", at.Password}} {
		if f.path == "" {
			continue
		}
		if _, err := os.ReadFile(f.path); err != nil {
			errs = append(errs, fmt.Errorf("%s of the etcd: %w", f.key, err))
			continue
		}
		if st, err := os.Stat(f.path); err == nil && st.Mode().Perm()&0o044 != 0 && (f.key == "key" || f.key == "password-file") {
			s.say("warning: %s can be read by others than its owner (%s): chmod 600 %s", f.path, st.Mode().Perm(), f.path)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return refused("put it there, or say with --store FILE where it is on this machine", "%w", err)
	}
	return nil
}

const outsideTime = 30 * time.Second

// seen is what was found at an etcd.
type seen struct {
	id     uint64        // of the etcd
	write  time.Duration // the slowest of some writes
	silent []error       // of endpoints that did not answer
	here   bool          // there are keys of the cluster
}

// outside goes to the etcd before anything rests on it.
func (s Setup) outside(ctx context.Context, c store.Config) (seen, error) {
	client, err := store.Dial(c)
	if err != nil {
		return seen{}, &Refused{err, "see store in docs/node.md"}
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, outsideTime)
	defer cancel()
	v, err := client.Visit(ctx)
	if err != nil {
		return seen{}, &Refused{err, remedy(err)}
	}
	s.say("a write to the etcd takes up to %s", v.Write.Round(10*time.Microsecond))
	return seen{v.Cluster, v.Write, v.Silent, v.Here}, nil
}

// remedy says what to do about an etcd that is not as it has to be.
func remedy(err error) string {
	text := err.Error()
	switch {
	case errors.Is(err, store.ErrVersion):
		return "upgrade the etcd, or use the store that Gemel brings along: leave --store out"
	case errors.Is(err, store.ErrRefused):
		return "etcdctl user get USER and role get ROLE show what it may do; user and password-file, or certificate and key, say who it is"
	case strings.Contains(text, "x509:"):
		return "ca must be what signed the etcd's certificate, and its names must have the host of each endpoint"
	case strings.Contains(text, "tls:"), strings.Contains(text, "want a certificate"):
		return "the etcd may ask for a certificate of its own clients (certificate, key), or speak no TLS, which it has to"
	}
	return "endpoints must be reached from this machine: etcdctl endpoint health shows it"
}

// roomFor is what a slow write may take beyond what was measured.
const roomFor = 200 * time.Millisecond

// paced gives the times of a cluster to what its etcd can keep: how long that takes to
// elect a leader is not for us to say.
func (s Setup) paced(t manifest.Timers, at manifest.Store, write time.Duration) manifest.Timers {
	t.Election, t.Tick = at.Election, 0
	if write < t.Spare() {
		return t
	}
	const step = 100 * time.Millisecond
	t.Life = ((2*t.Election+max(2*write, roomFor))*10/7 + step - 1).Truncate(step)
	t.Stop = t.Life / 10
	s.say("life is raised to %s, since the etcd takes %s to elect a leader and up to %s for a write: a takeover begins after %s. "+
		"An etcd with --heartbeat-interval=40 --election-timeout=400 allows for the 1.5s of the profile normal", ha.Span(t.Life), ha.Span(at.Election), write.Round(time.Millisecond), ha.Span(t.Wait().Truncate(10*time.Millisecond)))
	return t
}

// anchor is the etcd of a cluster that begins, and the times that fit to it.
func (s Setup) anchor(ctx context.Context, cluster string, t manifest.Timers) (*outer, manifest.Timers, error) {
	if err := s.papers(s.Store); err != nil {
		return nil, t, err
	}
	v, err := s.outside(ctx, dialing(s.Store, cluster))
	if err != nil {
		return nil, t, err
	}
	if err := errors.Join(v.silent...); err != nil {
		return nil, t, refused("start it, or leave it out of endpoints", "a cluster begins with an etcd that is whole: %w", err)
	}
	if v.here {
		return nil, t, refused("the same command draws another id", "there are keys below %s/%s/ in the etcd already: another cluster has them", strings.TrimSuffix(s.Store.Prefix, "/"), cluster)
	}
	if err := s.apart(ctx); err != nil {
		return nil, t, err
	}
	return &outer{At: s.Store, ID: v.id}, s.paced(t, s.Store, v.write), nil
}

// apart refuses a prefix below which are the keys of one cluster: there is no room for
// those of another.
func (s Setup) apart(ctx context.Context) error {
	up, last := split(s.Store.Prefix)
	if last == "" {
		return nil
	}
	above, err := store.Dial(dialing(manifest.Store{Endpoints: s.Store.Endpoints, Prefix: up, CA: s.Store.CA, Certificate: s.Store.Certificate, Key: s.Store.Key,
		User: s.Store.User, Password: s.Store.Password}, last))
	if err != nil {
		return err
	}
	defer above.Close()
	within, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	d, err := above.Doc(within, rollKey)
	if err != nil {
		return &Refused{err, remedy(err)}
	}
	if d.Rev != 0 {
		return refused("take another prefix, as "+up+"; the id of the cluster is added to it", "the prefix %s is where another cluster, %s, has its keys", s.Store.Prefix, last)
	}
	return nil
}

// split parts a prefix at its last slash.
func split(prefix string) (up, last string) {
	p := strings.TrimSuffix(prefix, "/")
	i := strings.LastIndex(p, "/")
	if i < 0 {
		return "", p
	}
	return p[:i], p[i+1:]
}

// dock goes to the etcd of a cluster from a machine that joins. It returns the store as
// this machine reaches it.
func (n *newcomer) dock(ctx context.Context, r Roll) (manifest.Store, error) {
	at := r.Store.At
	if n.Store.External() {
		if strings.TrimSuffix(n.Store.Prefix, "/") != strings.TrimSuffix(at.Prefix, "/") || n.Store.Election != at.Election {
			return at, refused("they are the cluster's: prefix: "+at.Prefix+", election-timeout: "+at.Election.String(), "prefix and election-timeout differ from those of the cluster")
		}
		at = n.Store
	}
	if err := n.papers(at); err != nil {
		return at, err
	}
	c := dialing(at, r.Cluster.ID)
	c.Cluster, c.Proof = r.Store.ID, rollKey
	v, err := n.outside(ctx, c)
	if err != nil {
		return at, err
	}
	for _, err := range v.silent {
		n.say("warning: %v", err)
	}
	if spare := r.Timers.Spare(); v.write+n.trip >= spare {
		return at, refused("make the way to the etcd quicker, or begin the cluster with a slower profile", "a write to the etcd takes up to %s from here, and the law of the timers leaves %s", v.write.Round(time.Millisecond), spare)
	}
	return at, nil
}
