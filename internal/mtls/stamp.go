package mtls

import (
	"os"
	"syscall"
)

// stamped tells whether a file is still the one that was read: a rename gives the
// name another inode, and whoever writes into a file changes its times.
type stamped struct {
	dev, ino     uint64
	size         int64
	mtime, ctime syscall.Timespec
}

func stampOf(path string) (stamped, error) {
	st, err := os.Stat(path)
	if err != nil {
		return stamped{}, err
	}
	sys := st.Sys().(*syscall.Stat_t)
	return stamped{uint64(sys.Dev), sys.Ino, sys.Size, sys.Mtim, sys.Ctim}, nil
}
