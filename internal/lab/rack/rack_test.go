package rack

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

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
	c := exec.Command("go", "build", "-buildvcs=false", "-o", path, "gemel/cmd/gemel")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
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
	if err := r.Begin(bound); err != nil {
		t.Fatal(err)
	}
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

func TestCrash(t *testing.T) {
	r := begun(t, Options{})
	n := active(t, r, "")
	at := clock.Now()
	must(t, n.Crash())
	other := active(t, r, "")
	t.Logf("%s was active, then %s; outage %v", n.Name, other.Name, r.Client.Outage(at))
	if other == n {
		t.Errorf("%s is off and answers", n.Name)
	}
	must(t, n.Boot())
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
		name   string
		fault  func() error
		lasts  time.Duration
		mend   func() error
		outage time.Duration // at most; a second is far less than a takeover
	}{
		{"a cut of the first network", func() error { return r.Sever(n, Blue) }, 3 * time.Second, r.Heal, time.Second},
		{"a cut of the second network", func() error { return r.Sever(n, Red) }, 3 * time.Second, r.Heal, time.Second},
		{"a cable", func() error { return r.Pull(n, Blue, false) }, 3 * time.Second, func() error { return r.Pull(n, Blue, true) }, time.Second},
		{"a network that loses a fifth", func() error { return r.Lose(Blue, n.Name, "", 20) }, 3 * time.Second, r.Heal, time.Second},
		{"the nodes do not hear each other", func() error { return r.Split(n, standby, Blue, Red) }, 3 * time.Second, r.Heal, time.Second},
		{"the witness crashes", w.Crash, 3 * time.Second, w.Boot, time.Second},
		{"the standby crashes", standby.Crash, 3 * time.Second, standby.Boot, time.Second},
		{"the active is paused for a second", n.Pause, time.Second, n.Resume, 1500 * time.Millisecond},
		{"the store of the active is killed", func() error { return n.Signal(unix.SIGKILL, "store") }, 3 * time.Second, func() error { return nil }, time.Second},
		{"the monitor of the active is killed", func() error { return n.Signal(unix.SIGKILL, "monitor") }, 3 * time.Second, func() error { return nil }, time.Second},
		{"the shadow of the active is killed", func() error { return n.Signal(unix.SIGKILL, "shadow") }, 3 * time.Second, func() error { return nil }, time.Second},
		{"both halves of the active are killed", func() error { return n.Signal(unix.SIGKILL, "shadow", "monitor") }, 3 * time.Second, func() error { return nil }, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, at := lives(t, r), clock.Now()
			must(t, c.fault())
			pass(c.lasts)
			must(t, c.mend())
			active(t, r, n.Name)
			if got := r.Client.Outage(at); got > c.outage {
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
			must(t, r.joined(bound))
		})
	}
}
