// Package attach finds programs that Gemel did not start and holds them: by pid
// file, by exact command line, or by systemd unit. A program is looked for when
// the core asks, and from then on held by its pidfd: its end is known at once,
// with its true exit status where the kernel tells it (Linux 6.15 and later).
package attach

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// Ways are what a Holder uses of the rest of the house. All are needed.
type Ways struct {
	Tell func(ha.Input) // must not wait for the Holder
	Now  func() ha.Instant
	// Exit reads the status of a program that ended from its pidfd; known is false
	// if the kernel may tell it later.
	Exit func(pidfd int) (st ha.ExitStatus, known bool)
	// Run runs a command to its end and lets go on what it started. It returns early
	// when Close is about to be called.
	Run func(argv, env []string, timeout time.Duration) error
	Log *slog.Logger
}

// Holder finds programs and holds them. Its methods may be called from any
// goroutine and return at once.
type Holder struct {
	w      Ways
	finder finder
	found  time.Duration // see foundBound
	wait   sync.WaitGroup

	mu   sync.Mutex
	jobs map[ha.Process]*job
	shut bool
}

// job is one start of a process: it is looked for, then held.
type job struct {
	start ha.StartID
	file  *os.File      // pidfd; nil: not found yet
	gone  chan struct{} // closed when it is gone or let go
	stop  *stop         // wanted before it was found
}

const (
	// killBound is how long a program may take to vanish after SIGKILL.
	killBound = 5 * time.Second
	// startBound is how long a start command may take.
	startBound = time.Minute
	// foundBound is how long after its start command a program may take until it is
	// found, and foundEvery how often it is looked for.
	foundBound = 5 * time.Second
	foundEvery = 50 * time.Millisecond
	// reapBound is how long the status of a program is waited for that is dead and
	// whose parent did not take it yet.
	reapBound = time.Second
)

// New makes a Holder; Close gives back what it holds.
func New(w Ways) *Holder {
	return &Holder{w: w, finder: finder{proc: "/proc", cgroups: "/sys/fs/cgroup"}, found: foundBound, jobs: make(map[ha.Process]*job)}
}

// Close lets everything go and waits for what the Holder started.
func (h *Holder) Close() {
	h.mu.Lock()
	h.shut = true
	for name := range h.jobs {
		h.drop(name)
	}
	h.mu.Unlock()
	h.wait.Wait()
}

// Release lets go of the program of a process, which runs on.
func (h *Holder) Release(name ha.Process) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(name)
}

// drop ends the job of a process. It is called with mu held.
func (h *Holder) drop(name ha.Process) {
	j := h.jobs[name]
	if j == nil {
		return
	}
	delete(h.jobs, name)
	close(j.gone)
	if j.file != nil {
		_ = j.file.Close()
	}
}

// begin makes a job that takes the place of any other of the process, and runs f.
func (h *Holder) begin(name ha.Process, start ha.StartID, f func(*job)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.shut {
		return
	}
	h.drop(name)
	j := &job{start: start, gone: make(chan struct{})}
	h.jobs[name] = j
	h.wait.Go(func() { f(j) })
}

// Seek looks for the program of p and says Adopted or NotFound.
func (h *Holder) Seek(s ha.Seek, p manifest.Process) {
	h.begin(p.Name, s.Start, func(j *job) { h.seek(j, p, 0) })
}

// Launch runs the start command of p, and then seeks its program. A command that
// fails is told as StartFailed.
func (h *Holder) Launch(a ha.Start, p manifest.Process) {
	h.begin(p.Name, a.Start, func(j *job) {
		if len(p.Attach.Start) > 0 {
			if err := h.w.Run(p.Attach.Start, nil, startBound); err != nil {
				if mine, _ := h.miss(j, p.Name); mine {
					h.w.Tell(ha.StartFailed{Process: p.Name, Start: j.start, Error: "the start command: " + err.Error()})
				}
				return
			}
		}
		h.seek(j, p, h.found)
	})
}

// find looks for the program until it is found, patience is over or it is let go.
func (h *Holder) find(j *job, rule manifest.Attach, patience time.Duration) (*os.File, found, error) {
	over := time.NewTimer(patience)
	defer over.Stop()
	again := time.NewTicker(foundEvery)
	defer again.Stop()
	for {
		file, who, err := h.finder.open(rule)
		if err == nil || patience == 0 {
			return file, who, err
		}
		select {
		case <-again.C:
		case <-over.C:
			patience = 0
		case <-j.gone:
			patience = 0
		}
	}
}

// seek finds the program and holds it to its end.
func (h *Holder) seek(j *job, p manifest.Process, patience time.Duration) {
	file, who, err := h.find(j, p.Attach, patience)
	if err != nil {
		switch mine, stopped := h.miss(j, p.Name); {
		case stopped:
			h.w.Tell(ha.StartFailed{Process: p.Name, Start: j.start, Error: err.Error()})
		case mine:
			h.w.Tell(ha.NotFound{Process: p.Name, Detail: err.Error()})
		}
		return
	}
	h.mu.Lock()
	if h.jobs[p.Name] != j {
		h.mu.Unlock()
		_ = file.Close()
		return
	}
	j.file = file
	stop := j.stop
	h.mu.Unlock()
	h.w.Tell(ha.Adopted{Process: p.Name, Start: j.start, PID: who.pid, Age: who.began, Foreign: true})
	if stop != nil {
		h.wait.Go(func() { h.stop(j, *stop) })
	}
	h.await(j, p.Name, file)
}

