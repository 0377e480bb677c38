// Package lab runs the built binary as users run it: a real shadow and monitor
// with real programs, in directories of their own, asked by the API alone. It is
// for tests only.
//
// Every instance is watched by one stream of events; a test waits for an event
// or for a picture of the status, and never for time to pass. What a wait may
// cost is bounded by Bound, and a test that ran into it shows everything that the
// instance said.
package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/rpc"
)

// Bound is how long anything may take that a test waits for. It is generous:
// what is slow on a loaded machine is not a failure.
const Bound = 30 * time.Second

// helperEnv makes the test binary play a program; see Main and Helper.
const helperEnv = "LAB_HELPER"

// Main runs the tests of a package that uses lab; call it from TestMain. The test
// binary plays the programs as well: started as one of helpers it does that and
// nothing else.
func Main(m *testing.M, helpers map[string]func(args []string)) int {
	if name := os.Getenv(helperEnv); name != "" {
		play, ok := helpers[name]
		if !ok {
			fmt.Fprintln(os.Stderr, "lab: no such helper:", name)
			return 99
		}
		play(os.Args[1:])
		return 0
	}
	code := m.Run()
	if b, err := built(); err == nil && os.Getenv("GEMEL_BINARY") == "" {
		_ = os.RemoveAll(filepath.Dir(b))
	}
	return code
}

// Helper is the part of a manifest that makes a process one of the helpers:
// command and environment, in one line each, indented by four.
func Helper(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	exe, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	list := make([]string, 0, len(args)+1)
	for _, a := range append([]string{exe}, args...) {
		list = append(list, fmt.Sprintf("%q", a))
	}
	return "    command: [" + strings.Join(list, ", ") + "]\n    environment: {" + helperEnv + ": " + name + "}\n"
}

