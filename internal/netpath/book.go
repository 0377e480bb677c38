package netpath

import (
	"bytes"
	"time"

	"gemel/internal/ha"
)

// Heard is what was observed of one peer on one network. Instants are ours
// unless it says otherwise; zero is never.
//
//budget:fields it is a record of observations, each of which somebody judges by itself
type Heard struct {
	Network string
	Node    ha.Node

	// Last is when the newest datagram came. One that was overtaken does not
	// move it. What had to wait because this process stood still counts as come
	// when it was read: see Station.Stalled.
	Last ha.Instant
	// Alive is an instant at or after which the peer certainly lived: when we sent
	// what it echoed. Someone who holds datagrams back can make Last late, never
	// Alive. It needs both directions; Last needs only this one.
	Alive ha.Instant
	// Echoed is Alive as of when we knew it: the arrival of that echo. The way to
	// the peer worked if it is recent.
	Echoed ha.Instant
	// Unproven is when a datagram came that was sealed by this peer but may be a
	// recording, because it does not echo this session of ours. The first ones of
	// a peer are. If it goes on while Last does not, then the peer was started
	// anew and does not hear us.
	Unproven ha.Instant

	// Session is drawn anew by each start of the peer's heartbeats, and Since is
	// when we first heard it. Sessions counts them: two nodes that run under one
	// name make it grow for ever.
	Session  uint64
	Since    ha.Instant
	Sessions uint64

	// Clock is the peer's instant in the newest datagram.
	Clock ha.Instant
	Rate  Rate

	// Received and Lost count the datagrams of all sessions; one that comes late
	// is lost only until then.
	Received, Lost uint64
	// Sent counts ours to it, whether or not the machine let them go.
	Sent uint64

	// RTT is the last round trip, Smooth its mean and Jitter its mean deviation
	// (as TCP has them); zero: none yet. The time that the peer held our datagram
	// is taken off.
	RTT, Smooth, Jitter time.Duration

	// Payload is that of the newest datagram. It is not to be written to.
	Payload []byte
}

// A route names one path of a station. It outlives the path: see book.route.
type route struct {
	network string
	node    ha.Node
}

// A peer is what is true of a node on all networks.
type peer struct {
	session  uint64 // zero: none yet
	since    ha.Instant
	floor    ha.Instant // its clock in the datagram that proved the session
	sessions uint64
	paths    []*path
}

// A path is the way to and from one peer on one network.
type path struct {
	heard Heard
	peer  *peer
	seq   uint32 // of the newest that we sent
	sent  ha.Instant
	win   window
	rate  rater

	mine      arrival // the newest of the session that counts
	candidate arrival // the newest of any other
	rttSeq    uint32  // the newest of ours that was echoed in this session
}

// An arrival is a datagram that can be echoed.
type arrival struct {
	session uint64
	seq     uint32
	stamp   ha.Instant // its sender's
	at      ha.Instant // ours
}

// A book holds the sessions and the paths of a station. It knows no socket, no
// clock and no lock.
type book struct {
	session uint64
	peers   map[ha.Node]*peer
	routes  map[route]*path
}

func newBook(session uint64) *book {
	return &book{session: session, peers: map[ha.Node]*peer{}, routes: map[route]*path{}}
}

// path returns the path of a route, the same for ever: a peer that is taken out
// of the configuration and comes back must not find its sequence numbers begun
// anew, because they are the nonces of a key that is still the same.
func (b *book) path(r route) *path {
	if p := b.routes[r]; p != nil {
		return p
	}
	who := b.peers[r.node]
	if who == nil {
		who = &peer{}
		b.peers[r.node] = who
	}
	p := &path{peer: who, heard: Heard{Network: r.network, Node: r.node}}
	who.paths = append(who.paths, p)
	b.routes[r] = p
	return p
}

// exhausted reports that the sequence numbers of a path are used up, so that the
// next datagram needs a new session.
func (b *book) exhausted(p *path) bool { return p.seq == ^uint32(0) }

