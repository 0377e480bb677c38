package lab

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
)

// outerPair are two nodes without a witness on an etcd of somebody's own.
func outerPair(t *testing.T, e *etcd, at, who []string) (a, b *Instance) {
	t.Helper()
	file := e.file("etcd.yaml", who...)
	a, b = Start(t, clustered), New(t, "")
	t.Cleanup(func() { b.aside(); a.aside() })
	first := a.must("init", "--name", "a", "--address", "n="+at[0], "--one-network", "--store", file)
	a.Until("the group is active in the cluster", func(s *gemelv1.Snapshot) bool { return groupOn(s) == "a active" })
	for words, line := range map[string]string{"no such file": "ca: /nowhere.pem", "differ from those of the cluster": "prefix: /other"} {
		b.refuses(words, "join", "--name", "b", "--address", "n="+at[1], at[0], text(first, "token"), "--store", e.file("elsewhere.yaml", append(who[:len(who):len(who)], line)...))
	}
	b.must("join", "--name", "b", "--address", "n="+at[1], at[0], text(first, "token"))
	b.comes()
	a.Until("both are members", func(s *gemelv1.Snapshot) bool {
		return nodes(s) == "a member, b member" && groupOn(s) == "a active" && s.GetCluster().GetLacks() == ""
	})
	return a, b
}

// TestOwnEtcd: two nodes without a witness keep their store in an etcd of an operator's
// own, which knows them by name and password. What is wrong with it is refused with its
// reason before anything is changed. The death of a node moves its group; an etcd that is
// away stops the groups, and nothing else; one that lost the cluster's keys is not believed.
func TestOwnEtcd(t *testing.T) {
	at := homes(t, 3)
	e := newEtcd(t, at[2])
	e.guard("/gemel/")
	e.write("password", "hush\n")
	who := []string{"user: gemel", "password-file: " + e.path("password")}
	x := New(t, "")
	x.notBegun(e, at, who)
	a, b := outerPair(t, e, at, who)
	id := a.Status().GetCluster().GetId()
	x.refuses("another cluster, "+id, "init", "--name", "x", "--address", "n="+at[2], "--one-network", "--store", e.file("inside.yaml", append(who, "prefix: /gemel/"+id)...))
	x.refuses("has its votes", "join", "--name", "w", "--address", "n="+at[2], at[0], text(a.must("token", "--witness"), "token"))

	dies := []int32{Process(a.Status(), "one").GetPid(), Process(a.Status(), "plain").GetPid()}
	a.Kill()
	for _, pid := range dies {
		_ = unix.Kill(int(pid), unix.SIGKILL) // the guard may have been faster
	}
	s := b.Until("the group is here", func(s *gemelv1.Snapshot) bool { return groupOn(s) == "b active" })
	before := fence(s, "g")
	a.Begin()
	b.Until("a is back", func(s *gemelv1.Snapshot) bool { return nodes(s) == "a member, b member" && groupOn(s) == "b active" })

	// The etcd is away: the group stops, and goes on when it is back.
	plain, mark := b.Running("plain"), b.Mark()
	e.stop()
	away := b.Await(mark, ha.StoreAway, "b")
	if !strings.Contains(away.GetDetail(), "refused") {
		t.Errorf("the alarm does not say why: %q", away.GetDetail())
	}
	b.Until("the group is stopped", func(s *gemelv1.Snapshot) bool {
		return Process(s, "one").GetPid() == 0 && !s.GetCluster().GetStore()
	})

	// Another etcd in its place, without the keys of the cluster, is not believed.
	e.users = false
	e.start("empty")
	e.guard("/gemel/")
	a.Stop()
	a.Begin()
	a.Until("a new life is not lured", func(s *gemelv1.Snapshot) bool { return !s.GetCluster().GetStore() && Process(s, "one").GetPid() == 0 })
	e.stop()

	e.start("data")
	s = b.Until("the group is active again", func(s *gemelv1.Snapshot) bool { return s.GetCluster().GetStore() && active(s, "g") })
	if f := fence(s, "g"); f != before {
		t.Errorf("the fence was %s, and is %s: it was granted anew, or to nobody", before, f)
	}
	if p := b.Running("plain"); p.GetPid() != plain.GetPid() {
		t.Errorf("a program of no group was restarted: pid %d, now %d", plain.GetPid(), p.GetPid())
	}

	a.refuses("only its user root", "backup", a.Path("copy"))
	b.must("leave")
	a.Until("a is alone and has the group", func(s *gemelv1.Snapshot) bool {
		return len(s.GetCluster().GetNodes()) == 1 && s.GetCluster().GetStore() && groupOn(s) == "a active"
	})
}

