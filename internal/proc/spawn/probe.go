package spawn

import (
	"errors"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// probe starts a copy of this binary, stopped before its first instruction, and
// learns from it what cannot be asked: the limit of descriptors that we were
// started with (the Go runtime raised our own and puts it back only in its own
// children), whether a child can be born into a control group, and whether the
// kernel keeps the exit of a process that others reaped.
func (t *Tree) probe() {
	runtime.LockOSThread() // a traced child belongs to a thread
	defer runtime.UnlockOSThread()
	pidfd := -1
	attr := &syscall.ProcAttr{Files: []uintptr{0, 1, 2}, Env: []string{}, Sys: &syscall.SysProcAttr{Ptrace: true, PidFD: &pidfd}}
	dir := -1
	if t.v2 != "" {
		var err error
		if dir, err = unix.Open(t.v2, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			defer shut(dir)
			attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, dir
		}
	}
	born := true
	pid, err := syscall.ForkExec("/proc/self/exe", os.Args[:1], attr)
	if err != nil && attr.Sys.UseCgroupFD {
		born, attr.Sys.UseCgroupFD = false, false
		pid, err = syscall.ForkExec("/proc/self/exe", os.Args[:1], attr)
	}
	if err != nil {
		t.notes = append(t.notes, "A trial child could not be started ("+cause(err)+"): programs get 1024 descriptors unless their limits say otherwise.")
		t.files = usual()
		return
	}
	t.files = limitOf(pid)
	t.born.Store(attr.Sys.UseCgroupFD)
	if !born {
		t.notes = append(t.notes, "The kernel does not start children inside a control group (Linux 5.7): they enter it after the fork, which is slower.")
	}
	_ = unix.Kill(pid, unix.SIGKILL) // our own child, not reaped yet
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(pid, &ws, unix.WALL, nil)
		if errors.Is(err, unix.EINTR) || err == nil && ws.Stopped() {
			continue
		}
		break
	}
	if pidfd >= 0 {
		defer shut(pidfd)
		if st, ok, err := strange(pidfd); err != nil || !ok || st.Unknown {
			t.notes = append(t.notes, "The kernel does not keep exits (Linux 6.15): a program that ends while the shadow is dead ends with an unknown status.")
		}
	}
}

// limitOf asks for the limit of descriptors of a child of ours; nil: it is the
// same as our own.
func limitOf(pid int) *syscall.Rlimit {
	var its, own unix.Rlimit
	if unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &its) != nil {
		return usual()
	}
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &own) == nil && own == its {
		return nil
	}
	return &syscall.Rlimit{Cur: its.Cur, Max: its.Max}
}

// usual is what login shells and systemd give, and what programs that use
// select(2) count on.
func usual() *syscall.Rlimit {
	var own syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &own) != nil {
		return nil
	}
	return &syscall.Rlimit{Cur: min(1024, own.Max), Max: own.Max}
}
