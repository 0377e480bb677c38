package proc

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
)

// ErrGone says that the shadow at the other end of a Client is gone.
var ErrGone = errors.New("the shadow is gone")

// Client is the monitor's end of one socket to one shadow. What it learns about
// living programs is in its book, which outlives it: see Link, which goes on
// from one shadow to the next and is what a daemon uses.
type Client struct {
	log     *slog.Logger
	file    *os.File
	book    *book
	reports chan Report
	wake    chan struct{} // capacity 1: something waits to be written
	gone    chan struct{} // closed when the socket is at its end
	stop    chan struct{} // closed by Close
	once    sync.Once
	wg      sync.WaitGroup

	mu  sync.Mutex
	out *Sender // nil once gone

	at *other
}

// other is what a Link knows of the shadow at the other end.
type other struct {
	pid, pidfd int
	inherit    bool     // it is a new shadow of a monitor that knows its programs
	next       bool     // there was another one before
	greeted    bool     // it said hello
	hung       bool     // it was killed for silence
	early      []Report // of a new shadow, before its hello
	word       string   // names our hello, and comes back in the answer
}

// NewClient takes fd over, one end of a SEQPACKET pair, and begins to read. Say
// OrderHello first.
func NewClient(fd int, log *slog.Logger) (*Client, error) {
	return newClient(fd, newBook(), log)
}

func newClient(fd int, b *book, log *slog.Logger) (*Client, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("socket to the shadow (descriptor %d): %w", fd, err)
	}
	unix.CloseOnExec(fd)
	// Larger buffers only spare wake-ups; without the right to have them nothing
	// is lost.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20)
	c := &Client{
		log: log, file: os.NewFile(uintptr(fd), "shadow"), book: b,
		reports: make(chan Report, 64), wake: make(chan struct{}, 1),
		gone: make(chan struct{}), stop: make(chan struct{}),
		out: NewSender(fd),
	}
	rc, err := c.file.SyscallConn()
	if err != nil {
		c.file.Close()
		return nil, fmt.Errorf("socket to the shadow: %w", err)
	}
	c.wg.Go(func() { c.read(rc.Read) })
	c.wg.Go(func() { c.write(rc.Write) })
	return c, nil
}

// Send gives an order. It never waits for the shadow: what the socket does not
// take at once is written later, in order. Descriptors are duplicated; the
// caller's stay the caller's. The error is ErrGone when the shadow is gone.
func (c *Client) Send(o Order, fds ...int) error {
	dup, err := duplicate(fds)
	if err != nil {
		return err
	}
	c.book.ordered(o, fds)
	return c.pass(parcel{o, dup})
}

// pass sends what is in the book already, and takes its descriptors over.
func (c *Client) pass(p parcel) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out == nil {
		p.drop()
		return ErrGone
	}
	if err := c.out.Put(p.order, p.fds); err != nil {
		if errors.Is(err, ErrFull) {
			return err
		}
		return fmt.Errorf("order %s: %w: %w", p.order.Kind, ErrGone, err)
	}
	if len(c.out.waiting) > 0 {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// Reports are what the shadow tells, in order. The channel is closed when the
// shadow is gone and everything it said was read.
func (c *Client) Reports() <-chan Report { return c.reports }

// Held are the living programs, with a pidfd of each that stays the Client's and
// is closed when the exit was reported.
func (c *Client) Held() map[ha.StartID]Holding { return c.book.living() }

// Exits asks the kernel which of the held programs have ended, after the shadow
// is gone: one report for each, as the shadow would have told it. Asked again, it
// tells those that ended since.
func (c *Client) Exits() []Report { return c.book.exits() }

// flush waits until everything was written, at most d.
func (c *Client) flush(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Millisecond) {
		c.mu.Lock()
		done := c.out == nil || len(c.out.waiting) == 0
		c.mu.Unlock()
		if done {
			return
		}
	}
}

// Close ends the reading and waits for it.
func (c *Client) Close() {
	c.once.Do(func() { close(c.stop) })
	c.file.Close()
	c.wg.Wait()
}

func (c *Client) write(wait func(func(uintptr) bool) error) {
	for {
		select {
		case <-c.wake:
		case <-c.gone:
			return
		case <-c.stop:
			return
		}
		// An error means that the file is closed; read sees the same.
		_ = wait(func(uintptr) bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.out == nil {
				return true
			}
			pending, err := c.out.Flush()
			return !pending || err != nil
		})
	}
}

func (c *Client) read(wait func(func(uintptr) bool) error) {
	defer close(c.reports)
	defer func() {
		close(c.gone)
		c.mu.Lock()
		c.out.Drop()
		c.out = nil
		c.mu.Unlock()
	}()
	in := NewReceiver()
	for {
		var m Message
		var err error
		werr := wait(func(fd uintptr) bool {
			m, err = in.Take(int(fd))
			return !errors.Is(err, unix.EAGAIN)
		})
		if werr != nil {
			return
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				c.log.Warn("reading from the shadow", "err", err)
			}
			return
		}
		if m.Short {
			c.log.Warn("descriptors from the shadow were lost: this process has too many open")
		}
		if m.Child != nil {
			c.book.child(m.Child, m.FDs)
			continue
		}
		var r Report
		if err := json.Unmarshal(m.JSON, &r); err != nil {
			closeAll(m.FDs)
			c.log.Error("a report of the shadow cannot be read", "err", err)
			continue
		}
		r.FDs = c.book.told(&r, m.FDs)
		select {
		case c.reports <- r:
		case <-c.stop:
			return
		}
	}
}

