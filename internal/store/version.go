package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"gemel/internal/store/etcdpb"
)

// The oldest etcd of each line that may be trusted with who runs what. Before
// 3.6.9 a member that was stopped for a moment answers a linearizable read from
// the past (etcd issue 20418), which is an authority after its end; 3.6.14 and
// 3.7.1 bound the handshake of TLS. Lines that are not here and newer are taken.
var floors = []version{{3, 6, 14}, {3, 7, 1}}

type version struct{ major, minor, patch int }

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v.major, v.minor, v.patch) }

// parseVersion reads "3.7.3" or "3.8.0-alpha.0".
func parseVersion(s string) (v version, pre bool, err error) {
	core, _, pre := strings.Cut(s, "-")
	core, _, _ = strings.Cut(core, "+")
	part := strings.Split(core, ".")
	if len(part) != 3 {
		return v, pre, fmt.Errorf("%w: it says that its version is %q", ErrVersion, s)
	}
	for i, to := range []*int{&v.major, &v.minor, &v.patch} {
		if *to, err = strconv.Atoi(part[i]); err != nil || *to < 0 {
			return v, pre, fmt.Errorf("%w: it says that its version is %q", ErrVersion, s)
		}
	}
	return v, pre, nil
}

// fitting says why a version of etcd may not be trusted, or nil.
func fitting(s string) error {
	v, pre, err := parseVersion(s)
	if err != nil {
		return err
	}
	least := floors[0]
	for _, f := range floors {
		if f.major == v.major && f.minor == v.minor {
			least = f
		}
	}
	before := v.major < least.major ||
		v.major == least.major && (v.minor < least.minor || v.minor == least.minor && (v.patch < least.patch || v.patch == least.patch && pre))
	if !before {
		return nil
	}
	return fmt.Errorf("%w: it is %s, at least %s is needed: older ones may answer from the past after they were stopped for a moment (etcd issue 20418)", ErrVersion, s, least)
}

// fit returns the connection of an end as soon as it is certain that an etcd is
// behind it that may be trusted and is of this cluster. Every connection is asked
// anew: another process may be behind it.
func (c *pool) fit(ctx context.Context, e *end) (*line, error) {
	l, err := e.connect(ctx)
	if err != nil {
		return nil, plain(err)
	}
	if l.fit.Load() {
		return l, nil
	}
	resp, err := ask[etcdpb.StatusRequest, etcdpb.StatusResponse](ctx, l, "Maintenance/Status", &etcdpb.StatusRequest{})
	if err != nil {
		return nil, fmt.Errorf("asking for its version: %w", plain(err))
	}
	if err := fitting(resp.GetVersion()); err != nil {
		return nil, err
	}
	if err := c.saw(resp.GetHeader().GetClusterId(), 0, 0); err != nil {
		return nil, err
	}
	if err := c.proven(ctx, l); err != nil {
		return nil, err
	}
	l.fit.Store(true)
	return l, nil
}

// proven looks for the document that a store of somebody else's must have. Without it
// that is another one, or one whose keys were lost: who asked it what he may run would be
// told that nobody runs anything.
func (c *pool) proven(ctx context.Context, l *line) error {
	if c.c.Proof == "" {
		return nil
	}
	key := c.key(docsPrefix + c.c.Proof)
	resp, err := ask[etcdpb.TxnRequest, etcdpb.TxnResponse](ctx, l, "KV/Txn", &etcdpb.TxnRequest{Success: []*etcdpb.RequestOp{{RequestRange: whole(key)}}})
	if err != nil {
		return fmt.Errorf("looking for this cluster in it: %w", plain(err))
	}
	if len(kvs(resp, 0)) == 0 {
		return fmt.Errorf("%w: it has no key %s: it is another etcd, or this cluster's keys in it are lost", ErrForeign, key)
	}
	return nil
}
