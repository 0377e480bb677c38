package daemon

import (
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"gemel/internal/decide/place"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/status"
)

// What counts against a node for one group does not count for another; what is being
// recovered from counts for none, and what is about the cluster neither.
func TestHealth(t *testing.T) {
	groups := []manifest.Group{
		{Name: "web", Run: []ha.Process{"nginx", "log"}},
		{Name: "db", Run: []ha.Process{"pg"}, Standby: []ha.Process{"log"}},
	}
	alarm := func(code ha.Code, about ha.Subject, s ha.Severity) ha.Event {
		return ha.Event{Code: code, Subject: about, Change: ha.Assert, Severity: s}
	}
	all, own := health([]ha.Event{
		alarm(ha.ExistenceDisabled, ha.OfProcess("nginx"), ha.Critical),
		alarm(ha.ExistenceRecovering, ha.OfProcess("pg"), ha.Critical), // the ladder is at it
		alarm(ha.IntegrityDisabled, ha.OfProcess("log"), ha.Minor),     // of both
		alarm(ha.GroupPart, ha.OfGroup("db"), ha.Major),
		alarm(ha.GroupPart, ha.OfGroup("gone"), ha.Major), // of a manifest before
		alarm(ha.DiskTrouble, ha.OfNode(), ha.Major),
		alarm(ha.ExistenceDisabled, ha.OfProcess("cron"), ha.Minor), // of no group
		alarm(ha.GroupUnplaced, ha.OfGroup("web"), ha.Major),
		alarm(ha.StoreAway, ha.OfNode(), ha.Major),
	}, groups)
	if want := (place.Health{Majors: 1, Minors: 1}); all != want {
		t.Errorf("the node: %+v, want %+v", all, want)
	}
	want := map[ha.Group]place.Health{
		"web": {Critical: true, Majors: 1, Minors: 2},
		"db":  {Majors: 2, Minors: 2},
	}
	if !reflect.DeepEqual(own, want) {
		t.Errorf("the groups: %+v, want %+v", own, want)
	}
}

func TestFailoversLately(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	tr := trail{Fails: []time.Time{now.Add(-3 * time.Hour), now.Add(-59 * time.Minute), now}}
	for within, want := range map[time.Duration]int{time.Hour: 2, 4 * time.Hour: 3, time.Minute: 1, 0: 3} {
		if got := tr.lately(manifest.Budget{Limit: 3, Within: within}, now); got != want {
			t.Errorf("within %s: %d, want %d", within, got, want)
		}
	}
}

// A target counts as missed after a row of failures, and as reached at once.
func TestTargets(t *testing.T) {
	m := &member{o: Options{Identity: &manifest.Identity{Name: "a"}, Log: slog.New(slog.DiscardHandler)},
		groups: []manifest.Group{{Name: "g", Nodes: []ha.Node{"a"}, Targets: []manifest.Target{{Host: "192.0.2.1"}}},
			{Name: "h", Nodes: []ha.Node{"b"}, Targets: []manifest.Target{{Host: "192.0.2.2"}}}}}
	m.parts = &parts{made: newMade(m)}
	f := newFacts(m)
	m.parts.levels = newLevels(m)
	f.aim()
	if got := f.aims(); len(got) != 1 || got[0].Host != "192.0.2.1" {
		t.Fatalf("asked: %v", got)
	}
	for i, step := range []struct {
		err  error
		want string
	}{
		{errStopped, "|"}, {errStopped, "|"}, {errStopped, "|192.0.2.1"}, {nil, "192.0.2.1|"}, {errStopped, "|"},
	} {
		f.asked("192.0.2.1", step.err)
		x := f.of(&status.Snapshot{})
		if got := strings.Join(x.Reaches, ",") + "|" + strings.Join(x.Misses, ","); got != step.want {
			t.Errorf("step %d: %s, want %s", i, got, step.want)
		}
	}
	m.groups = nil
	f.aim()
	if got := f.aims(); len(got) != 0 {
		t.Errorf("asked after the manifest named none: %v", got)
	}
}
