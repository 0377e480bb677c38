package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gemel/internal/manifest"
)

// TestReset: a machine is reset only where that was asked for or a service manager owns
// it, and by what the kernel understands.
func TestReset(t *testing.T) {
	for _, c := range []struct {
		how          string
		served, want bool
	}{
		{manifest.ResetAuto, false, false}, {manifest.ResetAuto, true, true},
		{manifest.ResetSysrq, false, true}, {manifest.ResetNone, true, false}, {"", true, false},
	} {
		if got := resets(c.how, c.served); got != c.want {
			t.Errorf("%q, served %v: %v", c.how, c.served, got)
		}
	}
	dir := t.TempDir()
	trigger, kmsg := filepath.Join(dir, "trigger"), filepath.Join(dir, "kmsg")
	for _, p := range []string{trigger, kmsg} {
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reset(trigger, kmsg, slog.New(slog.DiscardHandler))("web", "start 3 of db (pid 7)")
	if b, err := os.ReadFile(trigger); err != nil || string(b) != "b" {
		t.Errorf("the trigger got %q, %v", b, err)
	}
	if b, err := os.ReadFile(kmsg); err != nil || !strings.Contains(string(b), "group web") || !strings.Contains(string(b), "pid 7") {
		t.Errorf("the kernel's log got %q, %v", b, err)
	}
}

// TestServed: only the unit itself counts, not what another service starts, nor a container.
func TestServed(t *testing.T) {
	for _, c := range []struct {
		cgroup string
		files  []string
		want   bool
	}{
		{"0::/system.slice/gemel.service\n", []string{"run/systemd/system"}, true},
		{"12:pids:/system.slice/gemel.service\n1:name=systemd:/system.slice/gemel.service/gemel\n", []string{"run/systemd/system"}, true},
		{"0::/system.slice/system-gemel.slice/gemel@two.service\n", []string{"run/systemd/system"}, true},
		{"0::/system.slice/gemel.service\n", nil, false},
		{"0::/system.slice/gemel.service\n", []string{"run/systemd/system", "run/systemd/container"}, false},
		{"0::/system.slice/actions-runner.service\n", []string{"run/systemd/system"}, false},
		{"0::/system.slice/not-gemel.service\n", []string{"run/systemd/system"}, false},
		{"0::/user.slice/user-0.slice/session-1.scope\n", []string{"run/systemd/system"}, false},
		{"", []string{"run/systemd/system"}, false},
	} {
		root := t.TempDir()
		for _, f := range append(c.files, "proc/self") {
			if err := os.MkdirAll(filepath.Join(root, f), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(root, "proc/self/cgroup"), []byte(c.cgroup), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := served(root); got != c.want {
			t.Errorf("%q with %v: %v", c.cgroup, c.files, got)
		}
	}
	if served("/") {
		t.Error("a test takes itself for the service")
	}
}
