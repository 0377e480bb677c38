package lab

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/need"
)

// TestInitKeepsWhatRuns: a machine that runs the one-machine manifest becomes the first node
// of a cluster, and no program is restarted. Those of groups come under their right: a second
// node is let in only then, and when nobody renews the right they end at its deadline, and
// no other one does.
func TestInitKeepsWhatRuns(t *testing.T) {
	need.Root(t)
	at := homes(t, 2)
	a, b := Start(t, `processes:
  plain:
    ramp-up: 50ms
`+sleeper+`  db:
    ramp-up: 50ms
    severity: critical
`+sleeper+`  web:
    ramp-up: 50ms
    needs: [db]
`+sleeper+`  other:
    ramp-up: 50ms
`+sleeper+`  far:
    ramp-up: 50ms
`+sleeper+`groups:
  g: {nodes: [a, b], run: [db, web], require-level: 0}
  h: {nodes: [a], run: [other], require-level: 0}
  i: {nodes: [b, c], run: [far], require-level: 0}
`), New(t, "")
	t.Cleanup(func() {
		b.aside()
		a.aside()
	})
	kept := []string{"plain", "db", "web", "other"}
	before := map[string]int32{}
	for _, name := range append([]string{"far"}, kept...) {
		before[name] = a.Running(name).GetPid()
	}
	mark := a.Mark()
	first := a.must("init", "--name", "a", "--address", "n="+at[0], "--one-network")
	s := a.Until("the groups are active in the cluster", func(s *gemelv1.Snapshot) bool {
		return on(s, "g") == "a" && on(s, "h") == "a" && active(s, "g") && active(s, "h")
	})
	for _, name := range kept {
		if p := Process(s, name); p.GetPid() != before[name] || !Alive(int(before[name])) {
			t.Errorf("%s was pid %d and is %d (%s): init restarted it", name, before[name], p.GetPid(), p.GetState())
		}
	}
	a.Until("what is for other nodes is stopped", func(*gemelv1.Snapshot) bool { return !Alive(int(before["far"])) })
	for _, e := range a.Events(mark, "") {
		if e.GetChange() == gemelv1.Change_CHANGE_ASSERT {
			if !strings.Contains(line(e), "group i") && !strings.Contains(line(e), "node") {
				t.Errorf("an alarm: %s", line(e))
			}
		}
	}

	// A successor is one of the group from its start.
	a.Signal(int(before["db"]), unix.SIGKILL)
	s = a.Until("db runs again", func(s *gemelv1.Snapshot) bool {
		p := Process(s, "db")
		return p.GetPid() != before["db"] && p.GetState() == "running"
	})
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", Process(s, "db").GetPid()))
	if err != nil || !strings.Contains(string(env), "GEMEL_GROUP=g\x00") || !strings.Contains(string(env), "GEMEL_FENCE=1.") {
		t.Errorf("the successor of db was not told its group: %v", err)
	}
	b.must("join", "--name", "b", "--address", "n="+at[1], at[0], text(first, "token"))

	// Nobody renews any more.
	_, monitor := a.halves()
	a.Signal(monitor, unix.SIGSTOP)
	await(t, "what came under the right of a group ends at its deadline", func() bool {
		return !Alive(int(before["web"])) && !Alive(int(before["other"]))
	})
	if !Alive(int(before["plain"])) {
		t.Error("plain, which is in no group, ended with the groups")
	}
	a.Signal(monitor, unix.SIGCONT)
	a.Until("the groups are back", func(s *gemelv1.Snapshot) bool { return active(s, "g") && active(s, "h") })
}

// active reports whether everything of a group was started.
func active(s *gemelv1.Snapshot, name string) bool {
	for _, g := range s.GetGroups() {
		if g.GetName() == name {
			return g.GetState() == "active"
		}
	}
	return false
}
