package shadow

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/proc"
	"gemel/internal/proc/spawn"
)

// ticksPerSecond is what the kernel counts start times in, on every machine
// (USER_HZ).
const ticksPerSecond = 100

// finder looks for what lives on from a shadow before this one.
type finder struct{ of *shadow }

// groupOf is the control group of a start that was found.
func (f *finder) groupOf(start ha.StartID, pid int) *spawn.Cgroup {
	s := f.of
	g, ok := s.tree.At(start)
	if !ok {
		g.Lead(pid)
	}
	return g
}

// adopt takes over what the table knows and this shadow does not: no row is
// given up before the end of its start was acknowledged. What ended is told
// when the monitor says hello, because a living one may know how (OrderHold).
func (f *finder) adopt() {
	s := f.of
	var found []*child
	for _, e := range s.table.Entries() {
		if s.kids[e.Start] != nil || e.PID == 0 {
			// No child wrote itself into the row, and none will: who could do so holds
			// our lock. Rows that nobody comes for are given up at hello.
			continue
		}
		c := &child{
			of:      s,
			process: e.Process, start: e.Start, pid: e.PID, pidfd: -1,
			since: ha.Instant(e.Ticks) * ha.Instant(time.Second/ticksPerSecond),
		}
		c.owner = s.rights.owner(e.Start)
		alive := !e.Ended && s.claim(c, e)
		if c.group == nil {
			c.group = s.groupOf(c.start, c.pid)
		}
		s.keep(c)
		if alive && !dead(c.pidfd) {
			c.watch()
			continue
		}
		if e.Ended {
			c.exit = &e.Status
		}
		s.late[c] = struct{}{}
		found = append(found, c)
	}
	for _, c := range found {
		// What ran next of the same process was made by its standing order, or its
		// end is known already.
		if k := s.nextOf(c); k != nil {
			c.next = &successor{start: k.start, made: k}
		}
		if c.exit == nil && c.pidfd >= 0 {
			c.watch()
		}
	}
}

// nextOf returns the start of the same process that came after c.
func (f *finder) nextOf(c *child) (next *child) {
	for _, k := range f.of.starts[c.process] {
		if k.start > c.start && (next == nil || k.start < next.start) {
			next = k
		}
	}
	return next
}

// settleFound is called when the monitor has said what it knows: what is still
// without an explanation ended while nobody looked.
func (f *finder) settleFound() {
	s := f.of
	for _, c := range sorted(maps.Keys(s.late)) {
		s.finishLate(c)
	}
	armed := s.orders()
	for _, e := range s.table.Entries() {
		if e.PID == 0 && !armed[e.Start] {
			s.table.Free(e.Start)
		}
	}
	s.sweepAll()
}

// finishLate ends the wait for news of c, unless its pidfd has yet to tell them.
func (f *finder) finishLate(c *child) {
	s := f.of
	switch {
	case c.told || c.exit == nil && c.pidfd >= 0:
	case c.exit == nil:
		c.lost(max(c.since, s.life.before), clock.Now())
	case s.poll.left(c) == 0:
		if c.died.IsZero() {
			c.died = time.Now()
		}
		c.settle(0)
	}
}

func sorted(list iter.Seq[*child]) []*child {
	return slices.SortedFunc(list, func(a, b *child) int { return cmp.Compare(a.start, b.start) })
}

// sweepAll ends what is in control groups that belong to no program.
func (f *finder) sweepAll() {
	s := f.of
	ids, err := s.tree.Find()
	if err != nil {
		s.c.Log.Warn("looking for control groups of starts before", "err", err)
	}
	armed := s.orders()
	for _, id := range ids {
		if s.kids[id] == nil && !armed[id] {
			s.sweep(id)
		}
	}
}

// claim opens the pidfd of a row of the table and makes sure, afterwards, that it
// is that start. It may be a zombie: its end is known once its new parent takes
// it.
func (f *finder) claim(c *child, e spawn.Entry) bool {
	s := f.of
	fd, err := unix.PidfdOpen(e.PID, 0)
	if err != nil {
		return false
	}
	if !e.Alive() {
		unix.Close(fd)
		return false
	}
	c.pidfd, c.group = fd, s.groupOf(c.start, c.pid)
	return true
}

