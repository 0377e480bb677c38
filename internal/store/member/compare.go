package member

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
)

const (
	compareEvery = time.Minute            // between two comparisons
	compareSoon  = 5 * time.Second        // after the first one in which somebody did not answer; it doubles
	compareTime  = 10 * time.Second       // for one
	compareLag   = 200 * time.Millisecond // until one who is behind is asked again
)

// comparing tells each minute whether this member holds what the others do, until ctx ends
// or it has told that it does not. A member answers reads from its own file, which nothing
// protects: one that has gone bad would tell this machine of rights that nobody gave. etcd
// has two checks of its own. One refuses to start beside a bad member as well as as one; the
// other stops the whole cluster.
func comparing(ctx context.Context, e *embed.Etcd, log *slog.Logger, odd chan<- string) {
	told, soon := "", compareSoon
	for {
		within, cancel := context.WithTimeout(ctx, compareTime)
		why, others, err := compare(within, e)
		cancel()
		if why != "" {
			odd <- why
			return
		}
		if text := strings.Join(others, ", "); text != told {
			if told = text; text != "" {
				log.Error("the data of another voter is not what it is here; too few agree to say who is right", "voters", text)
			}
		}
		pause := compareEvery
		if err != nil {
			pause = soon
			soon = min(2*soon, compareEvery)
		} else {
			soon = compareSoon
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

// compare reports why the data of this member is wrong: most of the voters hold the same as each
// other at one revision, and this one something else. Others are those who differ from this
// one where that is not known. An error says that somebody did not answer.
func compare(ctx context.Context, e *embed.Etcd) (why string, others []string, err error) {
	s := e.Server
	if s.IsLearner() {
		return "", nil, errors.New("it has no vote yet")
	}
	own, _, err := s.KV().HashStorage().HashByRev(0)
	if err != nil {
		return "", nil, fmt.Errorf("reading what is here: %w", err)
	}
	voters := 0
	by := map[uint32][]string{own.Hash: nil}
	for _, m := range s.Cluster().Members() {
		if m.IsLearner {
			continue
		}
		if voters++; m.ID == s.MemberID() {
			continue
		}
		hash, compacted, e := hashAt(ctx, s, m, own.Revision)
		if e == nil && compacted != own.CompactRevision {
			e = errors.New("it has forgotten another part of the past")
		}
		if e != nil {
			err = errors.Join(err, fmt.Errorf("voter %s: %w", m.Name, e))
			continue
		}
		by[hash] = append(by[hash], m.Name)
	}
	for hash, names := range by {
		slices.Sort(names)
		switch {
		case hash == own.Hash:
		case len(names) > voters/2:
			return fmt.Sprintf("at revision %d it is not what %s hold", own.Revision, strings.Join(names, " and ")), nil, nil
		case len(by[own.Hash])+1 > voters/2: // they will find it out
		default:
			others = append(others, names...)
		}
	}
	slices.Sort(others)
	return "", others, err
}

// hashAt asks another member what it holds at a revision. One that is a little behind gets
// the time to come there.
func hashAt(ctx context.Context, s *etcdserver.EtcdServer, m *membership.Member, rev int64) (hash uint32, compacted int64, err error) {
	if len(m.PeerURLs) == 0 {
		return 0, 0, errors.New("nobody knows where it is")
	}
	c := &http.Client{Transport: over(strings.TrimPrefix(m.PeerURLs[0], "unix://"))}
	for {
		r, err := etcdserver.HashByRev(ctx, s.Cluster().ID(), c, "http://voter", rev)
		if err == nil {
			return r.GetHash(), r.GetCompactRevision(), nil
		}
		if !errors.Is(err, rpctypes.ErrFutureRev) {
			return 0, 0, err
		}
		t := time.NewTimer(compareLag)
		select {
		case <-ctx.Done():
			t.Stop()
			return 0, 0, err
		case <-t.C:
		}
	}
}

// over is HTTP to another voter, by the socket at which it is reached from here.
func over(door string) *http.Transport {
	return &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", door)
	}}
}
