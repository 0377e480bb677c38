package member

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gemel/internal/store"
	"gemel/internal/tcp"
)

const (
	frameSize = 32 << 10
	stagger   = 60 * time.Millisecond // between two attempts over different networks
	reachTime = time.Second           // for one attempt, handshake included
	quietTime = 10 * time.Second      // between two entries of the log about one address
	beats     = 3                     // looks, and signs of life to who has called, in the time that is still
	deadAfter = 10                    // times still: a connection is dead without another network as well
)

// A wire carries what the voters say to each other. etcd speaks to sockets in a
// directory of ours, one for each voter, and the wire goes on from there: over any
// network that works, under TLS with the role that we want. etcd itself would need
// more than a minute to leave a network that died without a word (decision 0151),
// and cannot compare a URI name.
//
// On the way are frames, a length of two bytes and so much data. An empty one says
// that the other end lives. When it is silent, whoever has called it tries another
// network, and leaves this one only if it is answered there first: a machine that
// stands still for a moment is silent everywhere, and to call it again would only
// give it more to do.
type wire struct {
	m     Member
	log   *slog.Logger
	still time.Duration // who is silent for longer is looked for over another network
	near  net.Dialer

	mu    sync.Mutex
	at    map[string][]string     // addresses by voter
	first map[string]int          // which of them to try first
	doors map[string]net.Listener // by voter
	open  map[net.Conn]bool
	told  map[string]time.Time // when a refusal was last written down, by its text, address and reason
	lines map[*line]bool
	shut  bool
	done  chan struct{}
	work  sync.WaitGroup
}

// door is the name of a voter's socket, below the directory of this process.
func door(name string) string { return strings.TrimPrefix(store.PeerURL(name), "unix://") }

func doorsDir(dir string) string { return filepath.Clean(dir) + ".peers" }

// newWire listens for the other voters, and for etcd. It changes the directory of
// the process: the names of the sockets are relative to it.
func newWire(m Member, log *slog.Logger) (*wire, error) {
	dir := doorsDir(m.Dir)
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700), os.Chdir(dir)); err != nil {
		return nil, fmt.Errorf("making room for the sockets between voters: %w", err)
	}
	w := &wire{
		m: m, log: log, still: max(m.Election*3/4, 150*time.Millisecond),
		first: map[string]int{}, doors: map[string]net.Listener{}, open: map[net.Conn]bool{},
		told: map[string]time.Time{}, lines: map[*line]bool{}, done: make(chan struct{}),
	}
	w.work.Go(w.pulse)
	for _, at := range m.Listen {
		host, port, err := splitAddr(at)
		if err != nil {
			return nil, errors.Join(err, w.close())
		}
		l, err := tcp.Listen(net.JoinHostPort(host, port))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listening for the other voters: %w", err), w.close())
		}
		w.mu.Lock()
		w.doors[at] = l
		w.mu.Unlock()
		w.accept(l, w.arrived)
	}
	if err := w.move(m.Cluster); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// move tells where the voters are from now on.
func (w *wire) move(cluster map[string][]string) error {
	at := map[string][]string{}
	for name, all := range cluster {
		for _, a := range all {
			host, port, err := splitAddr(a)
			if err != nil {
				return fmt.Errorf("voter %s: %w", name, err)
			}
			at[name] = append(at[name], net.JoinHostPort(host, port))
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = at
	for name := range at {
		if name == w.m.Name || w.doors[door(name)] != nil {
			continue
		}
		l, err := net.Listen("unix", door(name))
		if err != nil {
			return fmt.Errorf("the socket for voter %s: %w", name, err)
		}
		w.doors[door(name)] = l
		w.accept(l, func(c net.Conn) { w.leave(c, name) })
	}
	return nil
}

func (w *wire) accept(l net.Listener, do func(net.Conn)) {
	w.work.Go(func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				time.Sleep(50 * time.Millisecond) // no descriptor is free
				continue
			}
			if w.keep(c) {
				w.work.Go(func() {
					defer w.drop(c)
					do(c)
				})
			}
		}
	})
}

// keep notes a connection, so that the end of the wire ends it.
func (w *wire) keep(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.shut {
		_ = c.Close()
		return false
	}
	w.open[c] = true
	return true
}

