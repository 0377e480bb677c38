package shadow

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/proc"
)

// ending is a wish for the end under way.
type ending struct {
	why   string
	again bool // it was asked for a second time: no grace
	alone bool // the shadow stops every program itself
	quit  *int // the monitor ordered the end, with this code; what is left is its own exit
}

// patience is how long a monitor that was asked for the end may be silent before
// the shadow stops the programs itself, and how long it may take to go after it
// ordered the end.
const patience = 10 * time.Second

// signal is what was asked from outside.
func (s *shadow) signal(sig os.Signal) {
	if sig == unix.SIGHUP {
		s.report(proc.Report{Kind: proc.ReportReload, At: clock.Now()})
		return
	}
	name := sig.String()
	if n, ok := sig.(unix.Signal); ok {
		name = ha.SignalName(int(n))
	}
	if s.end != nil {
		s.hurry(name)
		return
	}
	s.end = &ending{why: name}
	s.notify("STOPPING=1")
	s.report(proc.Report{Kind: proc.ReportQuit, At: clock.Now(), Error: name})
	s.poll.after(patience, s.end, s.checkEnd)
}

// hurry follows a further signal: the monitor is told that there is no grace any
// more, so that what ends is written down as ordered. One more, or one without a
// monitor, and the shadow kills every program itself.
func (s *shadow) hurry(name string) {
	switch {
	case s.end.quit != nil: // the end is ordered, by a detach perhaps
	case !s.end.again && !s.end.alone && s.link.up:
		s.end.again = true
		s.report(proc.Report{Kind: proc.ReportQuit, At: clock.Now(), Error: name})
	default:
		s.stopAll("signal "+name+" again", true)
	}
}

// checkEnd looks whether there still is a monitor that works on the end.
func (s *shadow) checkEnd() {
	if s.end.alone || s.end.quit != nil {
		return
	}
	left := patience - time.Since(s.mon.beat)
	if left <= 0 {
		s.stopAll("the monitor does not answer", s.end.again)
		return
	}
	s.poll.after(left, s.end, s.checkEnd)
}

// stopAll stops every program at once, without a monitor and, with kill, without
// grace. Tidy ends the loop when none is left.
func (s *shadow) stopAll(why string, kill bool) {
	if s.end.alone && !kill {
		return
	}
	s.end.alone = true
	s.c.Log.Warn("stopping every program without the monitor", "why", why)
	s.settleFound()
	for _, c := range s.kids {
		if c.exit == nil {
			c.halt(kill)
		}
	}
}

// tidy is looked at after each round.
func (s *shadow) tidy() {
	if s.end == nil || !s.end.alone || s.done != nil {
		return
	}
	for _, c := range s.kids {
		if !c.told {
			return
		}
	}
	if s.mon.pidfd >= 0 {
		s.mon.kill("everything has stopped without it")
	}
	s.finish(0)
}

// detach carries out OrderDetach. The monitor goes by itself.
func (s *shadow) detach() {
	for _, c := range s.kids {
		c.disarm()
	}
	s.leave("detach", 0)
}

// quit carries out OrderQuit.
func (s *shadow) quit(code int) { s.leave("quit", code) }

// leave ends the loop once the monitor is gone, so that nothing of the pair is
// left when the service manager sees the end of its main process.
func (s *shadow) leave(why string, code int) {
	clearAll(s)
	if s.end == nil {
		s.end = &ending{why: why}
		s.notify("STOPPING=1")
	}
	if s.end.quit != nil {
		return
	}
	s.end.quit = &code
	if s.mon.pidfd < 0 {
		s.finish(code)
		return
	}
	s.poll.cancel(s.mon)
	s.poll.after(patience, s.end, func() { s.mon.kill("it ordered the end and does not go") })
}

// signals hands the signals of the process to the loop.
type signals struct {
	poll *poller
	fd   int // eventfd
	mu   sync.Mutex
	got  []os.Signal
	ch   chan os.Signal
	rest chan os.Signal // signals of no meaning, taken so that they do nothing
	stop chan struct{}
	wg   sync.WaitGroup
}

// listen begins to take signals; the end of ctx counts as SIGTERM. Take is called
// on the loop.
func listen(ctx context.Context, p *poller, take func(os.Signal)) *signals {
	g := &signals{poll: p, ch: make(chan os.Signal, 64), rest: make(chan os.Signal, 1), stop: make(chan struct{})}
	var err error
	if g.fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		g.fd = -1
	}
	// Taken and not ignored: ignoring would pass to the monitor through its exec.
	signal.Notify(g.rest, unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGVTALRM, unix.SIGTTOU, unix.SIGTTIN, unix.SIGTSTP)
	signal.Notify(g.ch, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, marker)
	// The version before left them blocked, so that none was lost in between.
	_ = maskAll(unix.SIG_UNBLOCK, asked())
	done := ctx.Done()
	g.wg.Go(func() {
		for {
			var sig os.Signal
			select {
			case sig = <-g.ch:
			case <-done:
				sig, done = unix.SIGTERM, nil
			case <-g.stop:
				return
			}
			g.mu.Lock()
			g.got = append(g.got, sig)
			g.mu.Unlock()
			_, _ = unix.Write(g.fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		}
	})
	_ = p.add(g.fd, func() {
		for _, sig := range g.taken() {
			if sig != marker {
				take(sig)
			}
		}
	})
	return g
}

// marker is a signal without meaning. Its number is above those with one, and
// the runtime delivers what it has caught in the order of the numbers.
const marker = unix.SIGWINCH

func (g *signals) taken() []os.Signal {
	var b [8]byte
	_, _ = unix.Read(g.fd, b[:])
	g.mu.Lock()
	defer g.mu.Unlock()
	got := g.got
	g.got = nil
	return got
}

// flush returns the signals that were caught and not taken yet. Signals must be
// held: then none is on its way behind the marker.
func (g *signals) flush() []os.Signal {
	if err := unix.Kill(os.Getpid(), marker); err != nil {
		return g.taken()
	}
	var got []os.Signal
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		p := []unix.PollFd{{Fd: int32(g.fd), Events: unix.POLLIN}}
		_, _ = unix.Poll(p, 10)
		got = append(got, g.taken()...)
		if slices.Contains(got, os.Signal(marker)) {
			break
		}
	}
	return slices.DeleteFunc(got, func(s os.Signal) bool { return s == marker })
}

// close ends the taking. The signals stay caught, and mean nothing any more: a
// further Ctrl-C must not change the exit status of a process that is ending.
func (g *signals) close() {
	close(g.stop)
	g.wg.Wait()
	g.poll.del(g.fd)
	unix.Close(g.fd)
}

func itoa(n int) string { return strconv.Itoa(n) }
