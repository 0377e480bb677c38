package lab

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	gemelv1 "gemel/api/gemel/v1"
)

// three starts two nodes and a witness that run a manifest.
func three(t *testing.T, manifest string) (a, b, w *Instance) {
	t.Helper()
	at := homes(t, 3)
	a, b, w = Start(t, manifest), New(t, ""), New(t, "")
	t.Cleanup(func() {
		for _, i := range []*Instance{b, w, a} {
			i.aside()
		}
	})
	first := a.must("init", "--name", "a", "--address", "n="+at[0], "--one-network")
	b.must("join", "--name", "b", "--address", "n="+at[1], at[0], text(first, "token"))
	b.comes()
	second := a.must("token", "--witness")
	w.must("join", "--witness", "--name", "w", "--address", "n="+at[2], at[0], text(second, "token"))
	w.comes()
	b.Until("the cluster is whole", func(s *gemelv1.Snapshot) bool {
		return s.GetCluster().GetStore() && nodes(s) == "a member, b member, w votes" && s.GetCluster().GetLacks() == ""
	})
	return a, b, w
}

// on is where a group is active, as an instance sees it.
func on(s *gemelv1.Snapshot, name string) string {
	for _, g := range s.GetGroups() {
		if g.GetName() == name {
			return g.GetNode()
		}
	}
	return ""
}

