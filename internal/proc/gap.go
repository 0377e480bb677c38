package proc

import (
	"cmp"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
)

// exits tells which held programs ended, from the kernel's record. It is asked
// while there is no shadow. A start whose child showed itself, but whose report
// was never made, is told as started first; a death whose standing order was
// carried out is told with its successor.
func (b *book) exits() []Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := clock.Now()
	if b.alive == 0 {
		b.alive = now
	}
	var out []Report
	late := map[ha.Process]bool{} // an older copy has ended, and nobody can tell yet how
	for _, id := range b.order() {
		h := b.held[id]
		if late[h.Process] && h.Process != "" {
			continue // its end is told after that of the older one
		}
		if o, ok := b.starts[id]; ok {
			delete(b.starts, id)
			h.Process = o.Process
			out = append(out, Report{Kind: ReportStarted, Process: h.Process, Start: id, PID: h.PID, At: h.Since})
		}
		st, ok := b.ended(h, now)
		if !ok {
			if dead, err := readable(h.PIDFD); h.PIDFD >= 0 && dead && err == nil {
				late[h.Process] = true
			}
			continue
		}
		if h.Process == "" {
			// A child showed itself to the monitor before this one: whose it is, the
			// table knows. The next shadow is given its end, and tells it.
			b.ends[id] = Order{Kind: OrderHold, Start: id, PID: h.PID, At: h.Since, Status: &st}
			b.release(id)
			continue
		}
		r := Report{Kind: ReportExited, Process: h.Process, Start: id, At: now, Status: st}
		if arm, ok := b.arms[id]; ok {
			if n := b.held[arm.Next]; n != nil {
				r.Next, r.PID = arm.Next, n.PID
				n.Process = h.Process
			}
		}
		delete(b.arms, id)
		delete(b.stops, id)
		b.ends[id] = Order{Kind: OrderHold, Process: h.Process, Start: id, PID: h.PID, At: h.Since, Status: &st}
		b.release(id)
		out = append(out, r)
	}
	b.alive = now
	return out
}

// order lists the held starts, oldest first, so that a death is told before that
// of its successor.
func (b *book) order() []ha.StartID {
	ids := make([]ha.StartID, 0, len(b.held))
	for id := range b.held {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, cmp.Compare)
	return ids
}

// ended asks for the end of one program; ok is false while it lives, or while it
// is a zombie that its new parent has not taken yet.
func (b *book) ended(h *Holding, now ha.Instant) (st ha.ExitStatus, ok bool) {
	unknown := ha.ExitStatus{Code: -1, Unknown: true, After: b.alive, Before: now}
	if h.PIDFD < 0 {
		// Held by number alone: it can be told gone, not how.
		if startTicks(h.PID) != 0 {
			return st, false
		}
		return unknown, true
	}
	dead, err := readable(h.PIDFD)
	if err != nil || !dead {
		return st, false
	}
	switch st, err := kernelExit(h.PIDFD); {
	case err == nil:
		return st, true
	case errors.Is(err, unix.EAGAIN):
		return st, false
	}
	return unknown, true
}

// readable reports whether a pidfd says that its process has ended.
func readable(fd int) (bool, error) {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 0)
		if !errors.Is(err, unix.EINTR) {
			return n > 0 && p[0].Revents != 0, err
		}
	}
}

// kernelExit reads the exit of a process that was no child of this one from the
// kernel's record (Linux 6.15 and later). The error is EAGAIN while nobody has
// taken the zombie; any other says that the kernel cannot tell.
func kernelExit(pidfd int) (ha.ExitStatus, error) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	err := unix.IoctlPidfdInfo(pidfd, &info)
	if errors.Is(err, unix.ESRCH) {
		// It was taken between two steps of the kernel's answer; the record is there.
		info = unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
		err = unix.IoctlPidfdInfo(pidfd, &info)
	}
	if err != nil {
		return ha.ExitStatus{}, err
	}
	if info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		if info.Mask&unix.PIDFD_INFO_PID == 0 {
			return ha.ExitStatus{}, unix.ENOSYS
		}
		return ha.ExitStatus{}, unix.EAGAIN
	}
	return decode(unix.WaitStatus(uint32(info.Exit_code))), nil
}

// zombieExit reads the exit of a process whose zombie nobody has taken. The
// kernel shows 0 to those who may not know it: that is no answer.
func zombieExit(pid int) (ha.ExitStatus, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ha.ExitStatus{}, false
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 50 || f[0] != "Z" {
		return ha.ExitStatus{}, false
	}
	word, err := strconv.ParseUint(f[49], 10, 32)
	if err != nil || word == 0 && os.Geteuid() != 0 {
		return ha.ExitStatus{}, false
	}
	return decode(unix.WaitStatus(word)), true
}

func decode(ws unix.WaitStatus) ha.ExitStatus {
	if ws.Signaled() {
		return ha.ExitStatus{Code: -1, Signal: int(ws.Signal()), Core: ws.CoreDump()}
	}
	return ha.ExitStatus{Code: ws.ExitStatus()}
}

// state lists the orders that make a new shadow what the old one was, each with
// duplicates of its descriptors.
func (b *book) state() []parcel {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []parcel
	add := func(o Order, fds ...int) {
		// Without descriptors left the new shadow is told nonetheless: it can open
		// the process by its number, or start without what was kept.
		dup, _ := duplicate(fds)
		out = append(out, parcel{o, dup})
	}
	if b.rights != nil {
		add(*b.rights) // a deadline that has passed meanwhile gives nothing
	}
	if b.there != nil {
		add(*b.there)
	}
	for p, spec := range b.specs {
		add(Order{Kind: OrderSpec, Process: p, Spec: spec})
	}
	for _, id := range b.order() {
		h := b.held[id]
		o := Order{Kind: OrderHold, Process: h.Process, Start: id, PID: h.PID, At: h.Since}
		if h.PIDFD >= 0 {
			add(o, h.PIDFD)
		} else {
			add(o)
		}
	}
	for _, o := range b.ends {
		add(o)
	}
	for name, fds := range b.kept {
		add(Order{Kind: OrderKeep, Name: name}, fds...)
	}
	for _, m := range []map[ha.StartID]*Order{b.starts, b.arms, b.stops} {
		ids := make([]ha.StartID, 0, len(m))
		for id := range m {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		for _, id := range ids {
			add(*m[id])
		}
	}
	b.alive = 0
	return out
}

// parcel is an order with descriptors that it owns.
type parcel struct {
	order Order
	fds   []int
}

func (p parcel) drop() { closeAll(p.fds) }
