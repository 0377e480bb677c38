package beat

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
)

// A Watcher hears the programs of one node. One goroutine, that of Run, waits on
// all sockets and looks at all pages; the other methods may be called from any
// goroutine. They never call out, so that they may be called with locks held and
// while out is blocked.
type Watcher struct {
	// Member reports whether pid belongs to a start, as by its cgroup. It is asked
	// about senders that are not of the program's user, and about MAINPID=. It must
	// not call the watcher. Nil: nobody else belongs. Set before Run.
	Member func(pid int, start ha.StartID) bool

	runDir string
	now    func() ha.Instant
	out    func(ha.Input)
	err    error // of New, told by Run and Open

	mu sync.Mutex
	hearing
}

// ThreadHeard tells when one source was last heard.
type ThreadHeard struct {
	Name string // of the thread; "" for sd_notify and a watchdog command
	TID  int    // kernel's thread id; zero if it is not known
	At   ha.Instant
}

// New makes a watcher with its sockets and pages under runDir. It tells the core
// Ready, Stopping, Busy and Missed through out, which may block.
func New(runDir string, now func() ha.Instant, out func(ha.Input), log *slog.Logger) *Watcher {
	w := &Watcher{runDir: runDir, now: now, out: out}
	w.hearing = hearing{log: log, rest: longRest, procs: map[ha.Process]*proc{}, socks: map[int32]*proc{}, mail: newMailbox()}
	w.member = func(pid int, start ha.StartID) bool { return w.Member != nil && w.Member(pid, start) }
	w.poll, w.err = newPoller()
	return w
}

// SocketPath is the NOTIFY_SOCKET of a process under a run directory.
func SocketPath(runDir string, p ha.Process) string {
	return filepath.Join(runDir, "notify", string(p)+".sock")
}

// PagePath is the GEMEL_BEAT_PAGE of a process under a run directory.
func PagePath(runDir string, p ha.Process) string {
	return filepath.Join(runDir, "beats", string(p))
}

// Open makes what a process beats through: the notify socket, the beat page, or
// both; the user with uid and gid (-1: the daemon's own) may write to them and
// nobody else. What was opened or adopted before stays open, and a page that is
// there goes on being used. It returns a copy of the socket's descriptor for the
// shadow to keep; the caller closes it.
func (w *Watcher) Open(p ha.Process, uid, gid int, notify, page bool) (fds []*os.File, err error) {
	if w.err != nil {
		return nil, w.err
	}
	name, err := fileName(p)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.proc(p)
	e.uid = uid
	if uid < 0 {
		e.uid = os.Geteuid()
	}
	if page && e.page == nil {
		dir := filepath.Join(w.runDir, "beats")
		if err := passable(dir); err != nil {
			return nil, fmt.Errorf("directory of beat pages: %w", err)
		}
		if e.page, err = openPage(filepath.Join(dir, name), uid, gid); err != nil {
			return nil, fmt.Errorf("process %s: %w", p, err)
		}
	}
	if notify {
		if e.sock < 0 {
			if err := w.bind(e, w.runDir, uid, gid); err != nil {
				return nil, fmt.Errorf("process %s: %w", p, err)
			}
		}
		dup, err := unix.FcntlInt(uintptr(e.sock), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, fmt.Errorf("process %s: copying its notify socket: %w", p, err)
		}
		fds = append(fds, os.NewFile(uintptr(dup), SocketPath(w.runDir, p)))
	}
	w.schedule(e, w.now())
	return fds, nil
}

