package shadow

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"gemel/internal/proc"
)

// link is the shadow's end of the socket to the monitor. Its descriptor has one
// number for the life of the shadow, with whatever monitor is at the other end:
// programs that were made ready long ago report themselves over that number.
type link struct {
	poll *poller
	fd   int
	up   bool
	// pending: epoll waits for room to write.
	pending bool
	out     *proc.Sender
	in      *proc.Receiver
}

func newLink(p *poller) (*link, error) {
	// A closed pair stands in while there is no monitor: writing fails at once.
	sv, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("making the socket to the monitor: %w", err)
	}
	unix.Close(sv[1])
	return &link{poll: p, fd: sv[0]}, nil
}

// use takes fd over as the socket to the monitor.
func (l *link) use(fd int, ready func()) error {
	l.down()
	if fd != l.fd {
		if err := unix.Dup3(fd, l.fd, unix.O_CLOEXEC); err != nil {
			unix.Close(fd)
			return fmt.Errorf("taking the socket to the monitor: %w", err)
		}
		unix.Close(fd)
	}
	if err := unix.SetNonblock(l.fd, true); err != nil {
		return fmt.Errorf("taking the socket to the monitor: %w", err)
	}
	// Larger buffers only spare wake-ups.
	_ = unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20)
	l.out, l.in, l.up, l.pending = proc.NewSender(l.fd), proc.NewReceiver(), true, false
	return l.poll.add(l.fd, ready)
}

// move takes fd over with its number, that of the version before.
func (l *link) move(fd int, ready func()) error {
	unix.Close(l.fd)
	l.fd = fd
	return l.use(fd, ready)
}

// down ends the use of the socket. The number stays taken, by a closed pair.
func (l *link) down() {
	if !l.up {
		return
	}
	l.poll.del(l.fd)
	l.out.Drop()
	l.up = false
	sv, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		// Out of descriptors: the old socket stays at the number, shut down.
		_ = unix.Shutdown(l.fd, unix.SHUT_RDWR)
		return
	}
	unix.Close(sv[1])
	if err := unix.Dup3(sv[0], l.fd, unix.O_CLOEXEC); err != nil {
		_ = unix.Shutdown(l.fd, unix.SHUT_RDWR)
	}
	unix.Close(sv[0])
}

func (l *link) put(r proc.Report, fds []int) error {
	if !l.up {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil
	}
	err := l.out.Put(r, fds)
	l.flush()
	return err
}

func (l *link) flush() {
	if !l.up {
		return
	}
	// A broken socket shows itself at the next read.
	pending, _ := l.out.Flush()
	if pending != l.pending {
		l.pending = pending
		l.poll.writable(l.fd, pending)
	}
}

// take reads one message; io.EOF is the end of the monitor's side, EAGAIN that
// there is none now.
func (l *link) take() (proc.Message, error) {
	if !l.up {
		return proc.Message{}, io.EOF
	}
	m, err := l.in.Take(l.fd)
	if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, io.EOF) {
		return m, fmt.Errorf("reading from the monitor: %w", err)
	}
	return m, err
}

func (l *link) close() {
	if l.up {
		l.poll.del(l.fd)
		l.out.Drop()
		l.up = false
	}
	unix.Close(l.fd)
}
