package proc

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestRun(t *testing.T) {
	for _, tc := range []struct {
		name, script string
		want         Ended
	}{
		{"well", "echo hello", Ended{Output: "hello\n"}},
		{"badly", "echo no >&2; exit 3", Ended{Code: 3, Output: "no\n"}},
		{"by signal", "kill -9 $$", Ended{Code: -1, Signal: 9}},
		{"late", "sleep 1000", Ended{Code: -1, Signal: 9, Late: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := Command{Args: []string{"/bin/sh", "-c", tc.script}, Timeout: time.Minute}
			if tc.want.Late {
				c.Timeout = 100 * time.Millisecond
			}
			got, err := Run(t.Context(), c)
			if err != nil || got != tc.want {
				t.Errorf("Run = %+v, %v; want %+v", got, err, tc.want)
			}
		})
	}
}

// A command that leaves a child behind which holds the output open is not waited
// for, and the child does not outlive it.
func TestRunKillsWhatIsLeft(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	_, err := Run(t.Context(), Command{Args: []string{"/bin/sh", "-c", "sleep 1000 & echo $! > " + file}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid := strings.TrimSpace(string(b))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
	}
	t.Errorf("pid %s, left behind by the command, still runs", pid)
}

func TestRunClipsOutput(t *testing.T) {
	got, err := Run(t.Context(), Command{Args: []string{"/bin/sh", "-c", "yes | head -c 1000000"}, Most: 10})
	if err != nil || got.Output != "y\ny\ny\ny\ny\n" || !got.Clipped || got.Code != 0 {
		t.Errorf("Run = %+v, %v", got, err)
	}
}

func TestRunMissing(t *testing.T) {
	if _, err := Run(t.Context(), Command{Args: []string{"/does/not/exist"}}); err == nil || !strings.Contains(err.Error(), "/does/not/exist") {
		t.Errorf("a missing program: %v", err)
	}
	if _, err := Run(t.Context(), Command{}); err == nil {
		t.Error("an empty command was run")
	}
}

// The start command of a program that Gemel attaches to leaves it behind, without
// a pipe that ends with us; one that is late leaves nothing.
func TestRunLeaves(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "pid")
	e, err := Run(t.Context(), Command{Args: []string{"/bin/sh", "-c", "sleep 1000 & echo $! > " + file}, Leave: true})
	if err != nil || e.Code != 0 {
		t.Fatalf("%+v, %v", e, err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Kill(pid, unix.SIGKILL) }()
	if err := unix.Kill(pid, 0); err != nil {
		t.Errorf("what it started does not live: %v", err)
	}
	if out, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/fd/1"); err != nil || out != "/dev/null" {
		t.Errorf("it prints to %q, %v", out, err)
	}
	e, err = Run(t.Context(), Command{Args: []string{"/bin/sh", "-c", "sleep 1000 & echo $! > " + file + "; wait"}, Leave: true, Timeout: 200 * time.Millisecond})
	if err != nil || !e.Late {
		t.Errorf("%+v, %v", e, err)
	}
}

// TestRunReads: a command reads what it is given, under the name that it is told.
func TestRunReads(t *testing.T) {
	in := []byte(strings.Repeat("line\n", 100_000))
	e, err := Run(t.Context(), Command{Args: []string{"/bin/sh", "-c", "echo $0; cat", "me"}, As: "other", In: in, Most: 1 << 20})
	if err != nil || e.Code != 0 || e.Clipped || e.Output != "me\n"+string(in) {
		t.Errorf("%v, exit code %d, %d bytes", err, e.Code, len(e.Output))
	}
	e, err = Run(t.Context(), Command{Args: []string{"/bin/cat", "/proc/self/cmdline"}, As: "other"})
	if err != nil || !strings.HasPrefix(e.Output, "other\x00") {
		t.Errorf("%v, %q", err, e.Output)
	}
}
