package rack

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/need"
)

func TestMain(m *testing.M) {
	if os.Getenv("RACK") != "" {
		fmt.Fprintln(os.Stderr, Play(os.Args[1:]))
		os.Exit(1)
	}
	code := m.Run()
	if b, err := built(); err == nil && os.Getenv("GEMEL_BINARY") == "" {
		_ = os.RemoveAll(filepath.Dir(b))
	}
	os.Exit(code)
}

// bound is for everything that is waited for: what is slow on a loaded machine is not
// a failure.
const bound = 60 * time.Second

var built = sync.OnceValues(func() (string, error) {
	if b := os.Getenv("GEMEL_BINARY"); b != "" {
		return filepath.Abs(b)
	}
	dir, err := os.MkdirTemp("", "rack-bin-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "gemel")
	// As make builds it: what is in a cluster runs the store from the part that gemel
	// carries. The tests of internal/lab run it linked in.
	c := exec.Command("bash", "../../../scripts/build.sh", dir)
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building gemel: %w\n%s", err, out)
	}
	return path, nil
})

// tools asks for what a rack needs of the machine.
func tools(tb testing.TB) {
	tb.Helper()
	need.Root(tb)
	need.Command(tb, "ip")
	need.Command(tb, "nft")
	need.Command(tb, "unshare")
}

// begun is a rack whose group is active. At its end everything is judged.
func begun(t *testing.T, o Options) *Rack {
	t.Helper()
	r := racked(t, o)
	if err := r.Begin(bound); err != nil {
		t.Fatal(err)
	}
	return r
}