// A group leaves a node on which a critical program of its own was given up, comes back
// only when it may, and says why at each step. Maintenance and suppositions are judged by the same function.
func TestPlacement(t *testing.T) {
	a, b, _ := three(t, `processes:
  vital:
    ramp-up: 50ms
    severity: critical
    recovery: none
`+sleeper+`  other:
    ramp-up: 50ms
`+sleeper+`groups:
  g: {nodes: [a, b], run: [vital], require-level: 0}
  h: {nodes: [a, b], run: [other], require-level: 0, apart: [g]}
`)
	a.Until("g is on a and h beside it", func(s *gemelv1.Snapshot) bool { return on(s, "g") == "a" && on(s, "h") == "b" })

	plan := func(group string, args ...string) string {
		for _, g := range a.must(append([]string{"plan"}, args...)...)["groups"].([]any) {
			if o := g.(map[string]any); text(o, "name") == group {
				return text(o, "now") + ">" + text(o, "node")
			}
		}
		return ""
	}
	if got := plan("g"); got != "a>a" {
		t.Errorf("as it is: %s", got)
	}
	if got := plan("h", "--if", "node a lost"); got != "b>b" {
		t.Errorf("h, if a is lost: %s", got)
	}
	if got := plan("g", "--if", "node a lost"); got != ">" {
		t.Errorf("g, if a is lost and h keeps it from b: %s", got)
	}
	o := a.must("why", "not", "g", "on", "b")
	if why, _ := o["reason"].(map[string]any); !strings.Contains(text(why, "text"), "stays apart from h") {
		t.Errorf("why not g on b: %v", o)
	}

	// Apart keeps it where it is although it is ill; without that it leaves.
	if err := unix.Kill(int(Process(a.Status(), "vital").GetPid()), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	a.Until("the program is given up", func(s *gemelv1.Snapshot) bool { return Process(s, "vital").GetState() == "given-up" })
	b.must("maintenance", "group/g", "--for", "10m")
	a.must("maintenance", "node/b", "--for", "10m")
	a.Until("it shows what is in maintenance, also what was asked for on the other node", func(s *gemelv1.Snapshot) bool {
		return underRepair(s) == "node b, group g"
	})
	a.must("maintenance", "cluster", "--for", "10m")
	b.Until("and that all of it is", func(s *gemelv1.Snapshot) bool { return underRepair(s) == "all, node b, group g" })
	b.must("maintenance", "cluster", "--end")
	a.Until("and that it is over", func(s *gemelv1.Snapshot) bool { return underRepair(s) == "node b, group g" })
	a.must("apply", a.manifest(t, "apart: [g]", "apart: []"))
	if why, _ := a.must("why", "not", "g", "on", "b")["reason"].(map[string]any); !strings.Contains(text(why, "text"), "maintenance") {
		t.Errorf("why not g on b, in maintenance: %v", why)
	}
	if got := on(a.Status(), "g"); got != "a" {
		t.Errorf("in maintenance g went to %q", got)
	}
	a.must("maintenance", "node/b", "--end")
	b.must("maintenance", "group/g", "--end")
	b.Until("g has left the node where its program was given up", func(s *gemelv1.Snapshot) bool { return groupOn(s) == "b active" })
	// The cluster keeps the versions of its manifest.
	if v := b.must("manifest", "--versions")["versions"].([]any); len(v) != 2 {
		t.Errorf("versions: %v", v)
	}
	b.must("rollback")
	a.Until("a has taken the version of before", func(*gemelv1.Snapshot) bool {
		return strings.Contains(text(a.must("manifest"), "manifest"), "apart: [g]")
	})
	if v := a.must("manifest", "--versions")["versions"].([]any); len(v) != 3 {
		t.Errorf("versions after the rollback: %v", v)
	}
	if o, code := a.tool("rollback", "9"); code != 4 {
		t.Errorf("rollback to a version that is not there: exit %d, %v", code, o)
	}
	// Whoever watches is told on both.
	for i, want := range map[*Instance]string{a: "group=g\nrole=standby\nfence=1.2\nnode=b\n", b: "group=g\nrole=active\nfence=1.2\nnode=b\n"} {
		if !poll(func() bool { got, err := os.ReadFile(i.Path("run/role/g")); return err == nil && string(got) == want }) {
			got, err := os.ReadFile(i.Path("run/role/g"))
			t.Errorf("the role file says %q (%v), want %q", got, err, want)
		}
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", Process(b.Status(), "vital").GetPid()))
	if err != nil || !strings.Contains(string(env), "GEMEL_ROLE_FILE="+b.Path("run/role/g")+"\x00") {
		t.Errorf("the program was not told its role file: %v, %q", err, env)
	}
	// Who decides hands that over, and what runs does not notice.
	was := Process(b.Status(), "vital").GetPid()
	for range 2 {
		from := a.Status().GetCluster().GetBrain()
		a.must("brain", "switch")
		b.Until("another node decides", func(s *gemelv1.Snapshot) bool {
			now := s.GetCluster().GetBrain()
			return now != from && now != ""
		})
		for _, i := range []*Instance{a, b} {
			i.Until("it is known, and nothing has moved", func(s *gemelv1.Snapshot) bool { return s.GetCluster().GetBrain() != from && on(s, "g") == "b" })
		}
	}
	if o, code := a.tool("brain", "switch", "w"); code != 3 {
		t.Errorf("the witness was to decide: exit %d, %v", code, o)
	}
	if is := Process(b.Status(), "vital").GetPid(); is != was {
		t.Errorf("the program was restarted: %d, %d", was, is)
	}
	if e := b.must("why", "g"); !strings.Contains(fmt.Sprint(e["events"]), "Group active") {
		t.Errorf("why g: %v", e)
	}
}

// underRepair is what is in maintenance, for ten minutes.
func underRepair(s *gemelv1.Snapshot) string {
	var all []string
	is := func(what string, until *timestamppb.Timestamp) {
		if until == nil {
			return
		}
		if left := until.AsTime().Sub(s.GetAt().AsTime()); left <= 0 || left > 10*time.Minute {
			what += " for " + left.String()
		}
		all = append(all, what)
	}
	is("all", s.GetCluster().GetMaintenance())
	for _, n := range s.GetCluster().GetNodes() {
		is("node "+n.GetName(), n.GetMaintenance())
	}
	for _, g := range s.GetGroups() {
		is("group "+g.GetName(), g.GetMaintenance())
	}
	return strings.Join(all, ", ")
}

// manifest writes the manifest of an instance with something else in it, and returns
// where.
func (i *Instance) manifest(t *testing.T, old, new string) string {
	t.Helper()
	text := i.must("manifest")["manifest"].(string)
	if !strings.Contains(text, old) {
		t.Fatalf("the manifest has no %q:\n%s", old, text)
	}
	i.Write(strings.Replace(text, old, new, 1))
	return i.Path("gemel.yaml")
}
