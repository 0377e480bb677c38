package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	gemelv1 "gemel/api/gemel/v1"
)

// homes are addresses of loopback on which nobody has the ports of Gemel: one for each
// machine of a test.
func homes(t *testing.T, n int) []string {
	t.Helper()
	for block := range 200 {
		var out []string
		for i := range n {
			at := fmt.Sprintf("127.%d.%d.%d", 64+(os.Getpid()+block)%100, 1+block, 1+i)
			for _, port := range []string{":5314", ":5316"} {
				if l, err := net.Listen("tcp", at+port); err == nil {
					l.Close()
					out = append(out, at)
				}
			}
		}
		if len(out) == 2*n {
			for i := range n {
				out[i] = out[2*i]
			}
			return out[:n]
		}
	}
	t.Fatal("no addresses of loopback are free")
	return nil
}

// tool runs a command of the tool against an instance and returns what it printed as
// JSON, and its exit status.
func (i *Instance) tool(args ...string) (map[string]any, int) {
	i.tb.Helper()
	c := i.Command(append(args, "--json")...)
	var out, errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	_ = c.Run() // its exit status is what counts
	o := map[string]any{}
	if err := json.Unmarshal([]byte(out.String()), &o); err != nil && out.Len() > 0 {
		i.tb.Fatalf("gemel %v printed %q: %v (%s)", args, out.String(), err, errs.String())
	}
	return o, c.ProcessState.ExitCode()
}

// must runs a command that has to succeed.
func (i *Instance) must(args ...string) map[string]any {
	i.tb.Helper()
	o, code := i.tool(args...)
	if code != 0 {
		i.tb.Fatalf("gemel %v: exit %d: %v", args, code, o)
	}
	return o
}

// refuses runs a command that has to be refused, with these words.
func (i *Instance) refuses(words string, args ...string) {
	i.tb.Helper()
	o, code := i.tool(args...)
	e, _ := o["error"].(map[string]any)
	if text, _ := e["text"].(string); code != 3 || !strings.Contains(text, words) {
		i.tb.Fatalf("gemel %v: exit %d: %v; wanted a refusal with %q", args, code, o, words)
	}
}

// comes begins an instance with the manifest that join brought.
func (i *Instance) comes() {
	i.tb.Helper()
	b, err := os.ReadFile(i.Path("data/gemel.yaml"))
	if err != nil {
		i.tb.Fatal(err)
	}
	i.Write(string(b))
	i.Begin()
}

// nodes prints the nodes of the cluster and their states, as one instance sees them.
func nodes(s *gemelv1.Snapshot) string {
	var out []string
	for _, n := range s.GetCluster().GetNodes() {
		out = append(out, n.GetName()+" "+n.GetState())
	}
	return strings.Join(out, ", ")
}

func groupOn(s *gemelv1.Snapshot) string {
	for _, g := range s.GetGroups() {
		return g.GetNode() + " " + g.GetState()
	}
	return ""
}

func text(o map[string]any, key string) string { s, _ := o[key].(string); return s }

const clustered = `processes:
  plain:
    ramp-up: 50ms
` + sleeper + `  one:
    ramp-up: 50ms
` + sleeper + `groups:
  g: {nodes: [a, b], run: [one], require-level: 0}
`

