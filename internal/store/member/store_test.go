package member

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"gemel/internal/ha"
	"gemel/internal/store"
)

func ctxFor(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func member(n ha.Node, inc string) *ha.NodeRecord {
	return &ha.NodeRecord{Node: n, Incarnation: ha.Incarnation(inc), State: ha.NodeMember, Life: 1500 * time.Millisecond}
}

func mustWrite(t *testing.T, c *store.Client, w ha.WriteStore) ha.Rev {
	t.Helper()
	got := c.Write(ctxFor(t, 5*time.Second), w)
	if !got.OK {
		t.Fatalf("write: %+v", got)
	}
	return got.At
}

// semantics is what the model in internal/sim promises, asked of the real thing.
func semantics(t *testing.T, c *store.Client) {
	ctx := ctxFor(t, 20*time.Second)
	none := c.Node(ctx, "n")
	if none.Error != "" || none.Key != 0 || none.At == 0 {
		t.Fatalf("a node that is not there: %+v", none)
	}
	r1 := mustWrite(t, c, ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey("n"), Node: member("n", "i1")}}})
	got := c.Node(ctx, "n")
	if got.Error != "" || got.Key != r1 || got.At < r1 || got.Record.Incarnation != "i1" || got.Record.Life != 1500*time.Millisecond {
		t.Fatalf("read %+v after a write at %d", got, r1)
	}
	for name, w := range map[string]ha.WriteStore{
		"must not exist":  {Puts: []ha.Put{{Key: ha.NodeKey("n"), Node: member("n", "x")}}},
		"other revision":  {Puts: []ha.Put{{Key: ha.NodeKey("n"), Guard: r1 + 1, Node: member("n", "x")}}},
		"epoch of nobody": {Epoch: 7, Puts: []ha.Put{{Key: ha.NodeKey("n"), Guard: r1, Node: member("n", "x")}}},
		"one of two": {Puts: []ha.Put{
			{Key: ha.NodeKey("m"), Node: member("m", "x")},
			{Key: ha.NodeKey("n"), Guard: r1 - 1, Node: member("n", "x")},
		}},
		"only compared": {Puts: []ha.Put{{Key: ha.NodeKey("m"), Node: member("m", "x")}, {Key: ha.BrainKey, Guard: 3}}},
	} {
		if got := c.Write(ctx, w); !got.Refused || got.OK || got.Error != "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := c.Node(ctx, "m"); got.Key != 0 {
		t.Fatalf("half of a refused transaction was written: %+v", got)
	}

	epoch := mustWrite(t, c, ha.WriteStore{Puts: []ha.Put{{Key: ha.BrainKey, Brain: &ha.BrainRecord{Node: "n", Incarnation: "i1"}}}})
	n := member("n", "i1")
	n.Grants = []ha.Grant{{Group: "web", Fence: ha.Fence{Counter: 1}}}
	r2 := mustWrite(t, c, ha.WriteStore{Epoch: epoch, Puts: []ha.Put{
		{Key: ha.NodeKey("n"), Guard: r1, Node: n},
		{Key: ha.GroupKey("web"), Group: &ha.GroupRecord{Group: "web", Fence: ha.Fence{Counter: 1}, Node: "n", Incarnation: "i1"}},
		{Key: ha.NodeKey("absent")}, // compared
	}})
	all := c.Read(ctx)
	if all.Error != "" || all.Epoch != epoch || all.Brain.Node != "n" || len(all.Nodes) != 1 || len(all.Groups) != 1 ||
		all.Nodes[0].Key != r2 || all.Groups[0].Key != r2 || all.Nodes[0].Grants[0] != n.Grants[0] || all.At < r2 {
		t.Fatalf("all of it: %+v", all)
	}
	// A blind put is a planted bug, and must be one.
	r3 := mustWrite(t, c, ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey("n"), Blind: true, Node: member("n", "i2")}}})
	if got := c.Node(ctx, "n"); got.Key != r3 || got.Record.Incarnation != "i2" || len(got.Record.Grants) != 0 {
		t.Fatalf("after a blind put: %+v", got)
	}
	// A record under somebody else's name is nobody's.
	mustWrite(t, c, ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey("thief"), Node: member("n", "i2")}}})
	if got := c.Node(ctx, "thief"); got.Error == "" {
		t.Fatalf("a record that was copied is taken: %+v", got)
	}
	if got := c.Read(ctx); got.Error == "" {
		t.Fatal("a record that was copied is taken by the brain")
	}
}

