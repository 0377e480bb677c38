package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/places"
	"gemel/internal/proc"
	"gemel/internal/proc/spawn"
)

// ownerFile is in the run directory and names the data directory that it
// belongs to.
const ownerFile = "owner"

// claim makes the run directory that of this data directory, for as long as the
// file that it returns is open. The locks are in the data directory, so that without
// this a second instance with another data directory would take the programs of the
// first one for its own: it finds them by the table in the run directory.
//
// Who has the directory shares a lock on the file, with others of the same data
// directory; who wants to write itself into it needs the lock alone. So of any number
// of starts at once, those of one data directory have it and the others are refused.
func claim(p places.Places, wait time.Duration) (_ *os.File, err error) {
	f, err := os.OpenFile(filepath.Join(p.Run, ownerFile), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("claiming the run directory: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	for end := time.Now().Add(wait); ; time.Sleep(5 * time.Millisecond) {
		owner, err := ownerOf(f, unix.LOCK_SH)
		if err == nil && owner == p.Data {
			return f, nil
		}
		if err == nil {
			owner, err = ownerOf(f, unix.LOCK_EX)
		}
		if err == nil && owner != "" && owner != p.Data {
			err = deserted(p, owner)
		}
		if err == nil {
			// In place: another name's file would be another lock.
			if err := errors.Join(f.Truncate(0), written(f, p.Data+"\n")); err != nil {
				return nil, fmt.Errorf("claiming the run directory: %w", err)
			}
			continue // with the others of this data directory
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, err
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("the run directory %s is in use by the gemel with the data directory %s; give this one another with --run-dir", p.Run, owner)
		}
	}
}

func written(f *os.File, line string) error {
	_, err := f.WriteAt([]byte(line), 0)
	return err
}

// ownerOf reads whose the run directory is, under a lock of that kind. Who is there
// is told as well when the lock cannot be had (EWOULDBLOCK).
func ownerOf(f *os.File, how int) (string, error) {
	locked := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	b, err := io.ReadAll(io.NewSectionReader(f, 0, unix.PathMax))
	if err != nil {
		return "", fmt.Errorf("reading whose the run directory is: %w", err)
	}
	if locked != nil {
		locked = fmt.Errorf("locking whose the run directory is: %w", locked)
	}
	return strings.TrimSuffix(string(b), "\n"), locked
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
