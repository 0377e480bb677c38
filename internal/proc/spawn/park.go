package spawn

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// Parked is a child that waits for its exec. It owns nothing of its Ready, which
// must stay open until Release or Discard has returned. Its words to the monitor
// go over the handover socket that was given to Prepare: when the monitor is
// another one, discard and park again.
type Parked struct {
	ready  *Ready
	child  Child
	wake   int
	report int
}

// Park makes the child ahead of its need: it has done everything except the exec,
// and waits. It ends by itself if this process ends.
func (r *Ready) Park() (*Parked, error) {
	var wake, report [2]int
	if err := unix.Pipe2(wake[:], unix.O_CLOEXEC); err != nil {
		return nil, &StartError{Stage: "pipe", Errno: errnoOf(err)}
	}
	if err := unix.Pipe2(report[:], unix.O_CLOEXEC); err != nil {
		shut(wake[:]...)
		return nil, &StartError{Stage: "pipe", Errno: errnoOf(err)}
	}
	p := r.plan
	p.parked, p.res = true, result{}
	p.pipes.wake, p.pipes.report = int32(wake[0]), int32(report[1])
	p.files.highest = r.highest()
	pid, errno := p.fork(false)
	shut(wake[0], report[1])
	if errno != 0 {
		shut(wake[1], report[0])
		return nil, r.failure(result{stage: uint32(stageClone), errno: uint32(errno)})
	}
	child, err := r.pidfd(pid)
	if err != nil {
		shut(wake[1], report[0])
		return nil, err
	}
	return &Parked{ready: r, child: child, wake: wake[1], report: report[0]}, nil
}

// PID is the number of the waiting child.
func (p *Parked) PID() int { return p.child.PID }

// Release lets the child exec and returns after it. It fails with a *StartError,
// also when the child was killed while it waited; then Start can be tried.
func (p *Parked) Release() (Child, error) {
	r := p.ready
	// EPIPE (Go makes no SIGPIPE of it for this descriptor) says that it is dead: of
	// what, it may have left in the report.
	_, _ = unix.Write(p.wake, []byte{1})
	f := p.outcome()
	shut(p.wake, p.report)
	p.wake, p.report = -1, -1
	if f.stage == uint32(stageNone) {
		return r.settle(p.child), nil
	}
	_ = unix.PidfdSendSignal(p.child.PIDFD, unix.SIGKILL, nil, 0) // it has ended, or must
	reap(p.child.PID)
	shut(p.child.PIDFD)
	return Child{}, r.failure(f)
}

// outcome reads the report to its end, which is the exec. The child writes that it
// was released, and after that only a failure: so a child that was killed while
// it waited is not taken for one that passed its exec. The read blocks its thread,
// because the way through the poller of the runtime costs more than the exec.
func (p *Parked) outcome() result {
	var b [24]byte
	have := 0
	poll := []unix.PollFd{{Fd: int32(p.report), Events: unix.POLLIN}}
	for have < len(b) {
		// The user of the program may have stopped the child while it waited.
		ready, err := unix.Poll(poll, int(urgeEvery.Milliseconds()))
		if ready == 0 && err == nil {
			_ = unix.PidfdSendSignal(p.child.PIDFD, unix.SIGCONT, nil, 0)
		}
		if ready <= 0 && (err == nil || errors.Is(err, unix.EINTR)) {
			continue
		}
		n, err := unix.Read(p.report, b[have:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return result{stage: uint32(stagePark), errno: uint32(errnoOf(err))}
		}
		if n == 0 {
			break
		}
		have += n
	}
	if have == 12 && binary.NativeEndian.Uint32(b[0:]) == uint32(stageReleased) {
		return result{}
	}
	if have >= 12 {
		last := b[have-12:]
		return result{
			stage: binary.NativeEndian.Uint32(last[0:]),
			index: binary.NativeEndian.Uint32(last[4:]),
			errno: binary.NativeEndian.Uint32(last[8:]),
		}
	}
	return result{stage: uint32(stagePark), errno: uint32(unix.ESRCH)}
}

// Discard ends the child, and waits for its end.
func (p *Parked) Discard() {
	shut(p.wake, p.report)
	p.wake, p.report = -1, -1
	_ = unix.PidfdSendSignal(p.child.PIDFD, unix.SIGKILL, nil, 0)
	reap(p.child.PID)
	shut(p.child.PIDFD)
}

func shut(fds ...int) {
	for _, fd := range fds {
		if fd >= 0 {
			_ = unix.Close(fd) // pipes and pidfds have nothing to lose
		}
	}
}