// Adopt goes on with a notify socket that the shadow kept over the end of a
// monitor: what programs sent in between is still in it. The file is the
// watcher's from now on. Open for the same process must follow.
func (w *Watcher) Adopt(p ha.Process, notify *os.File) {
	defer notify.Close()
	if w.err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.proc(p)
	if e.sock >= 0 {
		return
	}
	fd, err := unix.FcntlInt(notify.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err == nil {
		err = listen(fd)
	}
	if err == nil {
		err = w.listen(e, fd)
	}
	if err != nil {
		// Open makes a new one in its place.
		w.log.Warn("kept notify socket cannot be used", "process", p, "error", err)
	}
}

// Close ends the watching of a process and removes its socket and its page.
func (w *Watcher) Close(p ha.Process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.procs[p]
	if e == nil {
		return
	}
	delete(w.procs, p)
	if e.index >= 0 {
		heap.Remove(&w.due, e.index)
	}
	if name, err := fileName(p); err == nil {
		if e.sock >= 0 {
			w.remove(filepath.Join(w.runDir, "notify", name+".sock"))
		}
		if e.page != nil {
			w.remove(filepath.Join(w.runDir, "beats", name))
		}
	}
	w.release(e)
}

// Began tells that a start of a process runs as pid: what was heard of the start
// before it counts no more, and what the new one sent before this call does.
func (w *Watcher) Began(p ha.Process, start ha.StartID, pid int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.proc(p)
	if start < e.start {
		return
	}
	if start > e.start {
		w.setEager(e, true)
	}
	e.begin(start, pid)
	now := w.now()
	for _, h := range e.takeHeld() {
		w.take(e, h, now)
	}
	w.schedule(e, now)
	w.hurry(e)
}

// Watch carries out an order of the core: from its instant From on, a source that
// is silent for Within is told as Missed, once. Within zero ends the watch.
func (w *Watcher) Watch(a ha.Watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.proc(a.Process)
	if a.Start < e.start {
		return // of a start that is over
	}
	if a.Start != e.start {
		e.begin(a.Start, 0)
	}
	// A silence from before the order is nobody's: the program may have beaten to a
	// monitor that is gone.
	now := w.now()
	e.watch = watch{from: max(a.From, now), within: a.Within}
	if a.Within > 0 {
		// A beat counts from when it is read: that is late by little of what is allowed.
		w.rest = max(min(w.rest, a.Within/8), shortRest)
	}
	w.schedule(e, now)
	w.hurry(e)
}

// Pulse is a beat by other means: a watchdog command that ended well.
func (w *Watcher) Pulse(p ha.Process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.procs[p]; e != nil {
		e.beat = w.now()
	}
}

// Threads returns how many sources beat: threads on the page, and one for
// sd_notify.
func (w *Watcher) Threads(p ha.Process) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.procs[p]
	if e == nil {
		return 0
	}
	n := 0
	if e.page != nil {
		// A process without a watchdog is never sampled: look now.
		w.sample(e, w.now())
		n = e.page.live
	}
	if e.beat != 0 {
		n++
	}
	return n
}

// Status returns the last STATUS= text of the running start.
func (w *Watcher) Status(p ha.Process) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.procs[p]; e != nil {
		return e.status
	}
	return ""
}

// Heard returns when each source of the running start was last heard.
func (w *Watcher) Heard(p ha.Process) []ThreadHeard {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.procs[p]
	if e == nil {
		return nil
	}
	var all []ThreadHeard
	if e.beat != 0 {
		all = append(all, ThreadHeard{At: e.beat})
	}
	if e.page == nil {
		return all
	}
	slots := w.sample(e, w.now())
	for i, s := range e.page.seen {
		if s.live {
			name, tid := slotName(slots, i)
			all = append(all, ThreadHeard{name, tid, s.at})
		}
	}
	return all
}

// Run listens and watches until ctx ends. Sockets and pages stay where they are:
// the programs go on, and so does the next monitor. Run may be called once.
func (w *Watcher) Run(ctx context.Context) error {
	if w.err != nil {
		return w.err
	}
	stop := context.AfterFunc(ctx, w.poll.stop)
	defer stop()
	var err error
	for ctx.Err() == nil && err == nil {
		err = w.turn(ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.procs {
		w.release(e)
	}
	w.err = errors.New("beat: the watcher has ended")
	if cerr := w.poll.close(); err == nil || ctx.Err() != nil {
		err = cerr
	}
	return err
}

// turn waits for something to do, does it, and tells it.
func (w *Watcher) turn(ctx context.Context) error {
	w.mu.Lock()
	wait := time.Duration(-1)
	if len(w.due) > 0 {
		wait = max(w.due[0].due.Sub(w.now()), 0)
	}
	rest := w.rest
	w.mu.Unlock()
	ready, err := w.poll.wait(wait, rest)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("waiting for notifications: %w", err)
	}
	w.mu.Lock()
	now := w.now()
	for _, ev := range ready {
		if e := w.socks[ev.Fd]; e != nil {
			w.read(e, now)
		}
	}
	for len(w.due) > 0 && w.due[0].due <= now {
		w.judge(w.due[0], now)
	}
	said := w.said
	w.said = nil
	w.mu.Unlock()
	for _, in := range said {
		w.out(in)
	}
	return nil
}
