package clock

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
)

// A Clock is where a loop takes its instants and wake-ups from: the machine, or
// package time inside a synctest bubble.
type Clock struct {
	now   func() ha.Instant
	alarm func() (Alarm, error)
}

// An Alarm fires once at the instant that it was last set to.
type Alarm interface {
	// Set moves the alarm; an instant in the past fires at once.
	Set(at ha.Instant)
	// C receives when the alarm fires. A late receive of an alarm that was moved
	// in between is possible: the reader looks at the clock again.
	C() <-chan struct{}
	// Stop ends the alarm and waits for what it started.
	Stop()
}

// Machine is CLOCK_BOOTTIME and timerfd. Go's own timers run on
// CLOCK_MONOTONIC, which stands still while the machine is suspended.
func Machine() Clock { return Clock{Now, newTimerfd} }

// Bubble takes instants from package time, counted from its call: for use inside
// a testing/synctest bubble.
func Bubble() Clock {
	start := time.Now()
	now := func() ha.Instant { return ha.Instant(time.Since(start)) }
	return Clock{now, func() (Alarm, error) { return newTicker(now), nil }}
}

// Now returns the present instant.
func (c Clock) Now() ha.Instant { return c.now() }

// Alarm makes an alarm that is not set.
func (c Clock) Alarm() (Alarm, error) { return c.alarm() }

type timerfd struct {
	file *os.File
	c    chan struct{}
	done sync.WaitGroup
}

func newTimerfd() (Alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("making a timer on CLOCK_BOOTTIME: %w", err)
	}
	t := &timerfd{file: os.NewFile(uintptr(fd), "timerfd"), c: make(chan struct{}, 1)}
	t.done.Go(t.run)
	return t, nil
}

func (t *timerfd) run() {
	var b [8]byte
	for {
		_, err := t.file.Read(b[:])
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err == nil && binary.NativeEndian.Uint64(b[:]) > 0 {
			select {
			case t.c <- struct{}{}:
			default: // one wake-up is as good as two
			}
		}
	}
}

func (t *timerfd) Set(at ha.Instant) {
	// Zero would disarm the timer; an instant before the boot is simply past.
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(int64(at), 1))}
	conn, err := t.file.SyscallConn()
	if err != nil {
		return // closed
	}
	_ = conn.Control(func(fd uintptr) {
		_ = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME, &spec, nil)
	})
}

func (t *timerfd) C() <-chan struct{} { return t.c }

func (t *timerfd) Stop() {
	_ = t.file.Close()
	t.done.Wait()
}

type ticker struct {
	now    func() ha.Instant
	c      chan struct{}
	set    chan ha.Instant
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func newTicker(now func() ha.Instant) Alarm {
	ctx, cancel := context.WithCancel(context.Background())
	t := &ticker{now: now, c: make(chan struct{}, 1), set: make(chan ha.Instant), cancel: cancel}
	t.done.Go(func() { t.run(ctx) })
	return t
}

func (t *ticker) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case at := <-t.set:
			timer.Reset(max(at.Sub(t.now()), 0))
		case <-timer.C:
			select {
			case t.c <- struct{}{}:
			default:
			}
		}
	}
}

func (t *ticker) Set(at ha.Instant)  { t.set <- at }
func (t *ticker) C() <-chan struct{} { return t.c }

func (t *ticker) Stop() {
	t.cancel()
	t.done.Wait()
}
