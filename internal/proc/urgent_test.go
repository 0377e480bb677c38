package proc

import (
	"context"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gemel/internal/need"
)

// What is started by an urgent process is not urgent.
func TestUrgent(t *testing.T) {
	need.Root(t)
	if err := Urgent(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := all(unix.SCHED_NORMAL, 0); err != nil {
			t.Error(err)
		}
	}()
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
