package proc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
)

// follow passes on what one shadow tells until it is gone, and kills it when it
// leaves beats unanswered.
func (l *Link) follow(ctx context.Context, c *Client) {
	look := time.NewTicker(l.c.Silence / 10)
	defer look.Stop()
	var dead time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.enough:
			return
		case r, ok := <-c.Reports():
			if !ok {
				l.lost(ctx, c)
				return
			}
			l.mu.Lock()
			l.heard = time.Now()
			if r.Kind == ReportHello || r.Kind == ReportUpgraded && r.Error == "" {
				l.pid = r.PID
			}
			l.mu.Unlock()
			if !l.pass(ctx, c, r) {
				return
			}
		case now := <-look.C:
			l.reap()
			l.mu.Lock()
			silent := l.asked.After(l.heard) && now.Sub(l.heard) > l.c.Silence
			l.mu.Unlock()
			if silent && len(c.Reports()) == 0 {
				c.kill()
			}
			// A child that hangs in its exec holds a copy of the shadow's end.
			if c.dead() && dead.IsZero() {
				dead = now
			}
			if !dead.IsZero() && now.Sub(dead) > l.c.Silence/2 && len(c.Reports()) == 0 {
				l.lost(ctx, c)
				return
			}
		}
	}
}

// lost ends the time of one shadow: it is told dead only when it is.
func (l *Link) lost(ctx context.Context, c *Client) {
	st := c.end(ctx, l.c.Silence)
	c.Close()
	for r := range c.Reports() {
		l.pass(ctx, c, r)
	}
	for _, r := range c.at.early {
		l.tell(ctx, r)
	}
	if c.at.pidfd >= 0 {
		unix.Close(c.at.pidfd)
		c.at.pidfd = -1
	}
	l.mu.Lock()
	l.client, l.pid = nil, 0
	ending := l.ending
	l.mu.Unlock()
	if !ending {
		l.tell(ctx, Report{Kind: ReportShadowDied, At: clock.Now(), Status: st, Hung: c.at.hung})
	}
}

// pass tells what is for the user. What a new shadow did before its hello (it
// carried out what had waited) is told after it.
func (l *Link) pass(ctx context.Context, c *Client, r Report) bool {
	if r.Kind == ReportHello && r.Name != "" && r.Name != c.at.word {
		// The answer to the monitor before this one in the same pid, with what was then.
		closeAll(r.FDs)
		return true
	}
	if c.at.inherit && !c.at.greeted && r.Kind != ReportHello && r.Kind != ReportBeat {
		c.at.early = append(c.at.early, r)
		return true
	}
	if c.sift(&r) && !l.tell(ctx, r) {
		return false
	}
	if r.Kind == ReportHello {
		l.tries = 0
	}
	if r.Kind == ReportHello && c.at.next {
		// To a user that was told only a part: what it hears now is no sequel.
		if !l.tell(ctx, Report{Kind: ReportShadowBack, PID: r.PID, At: r.At}) {
			return false
		}
	}
	if r.Kind == ReportSynced && c.at.greeted {
		l.mu.Lock()
		l.synced = true
		l.mu.Unlock()
	}
	if r.Kind == ReportShadowBack {
		early := c.at.early
		c.at.early = nil
		for _, r := range early {
			if c.sift(&r) && !l.tell(ctx, r) {
				return false
			}
		}
	}
	return true
}

func (l *Link) tell(ctx context.Context, r Report) bool {
	select {
	case l.reports <- r:
		return true
	case <-ctx.Done():
		closeAll(r.FDs)
		return false
	}
}

// bridge is the time without a shadow: exits are told from the kernel's record,
// and a new shadow is waited for, or started.
func (l *Link) bridge(ctx context.Context) {
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	start := time.NewTimer(l.c.Patience)
	defer start.Stop()
	if len(l.c.Shadow) == 0 {
		start.Stop()
	}
	var delay time.Duration
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.enough:
			return
		case conn := <-l.dialed:
			err := l.welcome(ctx, conn)
			if err == nil {
				return
			}
			l.c.Log.Warn("a new shadow was not taken", "err", err)
		case <-look.C:
			l.reap()
		case <-start.C:
			// The one that lives connects; one that found another there ends.
			if err := l.startShadow(); err != nil {
				l.c.Log.Error("a new shadow could not be started", "err", err)
			}
			delay = min(max(2*delay, 500*time.Millisecond), 30*time.Second)
			start.Reset(delay + 2*time.Second)
		}
		for _, r := range l.book.exits() {
			if !l.tell(ctx, r) {
				return
			}
		}
	}
}

// welcome makes the one who dialed the shadow of this monitor.
func (l *Link) welcome(ctx context.Context, conn *net.UnixConn) error {
	defer conn.Close()
	f, err := conn.File()
	if err != nil {
		return fmt.Errorf("taking its socket: %w", err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("taking its socket: %w", err)
	}
	// What ended up to now is told before the new one is given the rest.
	for _, r := range l.book.exits() {
		if !l.tell(ctx, r) {
			unix.Close(fd)
			return ctx.Err()
		}
	}
	if err := l.attach(fd, true); err != nil {
		return err
	}
	return nil
}

// attach begins the time of one shadow. A new one is given the state of the one
// before.
func (l *Link) attach(fd int, inherit bool) error {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("asking who the shadow is: %w", err)
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		unix.Close(fd)
		return fmt.Errorf("pid %d of user %d wants to be the shadow; only user %d or root may", cred.Pid, cred.Uid, os.Geteuid())
	}
	c, err := newClient(fd, l.book, l.c.Log)
	if err != nil {
		unix.Close(fd)
		return err
	}
	c.peer(fd, int(cred.Pid), inherit)
	l.mu.Lock()
	defer l.mu.Unlock()
	// A user that was not told everything yet hears all that the new one tells.
	c.at.inherit, c.at.next = inherit && l.synced, inherit
	if inherit {
		for _, p := range append(l.book.state(), l.queue...) {
			err = errors.Join(err, c.pass(p))
		}
		l.queue = nil
	}
	err = errors.Join(err, c.Send(Order{Kind: OrderHello, Name: c.at.word, Protocol: Protocol, Version: l.c.Version}))
	if err != nil {
		c.Close()
		return fmt.Errorf("greeting the shadow: %w", err)
	}
	l.client, l.pid = c, int(cred.Pid)
	l.asked, l.heard = time.Time{}, time.Now()
	return nil
}

