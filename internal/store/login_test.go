package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// A porter lets those in who have the token that he gave out last.
type porter struct {
	etcdserverpb.UnimplementedAuthServer
	mu    sync.Mutex
	given int
	good  string
}

func (p *porter) Authenticate(_ context.Context, r *etcdserverpb.AuthenticateRequest) (*etcdserverpb.AuthenticateResponse, error) {
	if r.GetName() != "gemel" || r.GetPassword() != "hush" {
		return nil, rpctypes.ErrGRPCAuthFailed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.given++
	p.good = fmt.Sprint("token", p.given)
	return &etcdserverpb.AuthenticateResponse{Header: &etcdserverpb.ResponseHeader{}, Token: p.good}, nil
}

func (p *porter) known(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := md.Get(rpctypes.TokenFieldNameGRPC); len(t) != 1 || t[0] != p.good {
		return rpctypes.ErrGRPCInvalidAuthToken
	}
	return nil
}

// TestLogin: who is known by a password shows a token with each call, gets another one when
// that is over, and is told when the password is wrong.
func TestLogin(t *testing.T) {
	p := &porter{}
	f := &fake{version: "3.7.3", cluster: 1, rev: 10, txn: p.known}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	etcdserverpb.RegisterMaintenanceServer(s, f)
	etcdserverpb.RegisterKVServer(s, f)
	etcdserverpb.RegisterAuthServer(s, p)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	file := filepath.Join(t.TempDir(), "password")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("wrong\n")
	c, err := Dial(Config{Endpoints: []string{"http://" + l.Addr().String()}, Prefix: "/x/", User: "gemel", Password: file})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := c.Visit(ctxFor(t, 10*time.Second)); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "does not take the user gemel") {
		t.Errorf("a wrong password: %v", err)
	}
	write("hush\n")
	if v, err := c.Visit(ctxFor(t, 10*time.Second)); err != nil || v.Cluster != 1 || v.Write == 0 {
		t.Fatalf("%+v, %v", v, err)
	}
	p.mu.Lock()
	before := p.given
	p.good = "of somebody else"
	p.mu.Unlock()
	if got := c.Read(ctxFor(t, 10*time.Second)); got.Error != "" {
		t.Errorf("after the token was over: %s", got.Error)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.given != before+1 {
		t.Errorf("%d tokens were asked for, for one that was over", p.given-before)
	}
}

// TestProof: an etcd that does not have what the cluster wrote is not asked for anything.
func TestProof(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	f := &fake{version: "3.7.3", cluster: 1, rev: 10}
	t.Cleanup(f.serve(t, path))
	c, err := Dial(Config{Socket: path, Prefix: "/x/", Proof: "cluster/roll"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if got := c.Read(ctxFor(t, 10*time.Second)); !strings.Contains(got.Error, "it has no key /x/docs/cluster/roll") {
		t.Errorf("%+v", got)
	}
	if got := f.asked.Load(); got == 0 {
		t.Error("it was not looked for")
	}
}
