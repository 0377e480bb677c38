package proc

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rtPriority is the lowest of real time: it comes before every program that has none,
// and after what the kernel and other people hold more urgent.
const rtPriority = 1

// RealTime gives the calling thread real-time scheduling (SCHED_RR), or takes it back.
// The caller has locked its goroutine to the thread. What the thread starts inherits
// it: a child of Gemel is started without. An error says that it is not allowed here;
// then all is as before.
func RealTime(on bool) error {
	policy, priority := unix.SCHED_NORMAL, int32(0)
	if on {
		policy, priority = unix.SCHED_RR, rtPriority
	}
	if err := schedule(0, policy, priority); err != nil {
		return fmt.Errorf("real-time scheduling: %w", err)
	}
	return nil
}

// schedule sets the policy of a thread; zero is the calling one.
func schedule(tid, policy int, priority int32) error {
	_, _, e := unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, uintptr(tid), uintptr(policy), uintptr(unsafe.Pointer(&priority)))
	if e != 0 {
		return e
	}
	return nil
}
