package beat

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"gemel/internal/ha"
	"gemel/internal/need"
)

func build(t testing.TB, argv ...string) {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
}

// TestPrograms runs the shipped examples in three languages against this
// package's reader: one layout, one protocol.
func TestPrograms(t *testing.T) {
	t.Run("go", func(t *testing.T) {
		exe := filepath.Join(t.TempDir(), "beats")
		build(t, need.Command(t, "go"), "build", "-o", exe, "./examples/go")
		program(t, "100ms", exe)
	})
	t.Run("c", func(t *testing.T) {
		exe := filepath.Join(t.TempDir(), "beats")
		build(t, need.Command(t, "gcc"), "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-Iinclude", "-pthread",
			"-o", exe, "examples/c/beats.c")
		program(t, "100", exe)
	})
	t.Run("c11", func(t *testing.T) {
		build(t, need.Command(t, "gcc"), "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror", "-fsyntax-only", "-x", "c", "include/gemel.h")
	})
	t.Run("python", func(t *testing.T) {
		program(t, "100", need.Command(t, "python3"), "-B", "../../examples/python/beats.py")
	})
	t.Run("c++", func(t *testing.T) {
		build(t, need.Command(t, "g++"), "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", "c++", "include/gemel.h")
	})
}

func program(t *testing.T, pause string, argv ...string) {
	const threads, start = 70, 1<<32 + 9 // more than one page of memory, and more than half a number
	b := running(t)
	b.open("p", true, true)
	cmd := exec.Command(argv[0], append(argv[1:], fmt.Sprint(threads), pause)...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+SocketPath(b.dir, "p"), "GEMEL_BEAT_PAGE="+PagePath(b.dir, "p"),
		fmt.Sprint("GEMEL_START=", uint64(start)))
	var errs strings.Builder
	cmd.Stdout, cmd.Stderr = io.Discard, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			<-ended
		}
		if errs.Len() > 0 {
			t.Logf("it said: %s", errs.String())
		}
	}()
	b.Began("p", start, cmd.Process.Pid)
	if got := b.next(); got != (ha.Ready{Process: "p", Start: start, How: "notify"}) {
		t.Fatalf("told %+v", got)
	}
	until(t, "all threads beat", func() bool { return b.Threads("p") == threads })
	var names, want []string
	for i, h := range b.Heard("p") {
		names = append(names, h.Name)
		want = append(want, fmt.Sprint("worker-", i))
	}
	sort.Strings(names)
	sort.Strings(want)
	if fmt.Sprint(names) != fmt.Sprint(want) {
		t.Errorf("threads %v", names)
	}
	if got := b.Status("p"); !strings.HasPrefix(got, "all ") {
		t.Errorf("status %q", got)
	}

	b.Watch(ha.Watch{Process: "p", Start: start, From: b.now(), Within: 3 * time.Second})
	if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	missed, ok := b.next().(ha.Missed)
	if !ok || missed.Thread != "worker-0" || missed.Missing != 1 {
		t.Errorf("told %+v, want worker-0 alone", missed)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := b.next(); got != (ha.Stopping{Process: "p", Start: start}) {
		t.Errorf("told %+v", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
	if n := b.Threads("p"); n != 0 {
		t.Errorf("%d threads are missed that ended on purpose", n)
	}
}