func (l *Link) accept(ctx context.Context) {
	for {
		conn, err := l.listen.AcceptUnix()
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				// Out of descriptors: the one who dials tries again.
				l.c.Log.Warn("accepting a new shadow", "err", err)
				select {
				case <-time.After(100 * time.Millisecond):
					continue
				case <-ctx.Done():
				}
			}
			return
		}
		select {
		case l.dialed <- conn:
		case <-ctx.Done():
			conn.Close()
			return
		}
	}
}

// startShadow starts the command of a new shadow, apart from this process: it is
// to outlive it.
func (l *Link) startShadow() error {
	l.tries++
	command := l.c.Shadow
	if len(l.c.Else) > 0 && l.tries%3 == 0 {
		command = l.c.Else
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening /dev/null: %w", err)
	}
	defer unix.Close(null)
	pid, err := syscall.ForkExec(Image(path), command, &syscall.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []uintptr{uintptr(null), 1, 2},
		Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return fmt.Errorf("starting %s: %w", path, err)
	}
	l.pids = append(l.pids, pid)
	return nil
}

// reap takes the zombies of the shadows that this monitor started and that are
// not its shadow now.
func (l *Link) reap() {
	now := l.Shadow()
	left := l.pids[:0]
	for _, pid := range l.pids {
		if pid != now {
			if got, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); got == pid || errors.Is(err, unix.ECHILD) {
				continue
			}
		}
		left = append(left, pid)
	}
	l.pids = left
}

// peer notes which process is at the other end. Inherit: it is a new shadow of
// a monitor that knows its programs already.
func (c *Client) peer(fd, pid int, inherit bool) {
	c.at = &other{pid: pid, inherit: inherit, word: fmt.Sprintf("%d-%d", os.Getpid(), clock.Now())}
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err != nil {
		pidfd, err = unix.PidfdOpen(pid, 0)
	}
	if err != nil {
		pidfd = -1
	}
	c.at.pidfd = pidfd
}

func (c *Client) dead() bool {
	if c.at.pidfd < 0 {
		return startTicks(c.at.pid) == 0
	}
	is, err := readable(c.at.pidfd)
	return is && err == nil
}

func (c *Client) kill() {
	c.at.hung = true
	c.log.Warn("the shadow does not answer; killing it", "pid", c.at.pid)
	if c.at.pidfd >= 0 {
		_ = unix.PidfdSendSignal(c.at.pidfd, unix.SIGKILL, nil, 0)
	} else {
		_ = unix.Kill(c.at.pid, unix.SIGKILL)
	}
}

// end waits for the death of the shadow, helps it along after a while, and
// returns how it ended.
func (c *Client) end(ctx context.Context, patience time.Duration) ha.ExitStatus {
	before := clock.Now()
	began := time.Now()
	for !c.dead() && ctx.Err() == nil {
		if !c.at.hung && time.Since(began) > patience {
			c.kill()
		}
		time.Sleep(2 * time.Millisecond)
	}
	for i := 0; i < 100 && ctx.Err() == nil; i++ {
		var ws unix.WaitStatus
		if got, err := unix.Wait4(c.at.pid, &ws, unix.WNOHANG, nil); err == nil && got == c.at.pid {
			if ws.Signaled() {
				return ha.ExitStatus{Code: -1, Signal: int(ws.Signal()), Core: ws.CoreDump()}
			}
			return ha.ExitStatus{Code: ws.ExitStatus()}
		}
		if c.at.pidfd < 0 {
			break
		}
		st, err := kernelExit(c.at.pidfd)
		if err == nil {
			return st
		}
		if !errors.Is(err, unix.EAGAIN) {
			break
		}
		// Its zombie is not taken yet, and may never be: then it tells by itself.
		if st, ok := zombieExit(c.at.pid); ok && c.dead() {
			return st
		}
		time.Sleep(2 * time.Millisecond)
	}
	return ha.ExitStatus{Code: -1, Unknown: true, After: before, Before: clock.Now()}
}

// sift reports whether a report is for the user. Before the shadow's hello
// everything is old: it is told again. From a new shadow of this monitor only
// what is news is passed on.
func (c *Client) sift(r *Report) bool {
	switch {
	case r.Kind == ReportBeat:
		return false
	case r.Kind == ReportHello:
		c.at.greeted = true
		if c.at.inherit {
			r.Kind = ReportShadowBack
		}
		return true
	case !c.at.greeted:
		closeAll(r.FDs)
		return false
	case !c.at.inherit:
		return true
	case r.Kind == ReportSynced:
		c.at.inherit = false
		return false
	case r.Kind == ReportKept, r.Kind == ReportMonitor:
		closeAll(r.FDs)
		return false
	case r.Kind == ReportRunning:
		return r.news
	}
	return true
}
