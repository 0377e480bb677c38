package shadow

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/proc"
	"gemel/internal/proc/lapse"
	"gemel/internal/proc/spawn"
)

// exited is called when the pidfd of c says that it ended. The zombie stays until
// the exit is acknowledged: with it the kernel keeps the status for the next
// shadow, and the number for what remains of the process group.
func (c *child) exited() {
	s := c.of
	if c.exit != nil {
		return
	}
	st, ok, err := spawn.ExitStatus(c.pidfd, false)
	if err != nil || !ok {
		c.alive(err)
		return
	}
	s.point("ended")
	s.poll.cancel(c)
	c.exit, c.died = &st, time.Now()
	s.table.End(c.start, st)
	s.point("recorded")
	empty := c.group.Empty()
	if empty {
		c.succeed()
	}
	s.poll.del(c.pidfd)
	if empty {
		return
	}
	// What the main process left behind goes before a successor comes.
	if err := c.group.Kill(); err != nil {
		s.c.Log.Warn("the rest of a program was not killed", "process", c.process, "err", err)
	}
	c.settle(time.Millisecond)
}

// alive is the other outcome of exited: a pidfd that is readable although the
// status cannot be had yet (its new parent has not taken the zombie), or a call
// without need.
func (c *child) alive(err error) {
	s := c.of
	if dead(c.pidfd) {
		s.late[c] = struct{}{}
		if c.died.IsZero() {
			c.died = time.Now()
		}
		if err != nil || time.Since(c.died) > 5*time.Second {
			now := clock.Now()
			c.lost(c.since, now)
			return
		}
		s.poll.del(c.pidfd)
		c.recheck(20 * time.Millisecond)
		return
	}
	if _, ok := s.poll.on[c.pidfd]; !ok {
		c.recheck(time.Second)
	}
}

// lost takes the end of c as known and its status as not.
func (c *child) lost(after, before ha.Instant) {
	s := c.of
	s.poll.del(c.pidfd)
	c.exit = &ha.ExitStatus{Code: -1, Unknown: true, After: after, Before: before}
	c.died = time.Now()
	if !c.group.Empty() {
		_ = c.group.Kill() // settle looks at the outcome
	}
	c.settle(0)
}

// settle waits until nothing of c is left. It is only come to by programs that
// leave children behind, so looking again is cheap enough.
func (c *child) settle(d time.Duration) {
	s := c.of
	if c.group.Empty() {
		c.succeed()
		return
	}
	if time.Since(c.died) > s.c.Stuck && !c.stuck {
		c.tellStuck()
	}
	if d > 16*time.Millisecond {
		_ = c.group.Kill() // again: a group may have been moved into
	}
	d = min(2*max(d, time.Millisecond), 250*time.Millisecond)
	s.poll.after(d, c, func() { c.settle(d) })
}

// succeed ends the life of c: its successor, if one was ordered, is started before
// anything else is done.
func (c *child) succeed() {
	s := c.of
	if c.told || c.heir != nil {
		return
	}
	if c.afterAnother() {
		s.poll.after(5*time.Millisecond, c, c.succeed)
		return
	}
	n := c.next
	c.next = nil
	if n != nil && n.made != nil {
		c.tellExit(n.made)
		return
	}
	if n == nil || c.stop != nil || s.end != nil && s.end.alone {
		if n != nil {
			s.discard(n)
		}
		c.tellExit(nil)
		return
	}
	var sc spawn.Child
	var err error
	if n.ready != nil && n.owner != "" && !s.rights.fits(n) {
		// What was made ready has another fence in its environment.
		s.discard(n)
		n = &successor{start: n.start}
	}
	if n.ready == nil {
		var again *successor
		if again, err = s.prepare(c.process, n.start, false); err == nil {
			n = again
		}
	}
	if err == nil {
		sc, err = s.launch(n)
		s.point("succeeded")
	}
	if errors.Is(err, lapse.ErrNone) {
		// That the order is not carried out is what the end of a right is for.
		c.tellExit(nil)
		s.discard(n)
		return
	}
	if err != nil {
		c.tellExit(nil)
		s.report(proc.Report{Kind: proc.ReportFailed, Process: c.process, Start: n.start, At: clock.Now(), Error: err.Error()})
		s.discard(n)
		return
	}
	// All that died in this round have their successors before the monitor hears of
	// the first.
	c.heir = s.hold(c.process, sc, n)
	s.untold = append(s.untold, func() {
		c.tellExit(c.heir)
		n.ready.Close()
	})
	s.poll.busy = true // the next round does not wait
}