func (w *wire) drop(c net.Conn) {
	_ = c.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, c)
}

// close ends the wire, and returns when nothing of it runs.
func (w *wire) close() error {
	w.mu.Lock()
	if !w.shut {
		close(w.done)
	}
	w.shut = true
	for _, l := range w.doors {
		_ = l.Close()
	}
	for c := range w.open {
		_ = c.Close()
	}
	w.mu.Unlock()
	w.work.Wait()
	return nil
}

// arrived takes a connection of another voter to our etcd.
func (w *wire) arrived(c net.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), reachTime)
	defer cancel()
	far, err := greet(ctx, w.m.TLS, c, w.knows)
	if err != nil {
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		w.tell("a connection to the store was refused", host, err)
		return
	}
	near, err := w.near.DialContext(ctx, "unix", door(w.m.Name))
	if err != nil || !w.keep(near) {
		return // etcd is not up yet, or not any more
	}
	defer w.drop(near)
	w.splice(far, near, nil)
}

// knows reports whether there is another voter of that name.
func (w *wire) knows(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return name != w.m.Name && w.at[name] != nil
}

// tell writes a refusal down, if that was not done a moment ago.
func (w *wire) tell(what, at string, err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	// A connection that broke off, which has other words each time, hides no refusal.
	key := what + at
	if op := new(net.OpError); !errors.As(err, &op) || remote(err) {
		key += err.Error()
	}
	if last, ok := w.told[key]; ok && time.Since(last) < quietTime {
		return
	}
	if len(w.told) > 100 {
		clear(w.told)
	}
	w.told[key] = time.Now()
	w.log.Warn(what, "at", at, "error", err)
}

