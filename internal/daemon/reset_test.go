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
