package shadow

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/proc"
	"gemel/internal/proc/spawn"
)

// monitor is what the shadow knows of the other half.
type monitor struct {
	pid    int
	pidfd  int // -1: none lives
	began  time.Time
	beat   time.Time // when it was heard last; its start counts
	ready  bool      // it beat, and the service manager was told
	hung   bool      // it was killed for silence
	greet  bool      // it said hello and is told everything
	tries  int       // starts since one lived for long
	deaths []proc.Report
}

// longLife is how long a monitor lives until its restarts are forgotten.
const longLife = 60 * time.Second

// startMonitor starts a monitor. It is called only when the one before is dead.
func (s *shadow) startMonitor() {
	if err := s.tryMonitor(); err != nil {
		s.c.Log.Error("the monitor could not be started", "err", err)
		s.mon.died(proc.Report{Kind: proc.ReportMonitor, At: clock.Now(), Error: err.Error()})
		s.againMonitor()
	}
}

func (s *shadow) tryMonitor() error {
	path, err := exec.LookPath(s.c.Monitor[0])
	if err != nil {
		return err
	}
	sv, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("making the socket to the monitor: %w", err)
	}
	defer unix.Close(sv[1])
	if err := s.link.use(sv[0], s.listen); err != nil {
		return err
	}
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening /dev/null: %w", err)
	}
	defer unix.Close(null)
	pidfd := -1
	pid, err := syscall.ForkExec(path, s.c.Monitor, &syscall.ProcAttr{
		Env:   append(without(os.Environ(), stateEnv), proc.PairEnv+"=3"),
		Files: []uintptr{uintptr(null), 1, 2, uintptr(sv[1])},
		// In a process group of its own: Ctrl-C is for the shadow alone.
		Sys: &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd},
	})
	if err != nil {
		s.link.down()
		return fmt.Errorf("starting %s: %w", path, err)
	}
	s.watchMonitor(pid, pidfd)
	return nil
}

// watchMonitor begins the time of a living monitor; it takes pidfd over.
func (s *shadow) watchMonitor(pid, pidfd int) {
	m := s.mon
	m.pid, m.pidfd = pid, pidfd
	m.began, m.beat = time.Now(), time.Now()
	m.hung, m.greet = false, false
	if err := s.poll.add(pidfd, s.monitorDied); err != nil {
		s.c.Log.Error("the monitor cannot be watched", "err", err)
	}
	s.silence()
}

// silence looks at the beats when they are next due.
func (s *shadow) silence() {
	m := s.mon
	left := s.c.Silence - time.Since(m.beat)
	if left <= 0 {
		m.hung = true
		s.killMonitor("it has not beaten for " + s.c.Silence.String())
		return
	}
	s.poll.after(left, m, s.silence)
}

func (s *shadow) killMonitor(why string) {
	if s.mon.pidfd < 0 {
		return
	}
	s.c.Log.Warn("killing the monitor", "pid", s.mon.pid, "why", why)
	if err := unix.PidfdSendSignal(s.mon.pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		s.c.Log.Error("killing the monitor", "err", err)
	}
}

// monitorDied is called when the monitor's pidfd says so. What it ordered before
// its death is carried out: it is in the journal already.
func (s *shadow) monitorDied() {
	m := s.mon
	if m.pidfd < 0 || !dead(m.pidfd) {
		return
	}
	s.drain()
	st, ok, err := spawn.ExitStatus(m.pidfd, true)
	if err != nil || !ok {
		st.Unknown, st.Code = true, -1
		st.After, st.Before = s.life.last(), clock.Now()
	}
	s.poll.del(m.pidfd)
	unix.Close(m.pidfd)
	s.poll.cancel(m)
	s.link.down()
	m.died(proc.Report{Kind: proc.ReportMonitor, PID: m.pid, At: clock.Now(), Status: st, Hung: m.hung})
	m.pidfd, m.pid = -1, 0
	if s.end != nil && s.end.quit != nil {
		s.finish(*s.end.quit)
		return
	}
	s.c.Log.Warn("the monitor died", "status", st.String(), "hung", m.hung)
	if time.Since(m.began) > longLife {
		m.tries = 0
	}
	s.againMonitor()
}

func (m *monitor) died(r proc.Report) {
	// The last few are enough to tell; a monitor that never comes up must not fill
	// the memory.
	if len(m.deaths) >= 16 {
		m.deaths = m.deaths[1:]
	}
	m.deaths = append(m.deaths, r)
}

// againMonitor starts the next monitor: at once, then after growing delays.
func (s *shadow) againMonitor() {
	m := s.mon
	delays := [...]time.Duration{0, 500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second}
	d := 30 * time.Second
	if m.tries < len(delays) {
		d = delays[m.tries]
	}
	m.tries++
	s.poll.after(d, m, s.startMonitor)
}

// listen is called when the socket to the monitor has something, or takes
// something.
func (s *shadow) listen() {
	s.link.flush()
	s.drain()
}

// drain carries out every order that is there.
func (s *shadow) drain() {
	for s.link.up && s.done == nil {
		m, err := s.link.take()
		switch {
		case errors.Is(err, unix.EAGAIN):
			return
		case err != nil:
			s.link.down()
			if !errors.Is(err, io.EOF) {
				s.c.Log.Error("the monitor is not understood", "err", err)
			}
			// It closed its end, or is about to be found dead. One that lives on
			// without it is of no use.
			if s.mon.pidfd >= 0 && !dead(s.mon.pidfd) && (s.end == nil || s.end.quit == nil) {
				s.poll.after(time.Second, s.mon, func() { s.killMonitor("it closed its socket") })
			}
			return
		}
		s.mon.beat = time.Now()
		s.order(m)
	}
}

func without(env []string, names ...string) []string {
	out := make([]string, 0, len(env))
next:
	for _, e := range env {
		for _, n := range names {
			if strings.HasPrefix(e, n+"=") {
				continue next
			}
		}
		out = append(out, e)
	}
	return out
}