func docs(t *testing.T, c *store.Client) {
	ctx := ctxFor(t, 20*time.Second)
	d, err := c.Doc(ctx, "manifest/current")
	if err != nil || d.Rev != 0 || d.Value != nil {
		t.Fatalf("%+v, %v", d, err)
	}
	large := bytes.Repeat([]byte("gemel "), (1<<20)/6)
	at, err := c.PutDocs(ctx, store.Doc{Key: "manifest/v/1", Value: large}, store.Doc{Key: "manifest/current", Value: []byte("1")})
	if err != nil {
		t.Fatal(err)
	}
	if d, err = c.Doc(ctx, "manifest/v/1"); err != nil || d.Rev != at || !bytes.Equal(d.Value, large) {
		t.Fatalf("%d bytes at %d, %v", len(d.Value), d.Rev, err)
	}
	if _, err := c.PutDocs(ctx, store.Doc{Key: "manifest/v/2", Value: []byte("x")}, store.Doc{Key: "manifest/current", Value: []byte("2")}); !errors.Is(err, store.ErrRefused) || errors.Is(err, store.ErrUnknown) {
		t.Fatalf("a pointer that somebody has moved: %v", err)
	}
	list, _, err := c.Docs(ctx, "manifest/")
	if err != nil || len(list) != 2 || list[0].Key != "manifest/current" || list[1].Key != "manifest/v/1" {
		t.Fatalf("%d documents, %v", len(list), err)
	}
	if _, err := c.PutDoc(ctx, "big", 0, make([]byte, 1400<<10+1)); !errors.Is(err, store.ErrRefused) {
		t.Fatalf("one that is too large: %v", err)
	} else {
		t.Log(err)
	}
	next, err := c.PutDoc(ctx, "setting", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutDocs(ctx, store.Doc{Key: "setting", Rev: next}, store.Doc{Key: "manifest/v/1", Rev: at}); err != nil {
		t.Fatal(err)
	}
	if d, err := c.Doc(ctx, "setting"); err != nil || d.Rev != 0 {
		t.Fatalf("taken away: %+v, %v", d, err)
	}
	if _, err := c.PutDoc(ctx, "", 0, nil); !errors.Is(err, store.ErrRefused) {
		t.Fatalf("no key: %v", err)
	}
}

// fills shows that documents leave room for who decides.
func fills(t *testing.T, c *store.Client) {
	ctx := ctxFor(t, 60*time.Second)
	var err error
	for i := 0; err == nil && i < 80; i++ {
		_, err = c.PutDoc(ctx, fmt.Sprintf("fill/%d", i), 0, make([]byte, 1<<20))
	}
	if !errors.Is(err, store.ErrRefused) {
		t.Fatalf("documents may fill the store: %v", err)
	}
	t.Log(err)
	mustWrite(t, c, ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey("full"), Node: member("full", "i")}}})
}

func TestSingle(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("v6=%v", v6), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, how{n: 1, v6: v6})
			r.up("a")
			c := r.client("a")
			t.Run("semantics", func(t *testing.T) { semantics(t, c) })
			t.Run("docs", func(t *testing.T) { docs(t, c) })
			if v6 {
				t.Run("fills", func(t *testing.T) { fills(t, c) })
			}
			st, err := os.Stat(r.members["a"].Socket)
			if err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("socket: %v, %v", st.Mode(), err)
			}
			t.Logf("stopping took %v", r.halt("a"))
			if _, err := os.Stat(r.members["a"].Socket); !os.IsNotExist(err) {
				t.Errorf("the socket is still there: %v", err)
			}
		})
	}
}
