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
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// Holder finds programs and holds them. Its methods may be called from any
// goroutine.
type Holder struct {
	out  func(ha.Input)
	now  func() ha.Instant
	exit func(pidfd int) ha.ExitStatus
	log  *slog.Logger
	root string // "/proc", elsewhere in tests
	unit string // the cgroup file system with systemd's units

	mu   sync.Mutex
	held map[ha.Process]held
	shut bool
	wait sync.WaitGroup
}

type held struct {
	start ha.StartID
	pid   int
	file  *os.File
	end   chan struct{} // closed when it is gone or let go
}

// killBound is how long a program may take to vanish after SIGKILL.
const killBound = 5 * time.Second

// New makes a Holder. exit reads the status of a program that ended from its
// pidfd.
func New(out func(ha.Input), now func() ha.Instant, exit func(int) ha.ExitStatus, log *slog.Logger) *Holder {
	return &Holder{out: out, now: now, exit: exit, log: log, root: "/proc", unit: "/sys/fs/cgroup",
		held: make(map[ha.Process]held)}
}

// Close lets everything go and waits for what the Holder started.
func (h *Holder) Close() {
	h.mu.Lock()
	h.shut = true
	for _, x := range h.held {
		_ = x.file.Close()
	}
	h.held = make(map[ha.Process]held)
	h.mu.Unlock()
	h.wait.Wait()
}

// Seek looks for the program of p and says Adopted or NotFound. A program that
// is held already is said again.
func (h *Holder) Seek(s ha.Seek, p manifest.Process) {
	h.wait.Go(func() {
		pid, err := h.find(p.Attach)
		if err != nil {
			h.out(ha.NotFound{Process: p.Name, Detail: err.Error()})
			return
		}
		if err := h.hold(p.Name, s.Start, pid, p.Attach); err != nil {
			h.out(ha.NotFound{Process: p.Name, Detail: err.Error()})
		}
	})
}

// hold opens the pidfd, looks again whether it is still the right program (the
// pid may have been given to another one in between), and waits for its end.
func (h *Holder) hold(name ha.Process, start ha.StartID, pid int, rule manifest.Attach) error {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("holding pid %d: %w", pid, err)
	}
	file := os.NewFile(uintptr(fd), "pidfd")
	if again, err := h.find(rule); err != nil || again != pid {
		_ = file.Close()
		return fmt.Errorf("pid %d changed hands while it was looked at", pid)
	}
	h.mu.Lock()
	if h.shut {
		h.mu.Unlock()
		return file.Close()
	}
	if old, ok := h.held[name]; ok {
		_ = old.file.Close()
	}
	end := make(chan struct{})
	h.held[name] = held{start, pid, file, end}
	h.mu.Unlock()
	h.out(ha.Adopted{Process: name, Start: start, PID: pid, Age: h.now(), Foreign: true})
	h.wait.Go(func() {
		defer close(end)
		h.await(name, start, file)
	})
	return nil
}

// await blocks in the netpoller, not in a thread, until the program is gone.
func (h *Holder) await(name ha.Process, start ha.StartID, file *os.File) {
	conn, err := file.SyscallConn()
	if err != nil {
		return
	}
	var status ha.ExitStatus
	err = conn.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		if err != nil || n == 0 || p[0].Revents&unix.POLLIN == 0 {
			return false
		}
		status = h.exit(int(fd))
		return true
	})
	h.mu.Lock()
	x, ok := h.held[name]
	mine := ok && x.file == file && !h.shut
	if mine {
		delete(h.held, name)
	}
	h.mu.Unlock()
	if err != nil || !mine {
		return // let go
	}
	_ = file.Close()
	h.out(ha.Exited{Process: name, Start: start, Status: status})
}

// Stop stops a held program in two stages: the signal, and after the grace
// SIGKILL. Its end is told as Exited, or StopFailed if it is still there.
func (h *Holder) Stop(s ha.Stop, p manifest.Process) {
	h.wait.Go(func() {
		if !s.Kill {
			if ok, err := h.signal(s.Process, s.Start, unix.Signal(p.Stop.Signal)); !ok || err != nil {
				return // gone already: its Exited is on the way
			}
			if h.gone(s, p.Stop.Grace) {
				return
			}
		}
		if ok, err := h.signal(s.Process, s.Start, unix.SIGKILL); !ok || err != nil {
			return
		}
		if !h.gone(s, killBound) {
			h.out(ha.StopFailed{Process: s.Process, Start: s.Start, Detail: "still there 5 s after SIGKILL"})
		}
	})
}