// sweep ends what is left in the control group of a start whose main process is
// gone.
func (f *finder) sweep(id ha.StartID) {
	s := f.of
	g, ok := s.tree.At(id)
	if !ok {
		return
	}
	if !g.Empty() {
		if err := g.Kill(); err != nil {
			s.c.Log.Warn("ending what a program left behind", "start", id, "err", err)
		}
	}
	s.removeGroup(g)
}

// orders are the starts of all standing orders.
func (f *finder) orders() map[ha.StartID]bool {
	all := map[ha.StartID]bool{}
	for _, c := range f.of.kids {
		if c.next != nil {
			all[c.next.start] = true
		}
	}
	return all
}

func (f *finder) armed(start ha.StartID) bool {
	s := f.of
	for _, c := range s.kids {
		if c.next != nil && c.next.start == start {
			return true
		}
	}
	return false
}

// beside makes this the shadow of a monitor that lives although it is none of
// ours: the shadow before had just started it. Wait says that one lives and does
// not answer yet.
func (f *finder) beside() (joined, wait bool, err error) {
	s := f.of
	lock := filepath.Join(s.c.DataDir, proc.MonitorLock)
	var held *proc.HeldError
	if !errors.As(proc.ProbeLock(lock, 0), &held) {
		return false, false, nil
	}
	fd, err := connect(s.path(proc.MonitorSocket))
	if err == nil {
		return true, false, s.join(fd)
	}
	// It is about to listen, or about to be gone.
	if time.Since(s.mon.asked) > s.c.Silence && held.PID != 0 {
		s.endStranger(lock, held.PID)
		s.mon.asked = time.Now()
	}
	return false, true, nil
}

// dial looks for a living monitor and connects to it. It returns -1 if there is
// none. A monitor that lives and does not answer is ended.
func (f *finder) dial() (int, error) {
	s := f.of
	path := filepath.Join(s.c.DataDir, proc.MonitorLock)
	end := time.Now().Add(s.c.Silence)
	for {
		err := proc.ProbeLock(path, 5*time.Second)
		var held *proc.HeldError
		if err == nil {
			return -1, nil
		}
		if !errors.As(err, &held) {
			return -1, err
		}
		fd, err := connect(s.path(proc.MonitorSocket))
		if err == nil {
			return fd, nil
		}
		if time.Now().After(end) {
			if held.PID == 0 || !s.endStranger(path, held.PID) {
				return -1, fmt.Errorf("a monitor holds %s and does not answer at %s: %w", path, s.path(proc.MonitorSocket), err)
			}
			end = time.Now().Add(s.c.Silence)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// endStranger kills a monitor that holds the lock and does not answer. The lock
// is asked again once the pidfd is open: its holder cannot have changed.
func (f *finder) endStranger(lock string, pid int) bool {
	s := f.of
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	var held *proc.HeldError
	if !errors.As(proc.ProbeLock(lock, time.Second), &held) || held.PID != pid {
		return true
	}
	s.c.Log.Warn("killing a monitor that does not answer", "pid", pid)
	s.mon.died(proc.Report{Kind: proc.ReportMonitor, PID: pid, At: clock.Now(), Hung: true,
		Status: ha.ExitStatus{Code: -1, Signal: int(unix.SIGKILL)}})
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil
}

func connect(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// join makes this the shadow of the living monitor at the other end of fd. The
// monitor sends what it holds, and then its hello.
func (f *finder) join(fd int) error {
	s := f.of
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("asking who the monitor is: %w", err)
	}
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err != nil {
		pidfd, err = unix.PidfdOpen(int(cred.Pid), 0)
	}
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("holding the monitor (pid %d): %w", cred.Pid, err)
	}
	if err := s.link.use(fd, s.mon.listen); err != nil {
		unix.Close(pidfd)
		return err
	}
	s.mon.hold(int(cred.Pid), pidfd)
	// Before the monitor's orders: a start with a child must not be made twice.
	s.adopt()
	return nil
}
