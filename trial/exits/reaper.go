package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// innerEnv marks the campaign itself, below the reaper.
const innerEnv = "EXITS_BELOW_REAPER"

// reaper plays an init that takes zombies at once: orphans of Gemel become its
// children, and nothing of them is left to be read in /proc. (Some take them
// later, so that the exit codes of orphans can be read for a while: what a
// campaign shows there is less.) It runs the campaign below itself and returns
// its exit status.
func reaper() (int, error) {
	runtime.LockOSThread() // the child below hangs on the life of this thread
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 2, fmt.Errorf("becoming the parent of orphans: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return 2, err
	}
	// The one below has the terminal's signals too, and ends by itself.
	signal.Ignore(os.Interrupt)
	pid, err := syscall.ForkExec(self, os.Args, &syscall.ProcAttr{
		Env: append(os.Environ(), innerEnv+"=1"), Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM},
	})
	if err != nil {
		return 2, fmt.Errorf("starting the campaign: %w", err)
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	go func() {
		for s := range ended {
			_ = syscall.Kill(pid, s.(syscall.Signal))
		}
	}()
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 2, fmt.Errorf("waiting for the campaign: %w", err)
		case got == pid && ws.Exited():
			return ws.ExitStatus(), nil
		case got == pid:
			return 2, fmt.Errorf("the campaign ended by %v", ws.Signal())
		}
	}
}
