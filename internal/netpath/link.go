package netpath

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gemel/internal/clock"
	"gemel/internal/ha"
)

const (
	// deadAfter is how long a network may let nothing go and nothing in before its
	// socket is made anew; three intervals, if those are longer.
	deadAfter = time.Second
	// openAtMost bounds the time between two tries to open a socket.
	openAtMost = time.Second
	// logEach is how often a network says in the log what it refuses or cannot send.
	logEach = time.Minute
)

// A table is what a link needs of the configuration. It is replaced as a whole.
type table struct {
	network  Network
	interval time.Duration
	payload  func([]byte) []byte
	news     func()
	dscp     int
	head     head // of what we send; session and number are filled in
	targets  []*target
	bySource map[netip.AddrPort]*target
}

// A target is a peer with the keys of both directions.
type target struct {
	path *path
	addr netip.AddrPort
	tag  tag
	out  seal
	in   []seal
}

func newTable(cfg Config, n Network, b *book) (*table, error) {
	t := &table{
		network: n, interval: cfg.Interval, payload: cfg.Payload, news: cfg.News, dscp: cfg.DSCP, bySource: map[netip.AddrPort]*target{},
		head: head{
			key: cfg.Keys[0].ID, cluster: tagOf("cluster", cfg.Cluster, ""),
			network: tagOf("network", cfg.Cluster, n.Name), sender: tagOf("node", cfg.Cluster, string(cfg.Node)),
		},
	}
	for _, p := range n.Peers {
		to := &target{addr: p.Addr, tag: tagOf("node", cfg.Cluster, string(p.Node))}
		for i, k := range cfg.Keys {
			in, err := newSeal(k, direction{cfg.Cluster, n.Name, string(p.Node), string(cfg.Node)})
			if err != nil {
				return nil, err
			}
			to.in = append(to.in, in)
			if i > 0 {
				continue
			}
			if to.out, err = newSeal(k, direction{cfg.Cluster, n.Name, string(cfg.Node), string(p.Node)}); err != nil {
				return nil, err
			}
		}
		t.targets = append(t.targets, to)
		t.bySource[zoneless(p.Addr)] = to
	}
	for i, p := range n.Peers { // last: a table that fails leaves the book as it was
		t.targets[i].path = b.path(route{n.Name, p.Node})
	}
	return t, nil
}

// zoneless takes the interface off a link-local address: the socket is bound to
// one, so that nothing comes from any other.
func zoneless(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().WithZone(""), a.Port())
}

// A link is this node's end of one network. Its loop owns the socket.
type link struct {
	s     *Station
	name  string
	table atomic.Pointer[table]
	loop  loop

	received atomic.Uint64
	refused  [refusals]atomic.Uint64
	soon     atomic.Bool // a heartbeat is due at once

	mu    sync.Mutex
	known Link // but for what is counted above
	bell  wire // loop.w while it is open, for stop
}

// A loop is what only the loop of a link touches.
type loop struct {
	w      wire
	dead   bool          // w is no good any more
	worked ha.Instant    // when something last went out or came in
	retry  ha.Instant    // when a socket may be opened
	pause  time.Duration // from then to the next try

	in, out, said []byte
	told          told
}

func newLink(s *Station, name string) *link {
	return &link{s: s, name: name, known: Link{Network: name}, loop: loop{in: make([]byte, maxSize+1)}}
}

// run sends in each interval, hears in between, and keeps the socket.
func (l *link) run(ctx context.Context, alarm clock.Alarm) {
	defer l.shut()
	now := l.s.clk.Now()
	for next := l.s.began; ctx.Err() == nil; {
		if l.soon.Swap(false) && now < next {
			next = now
		}
		switch {
		case now >= next:
			next = l.beat(next, now)
			now = l.s.clk.Now()
		case l.loop.w != nil:
			now = l.hear(next, now)
		default:
			alarm.Set(next)
			select {
			case <-ctx.Done():
			case <-alarm.C():
			}
			now = l.s.clk.Now()
		}
	}
}

// stop ends a wait of the loop.
func (l *link) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bell != nil {
		l.bell.wake()
	}
}

// hurry makes a heartbeat due at once.
func (l *link) hurry() {
	l.soon.Store(true)
	l.stop()
}

// beat does what is due in each interval, and returns when the next one is due.
func (l *link) beat(due, now ha.Instant) ha.Instant {
	t := l.table.Load()
	if late := now.Sub(due); late > t.interval {
		l.s.stalled(now, late)
	}
	l.keep(t, now)
	if l.loop.w != nil {
		l.round(t, now)
	}
	l.tell(now)
	return l.s.after(now, t.interval)
}

// keep opens the socket if there is none, and makes a dead one anew. A network
// that only lets nothing pass keeps its socket while anything comes in.
func (l *link) keep(t *table, now ha.Instant) {
	idle := now.Sub(l.loop.worked) > max(deadAfter, 3*t.interval) && len(t.targets) > 0
	if l.loop.w != nil && (l.loop.dead || idle) && now >= l.loop.retry {
		l.shut()
	}
	if l.loop.w != nil || now < l.loop.retry {
		return
	}
	l.loop.pause = min(max(2*l.loop.pause, t.interval), openAtMost)
	l.loop.retry = now.Add(l.loop.pause)
	w, err := l.s.open(t.network, t.dscp)
	if err != nil {
		l.fail(err, now)
		return
	}
	l.loop.w, l.loop.dead, l.loop.worked = w, false, now
	l.mu.Lock()
	l.known.Open, l.bell = now, w
	l.known.Opens++
	l.mu.Unlock()
}

