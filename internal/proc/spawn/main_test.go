package spawn

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
	"gemel/internal/proc"
)

// The test binary plays the programs: with this variable set it is one of helpers.
const helperEnv = "SPAWN_TEST_HELPER"

func TestMain(m *testing.M) {
	if name := os.Getenv(helperEnv); name != "" {
		f, ok := helpers[name]
		if !ok {
			fmt.Fprintln(os.Stderr, "no such helper:", name)
			os.Exit(99)
		}
		f(os.Args[1:])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// helper is the Spec of a helper.
func helper(t testing.TB, name string, args ...string) *proc.Spec {
	return &proc.Spec{
		Process: "helper",
		Path:    self(t),
		Args:    append([]string{"helper"}, args...),
		Env:     []string{helperEnv + "=" + name, "PATH=/usr/bin:/bin"},
		Umask:   0o22,
	}
}

// shell is the Spec of a script.
func shell(script string) *proc.Spec {
	return &proc.Spec{Process: "shell", Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}, Umask: 0o22}
}

func nextStart() ha.StartID { return ha.StartID(rand.Uint64() | 1) }

func quiet() Options {
	return Options{Start: nextStart(), Stdin: -1, Stdout: -1, Stderr: -1, Handover: -1}
}

func tree(t testing.TB) *Tree {
	t.Helper()
	tr, err := Open(fmt.Sprintf("gemel-test-%d-%s", os.Getpid(), nextStart()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Close)
	return tr
}

// group makes a control group and removes it, with all that is in it, at the end.
func group(t testing.TB, tr *Tree, id ha.StartID, s *proc.Spec) *Cgroup {
	t.Helper()
	c, err := tr.Make(s.Process, id, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Kill(); err != nil {
			t.Error(err)
		}
		until(t, "the control group is removed", func() bool { return c.Remove() == nil })
	})
	return c
}

// begin starts a program by one of the ways.
func begin(t testing.TB, way string, s *proc.Spec, o Options) (Child, error) {
	t.Helper()
	if way == "shelf" {
		defer shelved(t, &o)()
	}
	r, err := Prepare(s, o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return launch(way, r)
}

var ways = []string{"start", "park", "shelf"}

// shelved lets a start have its part of the table only.
func shelved(t testing.TB, o *Options) (done func()) {
	t.Helper()
	done = func() {}
	if o.Cgroup == nil {
		tr := &Tree{name: "shelved"}
		o.Cgroup, done = &Cgroup{tree: tr, id: o.Start}, tr.Close
	}
	if o.Cgroup.tree.shelf != nil {
		return done
	}
	if err := o.Cgroup.tree.Reserve(nil); err != nil {
		t.Fatal(err)
	}
	return done
}

// await waits for the end of a child of ours and reaps it.
func await(t testing.TB, c Child) ha.ExitStatus {
	t.Helper()
	defer shut(c.PIDFD)
	ended(t, c.PIDFD)
	st, ok, err := ExitStatus(c.PIDFD, true)
	if err != nil || !ok {
		t.Fatalf("exit of pid %d: ok %v, %v", c.PID, ok, err)
	}
	return st
}

func ended(t testing.TB, pidfd int) {
	t.Helper()
	readable(t, pidfd, "the end of a process")
}

func readable(t testing.TB, fd int, what string) {
	t.Helper()
	end := time.Now().Add(time.Minute)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(end).Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			t.Fatalf("waited in vain for %s: %v", what, err)
		}
		return
	}
}

// until polls for what gives no event.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute in vain until %s", what)
		}
	}
}

// output runs a program to its end and returns what it wrote.
func output(t testing.TB, way string, s *proc.Spec, o Options) (string, ha.ExitStatus) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	o.Stdout, o.Stderr = int(w.Fd()), int(w.Fd())
	c, err := begin(t, way, s, o)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), await(t, c)
}

func root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// value finds "key: value" in what /proc/PID/status shows.
func value(text, key string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.Join(strings.Fields(rest), " ")
		}
	}
	return "not there"
}

func itoa(n int) string { return strconv.Itoa(n) }

// open makes a directory that any user can enter.
func openDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "spawn-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func file(t testing.TB, dir, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}
