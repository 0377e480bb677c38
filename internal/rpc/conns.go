package rpc

import (
	"net"
	"os"
	"sync"
	"time"

	"gemel/internal/access"
)

const (
	userConns  = 256  // connections of one user
	totalConns = 1024 // connections in all
	userCalls  = 256  // calls of one user under way
)

// refusal is what a connection over the bounds is told. It is one small write
// into an empty buffer and never waits.
const refusal = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 74\r\n\r\n" +
	`{"code":"resource_exhausted","message":"too many connections, all in use"}`

// conn is one connection and who is at its other end.
type conn struct {
	*net.UnixConn
	peer  access.Peer
	house *house
	calls int       // under way; guarded by house.mu
	used  time.Time // when it was made, or its last call ended; guarded by house.mu
}

// Close closes the connection and gives its place back.
func (c *conn) Close() error {
	c.house.leave(c)
	return c.UnixConn.Close()
}

// house bounds who is inside. A user at the bound gives up the connection that
// was idle longest, so that connections that never say anything cannot keep
// their own user out, and no user can keep out another. Root, and the user that
// Gemel runs as, always find a place: many others together cannot keep them out.
type house struct {
	perUser, total, perCalls int
	own                      uint32

	mu    sync.Mutex
	conns map[uint32]map[*conn]struct{}
	calls map[uint32]int
	all   int
}

func newHouse() *house {
	return &house{perUser: userConns, total: totalConns, perCalls: userCalls, own: uint32(os.Geteuid()),
		conns: map[uint32]map[*conn]struct{}{}, calls: map[uint32]int{}}
}

// enter finds a place for c. It returns a connection that has to be closed for
// it, or false if every one is in use.
func (h *house) enter(c *conn) (out *conn, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	uid := c.peer.UID
	if len(h.conns[uid]) >= h.perUser {
		if out = h.idlest(uid); out == nil {
			return nil, false
		}
	} else if h.all >= h.total && uid != 0 && uid != h.own {
		if out = h.idlest(h.crowd()); out == nil {
			return nil, false
		}
	}
	if out != nil {
		h.remove(out)
	}
	c.used = time.Now()
	if h.conns[uid] == nil {
		h.conns[uid] = map[*conn]struct{}{}
	}
	h.conns[uid][c] = struct{}{}
	h.all++
	return out, true
}

// idlest is the connection of a user that was idle longest, nil if none is.
func (h *house) idlest(uid uint32) *conn {
	var found *conn
	for c := range h.conns[uid] {
		if c.calls == 0 && (found == nil || c.used.Before(found.used)) {
			found = c
		}
	}
	return found
}

// crowd is the user with the most connections.
func (h *house) crowd() (uid uint32) {
	most := 0
	for u, cs := range h.conns {
		if len(cs) > most {
			uid, most = u, len(cs)
		}
	}
	return uid
}

func (h *house) leave(c *conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.remove(c)
}

func (h *house) remove(c *conn) {
	uid := c.peer.UID
	if _, in := h.conns[uid][c]; !in {
		return
	}
	delete(h.conns[uid], c)
	if len(h.conns[uid]) == 0 {
		delete(h.conns, uid)
	}
	h.all--
}

// begin counts a call; false if the user has too many under way.
func (h *house) begin(c *conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.calls[c.peer.UID] >= h.perCalls {
		return false
	}
	h.calls[c.peer.UID]++
	c.calls++
	return true
}

func (h *house) end(c *conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.calls--
	c.used = time.Now()
	if h.calls[c.peer.UID]--; h.calls[c.peer.UID] == 0 {
		delete(h.calls, c.peer.UID)
	}
}

// door is a listener that asks the kernel who comes in.
type door struct {
	net.Listener
	house *house
}

// Accept returns the next connection that has a place.
func (d *door) Accept() (net.Conn, error) {
	for {
		got, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		u, ok := got.(*net.UnixConn)
		if !ok {
			_ = got.Close()
			continue
		}
		peer, err := access.PeerOf(u)
		if err != nil {
			_ = u.Close()
			continue
		}
		c := &conn{UnixConn: u, peer: peer, house: d.house}
		out, ok := d.house.enter(c)
		if out != nil {
			_ = out.Close()
		}
		if !ok {
			_ = u.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			_, _ = u.Write([]byte(refusal))
			_ = u.Close()
			continue
		}
		return c, nil
	}
}