// miss ends a job that found nothing, or whose program is gone. It reports whether
// nobody else did before, and if so, whether a stop was wanted that nobody began.
func (h *Holder) miss(j *job, name ha.Process) (mine, stopped bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.jobs[name] != j {
		return false, false
	}
	h.drop(name)
	return true, j.stop != nil
}

// await blocks in the netpoller, not in a thread, until the program is gone, and
// tells its end.
func (h *Holder) await(j *job, name ha.Process, file *os.File) {
	conn, err := file.SyscallConn()
	if err != nil {
		return // let go
	}
	var status ha.ExitStatus
	var known, dead bool
	ask := func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		if dead = dead || err == nil && n > 0 && p[0].Revents&unix.POLLIN != 0; dead {
			status, known = h.w.Exit(int(fd))
		}
		return dead
	}
	err = conn.Read(ask)
	if err == nil && !known {
		// Its parent has not taken it: the kernel wakes us when it does.
		_ = file.SetReadDeadline(time.Now().Add(reapBound))
		err = conn.Read(func(fd uintptr) bool { ask(fd); return known })
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil
		}
	}
	if err != nil {
		return // let go
	}
	if mine, _ := h.miss(j, name); !mine {
		return
	}
	if !known {
		now := h.w.Now()
		status = ha.ExitStatus{Code: -1, Unknown: true, After: now, Before: now}
	}
	h.w.Tell(ha.Exited{Process: name, Start: j.start, Status: status})
}

// stop is a two-stage stop.
type stop struct {
	order  ha.Stop
	signal unix.Signal
	grace  time.Duration
	ask    []string // run instead of the signal
}

// Stop stops a program in two stages: the signal or the stop command, and after
// the grace SIGKILL. Its end is told as Exited, or StopFailed if it is still
// there. A start that is still being looked for is stopped when it is found.
func (h *Holder) Stop(a ha.Stop, p manifest.Process) {
	s := stop{a, unix.Signal(p.Stop.Signal), p.Stop.Grace, p.Stop.Command}
	h.mu.Lock()
	defer h.mu.Unlock()
	j := h.jobs[a.Process]
	switch {
	case j == nil || j.start != a.Start || h.shut:
		// It is gone already: its Exited, or that it was not found, is on the way.
	case j.file == nil:
		j.stop = &s
	default:
		h.wait.Go(func() { h.stop(j, s) })
	}
}

func (h *Holder) stop(j *job, s stop) {
	if !s.order.Kill {
		err := errors.New("there is no stop command")
		if len(s.ask) > 0 {
			err = h.askToStop(j, s)
		}
		if err != nil && !h.signal(j, s, s.signal) {
			return
		}
		if h.left(j, s.grace) {
			return
		}
	}
	if h.signal(j, s, unix.SIGKILL) && !h.left(j, killBound) {
		h.w.Tell(ha.StopFailed{Process: s.order.Process, Start: j.start, Detail: fmt.Sprintf("still there %s after SIGKILL", ha.Span(killBound))})
	}
}

// askToStop runs the stop command.
func (h *Holder) askToStop(j *job, s stop) error {
	pid, err := h.finder.pid(j.file)
	if err != nil {
		return err
	}
	err = h.w.Run(s.ask, []string{fmt.Sprintf("MAINPID=%d", pid)}, max(s.grace, time.Second))
	if err != nil {
		h.w.Log.Warn("the stop command failed; the stop signal is sent instead", "process", s.order.Process, "error", err)
	}
	return err
}

// left waits until the program is gone, or let go; false if it is still there
// after bound.
func (h *Holder) left(j *job, bound time.Duration) bool {
	timer := time.NewTimer(bound)
	defer timer.Stop()
	select {
	case <-j.gone:
		return true
	case <-timer.C:
		return false
	}
}

// signal sends a signal to a held program, and tells if that is not allowed. A
// pidfd cannot hit a stranger.
func (h *Holder) signal(j *job, s stop, sig unix.Signal) bool {
	err := error(unix.ESRCH)
	h.mu.Lock()
	if h.jobs[s.order.Process] == j {
		err = send(j.file, sig)
	}
	h.mu.Unlock()
	if err == nil || errors.Is(err, unix.ESRCH) {
		return true // or gone already: its Exited is on the way
	}
	h.w.Tell(ha.StopFailed{Process: s.order.Process, Start: j.start, Detail: fmt.Sprintf("signal %d (%s): %v", int(sig), ha.SignalName(int(sig)), err)})
	return false
}

// send signals the program of a pidfd.
func send(file *os.File, sig unix.Signal) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	cerr := conn.Control(func(fd uintptr) {
		err = unix.PidfdSendSignal(int(fd), sig, nil, 0)
		if err == nil && sig != unix.SIGKILL {
			// A stopped program cannot end before it is continued.
			_ = unix.PidfdSendSignal(int(fd), unix.SIGCONT, nil, 0)
		}
	})
	return errors.Join(cerr, err)
}
