// Package disk is what a member of the store has in the file system beside etcd's
// own files, as far as others than the member touch it: the lock on its data, and
// its socket.
package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// MarkPath is the mark beside a data directory: whose data it is, and how far it was.
func MarkPath(dir string) string { return filepath.Clean(dir) + ".mark" }

// Sync puts a file on the disk, or the names in a directory.
func Sync(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Wipe takes away data and mark of a member that is nobody any more. It must have
// been removed from its cluster before; it comes back by being added.
func Wipe(dir string) error {
	unlock, err := Lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	// The data goes first: what is left by a failure between is refused still.
	for _, path := range []string{dir, MarkPath(dir) + ".new", MarkPath(dir)} {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("wiping the store: %w", err)
		}
	}
	if err := Sync(filepath.Dir(filepath.Clean(dir))); err != nil {
		return fmt.Errorf("wiping the store: %w", err)
	}
	return nil
}

// Lock takes a data directory for this process. The lock ends with it.
func Lock(dir string) (unlock func(), err error) {
	path := filepath.Clean(dir) + ".lock"
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the store: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("locking the store: %s is held by another process: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}
