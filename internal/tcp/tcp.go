// Package tcp makes the connections between machines of a cluster prompt: what is
// lost on the way is sent again at once. By itself the kernel waits at least 200 ms,
// and twice as long each time after; on a network that loses one packet in five a
// message is then late by more than an authority lasts, though the next packet would
// have come through.
package tcp

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// repeat is the least time after which the kernel sends again what was not
	// acknowledged. What the round trip takes, and how that varies, it adds itself.
	repeat = 30 * time.Millisecond
	// again is the time between attempts to connect, of which there are so many.
	again, attempts = 200 * time.Millisecond, 4
	// acknowledge is the longest time that our kernel keeps an acknowledgement back: well below repeat.
	acknowledge = 5 * time.Millisecond
)

// A Dialer connects to another machine.
type Dialer struct {
	// Give is for how long the kernel sends again what is not acknowledged; zero: as long as it likes.
	Give time.Duration
}

// Dial makes a connection to an address of host and port. Its first word the kernel
// sends again after a second, and cannot be told otherwise: so further attempts begin
// while one waits, and the first that comes about is taken.
func (d Dialer) Dial(ctx context.Context, at string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of a connection that has come about it is the end no more
	type result struct {
		c   net.Conn
		err error
	}
	results := make(chan result, attempts)
	begun := 0
	try := func() {
		begun++
		go func() { // ends with ctx
			c, err := d.once(ctx, at)
			results <- result{c, err}
		}()
	}
	try()
	more := time.NewTicker(again)
	defer more.Stop()
	for {
		select {
		case <-more.C:
			if begun < attempts {
				try()
			}
		case r := <-results:
			cancel()
			go func() { // those that come too late
				for range begun - 1 {
					if r := <-results; r.c != nil {
						_ = r.c.Close()
					}
				}
			}()
			return r.c, r.err // a refusal is an answer as well
		}
	}
}

func (d Dialer) once(ctx context.Context, at string) (net.Conn, error) {
	n := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) {
			hurry(int(fd))
			if d.Give > 0 {
				set(int(fd), unix.TCP_USER_TIMEOUT, d.Give.Milliseconds())
			}
		})
	}}
	// Multipath TCP, for which Go asks a listener by itself, has none of these settings.
	n.SetMultipathTCP(false)
	return n.DialContext(ctx, "tcp", at)
}

// Listen listens for other machines, at an address of host and port. The connections
// that it accepts are prompt as well: they take over what the listener was told.
func Listen(at string) (net.Listener, error) {
	l := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { hurry(int(fd)) })
	}}
	l.SetMultipathTCP(false)
	return l.Listen(context.Background(), "tcp", at)
}

// Prompt reports whether the kernel can be told how soon to send again, as from 6.16 on.
// An older one knows only that the times in between do not double: they are 200 ms each.
func Prompt() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_RTO_MIN_US, int(repeat.Microseconds())) == nil
}

// hurry asks the kernel for all that it can.
func hurry(fd int) {
	set(fd, unix.TCP_THIN_LINEAR_TIMEOUTS, 1)
	set(fd, unix.TCP_RTO_MIN_US, repeat.Microseconds())
	set(fd, unix.TCP_DELACK_MAX_US, acknowledge.Microseconds())
}

// set tells the kernel. A setting that it does not have makes a connection slower on a
// bad network, and no worse.
func set(fd, option int, to int64) { _ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, option, int(to)) }