// built builds cmd/gemel once for each test binary. GEMEL_BINARY names one that
// was built before and is to be tested instead.
var built = sync.OnceValues(func() (string, error) {
	if b := os.Getenv("GEMEL_BINARY"); b != "" {
		return filepath.Abs(b)
	}
	dir, err := os.MkdirTemp("/tmp", "lab-bin-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
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

// An Instance is one Gemel. Its methods are called by the goroutine of the test;
// each of them fails the test by itself.
type Instance struct {
	Dir string // holds all the rest; any user may pass through it
	// Wrap is a command before that of gemel, as {"prlimit", "--nofile=64"}; it
	// must exec what follows. Set it before Begin.
	Wrap []string
	// Env is added to the environment of both halves.
	Env []string
	// Usual says that it has the usual data directory and /etc/gemel, which Wrap has
	// bound to data and to all of Dir; the run directory is in Env.
	Usual bool

	// What is left of it on the machine, and what it tells by the API.
	*traces
	*told
	tb    testing.TB
	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd was waited for
}

// New makes the directories and writes the manifest; nothing runs before Begin.
// At the end of the test the instance is stopped, and whatever it left behind
// fails the test.
func New(tb testing.TB, manifest string) *Instance {
	tb.Helper()
	// Short: the path of a socket has at most 107 bytes.
	dir, err := os.MkdirTemp("/tmp", "lab-")
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	i := &Instance{Dir: dir, traces: &traces{dir: dir}, told: &told{tb: tb, record: &record{}}, tb: tb}
	i.Write(manifest)
	tb.Cleanup(i.end)
	return i
}

// Start makes an instance and begins it.
func Start(tb testing.TB, manifest string) *Instance {
	tb.Helper()
	i := New(tb, manifest)
	i.Begin()
	return i
}

// For is the same instance for a subtest, which is the one that then fails.
func (i *Instance) For(tb testing.TB) *Instance {
	c, told := *i, *i.told
	told.tb = tb
	c.tb, c.told = tb, &told
	return &c
}

// Path is a path below the instance's directory.
func (i *Instance) Path(name string) string { return filepath.Join(i.Dir, name) }

// Write replaces the manifest's file; nothing is applied.
func (i *Instance) Write(manifest string) {
	i.tb.Helper()
	if err := os.WriteFile(i.Path("gemel.yaml"), []byte(manifest), 0o644); err != nil {
		i.tb.Fatal(err)
	}
}

// Command is a run of the tool against this instance, for what the API does not
// offer.
func (i *Instance) Command(args ...string) *exec.Cmd {
	i.tb.Helper()
	exe, err := built()
	if err != nil {
		i.tb.Fatal(err)
	}
	flags := []string{"--data-dir", i.Path("data"), "--run-dir", i.Path("run")}
	if i.Usual {
		flags = flags[2:]
	}
	all := append(append([]string{exe, args[0]}, flags...), args[1:]...)
	all = append(append([]string{}, i.Wrap...), all...)
	c := exec.Command(all[0], all[1:]...)
	c.Env = append(os.Environ(), i.Env...)
	return c
}

// Begin starts gemel run and waits until its API answers and everything that it
// was told is known.
func (i *Instance) Begin() {
	i.tb.Helper()
	log, err := os.OpenFile(i.Path("stderr"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		i.tb.Fatal(err)
	}
	defer log.Close()
	file := i.Path("gemel.yaml")
	if i.Usual {
		file = "/etc/gemel/gemel.yaml"
	}
	i.cmd = i.Command("run", file)
	i.cmd.Stdout, i.cmd.Stderr = log, log
	// Away from the terminal's Ctrl-C, which would end it before the test's own end.
	i.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := i.cmd.Start(); err != nil {
		i.tb.Fatalf("starting gemel: %v", err)
	}
	i.ended = make(chan struct{})
	go func(c *exec.Cmd, ended chan struct{}) {
		_ = c.Wait() // how it ended is in its state
		close(ended)
	}(i.cmd, i.ended)
	i.dial()
	i.follow()
	s := i.Until("both halves are there", func(s *gemelv1.Snapshot) bool { return s.GetNode().GetShadow() != 0 })
	if f := strings.Fields(s.GetNode().GetCgroup()); len(f) > 1 && strings.HasPrefix(f[1], "/") {
		i.tree = filepath.Base(strings.TrimSuffix(f[1], ";"))
	}
}

// dial waits for the API.
func (i *Instance) dial() {
	i.tb.Helper()
	var err error
	poll(func() bool {
		select {
		case <-i.ended:
			err = fmt.Errorf("gemel run ended: %v", i.cmd.ProcessState)
			return true
		default:
		}
		i.Client, err = rpc.Dial(i.Path("run/api.sock"))
		return err == nil
	})
	if err != nil {
		i.tb.Fatalf("the API does not answer: %v", err)
	}
}

// Stop ends the instance by SIGTERM to the shadow and waits until both halves
// are gone. It may be begun again.
func (i *Instance) Stop() {
	i.tb.Helper()
	i.unfollow()
	i.Programs() // which looks for the tree's name while there is one
	shadow, _ := i.halves()
	if shadow != 0 {
		_ = unix.Kill(shadow, unix.SIGTERM)
	}
	if !poll(func() bool { s, m := i.halves(); return s == 0 && m == 0 }) {
		i.tb.Errorf("gemel did not end within %v of SIGTERM", Bound)
	}
}

// Kill sends SIGKILL to both halves and waits until they are dead; the programs
// run on. It may be begun again.
func (i *Instance) Kill() {
	i.tb.Helper()
	i.unfollow()
	if !poll(func() bool {
		shadow, monitor := i.halves()
		for _, pid := range []int{shadow, monitor} {
			if pid != 0 {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		return shadow == 0 && monitor == 0
	}) {
		i.tb.Fatal("the halves do not die")
	}
}

// end is the end of the test.
func (i *Instance) end() {
	i.tb.Helper()
	i.Stop()
	if i.Client != nil {
		i.Client.Close()
	}
	var left []string
	if !poll(func() bool { left = i.Left(); return len(left) == 0 }) {
		i.tb.Errorf("left behind:\n%s", strings.Join(left, "\n"))
		i.sweep()
	}
	if i.tb.Failed() {
		b, err := os.ReadFile(i.Path("stderr"))
		i.tb.Logf("what gemel said (%v):\n%s", err, tail(b, 8<<10))
		i.tb.Logf("its events:\n%s", i.record.text(0))
	}
	_ = os.RemoveAll(i.Dir)
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// poll looks again and again at what gives no event: a socket that is not there
// yet, a process of somebody else.
func poll(done func() bool) bool {
	for end := time.Now().Add(Bound); ; {
		if done() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Signal sends a signal to a program; the test fails if it is not there.
func (i *Instance) Signal(pid int, sig unix.Signal) {
	i.tb.Helper()
	if pid <= 1 {
		i.tb.Fatalf("no process to send %v to", sig)
	}
	if err := unix.Kill(pid, sig); err != nil {
		i.tb.Fatalf("sending %v to %d: %v", sig, pid, err)
	}
}
