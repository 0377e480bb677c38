package proc

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The locks of a data directory: each half holds its own for life.
const (
	ShadowLock  = "shadow.lock"
	MonitorLock = "monitor.lock"
	// GuardLock is that of the one who keeps deadlines beside them.
	GuardLock = "guard.lock"
	// MonitorSocket is where a live monitor listens, in the run directory, for a
	// new shadow.
	MonitorSocket = "monitor.sock"
)

// A HeldError says that a lock is held by a living process.
type HeldError struct {
	Path string
	PID  int // 0 if the holder did not write itself yet
}

func (e *HeldError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("%s is held by another process", e.Path)
	}
	return fmt.Sprintf("%s is held by pid %d", e.Path, e.PID)
}

// Lock is a file lock (flock) of this process. The kernel gives it back when the
// last descriptor is closed, however the process ends.
type Lock struct{ FD int }

// TakeLock takes the lock at path and writes this process into the file. It is a
// *HeldError if a living process has it. A lock whose writer is dead is still held
// for an instant by a child that has not reached its exec: TakeLock waits for
// that, at most the given time.
func TakeLock(path string, wait time.Duration) (*Lock, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock %s: %w", path, err)
	}
	for end := time.Now().Add(wait); ; time.Sleep(5 * time.Millisecond) {
		err = flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		pid := holder(fd)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			unix.Close(fd)
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		if pid != 0 || time.Now().After(end) {
			unix.Close(fd)
			return nil, &HeldError{path, pid}
		}
	}
	l := &Lock{fd}
	if err := l.write(); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("writing the lock %s: %w", path, err)
	}
	return l, nil
}

// ProbeLock tells who holds the lock at path: 0 and nil if nobody does, a
// *HeldError if someone does. It waits like TakeLock.
func ProbeLock(path string, wait time.Duration) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening the lock %s: %w", path, err)
	}
	defer unix.Close(fd)
	for end := time.Now().Add(wait); ; time.Sleep(5 * time.Millisecond) {
		// A shared lock, so that a probe is never in the way of another probe.
		err = flock(fd, unix.LOCK_SH|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("asking for the lock %s: %w", path, err)
		}
		if pid := holder(fd); pid != 0 || time.Now().After(end) {
			return &HeldError{path, pid}
		}
	}
}

// Close gives the lock back.
func (l *Lock) Close() error { return unix.Close(l.FD) }

// write puts "PID TICKS" into the file: the start time tells a living holder from
// a stranger that got its number.
func (l *Lock) write() error {
	pid := os.Getpid()
	line := fmt.Sprintf("%d %d\n", pid, startTicks(pid))
	// A full disk must not keep a half from its lock: without the line a second
	// start only waits longer before it is refused.
	if err := unix.Ftruncate(l.FD, 0); err != nil {
		return err
	}
	if _, err := unix.Pwrite(l.FD, []byte(line), 0); err != nil && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	return nil
}

// holder is the living process that wrote itself into a lock file; 0 if none.
func holder(fd int) int {
	b := make([]byte, 64)
	n, err := unix.Pread(fd, b, 0)
	if err != nil || n <= 0 {
		return 0
	}
	p, t, _ := strings.Cut(strings.TrimSpace(string(b[:n])), " ")
	pid, err := strconv.Atoi(p)
	if err != nil || pid <= 0 {
		return 0
	}
	if now := startTicks(pid); now == 0 || strconv.FormatUint(now, 10) != t {
		return 0
	}
	return pid
}

// startTicks is the start time of a living process in clock ticks since boot; 0
// if there is none, or if it is a zombie.
func startTicks(pid int) uint64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	i := strings.LastIndexByte(string(b), ')')
	f := strings.Fields(string(b[i+1:]))
	if i < 0 || len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return 0
	}
	t, err := strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return 0
	}
	return t
}

func flock(fd, how int) error {
	for {
		err := unix.Flock(fd, how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
