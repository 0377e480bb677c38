package places

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// own makes a directory with the mode given, or accepts one that belongs to
// this user and that nobody else can write to.
func own(dir string, mode uint32) error {
	if err := os.MkdirAll(dir, os.FileMode(mode)); err != nil {
		return fmt.Errorf("making %s: %w", dir, err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return fmt.Errorf("looking at %s: %w", dir, err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("%s is not a directory: remove it or choose another place", dir)
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to user %d and Gemel runs as %d: choose another place with --data-dir and --run-dir", dir, st.Uid, os.Geteuid())
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%s can be written by others (mode %04o): chmod go-w %s", dir, st.Mode&0o7777, dir)
	}
	if st.Mode&0o777 != mode {
		if err := os.Chmod(dir, os.FileMode(mode)); err != nil {
			return fmt.Errorf("setting the mode of %s: %w", dir, err)
		}
	}
	return nil
}
