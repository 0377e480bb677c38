package rack

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// says waits until gemel why not says something of the rack's group on a node.
func says(t *testing.T, asked *Node, on, what string) {
	t.Helper()
	eventually(t, string(asked.Name)+" says of "+on+": "+what, func() bool {
		return strings.Contains(asked.Tool("why", "not", string(Group), "on", on), what)
	})
}

// A group that requires a watchdog starts nowhere where there is none, and each node knows
// why; nor does a group of level 1 start on a node without a guard.
func TestLevels(t *testing.T) {
	none := filepath.Join(t.TempDir(), "watchdog")
	r := racked(t, Options{Profile: "guarded", Parts: "require-level: 2", Level: func(n ha.Node, l *manifest.Level) {
		if n == "b" {
			l.Watchdog, l.WatchdogTime = none, 2*time.Second
		}
	}})
	for _, n := range r.Nodes() {
		must(t, n.Start())
	}
	a, b := r.Node("a"), r.Node("b")
	says(t, a, "b", "b offers exclusivity level 1 and it needs 2")
	says(t, b, "a", "a offers exclusivity level 1 and it needs 2")
	eventually(t, "the watchdog is missed", func() bool { return strings.Contains(b.Tool("alarms"), "watchdog "+none+" is not there") })
	if out := a.Tool("alarms"); strings.Contains(out, "atchdog") {
		t.Errorf("on a node that names none:\n%s", out)
	}
	if out := a.Tool("plan"); !strings.Contains(out, "offers exclusivity level 1 and it needs 2") {
		t.Errorf("plan:\n%s", out)
	}
	if out := a.Tool("move", string(Group), "b", "--forced"); !strings.Contains(out, "offers exclusivity level 1") {
		t.Errorf("forced: %s", out)
	}
	eventually(t, "status says what a node offers", func() bool { return strings.Contains(a.Tool("status"), "level 1") })
}

func TestLevelWithoutGuard(t *testing.T) {
	r := begun(t, Options{Level: func(n ha.Node, l *manifest.Level) { l.Guard = n != "a" }})
	n := active(t, r, "b")
	says(t, n, "a", "a offers exclusivity level 0 and it needs 1")
	for _, p := range r.Node("a").Processes() {
		if w := words(p.PID, "cmdline"); len(w) > 1 && w[1] == "guard" {
			t.Errorf("a guard runs: %q", w)
		}
	}
}

// A group that requires a fence starts where a device was tested, and after the loss of its
// node goes on when that is confirmed off.
func TestLevelOfAFence(t *testing.T) {
	d := newDevices(t)
	r := begun(t, Options{Fence: d.fence, Parts: "require-level: 3"})
	d.of(t, r)
	n := active(t, r, "")
	other := otherOf(r, n)
	eventually(t, "both are of level 3", func() bool { return strings.Count(other.Tool("status"), "level 3") >= 2 })
	unkeep(n)
	must(t, r.Sever(n, Blue, Red))
	active(t, r, other.Name)
	if d.is(t, n) != "off" {
		t.Errorf("it went on, and %s is %s", n.Name, d.is(t, n))
	}
	must(t, n.Crash()) // for the books of the rack
	must(t, r.Heal())
	must(t, n.Boot())
	must(t, r.Whole(bound))
}

// Where the device confirms nothing the group stays away, and says for whom it waits, until
// an operator says that its node is off, or this one itself is back.
func TestLevelOfAFenceThatFails(t *testing.T) {
	dir := t.TempDir()
	agent := brokenFence(t, dir)
	r := begun(t, Options{Parts: "require-level: 3", Fence: func(ha.Node) *manifest.Fence {
		return &manifest.Fence{Agent: agent, Timeout: time.Second}
	}})
	n := active(t, r, "")
	other := otherOf(r, n)
	eventually(t, "both are of level 3", func() bool { return strings.Count(other.Tool("status"), "level 3") >= 2 })
	must(t, n.Crash())
	lost := clock.Now()
	eventually(t, "it is not turned off", func() bool { return strings.Contains(other.Tool("events"), "Node not turned off") })
	says(t, other, string(other.Name), string(n.Name)+" had it last and is not proved to be off")
	eventually(t, "three times the wait is over", func() bool { return clock.Now() > lost.Add(3*identity(n).Timers.Wait()) })
	for _, args := range [][]string{{"move", string(Group), string(other.Name)}, {"move", string(Group), string(other.Name), "--forced"}} {
		if out := other.Tool(args...); !strings.Contains(out, "is not proved to be off") {
			t.Errorf("%q: %s", args, out)
		}
	}
	if out := other.Tool("status"); !strings.Contains(out, "unplaced") {
		t.Errorf("without a proof:\n%s", out)
	}
	for _, not := range []string{string(other.Name), "w", "nobody"} {
		if out := other.Tool("confirm-off", not); strings.Contains(out, "counts as off") {
			t.Errorf("%s: %s", not, out)
		}
	}
	if out := other.Tool("confirm-off", string(n.Name)); !strings.Contains(out, "counts as off") {
		t.Error(out)
	}
	active(t, r, other.Name)
	must(t, n.Boot())
	must(t, r.Whole(bound))
	if out := other.Tool("confirm-off", string(n.Name)); !strings.Contains(out, "not evicted but member") {
		t.Errorf("of a node that lives: %s", out)
	}
	// Nobody says anything, and the node itself is back: what it had has ended with its boot.
	must(t, other.Crash())
	eventually(t, "it is evicted", func() bool { return strings.Contains(n.Tool("status"), "evicted") })
	if out := n.Tool("status"); !strings.Contains(out, "unplaced") {
		t.Errorf("without a proof:\n%s", out)
	}
	must(t, other.Boot())
	must(t, r.Whole(bound))
}

// brokenFence is an agent that works at every test, and turns nothing off.
func brokenFence(t *testing.T, dir string) string {
	t.Helper()
	agent, log := filepath.Join(dir, "fence_broken"), filepath.Join(dir, "log")
	must(t, os.WriteFile(agent, []byte(`#!/bin/sh
in=$(cat)
echo "$in" | tr '\n' ' ' >>`+log+`; echo >>`+log+`
case $in in *action=metadata*) cat `+filepath.Join(dir, "metadata")+`; exit 0;; *action=monitor*) exit 0;; esac
sleep 1000
`), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "metadata"), []byte(`<?xml version="1.0"?><resource-agent name="fence_broken" shortdesc="breaks"><parameters>
<parameter name="secret_password"><shortdesc lang="en">x</shortdesc><content type="string"/></parameter><parameter name="action"><shortdesc lang="en">x</shortdesc><content type="string" default="reboot"/></parameter></parameters>
<actions><action name="off"/><action name="status"/><action name="monitor"/></actions></resource-agent>`), 0o644))
	return agent
}