// racked is a rack on which nothing was started. At its end everything is judged.
func racked(t *testing.T, o Options) *Rack {
	t.Helper()
	tools(t)
	var err error
	if o.Gemel, err = built(); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o.Program = []string{exe}
	o.Log = t.Output()
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		judge(t, r)
		if t.Failed() {
			t.Log(r.Evidence())
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// judge reports every violation so far.
func judge(t *testing.T, r *Rack) Verdict {
	t.Helper()
	v, err := r.Oracle.Judge()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range v.Violations {
		t.Error(s)
	}
	return v
}

// must is for steps that do not fail.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// active waits until the client is answered and the node that answers is the one.
func active(t *testing.T, r *Rack, want ha.Node) *Node {
	t.Helper()
	for end := clock.Now().Add(bound); ; {
		n, err := r.Active(bound)
		must(t, err)
		if want == "" || n.Name == want {
			return n
		}
		if clock.Now() > end {
			t.Fatalf("%s is active, and %s should be", n.Name, want)
		}
	}
}

// lives is how many starts of the program there were.
func lives(t *testing.T, r *Rack) int {
	t.Helper()
	all, err := r.Oracle.Lives()
	must(t, err)
	return len(all)
}

// pass waits. What shows that nothing happens can only be time.
func pass(d time.Duration) { time.Sleep(d) }

// TestNothingMoves: faults that a cluster bears without moving anything. Every
// question of the client is answered within less than what a move would take.
func TestNothingMoves(t *testing.T) {
	r := begun(t, Options{})
	n := active(t, r, "")
	standby := r.Node(map[ha.Node]ha.Node{"a": "b", "b": "a"}[n.Name])
	w := r.Node("w")
	for _, c := range []struct {
		name  string
		fault func() error
		lasts time.Duration
		mend  func() error
	}{
		{"a cut of the first network", func() error { return r.Sever(n, Blue) }, 2 * time.Second, r.Heal},
		{"a cut of the second network", func() error { return r.Sever(n, Red) }, 2 * time.Second, r.Heal},
		{"a cable", func() error { return r.Pull(n, Blue, false) }, 2 * time.Second, func() error { return r.Pull(n, Blue, true) }},
		{"a network that loses a fifth", func() error { return r.Lose(Blue, n.Name, "", 20) }, 2 * time.Second, r.Heal},
		{"the nodes do not hear each other", func() error { return r.Split(n, standby, Blue, Red) }, 2 * time.Second, r.Heal},
		{"the witness crashes", w.Crash, 2 * time.Second, w.Boot},
		{"the standby crashes", standby.Crash, 2 * time.Second, standby.Boot},
		{"the active is paused for half a second", n.Pause, 500 * time.Millisecond, n.Resume},
		{"the store of the active is killed", func() error { return n.Signal(unix.SIGKILL, "store") }, 2 * time.Second, func() error { return nil }},
		{"the monitor of the active is killed", func() error { return n.Signal(unix.SIGKILL, "monitor") }, 2 * time.Second, func() error { return nil }},
		{"the shadow of the active is killed", func() error { return n.Signal(unix.SIGKILL, "shadow") }, 2 * time.Second, func() error { return nil }},
		{"both halves of the active are killed", func() error { return n.Signal(unix.SIGKILL, "shadow", "monitor") }, 2 * time.Second, func() error { return nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, at := lives(t, r), clock.Now()
			must(t, c.fault())
			pass(c.lasts)
			must(t, c.mend())
			active(t, r, n.Name)
			// A takeover begins after that; what is less may be the machine's load.
			timers := identity(n).Timers
			if got := r.Client.Outage(at); got > timers.Silence+timers.Wait() {
				t.Errorf("the client was not answered for %v", got)
			} else {
				t.Logf("longest time without an answer: %v", got)
			}
			if got := lives(t, r); got != before {
				t.Errorf("the program was started %d times", got-before)
			}
			if t.Failed() {
				t.Log(r.Evidence())
			}
			must(t, r.Whole(bound))
		})
	}
}

// TestMoves: faults that end the group where it is. In the end the oracle compares
// every beat with every other: a node must have been still before the next one began.
func TestMoves(t *testing.T) {
	r := begun(t, Options{})
	both := []string{Blue, Red}
	oneWay := func(from, to ha.Node) error {
		return errors.Join(r.Cut(Blue, from, to), r.Cut(Red, from, to))
	}
	for _, c := range []struct {
		name  string
		fault func(n *Node) error
		mend  func(n *Node) error
	}{
		{"crash", (*Node).Crash, (*Node).Boot},
		{"cut off both networks", func(n *Node) error { return r.Sever(n, both...) }, func(*Node) error { return r.Heal() }},
		{"it is not heard", func(n *Node) error { return oneWay(n.Name, "") }, func(*Node) error { return r.Heal() }},
		{"it hears nothing", func(n *Node) error { return oneWay("", n.Name) }, func(*Node) error { return r.Heal() }},
		{"paused", (*Node).Pause, (*Node).Resume},
		{"the monitor hangs", func(n *Node) error { return n.Signal(unix.SIGSTOP, "monitor") },
			func(n *Node) error { return n.Signal(unix.SIGCONT, "monitor") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := active(t, r, "")
			at := clock.Now()
			must(t, c.fault(n))
			other := moved(t, r, n)
			t.Logf("from %s to %s, outage %v", n.Name, other.Name, r.Client.Outage(at))
			must(t, c.mend(n))
			must(t, r.Whole(bound))
			active(t, r, other.Name) // it does not fall back
			v := judge(t, r)
			t.Logf("overlap %v, of a node that had been paused %v", v.Overlap, v.Resumed)
			if t.Failed() {
				t.Fatal(r.Evidence())
			}
		})
	}
}

// moved waits until another node answers.
func moved(t *testing.T, r *Rack, from *Node) *Node {
	t.Helper()
	for end := clock.Now().Add(bound); ; {
		n, err := r.Active(bound)
		must(t, err)
		if n != from {
			return n
		}
		if clock.Now() > end {
			t.Fatalf("%s is still active", from.Name)
		}
	}
}

// TestQuorum: alone, a node may not go on; with the others back, it may.
func TestQuorum(t *testing.T) {
	r := begun(t, Options{})
	n := active(t, r, "")
	for _, o := range r.Nodes() {
		if o != n {
			must(t, o.Crash())
		}
	}
	alone := clock.Now()
	still(t, r, n, alone)
	if v := judge(t, r); len(v.Lives) != 1 {
		t.Errorf("the program was started %d times", len(v.Lives))
	}
	for _, o := range r.Nodes() {
		if o != n {
			must(t, o.Boot())
		}
	}
	active(t, r, "")
	must(t, r.Whole(bound))

	before, at := lives(t, r), clock.Now()
	for _, o := range r.Nodes() {
		must(t, o.Signal(unix.SIGKILL, "store"))
	}
	must(t, r.Whole(bound))
	active(t, r, "")
	t.Logf("all stores killed: longest time without an answer %v, %d starts", r.Client.Outage(at), lives(t, r)-before)
}

// still waits until nobody is active any more, which must be so a life of an authority
// after an instant at the latest.
func still(t *testing.T, r *Rack, n *Node, since ha.Instant) {
	t.Helper()
	timers := identity(n).Timers
	pass(timers.Life + timers.Stop)
	all, err := r.Oracle.Lives()
	must(t, err)
	for _, l := range all {
		end := l.Spans[len(l.Spans)-1].To
		if end > since.Add(timers.Life) {
			t.Errorf("%s was active for %v after it was alone, and its authority was for %v", l, end.Sub(since), timers.Life)
		}
	}
}
