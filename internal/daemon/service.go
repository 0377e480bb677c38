package daemon

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"gemel/internal/places"
)

const (
	unitName    = "gemel.service"
	enableBound = 2 * time.Minute // until the service says that it is ready
)

// served reports whether systemd runs this machine, and this process for its unit of
// Gemel. The variables of a service would not do: whatever a service starts inherits them,
// and a test of Gemel that a service runs must never reset its machine.
func served(root string) bool {
	if !booted(root) || exists(root, "run/systemd/container") { // there the kernel is that of others
		return false
	}
	b, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return false
	}
	unit := regexp.MustCompile(`(?m)^\d+:[^:]*:/system\.slice/(.*/)?gemel(@[^/]*)?\.service(/|$)`)
	return unit.Match(b)
}

// booted reports whether systemd runs this machine.
func booted(root string) bool { return exists(root, "run/systemd/system") }

func exists(root, path string) bool {
	_, err := os.Stat(filepath.Join(root, path))
	return err == nil
}

// Enable has systemd run Gemel from now on, and after each boot, and returns when it is
// ready. It is false, and nothing is done, where systemd does not run the machine, where the
// unit or the manifest that it names is not there, and for other places than those of the
// unit. Root is / but in tests.
func Enable(ctx context.Context, p places.Places, root string) (bool, error) {
	at := []string{"etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"}
	unit := slices.ContainsFunc(at, func(dir string) bool { return exists(root, filepath.Join(dir, unitName)) })
	if !booted(root) || !unit || !exists(root, "etc/gemel/gemel.yaml") || p.Data != "/var/lib/gemel" || p.Run != "/run/gemel" {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, enableBound)
	defer cancel()
	c := exec.CommandContext(ctx, "systemctl", "enable", "--now", unitName)
	c.WaitDelay = time.Second
	if out, err := c.CombinedOutput(); err != nil {
		return false, fmt.Errorf("starting Gemel by systemctl enable --now %s: %w: %s; journalctl -u gemel says more", unitName, err, bytes.TrimSpace(out))
	}
	return true, nil
}
