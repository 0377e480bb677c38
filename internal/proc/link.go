package proc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"gemel/internal/ha"
)

// LinkConfig is what a Link needs.
//
//budget:fields configuration
type LinkConfig struct {
	DataDir, RunDir string
	PairFD          int    // the socket to the shadow that started this monitor; -1: none
	Version         string // of this binary
	// Shadow is the command that starts a new shadow; it finds this monitor by
	// itself. Empty: none is started, one is only waited for.
	Shadow []string
	// Else takes its place at each third attempt in a row: the version before, in the
	// middle of an upgrade. Empty: there is none.
	Else []string
	// Patience is how long a service manager is given to start the new shadow
	// before this monitor does. Zero: it does at once. Under a service manager it
	// is 2 s.
	Patience time.Duration
	// Silence is how long a shadow may leave beats unanswered before it is killed.
	// Zero: 10 s.
	Silence time.Duration
	Log     *slog.Logger
}

// Managed reports whether a service manager started this process and would start
// it again.
func Managed() bool {
	return os.Getenv("NOTIFY_SOCKET") != "" || os.Getenv("INVOCATION_ID") != ""
}

// Link holds the monitor to its shadow, and to the next one when that dies. It
// holds the monitor's lock, listens for a new shadow, tells the exits of the time
// without one from the kernel's record, and gives the new one everything the old
// one had: programs, descriptors, specs, standing and unanswered orders. Its
// user sees one stream of reports.
type Link struct {
	c       LinkConfig
	lock    *Lock
	listen  *net.UnixListener
	reports chan Report
	dialed  chan *net.UnixConn
	book    *book

	mu     sync.Mutex
	client *Client // nil while there is no shadow
	queue  []parcel
	ending bool // OrderDetach or OrderQuit was sent: the end is the end
	synced bool // the user was told everything once
	closed bool
	pulse

	started
	enough chan struct{} // closed when the end was ordered
}

// started are the shadows that Run started.
type started struct {
	pids  []int // not reaped yet
	tries int   // since one said hello
}

// pulse is the life sign of the shadow.
type pulse struct {
	pid   int       // 0: there is none
	asked time.Time // when a beat was sent last
	heard time.Time // when the shadow said something last
}

// queueMost bounds the orders that wait for a shadow and are not part of its
// state: signals, upgrades.
const queueMost = 4096

// NewLink takes the monitor's lock and the pair socket and opens the listening
// socket. A *HeldError says that another monitor lives.
func NewLink(c LinkConfig) (*Link, error) {
	if c.Silence == 0 {
		c.Silence = 10 * time.Second
	}
	lock, err := TakeLock(filepath.Join(c.DataDir, MonitorLock), 5*time.Second)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(c.RunDir, MonitorSocket)
	// The lock says that whoever bound it is gone.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		lock.Close()
		return nil, fmt.Errorf("removing the socket of the monitor before: %w", err)
	}
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("listening for a new shadow: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		lock.Close()
		return nil, fmt.Errorf("protecting the socket for a new shadow: %w", err)
	}
	l := &Link{
		c: c, lock: lock, listen: ln, book: newBook(),
		reports: make(chan Report, 64), dialed: make(chan *net.UnixConn),
		enough: make(chan struct{}),
	}
	if c.PairFD >= 0 {
		if err := l.attach(c.PairFD, false); err != nil {
			// It died since it started this process: another one will come.
			c.Log.Warn("the shadow that started this monitor is gone", "err", err)
		}
	}
	return l, nil
}

// Reports is the stream of everything shadows tell, with ReportShadowDied and
// ReportShadowBack between one and the next. It is closed when Run returns.
func (l *Link) Reports() <-chan Report { return l.reports }

// Held are the living programs; see Client.Held.
func (l *Link) Held() map[ha.StartID]Holding { return l.book.living() }

// Shadow is the pid of the present shadow; 0 while there is none.
func (l *Link) Shadow() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pid
}

// Send gives an order to the present shadow, or notes it for the next one. It
// never waits. Descriptors are duplicated.
func (l *Link) Send(o Order, fds ...int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return ErrGone
	case o.Kind == OrderDetach || o.Kind == OrderQuit:
		if !l.ending {
			l.ending = true
			defer close(l.enough)
		}
	case o.Kind == OrderBeat:
		l.asked = time.Now()
	}
	if l.client != nil {
		err := l.client.Send(o, fds...)
		if err == nil || !errors.Is(err, ErrGone) {
			return err
		}
	} else {
		l.book.ordered(o, fds)
	}
	switch o.Kind {
	case OrderBeat, OrderAck, OrderHello:
		return nil // of no use to a shadow that comes later
	case OrderSpec, OrderForget, OrderStart, OrderArm, OrderStop, OrderKeep, OrderDrop, OrderRights, OrderThere:
		return nil // in the book: the next shadow is given it
	}
	if len(l.queue) >= queueMost {
		return fmt.Errorf("order %s: there is no shadow, and %d orders wait for one", o.Kind, queueMost)
	}
	dup, err := duplicate(fds)
	if err != nil {
		return err
	}
	l.queue = append(l.queue, parcel{o, dup})
	return nil
}

// Run tells reports until ctx ends, or until OrderDetach or OrderQuit is given to
// the shadow, which then waits for the end of this process. What was sent before
// the return of Run was written, if the shadow took it within a second.
func (l *Link) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() {
		cancel()
		l.listen.Close()
		wg.Wait()
		l.shut()
		close(l.reports)
	}()
	wg.Go(func() { l.accept(ctx) })
	for {
		if c := l.current(); c != nil {
			l.follow(ctx, c)
			if ctx.Err() != nil || l.over() {
				return nil
			}
		}
		l.bridge(ctx)
		if ctx.Err() != nil || l.over() {
			return nil
		}
	}
}

func (l *Link) current() *Client {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.client
}

func (l *Link) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ending
}

func (l *Link) shut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.client != nil {
		l.client.flush(time.Second)
		l.client.Close()
		l.client = nil
	}
	for _, p := range l.queue {
		p.drop()
	}
	l.queue = nil
	l.lock.Close()
}
