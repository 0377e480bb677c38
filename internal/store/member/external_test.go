package member

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gemel/internal/ha"
	"gemel/internal/need"
	"gemel/internal/store"
	"golang.org/x/sys/unix"
)

// TestExternal speaks to an etcd of three that is not ours, over store.TLS and IPv6.
func TestExternal(t *testing.T) {
	t.Parallel()
	r := newRig(t, how{n: 3, v6: true, tls: true})
	r.clients = map[string]string{}
	conf := store.Config{Prefix: "/gemel/one/", TLS: r.ca.issue("client", "gemel://test/node")}
	for _, n := range []string{"a", "b", "c"} {
		r.clients[n] = "https://" + freeAddr(t, true)
		conf.Endpoints = append(conf.Endpoints, r.clients[n])
	}
	r.up("a", "b", "c")
	dial := func(c store.Config) *store.Client {
		t.Helper()
		out, err := store.Dial(c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = out.Close() })
		return out
	}
	c := dial(conf)
	t.Run("semantics", func(t *testing.T) { semantics(t, c) })
	t.Run("docs", func(t *testing.T) { docs(t, c) })
	t.Run("prefix", func(t *testing.T) {
		two := conf
		two.Prefix = "/gemel/two/"
		other := dial(two)
		if got := other.Read(ctxFor(t, 5*time.Second)); got.Error != "" || len(got.Nodes) != 0 || got.Epoch != 0 {
			t.Errorf("one cluster sees the other: %+v", got)
		}
		mustWrite(t, other, ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey("n"), Node: member("n", "two")}}})
		if got := c.Node(ctxFor(t, 5*time.Second), "n"); got.Record.Incarnation != "i2" {
			t.Errorf("one cluster writes into the other: %+v", got)
		}
	})
	t.Run("no certificate", func(t *testing.T) {
		anon := conf
		anon.TLS.Cert, anon.TLS.Key = "", ""
		if got := dial(anon).Node(ctxFor(t, 500*time.Millisecond), "n"); got.Error == "" {
			t.Error("whoever comes is let in")
		}
	})
	t.Run("voters", func(t *testing.T) {
		all, err := c.Voters(ctxFor(t, 5*time.Second))
		if err != nil || len(all) != 3 {
			t.Fatalf("%+v, %v", all, err)
		}
		if err := c.Lead(ctxFor(t, time.Second), all[0].ID); err == nil || !strings.Contains(err.Error(), "external") {
			t.Error(err)
		}
	})
	t.Run("hedge", func(t *testing.T) {
		// Who is asked first, and has answered, stands still: neither dead nor alive.
		const still = "a"
		c := dial(conf)
		if got := c.Node(ctxFor(t, 5*time.Second), "n"); got.Error != "" {
			t.Fatal(got.Error)
		}
		ctx, cancel := context.WithCancel(t.Context())
		news := make(chan ha.Rev, 100)
		var done sync.WaitGroup
		done.Go(func() { c.Watch(ctx, func(at ha.Rev) { news <- at }) })
		<-news
		r.freeze(r.running[still])
		var took []time.Duration
		for range 5 {
			began := time.Now()
			if got := c.Node(ctxFor(t, 20*time.Second), "n"); got.Error != "" {
				t.Fatal(got.Error)
			}
			took = append(took, time.Since(began).Round(100*time.Microsecond))
		}
		t.Logf("%s stands still; reads took %v", still, took)
		var at ha.Rev
		until(t, "write beside a member that stands still", func() error {
			got := c.Write(ctxFor(t, time.Second), ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey("h"), Node: member("h", "1")}}})
			if !got.OK && !got.Refused {
				return errors.New(got.Error)
			}
			at = c.Node(ctxFor(t, 5*time.Second), "h").Key
			return nil
		})
		began := time.Now()
		for got := ha.Rev(0); got < at; {
			select {
			case got = <-news:
			case <-time.After(20 * time.Second):
				t.Fatal("the watch has not found another way")
			}
		}
		t.Logf("the watch told it after %v more", time.Since(began).Round(time.Millisecond))
		cancel()
		done.Wait()
		r.running[still].signal(syscall.SIGCONT)
	})
}

// TestFullDisk lets one member run out of disk: it ends, the others go on.
func TestFullDisk(t *testing.T) {
	need.Root(t)
	t.Parallel()
	r := newRig(t, how{n: 3})
	small := filepath.Join(r.dir, "c")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	need.Done(t, unix.Mount("small", small, "tmpfs", 0, "size=100m"), "mounting a tmpfs")
	t.Cleanup(func() { _ = unix.Unmount(small, unix.MNT_DETACH) })
	r.up("a", "b", "c")
	c := r.client("a")
	fill, err := os.Create(filepath.Join(small, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = fill.Write(make([]byte, 64<<10))
	}
	_ = fill.Close()
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	ended := r.running["c"].ended
	for i := 0; ; i++ {
		_, _ = c.PutDoc(ctxFor(t, time.Second), fmt.Sprintf("d/%d", i%3), 0, make([]byte, 512<<10))
		d, err := c.Doc(ctxFor(t, 10*time.Second), fmt.Sprintf("d/%d", i%3))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.PutDocs(ctxFor(t, time.Second), store.Doc{Key: d.Key, Rev: d.Rev}); err != nil && !errors.Is(err, store.ErrUnknown) {
			t.Log(err)
		}
		select {
		case <-ended:
		default:
			if i < 60 {
				continue
			}
			t.Fatal("a full disk does not matter")
		}
		break
	}
	p := r.gone("c")
	t.Logf("it ended with %v; the others go on", p.cmd.ProcessState)
	if p.cmd.ProcessState.Success() {
		t.Error("it ended as if all were well")
	}
	until(t, "write without it", func() error {
		got := c.Write(ctxFor(t, time.Second), ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey("n"), Blind: true, Node: member("n", "1")}}})
		if !got.OK {
			return errors.New(got.Error)
		}
		return nil
	})
	// With room again it goes on where it was.
	if err := os.Remove(fill.Name()); err != nil {
		t.Fatal(err)
	}
	r.up("c")
	if got := r.client("c").Node(ctxFor(t, 10*time.Second), "n"); got.Error != "" || got.Record.Incarnation != "1" {
		t.Errorf("%+v", got)
	}
}
