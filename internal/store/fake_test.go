package store

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gemel/internal/ha"
	"gemel/internal/store/disk"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A fake is what an etcd says that does as the test wants.
type fake struct {
	etcdserverpb.UnimplementedMaintenanceServer
	etcdserverpb.UnimplementedKVServer
	mu      sync.Mutex
	version string
	cluster uint64
	rev     int64
	txn     func(context.Context) error
	asked   atomic.Int64
	watch   etcdserverpb.WatchServer   // nil: it has none
	members etcdserverpb.ClusterServer // nil: it has none
	server  *grpc.Server
}

func (f *fake) Status(context.Context, *etcdserverpb.StatusRequest) (*etcdserverpb.StatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &etcdserverpb.StatusResponse{Version: f.version, Header: &etcdserverpb.ResponseHeader{ClusterId: f.cluster}}, nil
}

func (f *fake) Txn(ctx context.Context, _ *etcdserverpb.TxnRequest) (*etcdserverpb.TxnResponse, error) {
	f.asked.Add(1)
	f.mu.Lock()
	do := f.txn
	out := &etcdserverpb.TxnResponse{Succeeded: true, Header: &etcdserverpb.ResponseHeader{ClusterId: f.cluster, Revision: f.rev}}
	f.mu.Unlock()
	if do != nil {
		if err := do(ctx); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// serve listens at a path of a socket and returns what ends it.
func (f *fake) serve(t *testing.T, path string) (stop func()) {
	t.Helper()
	at, err := disk.PlaceOf(path)
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	l, err := net.Listen("unix", at.Addr)
	if err != nil {
		t.Fatal(err)
	}
	if ul, ok := l.(*net.UnixListener); ok {
		ul.SetUnlinkOnClose(false)
	}
	s := grpc.NewServer()
	etcdserverpb.RegisterMaintenanceServer(s, f)
	etcdserverpb.RegisterKVServer(s, f)
	if f.watch != nil {
		etcdserverpb.RegisterWatchServer(s, f.watch)
	}
	if f.members != nil {
		etcdserverpb.RegisterClusterServer(s, f.members)
	}
	f.server = s
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	return sync.OnceFunc(func() { s.Stop(); <-done })
}

func ctxFor(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func member(n ha.Node, inc string) *ha.NodeRecord {
	return &ha.NodeRecord{Node: n, Incarnation: ha.Incarnation(inc), State: ha.NodeMember, Life: 1500 * time.Millisecond}
}

func dialFake(t *testing.T, path string) *Client {
	t.Helper()
	c, err := Dial(Config{Socket: path, Prefix: "/x/"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestVersions(t *testing.T) {
	for v, ok := range map[string]bool{
		"3.6.8": false, "3.6.13": false, "3.6.14": true, "3.6.99": true, "3.6.14-rc.1": false, "3.6.15-rc.1": true,
		"3.7.0": false, "3.7.1": true, "3.7.3": true, "3.8.0": true, "3.8.0-alpha.0": true, "4.0.0": true, "3.5.35": false, "2.3.8": false,
		"": false, "3.7": false, "x.y.z": false, "3.7.-1": false,
	} {
		if err := fitting(v); (err == nil) != ok || err != nil && !errors.Is(err, ErrVersion) {
			t.Errorf("%q: %v", v, err)
		}
	}
}

// TestVersionAtReconnect puts an older etcd in the place of the one that was asked.
func TestVersionAtReconnect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	f := &fake{version: "3.7.3", cluster: 1, rev: 10}
	stop := f.serve(t, path)
	c := dialFake(t, path)
	if got := c.Node(ctxFor(t, 5*time.Second), "n"); got.Error != "" || got.At != 10 {
		t.Fatalf("%+v", got)
	}
	stop()
	if err := disk.Clear(path); err != nil {
		t.Fatal(err)
	}
	f.version = "3.6.8"
	stop = f.serve(t, path)
	defer stop()
	got := c.Node(ctxFor(t, 5*time.Second), "n")
	if got.Error == "" {
		t.Fatalf("an etcd that may answer from the past is believed: %+v", got)
	}
	t.Log(got.Error)
	// A question may have been on its way to the first one; now it is known.
	asked := f.asked.Load()
	if w := c.Write(ctxFor(t, 5*time.Second), ha.WriteStore{}); w.OK || w.Error == "" {
		t.Fatalf("%+v", w)
	}
	if _, err := c.Doc(ctxFor(t, 5*time.Second), "d"); !errors.Is(err, ErrVersion) {
		t.Errorf("%v", err)
	}
	if n := f.asked.Load(); n != asked {
		t.Errorf("it was asked %d times all the same", n-asked)
	}
}

func TestAnotherCluster(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	f := &fake{version: "3.7.3", cluster: 1, rev: 10}
	defer f.serve(t, path)()
	c := dialFake(t, path)
	if got := c.Node(ctxFor(t, 5*time.Second), "n"); got.Error != "" {
		t.Fatal(got.Error)
	}
	for name, change := range map[string]func(){
		"other cluster":  func() { f.cluster, f.rev = 2, 11 },
		"lower revision": func() { f.cluster, f.rev = 1, 9 },
	} {
		f.mu.Lock()
		change()
		f.mu.Unlock()
		if _, err := c.Doc(ctxFor(t, 5*time.Second), "d"); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.mu.Lock()
	f.cluster, f.rev = 1, 10
	f.mu.Unlock()
	if _, err := c.Doc(ctxFor(t, 5*time.Second), "d"); err != nil {
		t.Error(err)
	}
}

// TestOneWrite shows that a write is sent once, whatever comes back, and a read
// until there is an answer.
func TestOneWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	f := &fake{version: "3.7.3", cluster: 1, rev: 10}
	defer f.serve(t, path)()
	c := dialFake(t, path)
	for name, txn := range map[string]func(context.Context) error{
		"unavailable": func(context.Context) error { return status.Error(codes.Unavailable, "etcdserver: leader changed") },
		"there is no peer": func(context.Context) error {
			return status.Error(codes.Unavailable, "there is no connection available")
		},
		"aborted": func(context.Context) error { return status.Error(codes.Aborted, "x") },
		"silence": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"too many requests": func(context.Context) error {
			return status.Error(codes.ResourceExhausted, "etcdserver: too many requests")
		},
	} {
		f.mu.Lock()
		f.txn = txn
		f.mu.Unlock()
		before := f.asked.Load()
		w := c.Write(ctxFor(t, 100*time.Millisecond), ha.WriteStore{Puts: []ha.Put{{Key: "nodes/n", Node: member("n", "i")}}})
		if w.OK || w.Refused || w.Error == "" {
			t.Errorf("%s: %+v", name, w)
		}
		if n := f.asked.Load() - before; n != 1 {
			t.Errorf("%s: it was sent %d times", name, n)
		}
	}
	var n atomic.Int64
	f.mu.Lock()
	f.txn = func(ctx context.Context) error {
		switch n.Add(1) {
		case 1:
			<-ctx.Done()
			return ctx.Err()
		case 2, 3:
			return status.Error(codes.Unavailable, "etcdserver: no leader")
		}
		return nil
	}
	f.mu.Unlock()
	began := time.Now()
	if got := c.Node(ctxFor(t, 5*time.Second), "n"); got.Error != "" || n.Load() != 4 {
		t.Errorf("%+v after %d attempts", got, n.Load())
	}
	t.Logf("an answer at the fourth attempt after %v", time.Since(began))
}

// TestAway asks a store that is not there.
func TestAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	c := dialFake(t, path)
	if got := c.Node(ctxFor(t, 150*time.Millisecond), "n"); got.Error == "" {
		t.Errorf("%+v", got)
	} else {
		t.Log(got.Error)
	}
	if w := c.Write(ctxFor(t, 150*time.Millisecond), ha.WriteStore{}); w.OK || w.Refused {
		t.Errorf("%+v", w)
	}
	if _, err := c.PutDoc(ctxFor(t, 150*time.Millisecond), "d", 0, nil); !errors.Is(err, ErrRefused) {
		t.Errorf("what was never sent: %v", err)
	}
	// As soon as it is there it is found.
	f := &fake{version: "3.7.3", cluster: 1, rev: 10}
	defer f.serve(t, path)()
	began := time.Now()
	if got := c.Node(ctxFor(t, 5*time.Second), "n"); got.Error != "" {
		t.Error(got.Error)
	}
	t.Logf("found after %v", time.Since(began))
}
