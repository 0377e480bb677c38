package spawn

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
)

// siginfo is siginfo_t of a SIGCHLD on 64-bit machines.
type siginfo struct {
	signo, errno, code, _ int32
	pid, uid, status      int32
	_                     [100]byte
}

// What waitid says in code.
const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3
)

// ExitStatus tells how the process of a pidfd ended. Ok is false while it lives.
// For a child of the caller it is what waitid tells, with the CPU time and memory
// used (the kernel counts the memory of the process that forked it as the least);
// reap takes the zombie away, else it can be asked again. For others it is
// the kernel's record of the exit (Linux 6.15 and later), which is there when the
// parent has reaped it: until then ok is false, unless /proc tells. A status is
// Unknown, with ok true, if the process is gone and the kernel cannot tell; the
// caller fills in After and Before.
// OOM is not told here: see Cgroup.OOMKills.
func ExitStatus(pidfd int, reap bool) (st ha.ExitStatus, ok bool, err error) {
	var info siginfo
	var used unix.Rusage
	flags := uintptr(unix.WEXITED | unix.WNOHANG)
	if !reap {
		flags |= unix.WNOWAIT
	}
	for {
		_, _, e := syscall.Syscall6(unix.SYS_WAITID, unix.P_PIDFD, uintptr(pidfd), uintptr(unsafe.Pointer(&info)), flags,
			uintptr(unsafe.Pointer(&used)), 0)
		switch e {
		case unix.EINTR:
			continue
		case unix.ECHILD:
			return strange(pidfd)
		case 0:
		default:
			return st, false, fmt.Errorf("wait for pidfd %d: %w", pidfd, e)
		}
		break
	}
	if info.signo == 0 {
		return st, false, nil
	}
	st = ha.ExitStatus{
		Code:   int(info.status),
		CPU:    time.Duration(used.Utime.Nano() + used.Stime.Nano()),
		MaxRSS: used.Maxrss * 1024,
	}
	if info.code == cldKilled || info.code == cldDumped {
		st.Code, st.Signal, st.Core = -1, int(info.status), info.code == cldDumped
	}
	return st, true, nil
}

// strange is ExitStatus of a process that is not a child of the caller.
func strange(pidfd int) (ha.ExitStatus, bool, error) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_PID | unix.PIDFD_INFO_EXIT}
	err := unix.IoctlPidfdInfo(pidfd, &info)
	if err == nil && info.Mask&unix.PIDFD_INFO_EXIT != 0 {
		return decode(int(info.Exit_code)), true, nil
	}
	if errors.Is(err, unix.EBADF) {
		return ha.ExitStatus{}, false, fmt.Errorf("ask pidfd %d for its exit: %w", pidfd, err)
	}
	poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, 0); err != nil && !errors.Is(err, unix.EINTR) {
		return ha.ExitStatus{}, false, fmt.Errorf("poll pidfd %d: %w", pidfd, err)
	} else if n == 0 {
		return ha.ExitStatus{}, false, nil
	}
	if errors.Is(unix.PidfdSendSignal(pidfd, 0, nil, 0), unix.ESRCH) {
		// Gone, and perhaps reaped since the first question.
		info = unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
		if err := unix.IoctlPidfdInfo(pidfd, &info); err == nil && info.Mask&unix.PIDFD_INFO_EXIT != 0 {
			return decode(int(info.Exit_code)), true, nil
		}
		return ha.ExitStatus{Code: -1, Unknown: true}, true, nil
	}
	return zombie(pidfd)
}

// zombie reads the exit of a process that its parent has not reaped (and perhaps
// never will). The kernel shows 0 to those who may not know it: then it is not
// taken for an answer.
func zombie(pidfd int) (ha.ExitStatus, bool, error) {
	b, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(pidfd))
	if err != nil {
		return ha.ExitStatus{}, false, fmt.Errorf("read about pidfd %d: %w", pidfd, err)
	}
	_, rest, ok := bytes.Cut(b, []byte("\nPid:"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	pid, perr := strconv.Atoi(string(bytes.TrimSpace(line)))
	if !ok || perr != nil || pid <= 0 {
		return ha.ExitStatus{}, false, nil
	}
	s, there := readStat(pid)
	if !there || s.state != 'Z' || errors.Is(unix.PidfdSendSignal(pidfd, 0, nil, 0), unix.ESRCH) {
		return ha.ExitStatus{}, false, nil
	}
	if s.exit == 0 && os.Geteuid() != 0 && !owns(pid) {
		return ha.ExitStatus{}, false, nil
	}
	return decode(s.exit), true, nil
}

func owns(pid int) bool {
	var st unix.Stat_t
	return unix.Stat("/proc/"+strconv.Itoa(pid), &st) == nil && int(st.Uid) == os.Geteuid()
}

// decode reads the kernel's word of an exit, as wait(2) gives it.
func decode(word int) ha.ExitStatus {
	w := syscall.WaitStatus(word)
	if w.Signaled() {
		return ha.ExitStatus{Code: -1, Signal: int(w.Signal()), Core: w.CoreDump()}
	}
	return ha.ExitStatus{Code: w.ExitStatus()}
}
