package beat

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// poller waits on any number of sockets with one goroutine and no thread of its
// own: an epoll that is itself watched by Go's poller.
type poller struct {
	file *os.File
	conn syscall.RawConn
	ev   []unix.EpollEvent
	busy int // waits in a row that were short

	mu      sync.Mutex
	until   time.Time // zero: no deadline
	stopped bool
	closed  bool
}

// When more than dense waits in a row were shorter than calm, each rests first,
// so that a thousand programs that beat each second cost a hundred wake-ups and
// not a thousand. A lone READY=1 never waits.
const (
	calm  = 5 * time.Millisecond
	rest  = 10 * time.Millisecond
	dense = 64
)

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll for notify sockets: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("epoll for notify sockets: %w", err), unix.Close(fd))
	}
	f := os.NewFile(uintptr(fd), "epoll")
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("epoll for notify sockets: %w", err), f.Close())
	}
	if err := f.SetReadDeadline(time.Time{}); err != nil {
		return nil, errors.Join(fmt.Errorf("epoll for notify sockets cannot be waited for: %w", err), f.Close())
	}
	return &poller{file: f, conn: conn, ev: make([]unix.EpollEvent, 256)}, nil
}

func (p *poller) add(fd int) error    { return p.control(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN) }
func (p *poller) remove(fd int) error { return p.control(unix.EPOLL_CTL_DEL, fd, 0) }
func (p *poller) mute(fd int) error   { return p.control(unix.EPOLL_CTL_MOD, fd, 0) }
func (p *poller) hear(fd int) error   { return p.control(unix.EPOLL_CTL_MOD, fd, unix.EPOLLIN) }

func (p *poller) control(op, fd int, events uint32) error {
	var err error
	cerr := p.conn.Control(func(ep uintptr) {
		err = unix.EpollCtl(int(ep), op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
	})
	return errors.Join(cerr, err)
}

// deadline lets the next wait end after d; negative: never.
func (p *poller) deadline(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	p.until = time.Time{}
	if d >= 0 {
		p.until = time.Now().Add(d)
	}
	p.set(p.until)
}

// wake ends the present or the next wait, so that its deadline is made anew.
func (p *poller) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stopped {
		p.set(time.Now())
	}
}

// stop ends every wait from now on.
func (p *poller) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	if !p.closed {
		p.set(time.Unix(1, 0))
	}
}

// set moves the deadline of the file, which works as newPoller has tried.
func (p *poller) set(t time.Time) {
	if err := p.file.SetReadDeadline(t); err != nil {
		panic("beat: deadline of epoll: " + err.Error())
	}
}

// wait returns the sockets that have something, or none at the deadline. The
// slice is valid until the next wait.
func (p *poller) wait() ([]int32, error) {
	if p.busy > dense {
		p.pause()
	}
	began := time.Now()
	var n int
	var werr error
	err := p.conn.Read(func(ep uintptr) bool {
		n, werr = unix.EpollWait(int(ep), p.ev, 0)
		if errors.Is(werr, unix.EINTR) {
			n, werr = 0, nil
		}
		return n > 0 || werr != nil
	})
	if p.busy++; time.Since(began) > calm {
		p.busy = 0
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	ready := make([]int32, 0, max(n, 0))
	for i := range max(n, 0) {
		ready = append(ready, p.ev[i].Fd)
	}
	return ready, errors.Join(err, werr)
}

// pause lets notifications gather.
func (p *poller) pause() {
	p.mu.Lock()
	stopped := p.stopped
	p.mu.Unlock()
	if !stopped {
		time.Sleep(rest)
	}
}

// close ends the poller. What is called on it afterwards does nothing.
func (p *poller) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped, p.closed = true, true
	return p.file.Close()
}
