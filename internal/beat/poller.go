package beat

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// poller waits on any number of sockets in one thread. It does not lean on Go's
// own poller, which would wake up for each datagram also while this one rests.
type poller struct {
	sockets int // epoll of all sockets and the bell
	alone   int // epoll of the bell, and of the sockets that no rest keeps waiting
	ev      []unix.EpollEvent

	prompt float64   // waits that may end at the first datagram
	filled time.Time // when prompt was last reckoned
	looked time.Time // when the sockets were last looked at

	mu      sync.Mutex
	bell    int // eventfd
	stopped bool
	closed  bool
}

// A lone datagram is heard at once. When they come one after the other, and the
// prompt waits are used up, the sockets are looked at once in each rest: a thousand
// programs that beat each second then cost a handful of wake-ups and not a thousand.
// Each of them costs, besides itself, a millisecond of Go's scheduler, which looks
// around when a thread comes back from a long wait.
const (
	promptMost = 64
	promptRate = 1 // a second, that comes back
	longRest   = 250 * time.Millisecond
	shortRest  = 20 * time.Millisecond
)

func newPoller() (*poller, error) {
	p := &poller{sockets: -1, alone: -1, bell: -1, prompt: promptMost, ev: make([]unix.EpollEvent, 1024)}
	var err error
	if p.sockets, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
		p.alone, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	}
	if err == nil {
		p.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	}
	for _, ep := range [...]int{p.sockets, p.alone} {
		if err == nil {
			err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, p.bell, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(p.bell)})
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("epoll for notify sockets: %w", err), p.close())
	}
	return p, nil
}

func (p *poller) add(fd int) error {
	return p.control(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN|unix.EPOLLET)
}

// remove leaves a socket, which may be in both.
func (p *poller) remove(fd int) error {
	_ = p.patient(fd)
	return p.control(unix.EPOLL_CTL_DEL, fd, 0)
}

// eager has a socket heard at once, whatever the others do; patient takes that back.
func (p *poller) eager(fd int) error {
	return unix.EpollCtl(p.alone, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func (p *poller) patient(fd int) error { return unix.EpollCtl(p.alone, unix.EPOLL_CTL_DEL, fd, nil) }

func (p *poller) mute(fd int) error { return p.control(unix.EPOLL_CTL_MOD, fd, 0) }
func (p *poller) hear(fd int) error {
	return p.control(unix.EPOLL_CTL_MOD, fd, unix.EPOLLIN|unix.EPOLLET)
}

func (p *poller) control(op, fd int, events uint32) error {
	return unix.EpollCtl(p.sockets, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

// wake ends the present wait, or the next.
func (p *poller) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		// It fails only if the bell rings already.
		_, _ = unix.Write(p.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// stop ends every wait from now on.
func (p *poller) stop() {
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	p.wake()
}

// wait returns the sockets that have something, or none after d (negative: no
// bound) or when it is woken. Rest is how long a datagram may wait at most. The slice
// is valid until the next wait.
func (p *poller) wait(d, rest time.Duration) ([]unix.EpollEvent, error) {
	began := time.Now()
	p.prompt = min(p.prompt+began.Sub(p.filled).Seconds()*promptRate, promptMost)
	p.filled = began
	if pause := p.looked.Add(rest).Sub(began); p.prompt < 1 && pause > 0 {
		if d >= 0 {
			pause = min(pause, d)
		}
		if n, err := p.look(p.alone, pause); n != 0 || err != nil {
			return p.heard(n, err)
		}
		if d > 0 {
			d = max(d-time.Since(began), 0)
		}
	}
	n, err := p.look(p.sockets, 0)
	if n == 0 && err == nil && d != 0 {
		n, err = p.look(p.sockets, d)
		p.prompt = max(p.prompt-1, 0)
	}
	p.looked = time.Now()
	return p.heard(n, err)
}

// heard takes the bell out of the n events there are.
func (p *poller) heard(n int, err error) ([]unix.EpollEvent, error) {
	ready := p.ev[:n]
	for i, ev := range ready {
		if int(ev.Fd) == p.bell {
			ready[i] = ready[n-1]
			return ready[:n-1], p.silence(err)
		}
	}
	return ready, err
}

// look waits on one epoll.
func (p *poller) look(ep int, d time.Duration) (int, error) {
	ms := -1
	if d >= 0 {
		ms = int((d + time.Millisecond - 1) / time.Millisecond)
	}
	n, err := unix.EpollWait(ep, p.ev, min(ms, 1<<30))
	if errors.Is(err, unix.EINTR) {
		return 0, nil
	}
	return max(n, 0), err
}

// silence takes the ring from the bell, unless it is to ring for ever.
func (p *poller) silence(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stopped {
		var b [8]byte
		_, _ = unix.Read(p.bell, b[:]) // nothing in it is no harm
	}
	return err
}

// close ends the poller. What is woken afterwards is nothing.
func (p *poller) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped, p.closed = true, true
	var err error
	for _, fd := range [...]int{p.sockets, p.alone, p.bell} {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
	}
	return err
}
