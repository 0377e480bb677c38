package output

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
)

// pipeSize is what a pipe may hold while nobody reads; the kernel may allow less.
const pipeSize = 256 << 10

// OpenPipe makes the pipe of a process, unless it is there, and opens it for
// reading and writing. It blocks, as programs expect; the caller owns the
// descriptor. With an owner other than -1 the pipe belongs to that user, who may
// then open it again by /dev/stdout.
func OpenPipe(runDir string, p ha.Process, owner int) (int, error) {
	return openPipe(runDir, p, owner, 0)
}

func openPipe(runDir string, p ha.Process, owner, flags int) (int, error) {
	if err := plain(p); err != nil {
		return -1, err
	}
	dir := filepath.Join(runDir, "out")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return -1, fmt.Errorf("making the directory of pipes: %w", err)
	}
	path := filepath.Join(dir, string(p))
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, fmt.Errorf("making the pipe %s: %w", path, err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW|flags, 0)
	if err != nil {
		return -1, fmt.Errorf("opening the pipe %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		unix.Close(fd)
		return -1, fmt.Errorf("%s is not a pipe; remove it", path)
	}
	if owner >= 0 && int(st.Uid) != owner {
		// Without it only /dev/stdout does not work.
		_ = unix.Fchown(fd, owner, -1)
	}
	// The user's share of pipe memory may be used up: the pipe is smaller then.
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, pipeSize)
	return fd, nil
}

// plain refuses a name that is not one of a file in its directory.
func plain(p ha.Process) error {
	if p == "" || strings.HasPrefix(string(p), ".") || strings.ContainsAny(string(p), "/\x00") {
		return fmt.Errorf("%q cannot be the name of a process", p)
	}
	return nil
}

// LogPath is the present log file of a process. Older ones have .1, .2 ... added.
func LogPath(logDir string, p ha.Process) string {
	return filepath.Join(logDir, string(p)+".log")
}
