package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReset: a machine is reset by what the kernel understands, and its log says why.
func TestReset(t *testing.T) {
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
