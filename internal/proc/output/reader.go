package output

import (
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
	"gemel/internal/manifest"
)

// Config is what a Reader needs.
type Config struct {
	RunDir string // the pipes are in out/ below it
	LogDir string // NAME.log for each process; older ones have .1, .2 ... added
	Log    *slog.Logger
	// Dropped is told of output that was lost, at most once in ten seconds for
	// each process; nil if nobody wants to know. Lines counts the line ends that
	// are missing. It is called by Run and must not wait.
	Dropped func(p ha.Process, lines, bytes int64)
}

// Reader reads the pipes of all processes, in one goroutine with one buffer, and
// writes their logs. A process that prints nothing costs it two descriptors and a
// few hundred bytes.
type Reader struct {
	c    Config
	ep   int
	wake int // eventfd: there are wishes
	buf  []byte

	sources map[int32]*source // by descriptor of the pipe
	names   map[ha.Process]*source

	mu     sync.Mutex
	wishes []func()
	ended  bool
}

// New makes a Reader; Run must be called, and gives everything back.
func New(c Config) (*Reader, error) {
	if err := os.MkdirAll(c.LogDir, 0o700); err != nil {
		return nil, fmt.Errorf("making the directory of logs: %w", err)
	}
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("reading output: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(ep)
		return nil, fmt.Errorf("reading output: %w", err)
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wake)}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, wake, &ev); err != nil {
		unix.Close(ep)
		unix.Close(wake)
		return nil, fmt.Errorf("reading output: %w", err)
	}
	return &Reader{
		c: c, ep: ep, wake: wake, buf: make([]byte, 64<<10),
		sources: map[int32]*source{}, names: map[ha.Process]*source{},
	}, nil
}

// Open begins to read what a process prints, or changes its bounds: zero means 10
// MiB for each of 5 files, the present one counted, and no bound of the rate. The
// pipe is made if need be: a program that has it open already goes on.
func (r *Reader) Open(p ha.Process, b manifest.Output) error {
	if b.Size <= 0 {
		b.Size = 10 << 20
	}
	if b.Keep <= 0 {
		b.Keep = 5
	}
	fd, err := openPipe(r.c.RunDir, p, -1, unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	ok := r.wish(func() { r.add(p, fd, b) })
	if !ok {
		unix.Close(fd)
		return errors.New("reading output: the reader has ended")
	}
	return nil
}

// Path is the present log file of a process.
func (r *Reader) Path(p ha.Process) string { return LogPath(r.c.LogDir, p) }

// Close reads what is left in the pipe of a process, then forgets it and removes
// the pipe. The logs stay.
func (r *Reader) Close(p ha.Process) {
	r.wish(func() {
		s := r.names[p]
		if s == nil {
			return
		}
		// What a program left behind may still write, and faster than is read.
		for n := 0; n < pipeSize && r.read(s); n += len(r.buf) {
		}
		r.drop(s)
		_ = os.Remove(filepath.Join(r.c.RunDir, "out", string(p))) // it may be gone
	})
}

func (r *Reader) wish(do func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return false
	}
	r.wishes = append(r.wishes, do)
	_, _ = unix.Write(r.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	return true
}

// Run reads until ctx ends. What is in the pipes then stays there for the next
// reader.
func (r *Reader) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { r.wish(func() {}) })
	defer stop()
	defer r.shut()
	events := make([]unix.EpollEvent, 64)
	for {
		n, err := unix.EpollWait(r.ep, events, r.patience())
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("reading output: %w", err)
		}
		for _, ev := range events[:max(n, 0)] {
			if ev.Fd == int32(r.wake) {
				r.grant()
			} else if s := r.sources[ev.Fd]; s != nil {
				r.read(s)
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		r.tellDropped(time.Now(), false)
	}
}

// patience is how long there is nothing to do but read, in milliseconds.
func (r *Reader) patience() int {
	for _, s := range r.sources {
		if s.lost > 0 {
			return 500
		}
	}
	return -1
}

func (r *Reader) grant() {
	var b [8]byte
	_, _ = unix.Read(r.wake, b[:])
	r.mu.Lock()
	wishes := r.wishes
	r.wishes = nil
	r.mu.Unlock()
	for _, do := range wishes {
		do()
	}
}

func (r *Reader) add(p ha.Process, fd int, b manifest.Output) {
	if s := r.names[p]; s != nil {
		s.bounds = b
		unix.Close(fd)
		return
	}
	s := &source{process: p, fd: int32(fd), log: -1, bounds: b, path: LogPath(r.c.LogDir, p)}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	if err := unix.EpollCtl(r.ep, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		r.c.Log.Error("the output of a process cannot be read", "process", p, "err", err)
		unix.Close(fd)
		return
	}
	r.sources[s.fd], r.names[p] = s, s
}

// read takes what one pipe has, up to one buffer; it reports whether there was
// anything.
func (r *Reader) read(s *source) bool {
	n, err := unix.Read(int(s.fd), r.buf)
	if err != nil || n <= 0 {
		return false
	}
	s.write(r.buf[:n], time.Now())
	return true
}

// tellDropped tells of bursts that are over, and of long ones now and then.
func (r *Reader) tellDropped(now time.Time, all bool) {
	for _, s := range r.sources {
		if s.lost == 0 || !all && now.Sub(s.last) < time.Second && now.Sub(s.first) < 10*time.Second {
			continue
		}
		lines, lost := s.lines, s.lost
		s.note(now)
		if r.c.Dropped != nil {
			r.c.Dropped(s.process, lines, lost)
		}
	}
}

func (r *Reader) drop(s *source) {
	_ = unix.EpollCtl(r.ep, unix.EPOLL_CTL_DEL, int(s.fd), nil) // closing does the same
	delete(r.sources, s.fd)
	delete(r.names, s.process)
	unix.Close(int(s.fd))
	s.closeLog()
}

func (r *Reader) shut() {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	// Wishes that came last may own descriptors.
	r.grant()
	r.tellDropped(time.Now(), true)
	for _, s := range r.sources {
		r.drop(s)
	}
	unix.Close(r.ep)
	unix.Close(r.wake)
}
