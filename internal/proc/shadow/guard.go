package shadow

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/proc"
	"gemel/internal/proc/spawn"
)

// guardian is what a shadow knows of the guard of its instance.
type guardian struct {
	wanted bool
	pid    int
	pidfd  int // valid with pid
	began  time.Time
	tries  int    // since one lived for long
	why    string // there is none
}

// want makes sure that a guard is there, from the first right on.
func (g *guardian) want(s *shadow) {
	if !g.wanted && len(s.c.Guard) > 0 {
		g.wanted = true
		g.start(s)
	}
}

// start finds the guard that is there, or starts one.
func (g *guardian) start(s *shadow) {
	if g.pid != 0 || s.done != nil {
		return
	}
	err := g.find(s)
	if err == nil && g.pid == 0 {
		err = s.rights.plain(func() error { return g.try(s) })
	}
	if err == nil && g.pid != 0 {
		g.began, g.why = time.Now(), ""
		err = s.poll.add(g.pidfd, func() { g.gone(s) })
	}
	if err != nil {
		if g.why != err.Error() {
			s.c.Log.Error("there is no guard: if both halves die, nothing ends what is past its deadline", "err", err)
		}
		g.why = err.Error()
		g.again(s)
	}
	g.tell(s)
}

// find holds a guard that lives. One of another version is ended: it may not know
// what this one writes.
func (g *guardian) find(s *shadow) error {
	lock := filepath.Join(s.c.DataDir, proc.GuardLock)
	var held *proc.HeldError
	if err := proc.ProbeLock(lock, 0); !errors.As(err, &held) {
		return err
	}
	fd, err := unix.PidfdOpen(held.PID, 0)
	if err != nil {
		return fmt.Errorf("holding the guard (pid %d): %w", held.PID, err)
	}
	var again *proc.HeldError
	if !errors.As(proc.ProbeLock(lock, 0), &again) || again.PID != held.PID {
		unix.Close(fd)
		return nil // it has just ended
	}
	g.pid, g.pidfd = held.PID, fd
	if same, ok := proc.Runs(held.PID, "/proc/self/exe"); ok && !same {
		s.c.Log.Info("ending the guard of the version before", "pid", held.PID)
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // its end is seen, and another one started
	}
	return nil
}

func (g *guardian) try(s *shadow) error {
	path, err := exec.LookPath(s.c.Guard[0])
	if err != nil {
		return err
	}
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening /dev/null: %w", err)
	}
	defer unix.Close(null)
	pidfd := -1
	pid, err := syscall.ForkExec(proc.Image(path), s.c.Guard, &syscall.ProcAttr{
		Dir: "/", Env: without(os.Environ(), stateEnv, proc.PairEnv), Files: []uintptr{uintptr(null), 1, 2},
		// What is sent to the session or the process group of the shadow is not for it.
		Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd},
	})
	if err != nil {
		return fmt.Errorf("starting %s: %w", path, err)
	}
	if pidfd < 0 {
		if pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			return fmt.Errorf("holding the guard (pid %d): %w", pid, err)
		}
	}
	g.pid, g.pidfd = pid, pidfd
	return nil
}

// gone is called when the pidfd of the guard says so.
func (g *guardian) gone(s *shadow) {
	if g.pid == 0 || !dead(g.pidfd) {
		return
	}
	s.poll.del(g.pidfd)
	st, ok, err := spawn.ExitStatus(g.pidfd, true)
	why := "it ended"
	if ok && err == nil {
		why = "it ended: " + st.String()
	}
	unix.Close(g.pidfd)
	if time.Since(g.began) > longLife {
		g.tries = 0
	}
	s.c.Log.Warn("the guard is gone", "pid", g.pid, "why", why)
	g.pid, g.why = 0, why
	g.tell(s)
	g.again(s)
}

// again starts the next guard: at once, then after growing delays.
func (g *guardian) again(s *shadow) {
	delays := [...]time.Duration{0, 100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second, 10 * time.Second}
	d := delays[min(g.tries, len(delays)-1)]
	g.tries++
	s.poll.after(d, g, func() { g.start(s) })
}

// tell tells the monitor whether there is a guard.
func (g *guardian) tell(s *shadow) {
	if g.wanted {
		r := proc.Report{Kind: proc.ReportGuard, PID: g.pid, At: clock.Now(), Error: g.why}
		if s.rights.slow != "" {
			r.Notes = []string{"There is no real-time scheduling for the shadow (" + s.rights.slow + "): on a busy machine deadlines are kept less exactly."}
		}
		s.report(r)
	}
}

// close forgets the guard. It goes on: this is when it is needed.
func (g *guardian) close(s *shadow) {
	if g.pid != 0 {
		s.poll.del(g.pidfd)
		unix.Close(g.pidfd)
		g.pid = 0
	}
}