// gone waits until the program is gone; false if it is still there after bound.
func (h *Holder) gone(s ha.Stop, bound time.Duration) bool {
	timer := time.NewTimer(bound)
	defer timer.Stop()
	h.mu.Lock()
	x, ok := h.held[s.Process]
	h.mu.Unlock()
	if !ok || x.start != s.Start {
		return true
	}
	select {
	case <-x.end:
		return true
	case <-timer.C:
		return false
	}
}

// signal sends a signal to a held program; ok is false if it is not held.
func (h *Holder) signal(name ha.Process, start ha.StartID, sig unix.Signal) (ok bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x, ok := h.held[name]
	if !ok || x.start != start {
		return false, nil
	}
	return true, unix.PidfdSendSignal(int(x.file.Fd()), sig, nil, 0)
}

func (h *Holder) find(a manifest.Attach) (int, error) {
	switch {
	case a.PIDFile != "":
		return h.byPIDFile(a.PIDFile)
	case a.Unit != "":
		return h.byUnit(a.Unit)
	}
	return h.byCommandLine(a.CommandLine)
}

func (h *Holder) byPIDFile(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("reading the pid file: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("the pid file %s holds no pid", path)
	}
	if _, err := os.Stat(filepath.Join(h.root, strconv.Itoa(pid))); err != nil {
		return 0, fmt.Errorf("the pid file %s names pid %d, which does not run", path, pid)
	}
	return pid, nil
}

// byCommandLine finds the one process whose arguments are exactly those of the
// line. Two matches are refused: there would be no telling which is meant.
func (h *Holder) byCommandLine(line string) (int, error) {
	want, err := Split(line)
	if err != nil {
		return 0, err
	}
	match := strings.Join(want, "\x00") + "\x00"
	dirs, err := os.ReadDir(h.root)
	if err != nil {
		return 0, fmt.Errorf("looking through the processes: %w", err)
	}
	found := 0
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(h.root, d.Name(), "cmdline"))
		if err != nil || string(b) != match {
			continue
		}
		if found != 0 && h.parent(pid) == found {
			continue // a worker of the one that was found
		}
		if found != 0 && h.parent(found) != pid {
			return 0, fmt.Errorf("pids %d and %d both have the command line %q", found, pid, line)
		}
		found = pid
	}
	if found == 0 {
		return 0, fmt.Errorf("no process has the command line %q", line)
	}
	return found, nil
}

// byUnit finds the main process of a systemd unit: the one of its cgroup whose
// parent is outside of it.
func (h *Holder) byUnit(unit string) (int, error) {
	if !strings.Contains(unit, ".") {
		unit += ".service"
	}
	for _, slice := range []string{"system.slice", "unified/system.slice", "systemd/system.slice"} {
		b, err := os.ReadFile(filepath.Join(h.unit, slice, unit, "cgroup.procs"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("looking into unit %s: %w", unit, err)
		}
		members := make(map[int]bool)
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				members[pid] = true
			}
		}
		main := 0
		for pid := range members {
			if !members[h.parent(pid)] && (main == 0 || pid < main) {
				main = pid
			}
		}
		if main == 0 {
			return 0, fmt.Errorf("unit %s has no process", unit)
		}
		return main, nil
	}
	return 0, fmt.Errorf("there is no unit %s on this machine", unit)
}

// parent returns the parent's pid, or 0.
func (h *Holder) parent(pid int) int {
	b, err := os.ReadFile(filepath.Join(h.root, strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	// The name in parentheses may hold anything, also ") 1 ": the last one ends it.
	_, rest, ok := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	if !ok {
		return 0
	}
	if f := strings.Fields(rest); len(f) > 1 {
		ppid, _ := strconv.Atoi(f[1])
		return ppid
	}
	return 0
}

// Split splits a command line at spaces; double quotes hold an argument with
// spaces together (the CMM's rule).
func Split(line string) ([]string, error) {
	var args []string
	var b strings.Builder
	in, quoted := false, false
	for _, r := range line {
		switch {
		case r == '"':
			quoted, in = !quoted, true
		case r == ' ' && !quoted:
			if in {
				args = append(args, b.String())
				b.Reset()
			}
			in = false
		default:
			b.WriteRune(r)
			in = true
		}
	}
	if quoted {
		return nil, fmt.Errorf("the command line %q has a quote that does not end", line)
	}
	if in {
		args = append(args, b.String())
	}
	if len(args) == 0 {
		return nil, errors.New("the command line is empty")
	}
	return args, nil
}
