package shadow

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/proc"
	"gemel/internal/proc/spawn"
)

// order carries out one message of the monitor.
func (s *shadow) order(m proc.Message) {
	var o proc.Order
	if m.JSON == nil || json.Unmarshal(m.JSON, &o) != nil {
		shut(m.FDs)
		s.c.Log.Error("an order of the monitor cannot be read", "bytes", len(m.JSON)+len(m.Child))
		return
	}
	if m.Short {
		s.c.Log.Error("descriptors of an order were lost: this process has too many open", "order", o.Kind)
	}
	switch o.Kind {
	case proc.OrderKeep:
		shut(s.kept[o.Name])
		s.kept[o.Name] = m.FDs
		return
	case proc.OrderHold:
		s.holdFound(&o, m.FDs)
		return
	}
	shut(m.FDs)
	c := s.kids[o.Start]
	switch o.Kind {
	case proc.OrderHello:
		s.hello(o.Name)
	case proc.OrderBeat:
		s.beat()
	case proc.OrderSpec:
		if o.Spec != nil {
			s.spec(o.Process, o.Spec)
		}
	case proc.OrderForget:
		s.forget(o.Process)
	case proc.OrderStart:
		s.startNow(&o)
	case proc.OrderArm:
		s.arm(&o)
	case proc.OrderStop:
		if c != nil {
			c.halt(o.Kill)
			lengthen(c, o.At)
		} else {
			s.callOff(o.Start)
		}
	case proc.OrderSignal:
		if c != nil {
			c.send(unix.Signal(o.Signal))
		}
	case proc.OrderAck:
		s.ack(o.Start)
	case proc.OrderDrop:
		shut(s.kept[o.Name])
		delete(s.kept, o.Name)
	case proc.OrderRights:
		s.rights.give(o.Rights)
	case proc.OrderThere:
		s.rights.watch.told(o.Groups)
	case proc.OrderEntrust:
		s.rights.entrust(&o)
	case proc.OrderExec:
		upgrade(s, o.Path)
	case proc.OrderDetach:
		s.detach()
	case proc.OrderQuit:
		s.quit(o.Code)
	default:
		// Of a later version, which knows what an older shadow cannot do.
		s.c.Log.Warn("an order is not known to this version", "order", o.Kind)
	}
}

// hello tells a monitor everything there is. The answer bears the name of the hello:
// a monitor that took the place of another one by exec may read the answer to that
// one's first.
func (s *shadow) hello(name string) {
	s.point("hello")
	if s.mon.greet {
		// This is another monitor on the same socket, which decides anew. What the one
		// before ordered and is not begun would be a stray to it.
		clear(s.deferred)
	}
	s.mon.greet, s.c.First = true, false
	s.repark()
	// By now everything is known that runs.
	s.settleFound()
	s.report(proc.Report{
		Kind: proc.ReportHello, Name: name, PID: os.Getpid(), At: clock.Now(), Protocol: proc.Protocol,
		Version: s.c.Version, Cgroup: s.tree.String(), Notes: s.tree.Notes(),
	})
	for _, r := range s.mon.deaths {
		s.report(r)
	}
	s.rights.hello()
	for name, fds := range s.kept {
		s.report(proc.Report{Kind: proc.ReportKept, Name: name}, fds...)
	}
	// Oldest first: a death is told before that of its successor.
	for _, id := range slices.Sorted(maps.Keys(s.kids)) {
		c := s.kids[id]
		if c.told {
			c.reportExit()
			continue
		}
		if _, gone := s.late[c]; gone && c.next != nil && c.next.made != nil {
			continue // its end is told soon; what runs is its successor
		}
		r := proc.Report{Kind: proc.ReportRunning, Process: c.process, Start: c.start, PID: c.pid, At: c.since, Group: c.owner}
		if c.next != nil {
			r.Next = c.next.start
		}
		if c.pidfd >= 0 {
			s.report(r, c.pidfd)
		} else {
			s.report(r)
		}
	}
	if s.end != nil {
		s.report(proc.Report{Kind: proc.ReportQuit, At: clock.Now(), Error: s.end.why})
	}
	s.report(proc.Report{Kind: proc.ReportSynced, At: clock.Now()})
	s.point("synced")
}

// beat notes that the monitor is well, and answers.
func (s *shadow) beat() {
	m := s.mon
	if m.greet {
		m.deaths = nil
	}
	if !m.ready {
		m.ready = true
		s.notify("READY=1\nMAINPID=" + itoa(os.Getpid()))
	}
	s.notify("WATCHDOG=1")
	s.report(proc.Report{Kind: proc.ReportBeat})
}

// holdFound carries out OrderHold: a program that the monitor held while there
// was no shadow.
func (f *finder) holdFound(o *proc.Order, fds []int) {
	s := f.of
	c := s.kids[o.Start]
	if c == nil {
		c = &child{of: s, process: o.Process, start: o.Start, pid: o.PID, pidfd: -1, since: o.At, group: s.groupOf(o.Start, o.PID)}
		c.owner = s.rights.owner(o.Start)
		s.keep(c)
		if slot, err := s.table.Claim(o.Start, o.Process); err == nil {
			slot.Settle(o.PID)
		}
	} else if _, late := s.late[c]; !late || c.pidfd >= 0 || c.exit != nil {
		shut(fds)
		return
	}
	if o.Status != nil {
		shut(fds)
		c.exit = o.Status
		s.table.End(c.start, *c.exit)
		s.late[c] = struct{}{} // told at hello, in its turn
		return
	}
	if len(fds) > 0 {
		c.pidfd = fds[0]
		shut(fds[1:])
	}
	if c.pidfd < 0 && !c.openFound() {
		s.late[c] = struct{}{}
		return
	}
	c.watch()
}

// watch begins to watch a program that was found. If it has ended already, the
// first round of the loop says so.
func (c *child) watch() {
	s := c.of
	if err := s.poll.add(c.pidfd, func() { c.exited() }); err != nil {
		s.c.Log.Error("a program cannot be watched", "process", c.process, "err", err)
	}
}

// openFound opens the pidfd of a program of which only the number is known, and
// looks again whether it is that program once the number cannot change hands.
func (c *child) openFound() bool {
	fd, err := unix.PidfdOpen(c.pid, 0)
	if err != nil {
		return false
	}
	if !spawn.Identify(c.pid, c.start) || dead(fd) {
		unix.Close(fd)
		return false
	}
	c.pidfd = fd
	return true
}

func shut(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func (s *shadow) path(name string) string { return filepath.Join(s.c.RunDir, name) }
