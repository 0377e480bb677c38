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

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"gemel/internal/ha"
	"gemel/internal/store/disk"
)

// within fails the test if something takes longer than anything here may.
func within(t *testing.T, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s does not end", what)
	}
}

// TestNeverAnswers asks somebody who takes connections, and says nothing at all.
func TestNeverAnswers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c := dialFake(t, path)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	within(t, "a read", func() {
		if got := c.Node(ctx, "n"); got.Error == "" {
			t.Errorf("%+v", got)
		}
	})
	within(t, "a write", func() {
		if _, err := c.PutDoc(ctxFor(t, 100*time.Millisecond), "d", 0, nil); !errors.Is(err, ErrRefused) || errors.Is(err, ErrUnknown) {
			t.Errorf("what was never sent: %v", err)
		}
	})
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { c.Watch(ctx, func(ha.Rev) { t.Error("something has changed") }) })
	within(t, "a watch", func() { stop(); all.Wait() })
	within(t, "closing", func() { _ = c.Close() })
	if got := c.Node(t.Context(), "n"); got.Error == "" {
		t.Error("a client that is closed answers")
	}
}

// A watched is a fake that begins every watch, and says no more of it unless it lives.
type watched struct {
	etcdserverpb.UnimplementedWatchServer
	begun atomic.Int64
	lives bool // asked for its progress, it answers
}

func (w *watched) Watch(s grpc.BidiStreamingServer[etcdserverpb.WatchRequest, etcdserverpb.WatchResponse]) error {
	at := w.begun.Add(1)
	for {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		if r.GetCreateRequest() == nil && !w.lives {
			continue
		}
		answer := &etcdserverpb.WatchResponse{Created: r.GetCreateRequest() != nil, Header: &etcdserverpb.ResponseHeader{ClusterId: 1, Revision: 100 + at}}
		if err := s.Send(answer); err != nil {
			return err
		}
	}
}

// TestWatchSilent has a watch that begins and says nothing more: another one takes its
// place. One that shows that it lives is left alone.
func TestWatchSilent(t *testing.T) {
	for _, lives := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "s")
		f, w := &fake{version: "3.7.3", cluster: 1, rev: 10}, &watched{lives: lives}
		f.watch = w
		stop := f.serve(t, path)
		c := dialFake(t, path)
		ctx, cancel := context.WithCancel(t.Context())
		news := make(chan ha.Rev, 100)
		var all sync.WaitGroup
		all.Go(func() { c.Watch(ctx, func(at ha.Rev) { news <- at }) })
		if at := <-news; at != 101 {
			t.Errorf("it has begun at %d", at)
		}
		if lives {
			timer := time.NewTimer(3 * pulse)
			<-timer.C
			if n := w.begun.Load(); n != 1 {
				t.Errorf("it was begun %d times although it lives", n)
			}
		} else {
			within(t, "the silence", func() {
				if at := <-news; at != 102 {
					t.Errorf("it was begun anew at %d", at)
				}
			})
		}
		within(t, "the watch", func() { cancel(); all.Wait() })
		stop()
	}
}

// TestGoesAway ends a server in order while it has a call: that call is answered, and
// what comes after it goes to the next one.
func TestGoesAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	one := &fake{version: "3.7.3", cluster: 1, rev: 10}
	entered, leave := make(chan struct{}), make(chan struct{})
	var once sync.Once
	one.txn = func(context.Context) error {
		once.Do(func() { close(entered); <-leave })
		return nil
	}
	one.serve(t, path)
	c := dialFake(t, path)
	wrote := make(chan ha.StoreWritten)
	go func() { wrote <- c.Write(ctxFor(t, 20*time.Second), ha.WriteStore{}) }()
	<-entered
	gone := make(chan struct{})
	go func() { defer close(gone); one.server.GracefulStop() }()
	until(t, func() bool { // its listener is closed first
		conn, err := disk.Dial(&net.Dialer{}, path)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	if err := disk.Clear(path); err != nil {
		t.Fatal(err)
	}
	two := &fake{version: "3.7.3", cluster: 1, rev: 20}
	defer two.serve(t, path)()
	within(t, "a read at the next one", func() {
		until(t, func() bool { return c.Node(ctxFor(t, time.Second), "n").At == 20 })
	})
	close(leave)
	if w := <-wrote; !w.OK || w.At != 10 {
		t.Errorf("a write that was on its way: %+v", w)
	}
	within(t, "the end of the first", func() { <-gone })
}

// until tries again and again.
func until(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); {
		if time.Now().After(end) {
			t.Fatal("it does not come")
		}
		wait(t.Context(), 5*time.Millisecond)
	}
}
