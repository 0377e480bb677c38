package lab

import (
	"fmt"
	"strings"
	"testing"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
	"gemel/internal/need"
)

// hearts are the numbers of the keys of the heartbeats on a machine, the one that seals
// first, and whether something is being replaced.
func (i *Instance) hearts() (keys []string, busy bool) {
	i.tb.Helper()
	o := i.must("cert")
	list, _ := o["keys"].([]any)
	for _, k := range list {
		k, _ := k.(map[string]any)
		keys = append(keys, fmt.Sprint(k["id"]))
	}
	way, _ := o["under_way"].([]any)
	return keys, len(way) > 0
}

// TestHeartbeatKey: the key of the heartbeats is replaced on all machines while the groups
// run. One that is down holds it up, and comes back with a key that the others still open.
func TestHeartbeatKey(t *testing.T) {
	need.Root(t)
	a, b, w := three(t, clustered)
	a.Until("the group is active", func(s *gemelv1.Snapshot) bool { return active(s, "g") })
	before, busy := a.hearts()
	if len(before) != 1 || busy {
		t.Fatalf("the keys are %v, under way: %v", before, busy)
	}
	o := a.must("cert")
	if list, _ := o["certificates"].([]any); len(list) < 3+3+3+2 { // authorities, a, b, w
		t.Errorf("%d certificates are listed: %v", len(list), list)
	}
	marks := []uint64{a.Mark(), b.Mark()}

	w.Stop()
	a.must("cert", "rotate", "heartbeats")
	a.refuses("being replaced already", "cert", "rotate", "heartbeats")
	await(t, "two machines have both keys", func() bool {
		x, _ := a.hearts()
		y, _ := b.hearts()
		return len(x) == 2 && len(y) == 2 && x[0] == before[0] && y[0] == before[0]
	})
	w.Begin()
	await(t, "all have the new key alone", func() bool {
		for _, i := range []*Instance{a, b, w} {
			if k, busy := i.hearts(); len(k) != 1 || k[0] == before[0] || busy {
				return false
			}
		}
		return true
	})
	// Nobody was suspected for it but who was stopped, and nothing was stopped.
	for n, i := range []*Instance{a, b} {
		for _, e := range i.Events(marks[n], "") {
			if code := ha.Code(e.GetCode()); code == ha.GroupStopped || code == ha.MemberSuspected || code == ha.MemberEvicted || strings.Contains(e.GetText(), "Store not") {
				t.Errorf("%s", line(e))
			}
		}
	}
	// What comes from now on is sealed by the key that is left.
	s := b.Status()
	seen := func(s *gemelv1.Snapshot) bool {
		for _, n := range s.GetCluster().GetNodes() {
			if n.GetName() == "a" {
				return n.GetHeard() != nil && len(n.GetHears()) > 0
			}
		}
		return false
	}
	if !seen(s) {
		b.Until("a is heard", seen)
	}
}

// signedBy are the numbers of the authorities of nodes, and of what they signed for the
// machines that are named.
func (i *Instance) signedBy() (authorities []string, machines map[string]string) {
	i.tb.Helper()
	machines = map[string]string{}
	list, _ := i.must("cert")["certificates"].([]any)
	for _, c := range list {
		c, _ := c.(map[string]any)
		name, by := fmt.Sprint(c["name"]), fmt.Sprint(c["authority"])
		switch {
		case c["signs"] == true && strings.HasSuffix(name, "/nodes"):
			authorities = append(authorities, by)
		case strings.Contains(name, "/node/"), strings.Contains(name, "/witness/"):
			machines[name[strings.LastIndex(name, "/")+1:]] = by // the newest is last
		}
	}
	return authorities, machines
}

// TestAuthorityOfNodes: the authority of nodes is replaced on all machines while the groups
// run; one that is down holds it up. Then the new one alone is trusted, and signs for a
// newcomer.
func TestAuthorityOfNodes(t *testing.T) {
	need.Root(t)
	a, b, w := three(t, clustered)
	a.Until("the group is active", func(s *gemelv1.Snapshot) bool { return active(s, "g") })
	old, by := a.signedBy()
	if len(old) != 1 || by["a"] != old[0] || by["b"] != old[0] || by["w"] != old[0] {
		t.Fatalf("authorities %v, signed by %v", old, by)
	}
	marks := []uint64{a.Mark(), b.Mark()}
	stale := a.must("token")
	w.Stop()
	a.must("cert", "rotate", "nodes")
	b.refuses("being replaced already", "cert", "rotate", "nodes")
	a.refuses("of the store cannot be replaced", "cert", "rotate", "store")
	await(t, "both are trusted, and the other node has the key of the new one", func() bool {
		x, _ := b.signedBy()
		return len(x) == 2 && exists(b.Path("data/cluster/authority/nodes.next.pem"))
	})
	if _, by := a.signedBy(); by["a"] != old[0] || by["b"] != old[0] {
		t.Errorf("the new authority signed before all trusted it: %v", by)
	}
	w.Begin()
	await(t, "the new one alone is trusted", func() bool {
		x, by := b.signedBy()
		return len(x) == 1 && x[0] != old[0] && by["a"] == x[0] && by["b"] == x[0] && by["w"] == x[0]
	})
	for n, i := range []*Instance{a, b} {
		for _, e := range i.Events(marks[n], "") {
			if code := ha.Code(e.GetCode()); code == ha.GroupStopped || code == ha.MemberSuspected || code == ha.MemberEvicted {
				t.Errorf("%s", line(e))
			}
		}
	}
	// It vouches for a newcomer, whoever lets it in; a token of before does not.
	at, next := a.addresses(), homes(t, 4)[3]
	x := New(t, "")
	if _, code := x.tool("join", "--name", "x", "--address", "n="+next, at["a"], text(stale, "token")); code == 0 {
		t.Error("a token that names the authority of before is good")
	}
	fresh := b.must("token")
	x.must("join", "--name", "x", "--address", "n="+next, at["b"], text(fresh, "token"))
	if _, by := a.signedBy(); by["x"] == "" || by["x"] == old[0] {
		t.Errorf("the newcomer was signed for by %q", by["x"])
	}
}