// notBegun tries what must not become a cluster.
func (i *Instance) notBegun(e *etcd, at, who []string) {
	i.tb.Helper()
	other := newPapers(e.t)
	for _, c := range []struct {
		words string
		lines []string
	}{
		{"takes us for none", nil},
		{"signed by unknown authority", append([]string{"ca: " + other.path("ca.pem")}, who...)},
		{"does not take the user gemel", []string{"user: gemel", "password-file: " + other.write("wrong", "wrong")}},
		{"no such file", []string{"user: gemel", "password-file: /nowhere/password"}},
		{"does not give us our keys", append([]string{"prefix: /other"}, who...)},
		{"connection refused", append([]string{"endpoints: [" + vacant(e.t, at[2]) + "]"}, who...)},
		{"connection refused", append([]string{"endpoints: [" + e.at + ", " + vacant(e.t, at[2]) + "]"}, who...)},
		{"it is 3.5.9, at least 3.6.14 is needed", []string{"endpoints: [" + e.old(at[2], "3.5.9") + "]"}},
		{"first record does not look like a TLS handshake", append([]string{"endpoints: [" + e.peer + "]"}, who...)},
	} {
		i.refuses(c.words, "init", "--name", "x", "--address", "n="+at[2], "--one-network", "--store", e.file("wrong.yaml", c.lines...))
	}
	if o, code := i.tool("init", "--name", "x", "--address", "n="+at[2], "--one-network", "--store", e.file("half.yaml", "user: gemel")); code != 7 {
		i.tb.Errorf("half a login: exit %d: %v", code, o)
	}
	if _, err := os.Stat(i.Path("data/node.yaml")); err == nil {
		i.tb.Error("what was refused has left a node.yaml")
	}
}

// TestOwnEtcdByCertificate: the same, by certificates, with the election time-out that an
// etcd has by default, for which the times of the cluster are raised; a member that has
// root may save all of it, and nobody restores it but etcd's tools.
func TestOwnEtcdByCertificate(t *testing.T) {
	at := homes(t, 3)
	e := newEtcd(t, at[2], "--client-cert-auth")
	e.guard("/gemel/")
	who := []string{"certificate: " + e.path("gemel.pem"), "key: " + e.path("gemel.key"), "election-timeout: 1s"}
	x := New(t, "")
	x.refuses("certificate", "init", "--name", "x", "--address", "n="+at[2], "--one-network", "--store", e.file("anon.yaml"))
	a, b := outerPair(t, e, at, who)
	yaml, err := os.ReadFile(b.Path("data/node.yaml"))
	if err != nil || !strings.Contains(string(yaml), "election-timeout: 1s") || !strings.Contains(string(yaml), "life: 3") {
		t.Errorf("node.yaml of b: %v\n%s", err, yaml)
	}
	file := a.Path("copy")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.Stop()
	b.refuses("an etcd of its own", "restore", file)
}

// moves has a group go to a node, as soon as that one has said what it is.
func (i *Instance) moves(group, to string) {
	i.tb.Helper()
	if !poll(func() bool { _, code := i.tool("move", group, to); return code == 0 }) {
		i.tb.Fatalf("%s does not go to %s: %v", group, to, i.must("why", "not", group, "on", to))
	}
}

// TestOwnEtcdRestored: the data of the etcd are lost, and put back from a copy with etcd's own tool, step
// by step as the manual says. The nodes believe it, and the group runs where the copy has it.
func TestOwnEtcdRestored(t *testing.T) {
	at := homes(t, 3)
	e := newEtcd(t, at[2], "--client-cert-auth")
	e.guard("/gemel/")
	a, b := outerPair(t, e, at, []string{"certificate: " + e.path("root.pem"), "key: " + e.path("root.key")})
	file := a.Path("etcd.snapshot")
	a.must("backup", file)
	a.moves("g", "b")
	s := b.Until("the group is here", func(s *gemelv1.Snapshot) bool { return groupOn(s) == "b active" })
	moved := fence(s, "g")
	a.Stop()
	b.Stop()
	e.stop()

	tool, err := etcdutlBuilt()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(tool, "snapshot", "restore", file, "--bump-revision", "1000000000", "--mark-compacted", "--data-dir", e.path("restored"),
		"--name=e", "--initial-cluster=e=http://"+e.peer, "--initial-advertise-peer-urls=http://"+e.peer).CombinedOutput(); err != nil {
		t.Fatalf("etcdutl: %v\n%s", err, out)
	}
	e.start("restored")
	a.Begin()
	b.Begin()
	s = a.Until("the group is active where the copy has it", func(s *gemelv1.Snapshot) bool {
		return s.GetCluster().GetStore() && nodes(s) == "a member, b member" && groupOn(s) == "a active"
	})
	t.Logf("the fence was %s after the copy was made, and is %s", moved, fence(s, "g"))
	a.moves("g", "b")
	b.Until("it can be moved", func(s *gemelv1.Snapshot) bool { return groupOn(s) == "b active" })
}