// Holding is a living program as the monitor holds it.
type Holding struct {
	Process ha.Process
	PID     int
	PIDFD   int        // -1 if the kernel has none, or none could be had
	Since   ha.Instant // when the monitor learned of it
}

// book is what the monitor knows of its programs and its unanswered orders:
// everything that a new shadow must be given. It belongs to a Link, or to the
// one Client.
type book struct {
	mu     sync.Mutex
	held   map[ha.StartID]*Holding
	names  map[ha.StartID]ha.Process // of starts that were ordered
	specs  map[ha.Process]*Spec
	arms   map[ha.StartID]*Order // by the start whose death they wait for
	starts map[ha.StartID]*Order // not answered yet
	stops  map[ha.StartID]*Order // not answered yet
	kept   map[string][]int
	ends   map[ha.StartID]Order // told from the kernel's record, not acknowledged yet
	rights *Order               // the last
	there  *Order               // the last
	alive  ha.Instant           // when exits were looked for last
}

func newBook() *book {
	return &book{
		held: map[ha.StartID]*Holding{}, names: map[ha.StartID]ha.Process{},
		specs: map[ha.Process]*Spec{}, arms: map[ha.StartID]*Order{},
		starts: map[ha.StartID]*Order{}, stops: map[ha.StartID]*Order{}, kept: map[string][]int{}, ends: map[ha.StartID]Order{},
	}
}

// ordered notes an order that goes out.
func (b *book) ordered(o Order, fds []int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch o.Kind {
	case OrderSpec:
		b.specs[o.Process] = o.Spec
	case OrderForget:
		delete(b.specs, o.Process)
	case OrderStart:
		b.starts[o.Start], b.names[o.Start] = &o, o.Process
	case OrderArm:
		if o.Next == 0 {
			// The name of the start that is not to be stays: the shadow may have
			// made it before it heard.
			delete(b.arms, o.Start)
			return
		}
		if b.held[o.Start] == nil && b.starts[o.Start] == nil {
			return // its end is on the way to the one who orders this
		}
		b.arms[o.Start], b.names[o.Next] = &o, o.Process
	case OrderStop:
		if b.held[o.Start] != nil || b.starts[o.Start] != nil {
			if old := b.stops[o.Start]; old != nil {
				o.Kill, o.At = o.Kill || old.Kill, max(o.At, old.At)
			}
			b.stops[o.Start] = &o
		}
	case OrderAck:
		delete(b.names, o.Start)
		delete(b.ends, o.Start)
	case OrderRights:
		b.rights = &o
	case OrderThere:
		b.there = &o
	case OrderKeep:
		closeAll(b.kept[o.Name])
		// Without a copy the next shadow is not given it; the present one has it.
		b.kept[o.Name], _ = duplicate(fds)
	case OrderDrop:
		closeAll(b.kept[o.Name])
		delete(b.kept, o.Name)
	}
}

// child notes the handover of a child that is about to exec.
func (b *book) child(raw []byte, fds []int) {
	start := ha.StartID(binary.NativeEndian.Uint64(raw))
	pid := int(binary.NativeEndian.Uint64(raw[8:]))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hold(start, b.names[start], pid, fds)
}

// told notes a report and returns the descriptors that go on with it.
func (b *book) told(r *Report, fds []int) []int {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch r.Kind {
	case ReportStarted, ReportRunning:
		r.news = b.held[r.Start] == nil
		delete(b.starts, r.Start)
		b.hold(r.Start, r.Process, r.PID, fds)
		if r.Kind == ReportRunning && r.Next != 0 {
			if _, ok := b.arms[r.Start]; !ok {
				b.arms[r.Start] = &Order{Kind: OrderArm, Process: r.Process, Start: r.Start, Next: r.Next}
			}
			b.names[r.Next] = r.Process
		}
		return nil
	case ReportFailed:
		delete(b.starts, r.Start)
		delete(b.names, r.Start)
		b.release(r.Start)
	case ReportExited:
		b.release(r.Start)
		delete(b.arms, r.Start)
		delete(b.stops, r.Start)
		delete(b.starts, r.Start)
		if r.Next != 0 {
			b.hold(r.Next, r.Process, r.PID, fds)
			return nil
		}
	case ReportKept:
		closeAll(b.kept[r.Name])
		b.kept[r.Name], _ = duplicate(fds)
		return fds
	}
	closeAll(fds)
	return nil
}

// hold keeps a living program; it takes fds over.
func (b *book) hold(start ha.StartID, p ha.Process, pid int, fds []int) {
	h := b.held[start]
	if h == nil {
		h = &Holding{PIDFD: -1, Since: clock.Now()}
		b.held[start] = h
	}
	h.PID = pid
	if p != "" {
		h.Process = p
	}
	if h.PIDFD < 0 && len(fds) > 0 {
		h.PIDFD, fds = fds[0], fds[1:]
	}
	closeAll(fds)
}

func (b *book) release(start ha.StartID) {
	if h := b.held[start]; h != nil {
		if h.PIDFD >= 0 {
			unix.Close(h.PIDFD)
		}
		delete(b.held, start)
	}
}

func (b *book) living() map[ha.StartID]Holding {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := make(map[ha.StartID]Holding, len(b.held))
	for id, h := range b.held {
		m[id] = *h
	}
	return m
}
