package internal

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gemel/internal/need"
)

// TestUnit lets systemd itself judge the unit that is shipped.
func TestUnit(t *testing.T) {
	analyze := need.Command(t, "systemd-analyze")
	unit, err := os.ReadFile("../dist/gemel.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Type=notify", "NotifyAccess=all", "KillMode=process", "Delegate=yes", "Restart=always", "WatchdogSec=30"} {
		if !strings.Contains(string(unit), "\n"+want+"\n") {
			t.Errorf("the unit does not say %s", want)
		}
	}
	self, err := os.Executable() // the verifier wants a program that is there
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "gemel.service")
	if err := os.WriteFile(path, bytes.ReplaceAll(unit, []byte("/usr/local/bin/gemel"), []byte(self)), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput()
	if err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
