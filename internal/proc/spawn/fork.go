package spawn

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The runtime's own preparations of a fork, which package syscall uses too: they
// block all signals and make any growth of the stack fail loudly. The Go team
// keeps these two names reachable for gVisor's sake.

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

// rawClone makes the system call trap, which is clone or clone3. It returns the
// result of the kernel, a negated errno included.
func rawClone(trap, a1, a2, a3 uintptr) uintptr

// cloneArgs is struct clone_args of linux/sched.h, as far as Linux 5.7 knows it.
//
//budget:fields layout of the kernel
type cloneArgs struct {
	flags      uint64
	pidfd      uint64
	childTID   uint64
	parentTID  uint64
	exitSignal uint64
	stack      uint64
	stackSize  uint64
	tls        uint64
	setTID     uint64
	setTIDSize uint64
	cgroup     uint64
}

const sizeUntilTLS = 64 // what Linux 5.3 and 5.4 know of cloneArgs

// fork makes a child that runs p.child and never comes back. It returns in the
// parent: with shared set after the child's exec or end, else at once. The ways
// go from the newest to the oldest that the kernel takes; joined tells whether
// the child begins inside its control group of v2.
func (p *plan) fork(shared bool) (pid int, errno syscall.Errno) {
	p.pidfd = -1
	flags := uint64(unix.CLONE_PIDFD)
	if shared {
		flags |= unix.CLONE_VM | unix.CLONE_VFORK
	}
	if p.files.below != 0 {
		flags |= unix.CLONE_FILES
	}
	done := func() bool { return errno == 0 || scarce(errno) }
	p.mood.cleared = true
	if p.groups.dir >= 0 {
		p.groups.joined = true
		if pid, errno = p.clone3(flags|unix.CLONE_CLEAR_SIGHAND|unix.CLONE_INTO_CGROUP, unsafe.Sizeof(p.args)); done() {
			return pid, errno
		}
		p.groups.joined = false
		if p.groups.file != "" {
			// It worked before, and does not now: what it saved is made up for.
			fd, err := unix.Open(p.groups.file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return 0, errnoOf(err)
			}
			p.groups.procs[0] = int32(fd)
			defer func() {
				p.groups.procs[0] = -1
				shut(fd)
			}()
			flags &^= unix.CLONE_FILES // it has no low number
			p.files.below = 0
		}
	}
	if pid, errno = p.clone3(flags|unix.CLONE_CLEAR_SIGHAND, sizeUntilTLS); done() {
		return pid, errno
	}
	p.mood.cleared = false
	if pid, errno = p.clone3(flags, sizeUntilTLS); done() {
		return pid, errno
	}
	p.call = [4]uintptr{unix.SYS_CLONE, uintptr(flags) | uintptr(unix.SIGCHLD), 0, uintptr(unsafe.Pointer(&p.pidfd))}
	return p.cloned()
}

// scarce reports that the kernel knows the call and has no room: no memory, process
// or, for the pidfd, descriptor. Each other way would meet the same.
func scarce(e syscall.Errno) bool {
	return e == unix.EAGAIN || e == unix.ENOMEM || e == unix.EMFILE || e == unix.ENFILE
}

func (p *plan) clone3(flags uint64, size uintptr) (int, syscall.Errno) {
	p.args = cloneArgs{
		flags:      flags,
		pidfd:      uint64(uintptr(unsafe.Pointer(&p.pidfd))),
		exitSignal: uint64(unix.SIGCHLD),
	}
	if flags&unix.CLONE_INTO_CGROUP != 0 {
		p.args.cgroup = uint64(p.groups.dir)
	}
	p.call = [4]uintptr{unix.SYS_CLONE3, uintptr(unsafe.Pointer(&p.args)), size, 0}
	return p.cloned()
}

func (p *plan) cloned() (int, syscall.Errno) {
	r := p.divide()
	if r > ^uintptr(4095) {
		return 0, syscall.Errno(-r)
	}
	return int(r), 0
}

// divide and divided are two functions because the child must not touch a frame
// that the parent goes on using: it stays in the frame of divided, which the
// parent leaves at once.
//
//go:noinline
//go:norace
func (p *plan) divide() uintptr {
	beforeFork()
	r := p.divided()
	afterFork()
	return r
}

//go:noinline
//go:nosplit
//go:norace
func (p *plan) divided() uintptr {
	r := rawClone(p.call[0], p.call[1], p.call[2], p.call[3])
	if r != 0 {
		return r
	}
	p.child()
	return 0
}
