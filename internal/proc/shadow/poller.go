package shadow

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// poller is one epoll set and the timers beside it. All functions run on the
// goroutine that calls wait.
type poller struct {
	ep     int
	on     map[int]func()
	timers map[any]timer
	idle   func() bool // what is done when there is no event; reports whether there is more of it
	busy   bool        // idle has something to do
	rounds int         // since idle was called last
	events [128]unix.EpollEvent
}

type timer struct {
	at time.Time
	do func()
}

func newPoller() (*poller, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making the epoll set: %w", err)
	}
	return &poller{ep: ep, on: map[int]func(){}, timers: map[any]timer{}}, nil
}

// add calls do whenever fd is readable, until del. Do must bear being called
// without need: the number may have been given to another file within one round.
func (p *poller) add(fd int, do func()) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	if err := unix.EpollCtl(p.ep, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("watching descriptor %d: %w", fd, err)
	}
	p.on[fd] = do
	return nil
}

// writable asks for calls when fd takes data again as well.
func (p *poller) writable(fd int, on bool) {
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	if on {
		ev.Events |= unix.EPOLLOUT
	}
	// A descriptor that is not in the set any more needs no call.
	_ = unix.EpollCtl(p.ep, unix.EPOLL_CTL_MOD, fd, &ev)
}

func (p *poller) del(fd int) {
	if _, ok := p.on[fd]; ok {
		delete(p.on, fd)
		_ = unix.EpollCtl(p.ep, unix.EPOLL_CTL_DEL, fd, nil)
	}
}

// after calls do once after d; a second call with the same key replaces the
// first.
func (p *poller) after(d time.Duration, key any, do func()) {
	p.timers[key] = timer{time.Now().Add(d), do}
}

// left is the time until a timer is due; 0 if there is none.
func (p *poller) left(key any) time.Duration {
	if t, ok := p.timers[key]; ok {
		return max(0, time.Until(t.at))
	}
	return 0
}

func (p *poller) cancel(key any) { delete(p.timers, key) }

// wait runs what is due, waiting for the first of it. All reports whether every
// event that was there is done.
func (p *poller) wait() (all bool, err error) {
	ms := -1
	if len(p.timers) > 0 {
		ms = 1<<31 - 1
		now := time.Now()
		for _, t := range p.timers {
			// Rounded up: a timer must not spin through its last millisecond.
			ms = min(ms, max(0, int((t.at.Sub(now)+time.Millisecond-1)/time.Millisecond)))
		}
	}
	if p.busy {
		ms = 0
	}
	n, err := unix.EpollWait(p.ep, p.events[:], ms)
	if errors.Is(err, unix.EINTR) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("waiting: %w", err)
	}
	for _, ev := range p.events[:n] {
		if do := p.on[int(ev.Fd)]; do != nil {
			do()
		}
	}
	p.spare(n)
	// Events go first: a beat that is in the socket already must be heard before
	// the silence is judged.
	now := time.Now()
	for key, t := range p.timers {
		if !t.at.After(now) {
			delete(p.timers, key)
			t.do()
		}
	}
	return n < len(p.events), nil
}

// spare uses a round without events for what can wait, and now and then one with.
func (p *poller) spare(events int) {
	const patience = 32
	p.rounds++
	if p.busy && (events == 0 || p.rounds >= patience) {
		p.busy, p.rounds = p.idle(), 0
	}
}

func (p *poller) close() { unix.Close(p.ep) }
