package lapse

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/proc"
	"gemel/internal/proc/spawn"
)

// guard is the state of a Guard.
type guard struct {
	c     Config
	data  string
	boot  string
	page  *page
	table *spawn.Table
	timer int

	shadow, monitor half
	kills           map[int]*ending
	lone            bool // there was no shadow at the last look
}

// half is one of the two that hold the deadlines as long as they live.
type half struct {
	lock  string
	pidfd int  // -1: none lives
	stray bool // a child of a dead one is on its way to its exec
}

// ending is the kill of what one slot is for.
type ending struct {
	kill
	first ha.Instant // when it was seen that its deadline cannot be read
	at    ha.Instant // the deadline that it is about
}

const (
	guardPause = 20_000_000  // ns between looks for a new shadow while there is none
	guardTick  = 500_000_000 // ns between looks for new deadlines
)

// Guard waits for the death of the shadow, and then ends what is past its deadline
// until another shadow is there. What a living shadow has not ended within a quarter
// of the time that it has for that, because it is stopped or hangs, it ends as well.
// It returns when both halves are gone and nothing is left to end, or, without having
// done anything, when another guard is there or nothing was ever to be kept. It only
// reads the page; signals that ask for an end mean nothing to it.
func Guard(ctx context.Context, dataDir string, c Config) error {
	lock, err := proc.TakeLock(filepath.Join(dataDir, proc.GuardLock), 0)
	var other *proc.HeldError
	if errors.As(err, &other) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE, unix.SIGQUIT)
	g := &guard{
		c: c, data: dataDir, timer: -1, kills: map[int]*ending{},
		shadow: half{proc.ShadowLock, -1, false}, monitor: half{proc.MonitorLock, -1, false},
	}
	defer g.close()
	if g.boot, err = clock.BootID(); err != nil {
		return fmt.Errorf("reading the boot id: %w", err)
	}
	if g.page, err = openPage(c.RunDir, false); err != nil || g.page == nil {
		return err
	}
	if g.table, err = spawn.OpenTable(filepath.Join(c.RunDir, "table"), g.boot); err != nil {
		return err
	}
	if g.timer, err = unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return fmt.Errorf("making a timer on CLOCK_BOOTTIME: %w", err)
	}
	runtime.LockOSThread() // never unlocked: this is the only thing that the process does
	g.settle()
	for ctx.Err() == nil {
		g.shadow.find(g.data)
		g.monitor.find(g.data)
		g.reopen()
		next, left := g.look(clock.Now())
		if g.lone && g.monitor.pidfd < 0 && !left && !g.shadow.stray && !g.monitor.stray {
			return nil
		}
		g.wait(next)
	}
	return nil
}

func (g *guard) close() {
	for _, fd := range []int{g.timer, g.shadow.pidfd, g.monitor.pidfd} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if g.table != nil {
		_ = g.table.Close() // this process ends
	}
	if g.page != nil {
		g.page.close()
	}
}

// reopen looks at the files anew when the shadow is gone: what is mapped may have
// been replaced. Where that fails, the ones that are mapped are all there is.
func (g *guard) reopen() {
	was := g.lone
	if g.lone = g.shadow.pidfd < 0; !g.lone || was {
		return
	}
	if p, err := openPage(g.c.RunDir, false); err == nil && p != nil {
		g.page.close()
		g.page = p
	}
	if t, err := spawn.OpenTable(filepath.Join(g.c.RunDir, "table"), g.boot); err == nil {
		_ = g.table.Close() // only read, and not used any more
		g.table = t
	}
}

// look ends what is past its deadline. Next is when to look again; left says that
// there is something to end, now or later.
func (g *guard) look(now ha.Instant) (next ha.Instant, left bool) {
	tree, ok := treeOf(g.page)
	if !ok {
		return 0, false // no shadow got as far as to start anything by a right
	}
	rows := readRows(g.page, g.boot, now)
	if g.lone {
		for _, e := range g.table.Entries() {
			if e.Member != 0 && rows[e.Member] == nil {
				rows[e.Member] = doomed(e.Member, now, "there is no deadline for it")
			}
		}
	}
	for i, r := range rows {
		if r.state != held || r.problem != "" && !g.lone {
			continue // a living shadow knows what it writes
		}
		at := g.deadline(r, now)
		if now < at {
			delete(g.kills, i)
			next = sooner(next, at)
			left = left || g.lone && (len(r.right.Withdraw) > 0 || len(alive(g.table, tree, i)) > 0)
			continue
		}
		if !g.strike(tree, r, at) {
			left = true
			next = sooner(next, g.kills[i].again)
		}
	}
	return next, left
}

