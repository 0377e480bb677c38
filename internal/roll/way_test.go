package roll

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// TestBorrowed: a machine that reaches the store by way of another one leaves that way
// when its own member votes and serves. Else the death of the other one takes the store
// from it, in the very moment in which it should take over.
func TestBorrowed(t *testing.T) {
	var home atomic.Bool
	far, store := net.Pipe()
	asker := borrow(far, func(context.Context) bool { return home.Load() })
	for _, end := range []net.Conn{asker, store} {
		if err := end.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	b := make([]byte, 1)
	go func() { _, _ = asker.Write([]byte{7}) }()
	if _, err := io.ReadFull(store, b); err != nil || b[0] != 7 {
		t.Fatalf("before that: %v, %v", b, err)
	}
	home.Store(true)
	if _, err := asker.Read(b); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("after that the way is still there: %v", err)
	}
}

// TestDetour: a member that is not there, or listens and does not answer, is gone around;
// one that answers is taken, also while another machine is awaited.
func TestDetour(t *testing.T) {
	dir := t.TempDir()
	own := filepath.Join(dir, "store.sock")
	home := func(ctx context.Context) bool { return serves(ctx, own) }
	answers := func(context.Context) (net.Conn, error) { a, _ := net.Pipe(); return a, nil }
	hangs := func(ctx context.Context) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
	fails := func(context.Context) (net.Conn, error) { return nil, errors.New("nobody") }
	try := func(what string, far func(context.Context) (net.Conn, error), loaned bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		conn, err := detour(ctx, own, far, home)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer func() { _ = conn.Close() }()
		if _, ok := conn.(*loan); ok != loaned {
			t.Errorf("%s: by way of another machine is %v", what, ok)
		}
	}
	try("no socket", answers, true)
	if _, err := detour(context.Background(), own, fails, home); err == nil {
		t.Error("nobody answers, and there is a way")
	}
	l, err := net.Listen("unix", own)
	if err != nil {
		t.Fatal(err)
	}
	try("a socket that nobody serves", answers, true)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}), ReadHeaderTimeout: time.Minute}
	time.AfterFunc(100*time.Millisecond, func() { _ = server.Serve(l) })
	try("one that is served while the other machine hangs", hangs, false)
	try("one that is served", answers, false)
	_ = server.Close()
}

// TestHome: a machine has a vote when the roll says so and it does not join any more.
func TestHome(t *testing.T) {
	home := Home{Data: t.TempDir()}
	if err := os.MkdirAll(filepath.Dir(home.at(joiningFile)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(home.at(joiningFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := &Clerk{Home: home, own: own{me: "b"}, known: known{roll: Roll{Nodes: []Node{{Name: "a", Voter: true}, {Name: "b", Voter: true}}}}}
	if votes(c) {
		t.Error("it votes while it joins")
	}
	if err := os.Remove(home.at(joiningFile)); err != nil {
		t.Fatal(err)
	}
	if !votes(c) {
		t.Error("it does not vote when it has joined")
	}
}
