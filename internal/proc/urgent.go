package proc

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// Urgent has this whole process scheduled before all that is not real-time
// (SCHED_RR). On a machine whose processors are all busy the renewal of an authority,
// and the store's own heartbeats, else come seconds late. Threads that are made later
// are the same; what Run starts, and what the shadow does, is not. The error says
// why it is not allowed, as for a plain user.
//
// It keeps to one processor from then on (decision 0240): what goes before every
// program must never take all that the machine has, and a second one made it dearer.
// GOMAXPROCS in the environment says otherwise.
func Urgent() error {
	if err := all(unix.SCHED_RR, rtPriority); err != nil {
		return err
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
	Stay()
	return nil
}

// Stay keeps in memory what this process touches from now on, and has touched: what was
// swapped out, or dropped to be read again from a disk that hangs, is not there in time.
// It is done only with CAP_IPC_LOCK. Under a limit every further allocation could fail.
func Stay() {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var c [2]unix.CapUserData
	if unix.Capget(&h, &c[0]) == nil && c[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0 {
		_ = unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT) // not before Linux 4.4
	}
}

func all(policy int, priority int32) error {
	// A thread that is made meanwhile by one that was not reached yet is found in the
	// next round.
	for range 3 {
		list, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("listing this process's threads: %w", err)
		}
		for _, e := range list {
			tid, err := strconv.Atoi(e.Name())
			if err != nil {
				continue
			}
			if err := schedule(tid, policy, priority); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("real-time scheduling (SCHED_RR) is not allowed: %w", err)
			}
		}
	}
	return nil
}

// calmly runs f, which forks, on a thread of default scheduling: what it starts
// inherits that.
func calmly(f func() error) error {
	policy, _, e := unix.Syscall(unix.SYS_SCHED_GETSCHEDULER, 0, 0, 0)
	if e != 0 || policy == unix.SCHED_NORMAL {
		return f()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := schedule(0, unix.SCHED_NORMAL, 0); err != nil {
		return f()
	}
	defer func() { _ = schedule(0, unix.SCHED_RR, rtPriority) }() // it was allowed before
	return f()
}
