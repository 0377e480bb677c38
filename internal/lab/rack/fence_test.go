package rack

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/need"
)

// devices are a directory with the state of each node's fence device, and its agent.
type devices string

func newDevices(t *testing.T) devices {
	t.Helper()
	need.Command(t, "fence_dummy")
	d := devices(t.TempDir())
	for _, n := range []ha.Node{"a", "b"} {
		must(t, os.WriteFile(d.state(n), []byte("on"), 0o600))
	}
	// The agent of Debian keeps the state; what it stands for is done beside it.
	must(t, os.WriteFile(filepath.Join(string(d), "fence_rack"), []byte(fmt.Sprintf(`#!/bin/sh
in=$(cat)
case $in in *action=off*)
	n=$(echo "$in" | sed -n 's,^status_file=.*/,,p')
	space=$(cat %[1]s/prefix)-$n
	ip -n "$space" addr flush dev svc; ip -n "$space" link set svc down
	for i in 1 2 3; do p=$(ip netns pids "$space"); [ -z "$p" ] || kill -9 $p; done;;
esac
echo "$in" | fence_dummy
`, d)), 0o755))
	return d
}

func (d devices) state(n ha.Node) string { return filepath.Join(string(d), string(n)) }

func (d devices) fence(n ha.Node) *manifest.Fence {
	return &manifest.Fence{Agent: filepath.Join(string(d), "fence_rack"), Parameters: map[string]string{"status_file": d.state(n)}, Timeout: 20 * time.Second}
}

// of says whose devices they are.
func (d devices) of(t *testing.T, r *Rack) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(string(d), "prefix"), []byte(r.prefix), 0o600))
}

func (d devices) is(t *testing.T, n *Node) string {
	t.Helper()
	b, err := os.ReadFile(d.state(n.Name))
	must(t, err)
	return strings.TrimSpace(string(b))
}

// A node that is cut off is turned off by the device of the one that decides, and its
// group goes on when that is confirmed: with these timers long before its authority is
// over by every clock.
func TestFenceDevice(t *testing.T) {
	d := newDevices(t)
	r := begun(t, Options{Profile: "guarded", Fence: d.fence})
	d.of(t, r)
	n := active(t, r, "")
	other := otherOf(r, n)
	eventually(t, "both devices are known", func() bool { return known(t, r) == 2 })
	unkeep(n) // a machine that is off starts nothing
	cut := clock.Now()
	must(t, r.Sever(n, Blue, Red))
	active(t, r, other.Name)
	t.Logf("the group went on after %v; without a device that is after more than %v", clock.Now().Sub(cut), identity(n).Timers.Wait())
	// On a busy machine the wait may be over before the agent has begun.
	eventually(t, "it is confirmed", func() bool { return strings.Contains(other.Tool("events"), "its status says off") })
	if d.is(t, n) != "off" || d.is(t, other) != "on" {
		t.Errorf("%s is %s, %s is %s", n.Name, d.is(t, n), other.Name, d.is(t, other))
	}
	if left := n.Processes(); len(left) > 0 {
		t.Errorf("what was turned off runs still: %v", left)
	}
	must(t, n.Crash()) // for the books of the rack
	must(t, r.Heal())
	must(t, n.Boot())
	must(t, r.Whole(bound))
}

// A device that does not answer changes nothing: the group goes on when the authority is
// over by every clock. Its secrets are told nowhere.
func TestFenceDeviceThatFails(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	agent := brokenFence(t, dir)
	r := begun(t, Options{Fence: func(ha.Node) *manifest.Fence {
		return &manifest.Fence{Agent: agent, Parameters: map[string]string{"secret_password": "hunter2x"}, Timeout: 3 * time.Second}
	}})
	n := active(t, r, "")
	other := otherOf(r, n)
	eventually(t, "both devices are known", func() bool { return known(t, r) == 2 })
	must(t, r.Sever(n, Blue, Red))
	moved(t, r, n)
	eventually(t, "the failure is told", func() bool { return strings.Contains(other.Tool("events"), "Node not turned off") })
	b, err := os.ReadFile(log)
	must(t, err)
	if !strings.Contains(string(b), "action=off") {
		t.Errorf("it was asked for\n%s", b)
	}
	for _, x := range r.Nodes() {
		if s := x.Tool("events") + x.Tool("status") + r.Evidence(); strings.Contains(s, "hunter2x") {
			t.Error("the secret of a device is in what is told")
		}
	}
	must(t, r.Heal())
	must(t, r.Whole(bound))
}

// known is how many devices the node that decides has tested well.
func known(t *testing.T, r *Rack) (most int) {
	t.Helper()
	for _, n := range r.Nodes() {
		if !n.Witness {
			most = max(most, strings.Count(n.Tool("events"), "Fence device works"))
		}
	}
	return most
}
