package shadow

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/proc"
	"gemel/internal/proc/spawn"
)

// stopping is a two-stage stop under way. It goes on without a monitor.
type stopping struct {
	killed bool // the second stage was reached
}

// halt carries out OrderStop: the signal or the command of the spec to the main
// process, then, after the grace, SIGKILL to the whole tree.
func (c *child) halt(kill bool) {
	s := c.of
	c.disarm()
	if c.exit != nil {
		return
	}
	if c.stop == nil {
		c.stop = &stopping{}
	} else if c.stop.killed || !kill {
		return
	}
	if kill || s.rights.over(c.owner) {
		c.kill()
		return
	}
	var grace time.Duration
	sig := unix.SIGTERM
	var command []string
	if pr := s.specs[c.process]; pr != nil {
		grace = pr.spec.StopGrace
		command = pr.spec.StopCommand
		if pr.spec.StopSignal > 0 {
			sig = unix.Signal(pr.spec.StopSignal)
		}
	} else {
		// A program that was found, and whose manifest nobody sent: the default.
		grace = 10 * time.Second
	}
	if len(command) == 0 || c.stopCommand(command) != nil {
		c.send(sig)
	}
	// A stopped program cannot end before it is continued, nor one that waits for a
	// child that is stopped.
	c.send(unix.SIGCONT)
	c.resumeOthers()
	s.poll.after(grace, c.stop, func() { c.kill() })
}

// lengthen puts the second stage of a stop off until at, if that is later than the
// grace ends. A stop that is past its first stage is not taken back.
func lengthen(c *child, at ha.Instant) {
	if c.exit != nil || c.stop == nil || c.stop.killed {
		return
	}
	if left := at.Sub(clock.Now()); left > c.of.poll.left(c.stop) {
		c.of.poll.after(left, c.stop, func() { c.kill() })
	}
}

// resumeOthers continues what the program started, where a control group tells who
// that is: to look at every process of the machine for each stop would cost more than
// it helps.
func (c *child) resumeOthers() {
	if c.group.Path() == "" {
		return
	}
	pids, err := c.group.Procs()
	if err != nil {
		return // gone: there is nobody to continue
	}
	for _, pid := range pids {
		if pid == c.pid {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		if spawn.Identify(pid, c.start) { // the number did not change hands before it was held
			_ = unix.PidfdSendSignal(fd, unix.SIGCONT, nil, 0)
		}
		unix.Close(fd)
	}
}

// kill is the second stage of a stop.
func (c *child) kill() {
	s := c.of
	if c.exit != nil || c.stop == nil {
		return
	}
	c.stop.killed = true
	if err := c.group.Kill(); err != nil {
		s.c.Log.Warn("killing a program", "process", c.process, "err", err)
	}
	// Also by itself: it may have left its group.
	c.send(unix.SIGKILL)
	s.poll.after(s.c.Stuck, c.stop, func() { c.tellStuck() })
}

func (c *child) tellStuck() {
	sayStuck(c, ha.Span(c.of.c.Stuck)+" after SIGKILL")
}

// sayStuck tells once that c cannot be killed.
func sayStuck(c *child, when string) {
	s := c.of
	if c.told || c.stuck {
		return
	}
	c.stuck = true
	text := fmt.Sprintf("pid %d is still there %s", c.pid, when)
	if c.exit != nil {
		text = fmt.Sprintf("children of pid %d are still there %s", c.pid, when)
	}
	s.report(proc.Report{Kind: proc.ReportStuck, Process: c.process, Start: c.start, PID: c.pid, At: clock.Now(), Error: text})
}

// endStop forgets a stop whose program has ended.
func (c *child) endStop() {
	s := c.of
	if c.stop != nil {
		s.poll.cancel(c.stop)
	}
}

// send signals the main process. A pidfd cannot hit a stranger.
func (c *child) send(sig unix.Signal) {
	s := c.of
	if c.exit != nil || c.pidfd < 0 {
		return
	}
	if err := unix.PidfdSendSignal(c.pidfd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		s.c.Log.Warn("signalling a program", "process", c.process, "signal", sig, "err", err)
	}
}

// stopCommand starts the command that asks a program to end. What becomes of it
// does not matter: the grace is the same.
func (c *child) stopCommand(args []string) error {
	s := c.of
	sp := *s.specs[c.process].spec
	sp.Path, sp.Args = args[0], args
	sp.Env = append(append([]string{}, sp.Env...), "MAINPID="+strconv.Itoa(c.pid))
	if c.owner != "" {
		fence, end, err := s.rights.stop(c.owner)
		if err != nil {
			return err
		}
		defer end()
		sp.Env = append(sp.Env, membership(c.owner, fence)...)
	}
	// The limits of memory and tasks are those of the group, which is there.
	r, err := spawn.Prepare(&sp, spawn.Options{
		Start: c.start, Cgroup: c.group, Handover: -1,
		Stdin: -1, Stdout: s.specs[c.process].out, Stderr: s.specs[c.process].out,
	})
	if err != nil {
		s.c.Log.Warn("the stop command cannot be started; the stop signal is sent instead", "process", c.process, "err", err)
		return err
	}
	defer r.Close()
	helper, err := r.Start()
	if err != nil {
		s.c.Log.Warn("the stop command cannot be started; the stop signal is sent instead", "process", c.process, "err", err)
		return err
	}
	return s.help(helper.PIDFD)
}

// help watches a short-lived child of the shadow and reaps it.
func (ps *programs) help(pidfd int) error {
	s := ps.of
	s.helpers[pidfd] = struct{}{}
	return s.poll.add(pidfd, func() {
		if _, ok, err := spawn.ExitStatus(pidfd, true); ok || err != nil {
			delete(s.helpers, pidfd)
			s.poll.del(pidfd)
			unix.Close(pidfd)
		}
	})
}
