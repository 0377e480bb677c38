package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gemel/internal/places"
	"gemel/internal/proc"
)

// Two data directories never share a run directory while anything of the first
// one lives.
func TestClaim(t *testing.T) {
	dir := t.TempDir()
	at := func(data string) places.Places {
		p := places.Places{Data: filepath.Join(dir, data), Run: filepath.Join(dir, "run")}
		if err := p.Make(); err != nil {
			t.Fatal(err)
		}
		return p
	}
	one, two := at("one"), at("two")
	for range 2 {
		if err := claim(one); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := proc.TakeLock(filepath.Join(one.Data, proc.MonitorLock), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := claim(two); err == nil || !strings.Contains(err.Error(), "--run-dir") || !strings.Contains(err.Error(), one.Data) {
		t.Errorf("a run directory in use was claimed: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if err := claim(two); err != nil {
		t.Errorf("a deserted run directory: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(two.Run, ownerFile)); err != nil || string(b) != two.Data+"\n" {
		t.Errorf("owner is %q, %v", b, err)
	}
}
