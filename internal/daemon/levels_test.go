package daemon

import (
	"strings"
	"testing"
	"time"

	"gemel/internal/contract"
	"gemel/internal/decide/place"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/proc"
)

// What a node offers by itself, and why it is no more.
func TestLevelOf(t *testing.T) {
	dog := manifest.Level{Guard: true, Watchdog: "/dev/none", WatchdogTime: 2 * time.Second}
	for _, c := range []struct {
		what  string
		is    manifest.Level
		has   func(*levels)
		level int
		why   string
	}{
		{"nothing", manifest.Level{Guard: true}, func(*levels) {}, 1, "names no watchdog"},
		{"no guard", manifest.Level{}, func(*levels) {}, 0, "guard: false"},
		{"a watchdog and no guard", manifest.Level{Watchdog: "/dev/none"}, func(l *levels) { l.time = time.Second }, 0, "guard: false"},
		{"a watchdog of which nothing is known", dog, func(*levels) {}, 1, "not armed yet"},
		{"a watchdog", dog, func(l *levels) { l.time = 2 * time.Second }, 2, ""},
		{"a busy one", dog, func(l *levels) { l.why = "it is busy" }, 1, "it is busy"},
		{"a guard that ended now", dog, func(l *levels) { l.time = time.Second; l.report(proc.Report{Kind: proc.ReportGuard}) }, 2, ""},
		{"a guard that ended long ago", dog, func(l *levels) { l.time, l.alone = time.Second, time.Now().Add(-time.Minute) }, 0, "guard does not run"},
		{"a guard that is back", dog, func(l *levels) {
			l.time, l.alone = time.Second, time.Now().Add(-time.Minute)
			l.report(proc.Report{Kind: proc.ReportGuard, PID: 1})
		}, 2, ""},
	} {
		l := newLevels(&member{o: Options{Identity: &manifest.Identity{Name: "a", Level: c.is}}})
		c.has(l)
		if level, why := l.of(); level != c.level || c.why == "" && why != "" || !strings.Contains(why, c.why) {
			t.Errorf("%s: %d, %q", c.what, level, why)
		}
	}
}

// What others know of the nodes: who has not said anything offers nothing yet, a version
// before counts as 1, and a device counts as it was tested.
func TestKnownLevels(t *testing.T) {
	two, zero := 2, 0
	m := &member{o: Options{Identity: &manifest.Identity{Name: "a"}}}
	for _, n := range []ha.Node{"a", "b", "c", "d", "e"} {
		m.o.Identity.Peers = append(m.o.Identity.Peers, manifest.Peer{Name: n})
	}
	f := newFences(m)
	m.parts = &parts{fences: f}
	device := func(n ha.Node, password string) string {
		f.known[n] = manifest.Fence{Agent: "fence_x", Parameters: map[string]string{"password": password}}
		d, _ := f.device(n)
		return digestOf(d)
	}
	m.wished.read(nil)
	m.wished.facts["a"], m.wished.facts["b"] = fact{Level: &two}, fact{}
	m.wished.facts["d"], m.wished.facts["e"] = fact{}, fact{Level: &zero}
	m.wished.fences["b"] = fenceTested{Device: device("b", "x"), Works: true}
	m.wished.fences["d"] = fenceTested{Device: device("d", "old"), Works: true}
	device("d", "new")
	m.wished.fences["e"] = fenceTested{Device: device("e", "x"), Works: true}
	want := map[ha.Node]int{"a": 2, "b": 3, "c": -1, "d": 1, "e": 0}
	for _, n := range m.known() {
		if n.Offers() != want[n.Name] {
			t.Errorf("%s offers %d, want %d", n.Name, n.Offers(), want[n.Name])
		}
	}
	if f.judged("d", m.wished.fences["d"]) || !f.judged("b", m.wished.fences["b"]) || !f.judged("c", fenceTested{}) {
		t.Error("a device counts as judged by another one's test")
	}
}

func TestDigestOf(t *testing.T) {
	a := contract.Fence{Agent: "x", Options: map[string]string{"a": "1", "b": "2"}, Timeout: time.Second}
	b := contract.Fence{Agent: "x", Options: map[string]string{"b": "2", "a": "1"}, Timeout: time.Second}
	if digestOf(a) != digestOf(b) {
		t.Error("the order of options counts")
	}
	if b.Options["a"] = "2"; digestOf(a) == digestOf(b) {
		t.Error("an option does not count")
	}
}

// What the loss of a node would do to a group is said with what keeps others from taking it.
func TestLossOf(t *testing.T) {
	m := &member{groups: []manifest.Group{{Name: "web", RequireLevel: 1}, {Name: "db", RequireLevel: 3}}}
	one := 1
	m.wished.read(nil)
	m.wished.facts["a"] = fact{Level: &one}
	for want, c := range map[string]place.Choice{
		"if a is lost it goes to b":                                     {Group: "web", Node: "b"},
		"if a is lost it goes to b, once it is confirmed that a is off": {Group: "db", Node: "b"},
		"if a is lost it runs nowhere: no node can take it; b is drained": {Group: "web", Reason: ha.Reason{Text: "no node can take it"}, Not: []place.WhyNot{
			{Node: "a", Reason: ha.Reason{Rule: "place.not-member", Text: "a is not a member of the cluster"}},
			{Node: "b", Reason: ha.Reason{Rule: "place.drained", Text: "b is drained"}},
			{Node: "w", Reason: ha.Reason{Rule: "place.witness", Text: "w is a witness and only votes"}}}},
	} {
		if got := lossOf(m, "a", c); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
