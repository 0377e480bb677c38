package store

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// dropping is an etcd that never answers the first changes, as one whose raft has dropped
// them; made says that the first one came about all the same.
type dropping struct {
	etcdserverpb.UnimplementedClusterServer
	drops, asked atomic.Int64
	made         bool
}

func (d *dropping) MemberAdd(ctx context.Context, r *etcdserverpb.MemberAddRequest) (*etcdserverpb.MemberAddResponse, error) {
	if d.asked.Add(1) <= d.drops.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if d.made {
		return nil, rpctypes.ErrGRPCPeerURLExist
	}
	return &etcdserverpb.MemberAddResponse{Member: &etcdserverpb.Member{ID: 7}}, nil
}

func (d *dropping) MemberList(context.Context, *etcdserverpb.MemberListRequest) (*etcdserverpb.MemberListResponse, error) {
	return &etcdserverpb.MemberListResponse{Members: []*etcdserverpb.Member{{ID: 3, PeerURLs: []string{PeerURL("a")}}, {ID: 7, PeerURLs: []string{PeerURL("b")}}}}, nil
}

// TestDroppedChange: a change of the voters that raft has dropped is asked for again, and
// one that came about is not taken for a failure.
func TestDroppedChange(t *testing.T) {
	for _, made := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "s")
		d := &dropping{made: made}
		d.drops.Store(1)
		stop := (&fake{version: "3.7.3", cluster: 1, rev: 10, members: d}).serve(t, path)
		t.Cleanup(stop)
		c := dialFake(t, path)
		if id, err := c.Add(ctxFor(t, time.Minute), "b"); err != nil || id != 7 || d.asked.Load() != 2 {
			t.Errorf("made %t: %d, %v after %d calls", made, id, err, d.asked.Load())
		}
		d.drops.Store(1000)
		if _, err := c.Add(ctxFor(t, 2*time.Second), "b"); !errors.Is(err, ErrUnknown) {
			t.Errorf("no answer at all: %v", err)
		}
	}
}
