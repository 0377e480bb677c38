package lab

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/need"
)

// fence is that of a group, as one instance sees it.
func fence(s *gemelv1.Snapshot, name string) string {
	for _, g := range s.GetGroups() {
		if g.GetName() == name {
			return g.GetFence()
		}
	}
	return ""
}

// addresses are those of all machines of the cluster in the network n.
func (i *Instance) addresses() map[string]string {
	i.tb.Helper()
	var r struct {
		Nodes []struct {
			Name      string
			Addresses map[string]string
		}
	}
	b, err := os.ReadFile(i.Path("data/cluster/roll.json"))
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		i.tb.Fatal(err)
	}
	out := map[string]string{}
	for _, n := range r.Nodes {
		out[n.Name], _, _ = strings.Cut(n.Addresses["n"], ":")
	}
	return out
}

// dies ends a whole node but for its disk.
func (i *Instance) dies(programs ...string) {
	i.tb.Helper()
	s := i.Status()
	i.Kill()
	for _, name := range append(programs, "gemel-store") {
		if pid := Process(s, name).GetPid(); pid != 0 {
			_ = unix.Kill(int(pid), unix.SIGKILL) // the guard may have been faster
		}
	}
}

// TestRestore: most voters are lost for good. One node begins the cluster anew from a
// backup, in a new era, when it is said that the others are off and none of them is seen to
// live. One of the era before that comes back does nothing, and joins anew.
func TestRestore(t *testing.T) {
	need.Root(t)
	a, b, w := three(t, clustered)
	a.Until("the group is active", func(s *gemelv1.Snapshot) bool { return active(s, "g") })
	before := fence(a.Status(), "g")
	at := a.addresses()
	file := a.Path("store.backup")
	a.must("backup", file)
	stale := text(a.must("token", "--name", "b"), "token")
	a.refuses("runs here", "restore", file, "--off", "b")

	w.Stop()
	a.Stop()
	a.refuses("is not off: it answers", "restore", file, "--off", "b")
	b.dies("plain", "one")
	a.refuses("which is not the same as off", "restore", file)
	a.refuses("no other machine x", "restore", file, "--off", "b,x")
	a.refuses("none of gemel backup", "restore", a.Path("gemel.yaml"), "--off", "b")
	said := a.must("restore", file, "--off", "b")
	a.Begin()
	s := a.Until("the group is active in the new era", func(s *gemelv1.Snapshot) bool { return active(s, "g") && on(s, "g") == "a" })
	if f := fence(s, "g"); !strings.HasPrefix(before, "1.") || !strings.HasPrefix(f, "2.") {
		t.Errorf("the fence was %s and is %s", before, f)
	}
	if nodes(s) != "a member" {
		t.Errorf("the nodes of the new era are %s", nodes(s))
	}

	// A node of the era before is back: it has no authority, and is not heard.
	b.Begin()
	b.Until("it knows that the store is away", func(s *gemelv1.Snapshot) bool { return s.GetCluster() != nil && !s.GetCluster().GetStore() })
	if p := Process(b.Status(), "one"); p.GetPid() != 0 {
		t.Errorf("the group runs on a node of the era before: %v", p)
	}
	b.Stop()
	b.refuses("already", "join", "--name", "b", "--address", "n="+at["b"], at["a"], text(said, "token"))
	// A token that nobody takes costs it nothing: it is what it was.
	b.refuses("", "join", "--anew", "--name", "b", "--address", "n="+at["b"], at["a"], stale)
	b.Begin()
	b.Until("it is what it was", func(s *gemelv1.Snapshot) bool { return s.GetCluster() != nil })
	b.Stop()
	b.must("join", "--anew", "--name", "b", "--address", "n="+at["b"], at["a"], text(said, "token"))
	b.Begin()
	a.Until("b is a member of the new era", func(s *gemelv1.Snapshot) bool { return nodes(s) == "a member, b member" && on(s, "g") == "a" })
}

// TestDamagedVoter: the log of one member of the store cannot be read any more. It does not
// start on it, and says so; its node goes on by way of the others, and nothing moves. It comes in again as
// the manual says.
func TestDamagedVoter(t *testing.T) {
	need.Root(t)
	a, b, _ := three(t, clustered)
	s := a.Until("the group is active", func(s *gemelv1.Snapshot) bool { return active(s, "g") && on(s, "g") == "a" })
	pid := Process(s, "one").GetPid()
	at := a.addresses()
	b.Stop()
	logs, err := filepath.Glob(b.Path("data/store/member/wal/*.wal"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("the log of b's member is not where it was thought: %v, %v", logs, err)
	}
	for _, file := range logs {
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteAt([]byte("not what it was"), 1000)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	b.Begin()
	b.Until("its member does not run, and the store is reached", func(s *gemelv1.Snapshot) bool {
		return Process(s, "gemel-store").GetPid() == 0 && s.GetCluster().GetStore() && nodes(s) == "a member, b member, w votes"
	})
	if log, err := b.Command("logs", "gemel-store").Output(); err != nil || !strings.Contains(string(log), "not the store that it was") {
		t.Errorf("the log of b's member says %v, %s", err, log)
	}
	token := text(a.must("token", "--name", "b"), "token")
	b.Stop()
	b.must("join", "--anew", "--name", "b", "--address", "n="+at["b"], at["a"], token)
	b.Begin()
	s = a.Until("three members of the store again", func(s *gemelv1.Snapshot) bool {
		return s.GetCluster().GetStore() && nodes(s) == "a member, b member, w votes" && s.GetCluster().GetLacks() == ""
	})
	if now := Process(s, "one").GetPid(); now != pid {
		t.Errorf("the program of the group has another pid: %d, and was %d", now, pid)
	}
}
