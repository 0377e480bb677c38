package member

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gemel/internal/store"
)

// TestLinked fails when etcd has no such variable any more: then the linker makes
// one of ours that nobody reads, and it is zero.
func TestLinked(t *testing.T) {
	if readIndexRetryTime != 500*time.Millisecond {
		t.Fatalf("etcd's readIndexRetryTime is %v and not 500ms: look where it has gone", readIndexRetryTime)
	}
}

func TestMemberChecked(t *testing.T) {
	good := func() Member {
		return Member{
			Name: "a", Dir: "/var/lib/x", Socket: "/run/x", Listen: []string{"127.0.0.1"}, Token: "t",
			Cluster: map[string][]string{"a": {"127.0.0.1", "[::1]:7"}, "b": {"10.0.0.2:5316"}},
		}
	}
	m, err := good().checked()
	if err != nil || m.Heartbeat != 40*time.Millisecond || m.Election != 400*time.Millisecond {
		t.Fatalf("%+v, %v", m, err)
	}
	if s := m.initial(); s != "a=unix://61:1,b=unix://62:1" {
		t.Errorf("%q", s)
	}
	files := store.TLS{Cert: "c", Key: "k", CA: "a", Role: "r"}
	for want, change := range map[string]func(*Member){
		"name":               func(m *Member) { m.Name = "a=b" },
		"directory":          func(m *Member) { m.Dir = "x" },
		"without TLS":        func(m *Member) { m.Listen = []string{"10.0.0.1"} },
		"without TLS: only":  func(m *Member) { m.Cluster["a"] = []string{"[fd00::1]:5316"} },
		"zone":               func(m *Member) { m.Listen = []string{"fe80::1%eth0"} },
		"port":               func(m *Member) { m.Listen = []string{"127.0.0.1:70000"} },
		"an IP address":      func(m *Member) { m.Listen = []string{"nowhere"} },
		"token":              func(m *Member) { m.Token = "" },
		"at least 5":         func(m *Member) { m.Election = 2 * m.Heartbeat },
		"whole milliseconds": func(m *Member) { m.Heartbeat = 1500 * time.Microsecond },
		"all of":             func(m *Member) { m.TLS = files; m.TLS.Role = "" },
		"no address":         func(m *Member) { m.Listen = nil },
		"of \"a\" itself":    func(m *Member) { delete(m.Cluster, "a") },
	} {
		m := good()
		m.Heartbeat, m.Election = 20*time.Millisecond, 200*time.Millisecond
		change(&m)
		if _, err := m.checked(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	m = good()
	m.Listen, m.TLS = []string{"10.0.0.1", "fd00::1"}, files
	if _, err := m.checked(); err != nil {
		t.Error(err)
	}
	m.TLS, m.Plain = store.TLS{}, true
	if _, err := m.checked(); err != nil {
		t.Error(err)
	}
}

// TestLongSocket serves and asks through a path that no address of a socket holds.
func TestLongSocket(t *testing.T) {
	t.Parallel()
	r := newRig(t, how{n: 1})
	m := r.members["a"]
	m.Socket = filepath.Join(r.dir, strings.Repeat("long", 30), "sock")
	if err := os.MkdirAll(filepath.Dir(m.Socket), 0o700); err != nil {
		t.Fatal(err)
	}
	r.members["a"] = m
	r.up("a")
	c := r.client("a")
	if got := c.Node(ctxFor(t, 5*time.Second), "n"); got.Error != "" {
		t.Fatal(got.Error)
	}
	if _, err := c.Voters(ctxFor(t, 5*time.Second)); err != nil {
		t.Fatal(err)
	}
	r.kill("a") // leaves its socket
	if _, err := os.Lstat(m.Socket); err != nil {
		t.Fatal(err)
	}
	r.up("a")
	// A second one on the same data does not wait: it says who holds it.
	first := r.running["a"]
	r.start("a")
	if p := r.gone("a"); !strings.Contains(p.text(), "held by another process") {
		t.Errorf("%q", p.text())
	}
	r.running["a"] = first
	r.halt("a")
	if _, err := os.Lstat(m.Socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}
