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
	of     *shadow
	pid    int
	pidfd  int // -1: none lives
	began  time.Time
	beat   time.Time // when it was heard last; its start counts
	fell   time.Time // when it was seen dead; zero while it lives
	ready  bool      // it beat, and the service manager was told
	hung   bool      // it was killed for silence
	greet  bool      // it said hello and is told everything
	tries  int       // starts since one lived for long
	asked  time.Time // since when a start waits for one that is none of ours
	deaths []proc.Report
}

// longLife is how long a monitor lives until its restarts are forgotten.
const longLife = 60 * time.Second

// start starts a monitor. It is called only when the one before is dead.
func (m *monitor) start() {
	s := m.of
	joined, wait, err := s.beside()
	if wait {
		s.poll.after(20*time.Millisecond, m, m.start)
		return
	}
	if err == nil && !joined {
		err = s.rights.plain(m.try)
	}
	if err != nil {
		s.c.Log.Error("the monitor could not be started", "err", err)
		m.died(proc.Report{Kind: proc.ReportMonitor, At: clock.Now(), Error: err.Error()})
		m.again()
	}
}

func (m *monitor) try() error {
	s := m.of
	path, err := exec.LookPath(s.c.Monitor[0])
	if err != nil {
		return err
	}
	sv, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("making the socket to the monitor: %w", err)
	}
	defer unix.Close(sv[1])
	if err := s.link.use(sv[0], m.listen); err != nil {
		return err
	}
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening /dev/null: %w", err)
	}
	defer unix.Close(null)
	pidfd := -1
	pid, err := syscall.ForkExec(proc.Image(path), s.c.Monitor, &syscall.ProcAttr{
		Env:   append(without(os.Environ(), stateEnv), proc.PairEnv+"=3"),
		Files: []uintptr{uintptr(null), 1, 2, uintptr(sv[1])},
		// In a process group of its own: Ctrl-C is for the shadow alone.
		Sys: &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd},
	})
	if err != nil {
		s.link.down()
		return fmt.Errorf("starting %s: %w", path, err)
	}
	m.hold(pid, pidfd)
	return nil
}

// hold begins the time of a living monitor; it takes pidfd over.
func (m *monitor) hold(pid, pidfd int) {
	s := m.of
	m.pid, m.pidfd = pid, pidfd
	m.began, m.beat = time.Now(), time.Now()
	m.hung, m.greet, m.fell = false, false, time.Time{}
	if err := s.poll.add(pidfd, m.gone); err != nil {
		s.c.Log.Error("the monitor cannot be watched", "err", err)
	}
	m.silence()
}

// silence looks at the beats when they are next due.
func (m *monitor) silence() {
	s := m.of
	left := s.c.Silence - time.Since(m.beat)
	if left <= 0 {
		m.hung = true
		m.kill("it has not beaten for " + s.c.Silence.String())
		return
	}
	s.poll.after(left, m, m.silence)
}

func (m *monitor) kill(why string) {
	s := m.of
	if m.pidfd < 0 {
		return
	}
	s.c.Log.Warn("killing the monitor", "pid", m.pid, "why", why)
	if err := unix.PidfdSendSignal(m.pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		s.c.Log.Error("killing the monitor", "err", err)
	}
}

// gone is called when the monitor's pidfd says so. What it ordered before
// its death is carried out: it is in the journal already.
func (m *monitor) gone() {
	s := m.of
	if m.pidfd < 0 || !dead(m.pidfd) {
		return
	}
	m.drain()
	st, ok, err := spawn.ExitStatus(m.pidfd, true)
	if m.fell.IsZero() {
		m.fell = time.Now()
	}
	if err == nil && !ok && time.Since(m.fell) < time.Second {
		// None of our children: how it ended is known when its parent has taken it.
		s.poll.del(m.pidfd)
		s.poll.after(2*time.Millisecond, m, m.gone)
		return
	}
	if err != nil || !ok {
		st.Unknown, st.Code = true, -1
		st.After, st.Before = s.life.last(), clock.Now()
	}
	s.poll.del(m.pidfd)
	unix.Close(m.pidfd)
	s.poll.cancel(m)
	clear(s.deferred) // the next one decides anew
	s.link.down()
	m.died(proc.Report{Kind: proc.ReportMonitor, PID: m.pid, At: clock.Now(), Status: st, Hung: m.hung})
	m.pidfd, m.pid = -1, 0
	if s.end != nil && s.end.quit != nil {
		s.finish(*s.end.quit)
		return
	}
	if s.c.First && !st.Unknown && st.Signal == 0 && st.Code > 0 {
		s.finish(st.Code)
		return
	}
	s.c.Log.Warn("the monitor died", "status", st.String(), "hung", m.hung)
	if time.Since(m.began) > longLife {
		m.tries = 0
	}
	m.again()
}

func (m *monitor) died(r proc.Report) {
	// The last few are enough to tell; a monitor that never comes up must not fill
	// the memory.
	if len(m.deaths) >= 16 {
		m.deaths = m.deaths[1:]
	}
	m.deaths = append(m.deaths, r)
}

// again starts the next monitor: at once, then after growing delays.
func (m *monitor) again() {
	s := m.of
	d := respite(m.tries, s.c.RealTime)
	m.tries++
	s.poll.after(d, m, func() {
		m.asked = time.Now()
		m.start()
	})
}

// respite is how long the next monitor waits after so many that did not live long. A node
// of a cluster without a monitor takes nothing over, and soon loses what it has: there the
// first few waits fit into a short authority, with the start and a read.
func respite(tries int, cluster bool) time.Duration {
	const ms = time.Millisecond
	delays, most := []time.Duration{0, 500 * ms, 1000 * ms, 2000 * ms, 4000 * ms, 8000 * ms, 16000 * ms}, 30*time.Second
	if cluster {
		delays, most = []time.Duration{0, 20 * ms, 50 * ms, 100 * ms, 100 * ms, 100 * ms, 100 * ms, 100 * ms}, 500*ms
	}
	if tries < len(delays) {
		return delays[tries]
	}
	return most
}

// listen is called when the socket to the monitor has something, or takes
// something.
func (m *monitor) listen() {
	s := m.of
	s.link.flush()
	m.drain()
}

// drain carries out every order that is there.
func (m *monitor) drain() {
	s := m.of
	s.tellAll()
	for s.link.up && s.done == nil {
		msg, err := s.link.take()
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
			if m.pidfd >= 0 && !dead(m.pidfd) && (s.end == nil || s.end.quit == nil) {
				s.poll.after(time.Second, m, func() { m.kill("it closed its socket") })
			}
			return
		}
		m.beat = time.Now()
		s.order(msg)
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
