package spawn

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// All of this file runs in the child between clone and exec, on the stack and (in
// Start) in the memory of the parent: no allocation, no growth of the stack, no
// lock, no write of a pointer, nothing but raw system calls on what Prepare made.

// child is the whole life of a child before its exec. It does not return.
//
//go:noinline
//go:nosplit
//go:norace
func (p *plan) child() {
	part(p)
	p.open()
	if !p.parked {
		p.enter()
	}
	p.separate()
	p.join()
	p.stdio()
	p.shut()
	p.temper()
	unmask(p)
	p.limit()
	p.confine()
	p.become()
	if p.dir != nil {
		_, _, e := syscall.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(p.dir)), 0, 0)
		p.must(stageChdir, 0, e)
	}
	if p.parked {
		p.wait()
		p.enter()
	}
	// Last, because it wakes the monitor, which then wants a processor as well.
	p.announce()
	if p.parked {
		if p.pipes.hold >= 0 {
			syscall.RawSyscall(unix.SYS_CLOSE, uintptr(p.pipes.hold), 0, 0)
		}
	}
	_, _, e := syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(p.path)),
		uintptr(unsafe.Pointer(p.argv)), uintptr(unsafe.Pointer(p.envv)))
	p.must(stageExec, 0, e)
}

// must ends the child if the kernel refused: it leaves the reason in the memory
// that the parent shares, and for a parked child in its pipe.
//
//go:nosplit
//go:norace
func (p *plan) must(stage stage, index int, e syscall.Errno) {
	if e == 0 {
		return
	}
	p.res = result{stage: uint32(stage), index: uint32(index), errno: uint32(e)}
	if p.parked {
		syscall.RawSyscall(unix.SYS_WRITE, uintptr(p.pipes.report), uintptr(unsafe.Pointer(&p.res)), unsafe.Sizeof(p.res))
	}
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 127, 0, 0)
	}
}

// part takes the child's part of the table that it shares with the parent. Nothing
// may come before it that opens or closes: it would do so in the parent. Without
// CLOSE_RANGE_CLOEXEC the kernel copies only what is not to be closed.
//
//go:nosplit
//go:norace
func part(p *plan) {
	if p.files.below == 0 {
		return
	}
	_, _, e := syscall.RawSyscall(unix.SYS_CLOSE_RANGE, p.files.below, ^uintptr(0)>>32, unix.CLOSE_RANGE_UNSHARE)
	if e == 0 {
		p.files.highest = int(p.files.below)
		return
	}
	_, _, e = syscall.RawSyscall(unix.SYS_UNSHARE, unix.CLONE_FILES, 0, 0)
	p.must(stageTable, 0, e)
}

// open gets the pid and the pidfd of the child while it has descriptors to spare.
//
//go:nosplit
//go:norace
func (p *plan) open() {
	pid, _, _ := syscall.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
	p.hand.pid = uint64(pid)
	p.hand.cmsg.fd = -1
	if p.hand.socket < 0 {
		return
	}
	fd, _, e := syscall.RawSyscall(unix.SYS_PIDFD_OPEN, pid, 0, 0)
	if e == 0 {
		p.hand.cmsg.fd = int32(fd)
	}
}

// enter writes the pid into the table.
//
//go:nosplit
//go:norace
func (p *plan) enter() {
	if p.row != nil {
		p.row.pid = uint32(p.hand.pid)
	}
}