func (l *link) shut() {
	if l.loop.w == nil {
		return
	}
	l.mu.Lock()
	l.known.Open, l.bell = 0, nil
	l.mu.Unlock()
	if err := l.loop.w.close(); err != nil {
		l.fail(fmt.Errorf("closing the socket of network %s: %w", l.name, err), l.s.clk.Now())
	}
	l.loop.w = nil
}

// round sends one datagram to each peer.
func (l *link) round(t *table, now ha.Instant) {
	l.loop.said = l.loop.said[:0]
	if t.payload != nil {
		l.loop.said = t.payload(l.loop.said)
	}
	if n := len(l.loop.said); n > MaxPayload {
		l.fail(fmt.Errorf("a payload of %d bytes is not sent: at most %d are carried", n, MaxPayload), now)
		l.loop.said = l.loop.said[:0]
	}
	for _, to := range t.targets {
		h := t.head
		var m body
		h.session, h.seq, m = l.s.next(to.path)
		m.payload = l.loop.said
		l.loop.out = pack(l.loop.out[:0], h, m, to.out)
		if err := l.loop.w.write(l.loop.out, to.addr); err != nil {
			l.fail(fmt.Errorf("sending to %s at %v: %w", to.path.heard.Node, to.addr, err), now)
			if !passing(err) {
				l.loop.dead = true
			}
			continue
		}
		l.loop.worked, l.loop.pause = now, 0
	}
}

// hear waits for one datagram until due, and returns the present.
func (l *link) hear(due, now ha.Instant) ha.Instant {
	n, from, err := l.loop.w.read(l.loop.in, due, now)
	at := l.s.clk.Now() // before anything else: it is the observation
	switch {
	case errors.Is(err, errNothing):
		return at
	case err != nil:
		// Its socket is dead: nothing is read from it again before keep has looked.
		l.fail(fmt.Errorf("hearing on network %s: %w", l.name, err), at)
		l.shut()
		return at
	}
	l.received.Add(1)
	l.loop.worked = at
	if r := l.judge(l.loop.in[:n], from, at); r != accepted {
		l.refused[r].Add(1)
	}
	return at
}

// judge decides whether a datagram counts. What is cheap to refuse is refused
// first, and no refusal costs memory.
func (l *link) judge(b []byte, from netip.AddrPort, at ha.Instant) refusal {
	h, r := readHead(b)
	if r != accepted {
		return r
	}
	t := l.table.Load()
	switch {
	case h.cluster != t.head.cluster:
		return refusedCluster
	case h.network != t.head.network:
		return refusedNetwork
	case h.sender == t.head.sender:
		return refusedReflected
	}
	who := t.bySource[zoneless(from)]
	if who == nil || who.tag != h.sender {
		return refusedStranger
	}
	for _, in := range who.in {
		if in.key != h.key {
			continue
		}
		m, r := open(b, in)
		if r != accepted {
			return r
		}
		l.s.mu.Lock()
		news := !bytes.Equal(m.payload, who.path.heard.Payload)
		r = l.s.book.admit(who.path, h, m, at)
		l.s.mu.Unlock() // no defer: in a loop it costs memory
		if news && r == accepted && t.news != nil {
			t.news()
		}
		return r
	}
	return refusedKey
}

func (l *link) fail(err error, at ha.Instant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known.Failed++
	l.known.Failing, l.known.err = at, err
}

func (l *link) state() Link {
	l.mu.Lock()
	out := l.known
	l.mu.Unlock()
	if out.err != nil {
		out.Error = out.err.Error()
	}
	out.Received = l.received.Load()
	out.Refused = map[string]uint64{}
	for r := range l.refused {
		if n := l.refused[r].Load(); n != 0 {
			out.Refused[refusal(r).String()] = n
		}
	}
	return out
}

// told is what the log has.
type told struct {
	after   ha.Instant // not before
	refused [refusals]uint64
	failed  uint64
}

// tell logs what was refused and what failed since the last time, at most once a
// minute: a flood of datagrams is not made one of lines.
func (l *link) tell(now ha.Instant) {
	if now < l.loop.told.after {
		return
	}
	for r := range l.refused {
		n := l.refused[r].Load()
		more := n - l.loop.told.refused[r]
		// What may be a recording is what every start looks like; Heard has it.
		if more == 0 || refusal(r) == refusedUnproven {
			continue
		}
		l.loop.told.refused[r], l.loop.told.after = n, now.Add(logEach)
		l.s.log.Warn("heartbeats were refused", "network", l.name, "reason", refusal(r).String(), "count", more)
	}
	l.mu.Lock()
	failed, err := l.known.Failed, l.known.err
	l.mu.Unlock()
	if more := failed - l.loop.told.failed; more != 0 {
		l.loop.told.failed, l.loop.told.after = failed, now.Add(logEach)
		l.s.log.Warn("heartbeats could not be sent or heard", "network", l.name, "count", more, "error", err)
	}
}