// leave takes a connection of our etcd to another voter.
func (w *wire) leave(near net.Conn, name string) {
	far, by, err := w.reach(name, -1)
	if err != nil {
		w.log.Debug("a voter is not reached", "voter", name, "error", err)
		return
	}
	if !w.keep(far) {
		return
	}
	defer w.drop(far)
	w.splice(far, near, func() bool {
		c, _, err := w.reach(name, by) // the next connection begins with this network
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// reach connects to a voter over the network that answers first, beginning with the
// one that did the last time. but is one that is left out; -1: none.
func (w *wire) reach(name string, but int) (net.Conn, int, error) {
	w.mu.Lock()
	all := w.at[name]
	var order []int
	for n := range all {
		if by := (w.first[name] + n) % len(all); by != but {
			order = append(order, by)
		}
	}
	w.mu.Unlock()
	if len(order) == 0 {
		return nil, 0, fmt.Errorf("no other address of voter %s is known", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), reachTime)
	defer cancel()
	type result struct {
		c   net.Conn
		by  int
		err error
	}
	results := make(chan result, len(order))
	try := func(n int) {
		by := order[n]
		go func() {
			c, err := w.dial(ctx, all[by], name)
			results <- result{c, by, err}
		}()
	}
	var errs []error
	tried, failed := 1, 0
	try(0)
	next := time.NewTimer(stagger)
	defer next.Stop()
	for {
		select {
		case <-next.C:
		case r := <-results:
			if r.err == nil {
				left := tried - failed - 1
				go func() { // those that come too late
					for range left {
						if r := <-results; r.c != nil {
							_ = r.c.Close()
						}
					}
				}()
				w.mu.Lock()
				w.first[name] = r.by
				w.mu.Unlock()
				return r.c, r.by, nil
			}
			errs = append(errs, r.err)
			if failed++; failed == len(order) {
				return nil, 0, errors.Join(errs...)
			}
		}
		if tried < len(order) {
			try(tried)
			tried++
			next.Reset(stagger)
		}
	}
}

func (w *wire) dial(ctx context.Context, at, name string) (net.Conn, error) {
	c, err := tcp.Dialer{}.Dial(ctx, at)
	if err != nil {
		return nil, err
	}
	far, err := call(ctx, w.m.TLS, c, name)
	if err != nil {
		_ = c.Close()
		w.tell("a voter could not be called", at, err)
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	return far, nil
}

// splice carries data both ways until one end is closed. other tries another
// network, and says whether it works; nil: it is not for us to do.
func (w *wire) splice(far, near net.Conn, other func() bool) {
	l := &line{far: far, near: near, still: w.still, pulse: make(chan bool, 1), done: make(chan struct{})}
	l.heard.Store(time.Now().UnixNano())
	w.mu.Lock()
	w.lines[l] = true
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.lines, l)
	}()
	var all sync.WaitGroup
	all.Go(func() {
		defer close(l.done)
		l.send()
		_ = far.Close()
	})
	all.Go(func() {
		l.watch(other)
		_ = far.Close()
	})
	// With TLS 1.3 a caller learns only here that it was not let in.
	if err := l.receive(); remote(err) {
		w.tell("a voter does not let us in", far.RemoteAddr().String(), err)
	}
	_ = near.Close()
	all.Wait()
}

// pulse has all lines look at once. Each by a clock of its own would wake this process
// and the others' a hundred times a second, which costs more than what is done then.
func (w *wire) pulse() {
	t := time.NewTicker(w.still / beats)
	defer t.Stop()
	for n := 1; ; n++ {
		select {
		case <-w.done:
			return
		case <-t.C:
		}
		w.mu.Lock()
		for l := range w.lines {
			select {
			case l.pulse <- n%beats == 0:
			default: // it is still writing
			}
		}
		w.mu.Unlock()
	}
}

// A line is one connection between two voters.
type line struct {
	far, near net.Conn
	still     time.Duration
	pulse     chan bool     // that it is time to look; true: each beats-th time
	done      chan struct{} // closed when nothing is sent any more
	heard     atomic.Int64  // when the far end was last heard, in nanoseconds
	sent      atomic.Bool   // something, since watch has looked
	writing   sync.Mutex
}

func (l *line) write(frame []byte) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.far.SetWriteDeadline(time.Now().Add(deadAfter * l.still)); err != nil {
		return err
	}
	_, err := l.far.Write(frame)
	l.sent.Store(true)
	return err
}

// send carries data from the near end to the far one.
func (l *line) send() {
	frame := make([]byte, 2+frameSize)
	for {
		n, err := l.near.Read(frame[2:])
		if n > 0 {
			binary.BigEndian.PutUint16(frame, uint16(n))
			if l.write(frame[:2+n]) != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// receive carries data from the far end to the near one.
func (l *line) receive() error {
	frame := make([]byte, frameSize)
	for {
		if _, err := io.ReadFull(l.far, frame[:2]); err != nil {
			return err
		}
		l.heard.Store(time.Now().UnixNano())
		n := int(binary.BigEndian.Uint16(frame))
		if n > frameSize {
			return fmt.Errorf("a frame of %d bytes", n)
		}
		if _, err := io.ReadFull(l.far, frame[:n]); err != nil {
			return err
		}
		if _, err := l.near.Write(frame[:n]); err != nil {
			return err
		}
	}
}

// remote reports whether the other end has said why it ends.
func remote(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// watch says to the far end that we live, and returns when it does not. Only who has
// called can go over to another network: the other end gives up late, and is told of
// us seldom.
func (l *line) watch(other func() bool) {
	var better chan bool // of an attempt that runs
	var since int64      // what was heard last when it began
	last := time.Now()
	for {
		whole := false
		select {
		case <-l.done:
			return
		case ok := <-better:
			better = nil
			if ok && l.heard.Load() == since {
				return // it is answered there, and here is silence still
			}
			continue
		case whole = <-l.pulse:
		}
		if whole || other == nil {
			if !l.sent.Swap(false) && l.write([]byte{0, 0}) != nil {
				return
			}
			l.sent.Store(false) // what was said just now is no data
		}
		now := time.Now()
		late := now.Sub(last) > l.still/2 // we have stood still ourselves, and heard nobody
		last = now
		heard := l.heard.Load()
		silent := now.Sub(time.Unix(0, heard))
		switch {
		case silent > deadAfter*l.still:
			return
		case silent > l.still && !late && other != nil && better == nil:
			answer := make(chan bool, 1)
			better, since = answer, heard
			go func() { answer <- other() }() // bounded by reachTime
		}
	}
}