// announce tells the monitor. That it does not listen is no reason to fail: it
// finds the table.
//
//go:nosplit
//go:norace
func (p *plan) announce() {
	if p.hand.socket < 0 {
		return
	}
	p.hand.msg.Controllen = uint64(unsafe.Sizeof(p.hand.cmsg))
	if p.hand.cmsg.fd < 0 {
		p.hand.msg.Controllen = 0
	}
	syscall.RawSyscall(unix.SYS_SENDMSG, uintptr(p.hand.socket), uintptr(unsafe.Pointer(&p.hand.msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// separate gives the program a session and process group of its own.
//
//go:nosplit
//go:norace
func (p *plan) separate() {
	_, _, e := syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0)
	p.must(stageSession, 0, e)
}

// join enters the control groups in which the child was not born.
//
//go:nosplit
//go:norace
func (p *plan) join() {
	for i := 0; i < p.groups.n; i++ {
		if i == 0 && p.groups.joined {
			continue
		}
		if p.groups.procs[i] < 0 {
			continue
		}
		_, _, e := syscall.RawSyscall(unix.SYS_WRITE, uintptr(p.groups.procs[i]), uintptr(unsafe.Pointer(&p.groups.zero)), 1)
		p.must(stageCgroup, i, e)
	}
}

//go:nosplit
//go:norace
func (p *plan) stdio() {
	null := ^uintptr(0)
	for i := 0; i < 3; i++ {
		from := uintptr(p.files.from[i])
		if p.files.from[i] < 0 {
			if null == ^uintptr(0) {
				fd, _, e := syscall.RawSyscall6(unix.SYS_OPENAT, p.files.cwd, uintptr(unsafe.Pointer(&p.files.null)), unix.O_RDWR|unix.O_CLOEXEC, 0, 0, 0)
				p.must(stageNull, i, e)
				null = fd
			}
			from = null
		}
		var e syscall.Errno
		if from == uintptr(i) {
			_, _, e = syscall.RawSyscall(unix.SYS_FCNTL, from, unix.F_SETFD, 0)
		} else {
			_, _, e = syscall.RawSyscall(unix.SYS_DUP3, from, uintptr(i), 0)
		}
		p.must(stageStdio, i, e)
		if p.files.from[i] > 2 {
			patient(uintptr(i))
		}
	}
}

// patient makes a standard descriptor block, as programs expect: it is shared with
// the starts before, and one of them may have changed that.
//
//go:nosplit
//go:norace
func patient(fd uintptr) {
	flags, _, e := syscall.RawSyscall(unix.SYS_FCNTL, fd, unix.F_GETFL, 0)
	if e == 0 && flags&unix.O_NONBLOCK != 0 {
		syscall.RawSyscall(unix.SYS_FCNTL, fd, unix.F_SETFL, flags&^unix.O_NONBLOCK)
	}
}

// shut lets no further descriptor through the exec. A parked child closes them at
// once, all except its own few: it must not hold open what others wait to see
// closed, above all the other ends of pipes like its own.
//
//go:nosplit
//go:norace
func (p *plan) shut() {
	first, flag := uintptr(3), uintptr(unix.CLOSE_RANGE_CLOEXEC)
	if p.parked {
		p.gather()
		first, flag = parkedFirst+parkedKept, 0
		for i := 3; i < parkedFirst; i++ {
			syscall.RawSyscall(unix.SYS_CLOSE, uintptr(i), 0, 0)
		}
	}
	if _, _, e := syscall.RawSyscall(unix.SYS_CLOSE_RANGE, first, ^uintptr(0)>>32, flag); e == 0 {
		return
	}
	for fd := first; fd < uintptr(p.files.highest); fd++ {
		if flag == 0 {
			syscall.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
		} else {
			syscall.RawSyscall(unix.SYS_FCNTL, fd, unix.F_SETFD, unix.FD_CLOEXEC)
		}
	}
}

// parkedFirst is the place of the first of the parkedKept descriptors that a
// parked child keeps. They are first moved above all of these places, then down:
// so none overwrites another.
const (
	parkedFirst = 4
	parkedKept  = 5
)

// gather moves the descriptors that a parked child keeps to parkedFirst and up.
//
//go:nosplit
//go:norace
func (p *plan) gather() {
	p.pipes.wake = move(p, p.pipes.wake, 0)
	p.pipes.report = move(p, p.pipes.report, 1)
	p.hand.socket = move(p, p.hand.socket, 2)
	p.hand.cmsg.fd = move(p, p.hand.cmsg.fd, 3)
	p.pipes.hold = move(p, p.pipes.hold, 4)
	p.pipes.wake = settle(p, p.pipes.wake, 0)
	p.pipes.report = settle(p, p.pipes.report, 1)
	p.hand.socket = settle(p, p.hand.socket, 2)
	p.hand.cmsg.fd = settle(p, p.hand.cmsg.fd, 3)
	p.pipes.hold = settle(p, p.pipes.hold, 4)
}

// move brings a descriptor above the places of settle.
//
//go:nosplit
//go:norace
func move(p *plan, fd int32, i int) int32 {
	if fd < 0 {
		return fd
	}
	to, _, e := syscall.RawSyscall(unix.SYS_FCNTL, uintptr(fd), unix.F_DUPFD_CLOEXEC, parkedFirst+parkedKept)
	p.must(stageGather, i, e)
	return int32(to)
}

// settle brings it to its place; the place of one that is not there is closed.
//
//go:nosplit
//go:norace
func settle(p *plan, fd int32, i int) int32 {
	if fd < 0 {
		syscall.RawSyscall(unix.SYS_CLOSE, uintptr(parkedFirst+i), 0, 0)
		return fd
	}
	_, _, e := syscall.RawSyscall(unix.SYS_DUP3, uintptr(fd), uintptr(parkedFirst+i), unix.O_CLOEXEC)
	p.must(stageGather, i, e)
	return int32(parkedFirst + i)
}

// temper sets what the kernel weighs the program by. A zero is a wish, not a
// demand: a plain user may not go back to it from a worse value.
//
//go:nosplit
//go:norace
func (p *plan) temper() {
	var e syscall.Errno
	if !p.mood.oomSkip {
		var fd uintptr
		fd, _, e = syscall.RawSyscall6(unix.SYS_OPENAT, p.files.cwd, uintptr(unsafe.Pointer(&p.mood.oomFile)), unix.O_WRONLY|unix.O_CLOEXEC, 0, 0, 0)
		if e == 0 {
			_, _, e = syscall.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&p.mood.oom)), p.mood.oomLen)
			syscall.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
		}
		if p.mood.oomSet {
			p.must(stageOOM, 0, e)
		}
	}
	syscall.RawSyscall(unix.SYS_UMASK, p.mood.umask, 0, 0)
	syscall.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, unix.SCHED_NORMAL, uintptr(unsafe.Pointer(&p.mood.priority)))
	_, _, e = syscall.RawSyscall(unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, uintptr(p.mood.nice))
	if p.mood.nice != 0 {
		p.must(stageNice, 0, e)
	}
}