// manyUntold bounds how many deaths wait for each other's successors.
const manyUntold = 4096

// tellAll reports the exits of this round. It comes before anything that could
// build on them.
func (ps *programs) tellAll() {
	for len(ps.untold) > 0 {
		all := ps.untold
		ps.untold = nil
		for _, tell := range all {
			tell()
		}
	}
}

// tellExit reports the exit of c, with the successor that was made of it.
func (c *child) tellExit(next *child) {
	s := c.of
	s.rights.tell() // that it ends is told before that it ended
	c.endStop()
	// What a shell calls 137 is the end of its child; a program whose worker was
	// ended often fails in a way of its own.
	if mayBeOOM := c.exit.Signal == int(unix.SIGKILL) || c.exit.Code > 0; mayBeOOM && c.group.OOMKills() > 0 {
		c.exit.OOM = true
		s.table.End(c.start, *c.exit)
	}
	c.told, c.heir = true, next
	delete(s.late, c)
	c.reportExit()
	s.point("told")
}

// reportExit tells the exit, with the successor that was made of it.
func (c *child) reportExit() {
	r := proc.Report{Kind: proc.ReportExited, Process: c.process, Start: c.start, At: clock.Now(), Status: *c.exit}
	if c.heir == nil {
		c.of.report(r)
		return
	}
	r.Next, r.PID = c.heir.start, c.heir.pid
	c.of.report(r, c.heir.pidfd)
}

// afterAnother reports whether an older copy has ended without anybody knowing
// how yet: ends are told in the order of the starts.
func (c *child) afterAnother() bool {
	for k := range c.of.late {
		if k != c && k.process == c.process && k.start < c.start {
			return true
		}
	}
	return false
}

// ack carries out OrderAck: the exit of c is written down.
func (ps *programs) ack(start ha.StartID) {
	s := ps.of
	c := s.kids[start]
	if c == nil || !c.told || c.acked {
		return
	}
	// It can wait until nothing else does: after a thousand deaths at once the
	// successors come first.
	c.acked = true
	s.settled = append(s.settled, c)
	s.poll.busy = true
}

// clearAll takes away what is left of the starts whose ends are written down.
func clearAll(s *shadow) {
	for len(s.settled) > 0 {
		c := s.settled[0]
		s.settled = s.settled[1:]
		c.clear()
	}
}

// clear takes away what is left of an ended start.
func (c *child) clear() {
	s := c.of
	s.drop(c)
	s.poll.cancel(c)
	if c.pidfd >= 0 {
		// For a program that was no child of this shadow there is nothing to reap.
		_, _, _ = spawn.ExitStatus(c.pidfd, true)
		unix.Close(c.pidfd)
	}
	s.point("reaped")
	s.removeGroup(c.group)
	s.table.Free(c.start)
	s.point("acked")
}

// leaveNoGroup removes the control group of an end that no monitor acknowledged, when
// the shadow ends: its row stays for the next one, which needs no group. The kernel
// may keep it busy for a moment.
func leaveNoGroup(g *spawn.Cgroup) {
	for range 20 {
		if err := g.Remove(); !errors.Is(err, unix.EBUSY) {
			break // any other error is that of a machine where nothing can be removed
		}
		time.Sleep(5 * time.Millisecond)
	}
	g.Close()
}

// dead reports whether a pidfd says that its process has ended.
func dead(pidfd int) bool {
	p := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents != 0
}
