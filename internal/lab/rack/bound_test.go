package rack

import (
	"strings"
	"testing"
)

// A start that is not done within the group's start-timeout is ended, undone, and tried on
// the other node; it counts as a failover.
func TestStartTimeout(t *testing.T) {
	d := newDB(t)
	d.how(t, "start", "case $GEMEL_NODE in a) sleep 1000 & wait;; esac")
	r := begun(t, Options{Parts: "start-timeout: 2s, failover-limit: {limit: 1, within: 1h}, " + strings.Replace(d.part(""), "start: 5s, ", "", 1)})
	a, b := r.Node("a"), r.Node("b")
	d.lives(t, b)
	if s := d.calls("a start"); len(s) != 1 {
		t.Errorf("on the first node: %q", s)
	}
	if len(d.calls("a stop")) == 0 {
		t.Error("what was begun was not undone")
	}
	if out := a.Tool("events", "-n", "100"); !strings.Contains(out, "not started within 2s: script db is not started") {
		t.Errorf("it was told as\n%s", out)
	}
	eventually(t, "the alarm goes with the group", func() bool { return !strings.Contains(a.Tool("alarms"), "not started in time") })
	if out := b.Tool("why", "not", string(Group), "on", "a"); !strings.Contains(out, "its start failed there") {
		t.Errorf("why not on a: %s", out)
	}
	// There it is counted: the next failed start stays where it is.
	d.how(t, "start", "sleep 1000 & wait")
	before := len(d.calls("b start"))
	must(t, b.killHolder())
	b.Tool("clear", "group/"+string(Group))
	eventually(t, "it is refused, and tried again there", func() bool { return len(d.calls("b start")) > before+1 })
	if s := d.calls("a start"); len(s) != 1 {
		t.Errorf("on the first node, beyond the limit of failovers: %q", s)
	}
	if out := b.Tool("events", "-n", "100"); !strings.Contains(out, "failed over 1 times lately") {
		t.Errorf("the refusal is not told:\n%s", out)
	}
	d.how(t, "start", "")
	d.lives(t, b)
	if s := d.stays(t); len(s) != 1 {
		t.Errorf("the daemon lived on %v", s)
	}
}

// A stop that is not proved within the group's stop-timeout is a fault of its node, which
// is turned off if there is a device; its group goes on when that is confirmed.
func TestStopTimeout(t *testing.T) {
	d, f := newDB(t), newDevices(t)
	r := begun(t, Options{Parts: "stop-timeout: 2s, " + d.part(""), Fence: f.fence})
	f.of(t, r)
	n := active(t, r, "")
	other := otherOf(r, n)
	d.lives(t, n)
	eventually(t, "both devices are known", func() bool { return known(t, r) == 2 })
	unkeep(n) // a machine that is off starts nothing
	d.how(t, "stop", "sleep 1000 & wait")
	asked(t, n, other)
	d.lives(t, other)
	if f.is(t, n) != "off" {
		t.Errorf("%s is %s", n.Name, f.is(t, n))
	}
	if out := n.Tool("events"); out != "" && strings.Contains(out, "not proved") {
		t.Logf("it answers still:\n%s", out)
	}
	if out := other.Tool("events", "-n", "100"); !strings.Contains(out, "Node turned off") {
		t.Errorf("told by the other one:\n%s", out)
	}
	if s := d.stays(t); len(s) != 2 {
		t.Errorf("the daemon lived on %v", s)
	}
	d.how(t, "stop", "")
	must(t, n.Crash()) // for the books of the rack
	must(t, n.Boot())
	must(t, r.Whole(bound))
}

// Without a device it stays blocked, with an alarm and the reason, and is started nowhere.
func TestStopTimeoutWithoutDevice(t *testing.T) {
	d := newDB(t)
	r := begun(t, Options{Parts: "stop-timeout: 2s, " + d.part("")})
	n := active(t, r, "")
	other := otherOf(r, n)
	d.lives(t, n)
	d.how(t, "stop", "sleep 1000 & wait")
	asked(t, n, other)
	eventually(t, "it is told", func() bool { return strings.Contains(n.Tool("alarms"), "it was to stop within 2s") })
	if out := n.Tool("status"); !strings.Contains(out, "its stop is not proved") {
		t.Errorf("status:\n%s", out)
	}
	// The program of the group did not wait for the part that hangs.
	eventually(t, "its program is killed", func() bool { return !strings.Contains(n.Tool("status"), "beat         running") })
	if s := d.calls(string(other.Name) + " start"); len(s) != 0 {
		t.Errorf("started without a proof of stop: %q", s)
	}
	d.how(t, "stop", "")
	d.lives(t, other)
	eventually(t, "the alarm is taken away", func() bool { return !strings.Contains(n.Tool("alarms"), "not proved") })
	if s := d.stays(t); len(s) != 2 {
		t.Errorf("the daemon lived on %v", s)
	}
}
