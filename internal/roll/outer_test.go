package roll

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"gemel/internal/manifest"
)

// away is where an etcd of somebody's own is.
func away() manifest.Store {
	return manifest.Store{Endpoints: []string{"10.9.0.1:2379"}, Prefix: "/gemel", Election: time.Second, CA: "/ca.pem"}
}

// outerRoll is the roll of a cluster with an etcd of its own.
func outerRoll(t *testing.T, names ...string) Roll {
	t.Helper()
	r := rollOf(names[0])
	r.Store, r.Nodes[0].Voter = &outer{At: away(), ID: 7}, false
	r.Timers = Setup{}.paced(r.Timers, away(), time.Millisecond)
	for _, n := range names[1:] {
		var err error
		if r, err = r.with(nodeOf(n, len(r.Nodes)+1)); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// With an etcd of its own nobody of the cluster votes, a witness is refused, and two nodes
// lack nothing. Where a machine has the etcd's files is its own; when it elects is not.
func TestOuterRoll(t *testing.T) {
	one, r := outerRoll(t, "a"), outerRoll(t, "a", "b")
	if len(r.voters()) != 0 || r.Lacks() != "" || !strings.Contains(one.Lacks(), "a second node is missing: if") {
		t.Errorf("voters %v; two nodes lack %q, one lacks %q", r.voters(), r.Lacks(), one.Lacks())
	}
	if _, err := r.with(nodeOf("w", 3)); err == nil || !strings.Contains(err.Error(), "has its votes") {
		t.Errorf("a witness: %v", err)
	}
	old, err := r.Identity("b", nil)
	if err != nil {
		t.Fatal(err)
	}
	old.Store.CA, old.Store.Endpoints, old.Store.Election = "/elsewhere.pem", []string{"10.9.0.2:2379"}, 5*time.Second
	id, err := r.Identity("b", old)
	if err != nil {
		t.Fatal(err)
	}
	if s := id.Store; s.CA != "/elsewhere.pem" || s.Endpoints[0] != "10.9.0.2:2379" || s.Election != time.Second {
		t.Errorf("the store of b is %+v", s)
	}
	if id, err := rollOf("a", "b").Identity("b", old); err != nil || id.Store.External() {
		t.Errorf("a cluster that keeps its store itself has a node with another one: %+v, %v", id, err)
	}
}

// The times are raised as far as the etcd's own need it, and no further.
func TestPaced(t *testing.T) {
	usual, _ := manifest.Profile("normal")
	for _, c := range []struct{ election, write, life time.Duration }{
		{400 * time.Millisecond, 10 * time.Millisecond, usual.Life},
		{400 * time.Millisecond, 300 * time.Millisecond, 2 * time.Second},
		{time.Second, 10 * time.Millisecond, 3200 * time.Millisecond},
		{5 * time.Second, time.Second, 17200 * time.Millisecond},
	} {
		at := away()
		at.Election = c.election
		got := Setup{}.paced(usual, at, c.write)
		if got.Life != c.life || got.Spare() <= c.write || got.Tick != 0 || got.Election != c.election {
			t.Errorf("%v: %+v, spare %v", c, got, got.Spare())
		}
	}
}

// A node whose node.yaml points elsewhere than its cluster is not let begin: each side
// would run everything.
func TestOutside(t *testing.T) {
	h := Home{Data: t.TempDir()}
	h.Node = h.Data + "/node.yaml"
	if err := h.make(); err != nil {
		t.Fatal(err)
	}
	r := outerRoll(t, "a", "b")
	id, err := r.Identity("a", nil)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := h.Outside(id); err != nil || c.Cluster != 0 || c.Proof != "" || c.Prefix != "/gemel/abc/" || c.Endpoints[0] != "https://10.9.0.1:2379" {
		t.Errorf("set up by hand: %+v, %v", c, err)
	}
	if err := h.write(r, "a"); err != nil {
		t.Fatal(err)
	}
	if c, err := h.Outside(id); err != nil || c.Cluster != 7 || c.Proof != rollKey {
		t.Errorf("%+v, %v", c, err)
	}
	id.Store.Prefix = "/other"
	if _, err := h.Outside(id); err == nil || !strings.Contains(err.Error(), "prefix") {
		t.Errorf("another prefix: %v", err)
	}
	id.Store.Prefix = "/gemel"
	if err := h.write(rollOf("a", "b"), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Outside(id); err == nil || !strings.Contains(err.Error(), "keeps it itself") {
		t.Errorf("a cluster that keeps its store itself: %v", err)
	}
	if _, _, err := (Setup{Store: manifest.Store{CA: "/nowhere"}}).anchor(context.Background(), "abc", r.Timers); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestSplit(t *testing.T) {
	for in, want := range map[string][2]string{"/gemel": {"", "gemel"}, "/a/b/": {"/a", "b"}, "/": {"", ""}} {
		if up, last := split(in); up != want[0] || last != want[1] {
			t.Errorf("%s: %q, %q", in, up, last)
		}
	}
}