// unmask gives every signal its default meaning, those ignored by whoever started
// us included (SIGPIPE, SIGHUP), and only then lets them through. Most have it
// from the clone: sixty calls less before the exec.
//
//go:nosplit
//go:norace
func unmask(p *plan) {
	for sig := uintptr(1); sig <= 64; sig++ {
		if p.mood.cleared && p.mood.ignored>>(sig-1)&1 == 0 {
			continue
		}
		syscall.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&p.mood.action)), 0, 8, 0, 0)
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&p.mood.mask)), 0, 8, 0, 0)
}

//go:nosplit
//go:norace
func (p *plan) limit() {
	for i := 0; i < len(p.limits); i++ {
		_, _, e := syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, p.limits[i].resource, uintptr(unsafe.Pointer(&p.limits[i].lim)), 0, 0, 0)
		p.must(stageRlimit, i, e)
	}
}

// confine takes away what can be taken only while the child is privileged.
//
//go:nosplit
//go:norace
func (p *plan) confine() {
	if p.caps.nnp {
		_, _, e := syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
		p.must(stageNoNewPrivs, 0, e)
	}
	if !p.caps.set {
		return
	}
	_, _, e := syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0, 0, 0)
	p.must(stageKeepCaps, 0, e)
	for i := 0; i <= p.caps.last; i++ {
		if p.caps.keep>>uint(i)&1 == 1 {
			continue
		}
		_, _, e = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(i), 0, 0, 0, 0)
		if !p.caps.mild {
			p.must(stageBounding, i, e)
		}
	}
}

// become takes the identity of the program, and then its capabilities.
//
//go:nosplit
//go:norace
func (p *plan) become() {
	if p.ids.setGroups {
		_, _, e := syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(p.ids.n), uintptr(unsafe.Pointer(p.ids.groups)), 0)
		p.must(stageGroups, 0, e)
	}
	if p.ids.setGID {
		_, _, e := syscall.RawSyscall(unix.SYS_SETRESGID, p.ids.gid, p.ids.gid, p.ids.gid)
		p.must(stageGID, 0, e)
	}
	if p.ids.setUID {
		// The kernel does it only on the way from root to others: what Gemel itself
		// was given by ambient capabilities is not for the program.
		syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0)
		_, _, e := syscall.RawSyscall(unix.SYS_SETRESUID, p.ids.uid, p.ids.uid, p.ids.uid)
		p.must(stageUID, 0, e)
	}
	if !p.caps.set {
		return
	}
	_, _, e := syscall.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&p.caps.head)), uintptr(unsafe.Pointer(&p.caps.data)), 0)
	p.must(stageCapset, 0, e)
	syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0)
	for i := 0; i <= p.caps.last; i++ {
		if p.caps.keep>>uint(i)&1 == 0 {
			continue
		}
		_, _, e = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(i), 0, 0, 0)
		p.must(stageAmbient, i, e)
	}
}

// wait holds a parked child until its one byte comes. The end of the pipe is the
// end of whoever could release it.
//
//go:nosplit
//go:norace
func (p *plan) wait() {
	for {
		n, _, e := syscall.RawSyscall(unix.SYS_READ, uintptr(p.pipes.wake), uintptr(unsafe.Pointer(&p.pipes.byte)), 1)
		if e == unix.EINTR {
			continue
		}
		if e != 0 || n != 1 {
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 127, 0, 0)
		}
		p.res.stage = uint32(stageReleased)
		syscall.RawSyscall(unix.SYS_WRITE, uintptr(p.pipes.report), uintptr(unsafe.Pointer(&p.res)), unsafe.Sizeof(p.res))
		return
	}
}