// deadline is when this process ends what a row is for.
func (g *guard) deadline(r *group, now ha.Instant) ha.Instant {
	if r.problem != "" {
		x := g.kills[r.slot]
		if x == nil || x.first == 0 {
			x = &ending{first: now, at: now}
			g.kills[r.slot] = x
		}
		r.right.Kill, r.right.Until = x.first, x.first.Add(spare)
		return x.first
	}
	if g.lone {
		return r.right.Kill
	}
	return r.right.Kill + (r.right.Until-r.right.Kill)/4
}

// strike ends what a row is for; it reports whether all was seen gone.
func (g *guard) strike(tree *spawn.Tree, r *group, at ha.Instant) bool {
	x := g.kills[r.slot]
	if x == nil || x.at != at && x.first == 0 {
		x = &ending{at: at}
		g.kills[r.slot] = x
	}
	if x.words == nil {
		x.pause = guardPause / 16
		x.words = g.c.begin(r.right.Withdraw, func() {})
		g.c.Log.Warn("ending what is past its deadline", "group", r.right.Group, "fence", r.right.Fence, "problem", r.problem)
	}
	left := strike(g.table, tree, r.slot)
	withdrawn := x.words.done(&g.c, r.right.Withdraw, func() {})
	if len(left) == 0 && withdrawn {
		return true // and looked at again: a child may have been on its way
	}
	now := clock.Now()
	x.again, x.pause = now.Add(x.pause), min(2*x.pause, longPause)
	if now >= r.right.Until && !x.reset {
		x.reset = true
		g.c.reset(r.right.Group, describe(left, withdrawn, x.words.err, r.right.Withdraw))
	}
	return false
}

func sooner(a, b ha.Instant) ha.Instant {
	if a == 0 {
		return b
	}
	return min(a, b)
}

// wait waits for the death of a half, or for the next instant.
func (g *guard) wait(next ha.Instant) {
	tick := ha.Instant(guardTick)
	if g.lone {
		tick = guardPause
	}
	at := sooner(next, clock.Now()+tick)
	at = min(at, clock.Now()+tick)
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(int64(at), 1))}
	_ = unix.TimerfdSettime(g.timer, unix.TFD_TIMER_ABSTIME, &spec, nil) // cannot fail with these
	p := []unix.PollFd{{Fd: int32(g.timer), Events: unix.POLLIN}}
	for _, fd := range []int{g.shadow.pidfd, g.monitor.pidfd} {
		if fd >= 0 {
			p = append(p, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
	}
	_, _ = unix.Poll(p, -1) // an interrupted one is one more look
	var b [8]byte
	_, _ = unix.Read(g.timer, b[:])
}

// find looks whether the half lives, or another one in its place.
func (h *half) find(data string) {
	if h.pidfd >= 0 {
		if !dead(h.pidfd) {
			return
		}
		unix.Close(h.pidfd)
		h.pidfd = -1
	}
	h.stray = false
	path := filepath.Join(data, h.lock)
	var held *proc.HeldError
	if !errors.As(proc.ProbeLock(path, 0), &held) {
		return
	}
	if h.stray = held.PID == 0; h.stray {
		return
	}
	fd, err := unix.PidfdOpen(held.PID, 0)
	if err != nil {
		return
	}
	var again *proc.HeldError
	if !errors.As(proc.ProbeLock(path, 0), &again) || again.PID != held.PID || dead(fd) {
		unix.Close(fd)
		return
	}
	h.pidfd = fd
}

func dead(pidfd int) bool {
	p := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents != 0
}
