package spawn

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
)

// Child is a program that was started.
type Child struct {
	PID   int
	PIDFD int // owned by the caller, close-on-exec
	Start ha.StartID
}

// Start makes the program and returns after its exec. A start that came to
// nothing is a *StartError; no child is left of it then.
//
// A program whose file or directory lies on a file system that may hang (NFS,
// FUSE and the like) is parked and released at once instead: while a child shares
// the memory of this process no garbage collection can begin, so that a hanging
// exec would stop every goroutine.
func (r *Ready) Start() (Child, error) {
	if r.apart {
		parked, err := r.Park()
		if err != nil {
			return Child{}, err
		}
		return parked.Release()
	}
	p := r.plan
	p.parked, p.res, p.hand.pid = false, result{}, 0
	p.files.highest = r.highest()
	calm := func() {}
	if p.ids.setUID {
		calm = urge(p)
	}
	pid, errno := r.fork()
	calm()
	if errno != 0 {
		return Child{}, r.failure(result{stage: uint32(stageClone), errno: uint32(errno)})
	}
	if p.res.stage != 0 {
		reap(pid)
		r.closeFD()
		return Child{}, r.failure(p.res)
	}
	c, err := r.pidfd(pid)
	if err != nil {
		return Child{}, err
	}
	if p.groups.joined {
		r.group.tree.born.Store(true)
	}
	return r.settle(c), nil
}

const urgeEvery = 100 * time.Millisecond

// urge lets a child go on that is stopped before its exec, until calm is called:
// from its setuid on, its user may send it a SIGSTOP, and this process waits for it.
// A child that is not stopped does not notice.
func urge(p *plan) (calm func()) {
	var mu sync.Mutex
	over := false
	var timer *time.Timer
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(urgeEvery, func() {
		mu.Lock()
		defer mu.Unlock()
		if over {
			return
		}
		if pid := atomic.LoadUint64(&p.hand.pid); pid != 0 {
			_ = unix.Kill(int(pid), unix.SIGCONT) // a child that nobody has reaped
		}
		timer.Reset(urgeEvery)
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		timer.Stop()
	}
}

// pidfd makes a Child of a pid that was cloned.
func (r *Ready) pidfd(pid int) (Child, error) {
	fd := int(r.plan.pidfd)
	r.plan.pidfd = -1
	if fd < 0 {
		var err error
		if fd, err = unix.PidfdOpen(pid, 0); err != nil {
			_ = unix.Kill(pid, unix.SIGKILL) // a child that is not reaped yet: the number is its own
			reap(pid)
			return Child{}, &StartError{Stage: "pidfd", Errno: errnoOf(err), hint: "Linux 5.4 or later is needed"}
		}
	}
	return Child{PID: pid, PIDFD: fd, Start: r.start}, nil
}

// settle writes down what is known only after the exec.
func (r *Ready) settle(c Child) Child {
	if r.group != nil {
		r.group.Lead(c.PID)
	}
	if r.slot != nil {
		r.slot.settle(c.PID)
	}
	return c
}

func (r *Ready) closeFD() {
	if r.plan.pidfd >= 0 {
		_ = unix.Close(int(r.plan.pidfd)) // a pidfd has nothing to lose
		r.plan.pidfd = -1
	}
}

// reap takes away a child of ours that has ended or is about to.
func reap(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// highest is the number after the highest open descriptor: only for kernels
// before 5.11, which have to go through them one by one.
func (r *Ready) highest() int {
	if r.ranges {
		return 0
	}
	top := 256
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 65536
	}
	for _, n := range names {
		var fd int
		if _, err := fmt.Sscan(n.Name(), &fd); err == nil && fd >= top {
			top = fd + 1
		}
	}
	return top
}

// closeRange reports whether the kernel can mark descriptors by range. The range
// asked about is beyond any that can be open.
func closeRange() bool {
	return unix.CloseRange(1<<31-2, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC) == nil
}

// StartError tells why a start came to nothing.
type StartError struct {
	Stage string        // what the child was doing: "exec", "setuid", "rlimit nofile", ...
	Errno syscall.Errno // why the kernel refused
	Path  string        // the program, the directory or the file in question; may be empty

	hint string
}

// Error prints as "exec /usr/bin/nginx: no such file or directory", with a hint
// where the kernel's word is known to mislead.
func (e *StartError) Error() string {
	var b strings.Builder
	b.WriteString(e.Stage)
	if e.Path != "" {
		b.WriteString(" " + e.Path)
	}
	if e.Errno != 0 {
		b.WriteString(": " + e.Errno.Error())
	}
	if e.hint != "" {
		b.WriteString(" (" + e.hint + ")")
	}
	return b.String()
}

// Unwrap returns the errno, for errors.Is.
func (e *StartError) Unwrap() error { return e.Errno }

func (r *Ready) failure(f result) *StartError {
	e := &StartError{Stage: stageNames[min(f.stage, uint32(stageCount-1))], Errno: syscall.Errno(f.errno)}
	i := int(f.index)
	switch stage(f.stage) {
	case stageRlimit:
		if i < len(r.names) {
			e.Stage += " " + r.names[i]
		}
	case stageStdio, stageBounding, stageAmbient:
		e.Stage = fmt.Sprintf("%s %d", e.Stage, i)
	case stageCgroup:
		e.Path = r.group.joins()[i]
	case stageChdir:
		e.Path = r.dir
	case stageExec:
		e.Path = r.path
		e.hint = execHint(r.path, e.Errno)
	}
	switch {
	case stage(f.stage) == stageBounding && e.Errno == unix.EPERM:
		e.hint = "only root can take capabilities out of reach; with no-new-privileges it is not needed"
	case e.Errno == unix.EPERM && (stage(f.stage) == stageUID || stage(f.stage) == stageGID || stage(f.stage) == stageGroups):
		e.hint = "only root can start programs as another user"
	}
	return e
}

func errnoOf(err error) syscall.Errno {
	var e syscall.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EIO
}