// restart begins a session of ours: all numbers count from one again.
func (b *book) restart(session uint64) {
	b.session = session
	for _, p := range b.routes {
		p.seq, p.rttSeq = 0, 0
	}
}

// next returns what the next datagram to a peer says.
func (b *book) next(p *path, now ha.Instant) (session uint64, seq uint32, m body) {
	p.seq++
	p.heard.Sent++
	// A session that does not count yet is echoed only while the one that counts
	// is silent: recordings cannot take the echo away from a peer that lives.
	a := p.mine
	if p.mine.at < p.sent && p.candidate.at > p.mine.at {
		a = p.candidate
	}
	p.sent = now
	m.stamp = now
	if a.session != 0 {
		m.echo = echo{a.session, a.seq, a.stamp, now.Sub(a.at)}
	}
	return b.session, p.seq, m
}

// admit judges a datagram that was opened with the key of a path, and notes it.
//
// A session counts from the first datagram on that echoes something that this
// session of ours sent, after the session that counted before was known: only
// who runs now can have got that. As a node runs once at a time, the older of two
// sessions can never pass; nothing has to be kept over a restart, no counter and
// no wall clock. On the peer's other networks the session counts as well, from
// the instant of the peer's clock that was proven.
func (b *book) admit(p *path, h head, m body, at ha.Instant) refusal {
	who := p.peer
	ours := m.echo.session == b.session && m.echo.seq != 0 && m.echo.stamp <= at
	switch {
	case h.session == 0:
		return refusedForged // no peer of ours draws it
	case h.session == who.session:
		if !ours && m.stamp < who.floor {
			return refusedUnproven
		}
	case !ours || who.session != 0 && m.echo.stamp <= who.since:
		p.candidate = arrival{h.session, h.seq, m.stamp, at}
		p.heard.Unproven = at
		return refusedUnproven
	default:
		who.begin(h.session, m.stamp, at)
	}
	ahead, ok := p.win.accept(h.seq)
	if !ok {
		return refusedReplayed
	}
	p.heard.Received++
	if ours {
		p.echoed(m, at)
	}
	if ahead == 0 {
		p.heard.Lost-- // it was counted when the newer one came
		return accepted
	}
	p.heard.Lost += uint64(ahead - 1)
	p.heard.Last, p.heard.Clock = at, m.stamp
	p.mine = arrival{h.session, h.seq, m.stamp, at}
	if !bytes.Equal(p.heard.Payload, m.payload) {
		p.heard.Payload = bytes.Clone(m.payload) // who has the old one may keep it
	}
	return accepted
}

// begin makes a session the one that counts, on all networks.
func (who *peer) begin(session uint64, stamp, at ha.Instant) {
	who.session, who.since, who.floor = session, at, stamp
	who.sessions++
	for _, p := range who.paths {
		p.win, p.rate, p.mine, p.candidate, p.rttSeq = window{}, rater{}, arrival{}, arrival{}, 0
	}
}

// echoed notes that a peer heard us.
func (p *path) echoed(m body, at ha.Instant) {
	if m.echo.seq <= p.rttSeq || m.echo.seq > p.seq {
		return // known, or of numbers that were begun anew
	}
	p.rttSeq = m.echo.seq
	h := &p.heard
	h.Alive, h.Echoed = max(h.Alive, m.echo.stamp), at
	// The two clocks may run apart: a short trip can come out below nothing.
	rtt := max(at.Sub(m.echo.stamp)-max(m.echo.hold, 0), 1)
	if h.RTT = rtt; h.Smooth == 0 {
		h.Smooth, h.Jitter = rtt, rtt/2
	} else {
		h.Jitter += ((h.Smooth - rtt).Abs() - h.Jitter) / 4
		h.Smooth += (rtt - h.Smooth) / 8
	}
	p.rate.add(at, m.stamp, rtt)
}

// observed is what is known of a path.
func (p *path) observed() Heard {
	h := p.heard
	h.Session, h.Since, h.Sessions = p.peer.session, p.peer.since, p.peer.sessions
	h.Rate = p.rate.rate()
	return h
}
