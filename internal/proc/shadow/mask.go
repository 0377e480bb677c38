package shadow

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// allThreads calls rt_sigprocmask on every thread of the process.
func allThreads(how int, set *unix.Sigset_t) error {
	_, _, e := syscall.AllThreadsSyscall6(unix.SYS_RT_SIGPROCMASK, uintptr(how), uintptr(unsafe.Pointer(set)), 0, 8, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