// TestClusterInTwoCommands: a machine with programs becomes the first node without a
// restart of what is in no group; a second one and a witness join; what is unsafe or
// wrong is refused with its reason; the death of a node moves its group.
func TestClusterInTwoCommands(t *testing.T) {
	at := homes(t, 4)
	a, b, w, x := Start(t, clustered), New(t, ""), New(t, ""), New(t, "")
	t.Cleanup(func() {
		for _, i := range []*Instance{b, w, a} {
			i.aside()
		}
	})
	before := a.Running("plain")
	halves := a.Status().GetNode()

	a.refuses("one network only", "init", "--name", "a", "--address", "n="+at[0])
	a.refuses("this machine does not have it", "init", "--name", "a", "--address", "n=192.0.2.1", "--one-network")
	first := a.must("init", "--name", "a", "--address", "n="+at[0], "--one-network")
	a.refuses("is a of the cluster", "init", "--name", "a", "--address", "n="+at[0], "--one-network")
	s := a.Until("the group is active in the cluster", func(s *gemelv1.Snapshot) bool { return groupOn(s) == "a active" })
	if p := Process(s, "plain"); p.GetPid() != before.GetPid() || p.GetStart() != before.GetStart() {
		t.Errorf("plain was pid %d and is %d: init restarted it", before.GetPid(), p.GetPid())
	}
	if n := s.GetNode(); n.GetShadow() != halves.GetShadow() || n.GetMonitor() != halves.GetMonitor() {
		t.Errorf("the halves are other processes than before: %v, %v", halves, n)
	}
	if !strings.Contains(s.GetCluster().GetLacks(), "a second node") {
		t.Errorf("one node alone lacks %q", s.GetCluster().GetLacks())
	}

	b.refuses("mistyped", "join", "--name", "b", "--address", "n="+at[1], at[0], text(first, "token")[:40]+"x")
	b.refuses("there is no network m", "join", "--name", "b", "--address", "m="+at[1], at[0], text(first, "token"))
	l, err := net.Listen("tcp", at[1]+":5316")
	if err != nil {
		t.Fatal(err)
	}
	b.refuses("5316", "join", "--name", "b", "--address", "n="+at[1], at[0], text(first, "token"))
	l.Close()
	early := a.must("token", "--witness")
	w.refuses("Join the second node first", "join", "--name", "w", "--address", "n="+at[2], at[0], text(early, "token"))
	b.must("join", "--name", "b", "--address", "n="+at[1], at[0], text(first, "token"))
	x.refuses("was used", "join", "--name", "x", "--address", "n="+at[3], at[0], text(first, "token"))
	again := a.must("token")
	x.refuses("there is a node b already", "join", "--name", "b", "--address", "n="+at[3], at[0], text(again, "token"))
	b.comes()
	s = a.Until("b is a member", func(s *gemelv1.Snapshot) bool { return nodes(s) == "a member, b member" })
	if !strings.Contains(s.GetCluster().GetLacks(), "a witness is missing: if a dies, nothing moves") {
		t.Errorf("two nodes lack %q", s.GetCluster().GetLacks())
	}
	b.refuses("already", "join", "--name", "b", "--address", "n="+at[1], at[0], text(again, "token"))

	w.must("join", "--witness", "--name", "w", "--address", "n="+at[2], at[0], text(early, "token"))
	w.comes()
	a.Until("all vote", func(s *gemelv1.Snapshot) bool {
		return len(s.GetCluster().GetNodes()) == 3 && s.GetCluster().GetLacks() == ""
	})
	b.Until("b sees all of it", func(s *gemelv1.Snapshot) bool {
		return s.GetCluster().GetStore() && nodes(s) == "a member, b member, w votes"
	})

	for _, i := range []*Instance{b, w} {
		if p := Process(i.Status(), "gemel-store"); p.GetStarts() != 1 {
			t.Errorf("the member of the store was started %d times: it did not wait until it was known", p.GetStarts())
		}
	}

	// The whole node dies, but for its disk; it comes back as what it was.
	dies := []int32{Process(a.Status(), "one").GetPid(), Process(a.Status(), "plain").GetPid(), Process(a.Status(), "gemel-store").GetPid()}
	a.Kill()
	for _, pid := range dies {
		_ = unix.Kill(int(pid), unix.SIGKILL) // the guard may have been faster
	}
	b.Until("the group is here", func(s *gemelv1.Snapshot) bool { return groupOn(s) == "b active" })
	a.Begin()
	b.Until("a is back", func(s *gemelv1.Snapshot) bool {
		return nodes(s) == "a member, b member, w votes" && groupOn(s) == "b active"
	})

	b.refuses("Let the witness leave with it", "leave")
	b.must("leave", "--with-witness")
	a.Until("a is alone and has the group", func(s *gemelv1.Snapshot) bool {
		return len(s.GetCluster().GetNodes()) == 1 && s.GetCluster().GetStore() && groupOn(s) == "a active"
	})
	a.refuses("last node", "leave")
	if o, code := b.tool("run", b.Path("gemel.yaml")); code != 3 {
		t.Errorf("a node that left runs again by itself: exit %d %v", code, o)
	}
}

// aside takes away the control group that the guard of a node was in, which nobody else
// does: it cannot take away the group that it is in itself.
func (i *Instance) aside() {
	i.tb.Helper()
	i.Stop()
	dir := filepath.Join("/sys/fs/cgroup/unified", i.tree)
	if _, err := os.Stat(dir); err != nil {
		dir = filepath.Join("/sys/fs/cgroup", i.tree)
	}
	poll(func() bool {
		return i.tree == "" || errors.Join(os.Remove(filepath.Join(dir, "guard")), os.Remove(dir)) == nil || !exists(filepath.Join(dir, "guard"))
	})
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
