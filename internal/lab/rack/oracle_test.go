package rack

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
)

// TestOracleSees plays what no cluster may do, without a cluster: an oracle that
// catches nothing is worse than none.
func TestOracleSees(t *testing.T) {
	tools(t)
	exe, err := os.Executable()
	must(t, err)
	r, err := New(Options{Gemel: exe, Log: t.Output()})
	must(t, err)
	defer func() { must(t, r.Close()) }()

	play := func(n *Node, fence string) *exec.Cmd {
		must(t, run("", "ip", "-n", n.space.name, "addr", "add", r.Address().String()+"/24", "dev", Service))
		c := exec.Command(exe, filepath.Join(r.Dir, "beats"), r.Address().String())
		c.Env = append(os.Environ(), "RACK=1", "GEMEL_FENCE="+fence)
		must(t, n.space.do(c.Start))
		return c
	}
	until := func(what string, done func(Verdict) bool) Verdict {
		for end := clock.Now().Add(bound); ; {
			v, err := r.Oracle.Judge()
			must(t, err)
			if done(v) {
				return v
			}
			if clock.Now() > end {
				t.Fatalf("the oracle did not see within %v that %s; it saw %+v", bound, what, v)
			}
		}
	}
	says := func(v Verdict, words string) bool {
		return strings.Contains(strings.Join(v.Violations, "\n"), words)
	}
	a, b := r.Node("a"), r.Node("b")
	first := play(a, "1.2")
	v := until("one is active", func(v Verdict) bool { return len(v.Lives) == 1 })
	if len(v.Violations) != 0 {
		t.Errorf("with one alone: %q", v.Violations)
	}
	if n := active(t, r, "a"); n != a {
		t.Errorf("the client is answered by %s", n.Name)
	}
	second := play(b, "1.1")
	v = until("two are active", func(v Verdict) bool {
		return v.Overlap > 0 && says(v, "both active") && says(v, "after a (pid") && says(v, "the service address was on")
	})
	t.Logf("%q", v.Violations)
	for _, c := range []*exec.Cmd{first, second} {
		must(t, c.Process.Signal(unix.SIGKILL))
		_ = c.Wait()
	}
}

// TestPauseIsNotActivity: a program of a paused node does nothing, and what it does
// just after is told apart.
func TestPauseIsNotActivity(t *testing.T) {
	o := &Oracle{rack: &Rack{}}
	n := &Node{Name: "a", rack: o.rack, pauses: []between{{From: 100e6, To: 500e6}}}
	o.rack.nodes = []*Node{n, {Name: "b", rack: o.rack}}
	old := Life{Node: "a", Spans: []between{{0, 100e6}, {501e6, 520e6}}}
	old.Fence.Counter = 1
	next := Life{Node: "b", Spans: []between{{200e6, 900e6}}}
	next.Fence.Counter = 2
	var v Verdict
	o.compare(&v, old, next)
	if len(v.Violations) != 0 || v.Resumed == 0 {
		t.Errorf("20 ms after a pause: %+v", v)
	}
	old.Spans[1].To = 800e6
	v = Verdict{}
	o.compare(&v, old, next)
	if len(v.Violations) == 0 || v.Overlap < 299e6 {
		t.Errorf("300 ms after a pause: %+v", v)
	}
}
