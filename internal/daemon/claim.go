package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"gemel/internal/clock"
	"gemel/internal/places"
	"gemel/internal/proc"
	"gemel/internal/proc/spawn"
)

// ownerFile is in the run directory and names the data directory that it
// belongs to.
const ownerFile = "owner"

// claim makes the run directory that of this data directory. The locks are in the
// data directory, so that without this a second instance with another data
// directory would take the programs of the first one for its own: it finds them by
// the table in the run directory.
func claim(p places.Places) error {
	path := filepath.Join(p.Run, ownerFile)
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("reading whose the run directory is: %w", err)
	}
	owner := strings.TrimSuffix(string(b), "\n")
	if owner == p.Data {
		return nil
	}
	if owner != "" {
		if err := deserted(p, owner); err != nil {
			return err
		}
	}
	next := path + ".new"
	if err := os.WriteFile(next, []byte(p.Data+"\n"), 0o600); err != nil {
		return fmt.Errorf("claiming the run directory: %w", err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("claiming the run directory: %w", err)
	}
	return nil
}

// deserted returns nil if nothing of the instance before lives in the run
// directory any more, and takes away what it left.
func deserted(p places.Places, owner string) error {
	for _, lock := range []string{proc.ShadowLock, proc.MonitorLock} {
		var held *proc.HeldError
		if err := proc.ProbeLock(filepath.Join(owner, lock), 0); errors.As(err, &held) {
			return fmt.Errorf("the run directory %s is in use by the gemel (pid %d) with the data directory %s; give this one another with --run-dir", p.Run, held.PID, owner)
		}
	}
	path := filepath.Join(p.Run, "table")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	boot, err := clock.BootID()
	if err != nil {
		return fmt.Errorf("reading the boot id: %w", err)
	}
	t, err := spawn.OpenTable(path, boot)
	if err != nil {
		return fmt.Errorf("looking for programs of the instance before: %w", err)
	}
	defer t.Close()
	for _, e := range t.Entries() {
		if e.Alive() {
			return fmt.Errorf("programs of the instance with the data directory %s still run (%s, pid %d); take them back with gemel run --data-dir %s --run-dir %s, or give this one another --run-dir",
				owner, e.Process, e.PID, owner, p.Run)
		}
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("removing what the instance before left: %w", err)
	}
	return nil
}
