package proc

import (
	"context"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gemel/internal/need"
)

// An urgent process keeps to one processor and stays in memory. What it starts is not
// urgent.
func TestUrgent(t *testing.T) {
	need.Root(t)
	t.Setenv("GOMAXPROCS", "")
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	if err := Urgent(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := all(unix.SCHED_NORMAL, 0); err != nil {
			t.Error(err)
		}
		if err := unix.Munlockall(); err != nil {
			t.Error(err)
		}
	}()
	if n := runtime.GOMAXPROCS(0); n != 1 {
		t.Errorf("it runs on %d processors at once", n)
	}
	if b, err := os.ReadFile("/proc/self/status"); err != nil || strings.Contains(string(b), "VmLck:\t       0 kB") || !strings.Contains(string(b), "VmLck:") {
		t.Errorf("its memory is not locked: %v\n%s", err, b)
	}
	for range 20 {
		e, err := Run(context.Background(), Command{Args: []string{"/bin/sh", "-c", "cut -d' ' -f41 /proc/self/stat"}})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(e.Output); got != "0" {
			t.Fatalf("a command is scheduled by policy %s", got)
		}
	}
}
