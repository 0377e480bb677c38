package shadow

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// innerEnv marks the tests themselves, below the reaper.
const innerEnv = "SHADOW_TEST_BELOW_REAPER"

// reaper runs the tests below itself as an init that by turns takes orphans at
// once and late. Taken late, they leave their exit status to be read in /proc for
// a while, and the kernel's record of it is not there yet; taken at once, only
// what Gemel itself kept is left.
func reaper() int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "the reaper of the tests:", err)
		return 2
	}
	runtime.LockOSThread() // the child below hangs on the life of this thread
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fail(err)
	}
	self, err := os.Executable()
	if err != nil {
		return fail(err)
	}
	pid, err := syscall.ForkExec(self, os.Args, &syscall.ProcAttr{
		Env: append(os.Environ(), innerEnv+"=1"), Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return fail(err)
	}
	told := make(chan os.Signal, 8)
	// What go test sends when the time is up, and what a terminal does.
	signal.Notify(told, syscall.SIGQUIT, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		for s := range told {
			_ = syscall.Kill(pid, s.(syscall.Signal))
		}
	}()
	for begin := time.Now(); ; {
		if time.Since(begin)/(150*time.Millisecond)%2 == 1 {
			time.Sleep(20 * time.Millisecond)
		}
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return fail(err)
		case got == pid && ws.Exited():
			return ws.ExitStatus()
		case got == pid:
			return fail(fmt.Errorf("they ended by %v", ws.Signal()))
		}
	}
}
