package netpath

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
)

// receiveBuffer is small on purpose: it holds about a second of heartbeats. What
// waits longer, because this process stood still, would be taken as heard just
// now.
const receiveBuffer = 128 << 10

// A wire sends and receives the datagrams of one network, for one goroutine.
type wire interface {
	// read waits for a datagram until due, and not after wake: then it is
	// errNothing. One that is too long comes as one without content.
	read(b []byte, due, now ha.Instant) (n int, from netip.AddrPort, err error)
	// write never waits: a full queue is a lost heartbeat, as on the way.
	write(b []byte, to netip.AddrPort) error
	// wake ends a read, from any goroutine.
	wake()
	close() error
}

// errNothing says that a read came to its end without a datagram.
var errNothing = errors.New("nothing came")

// A socket is a wire of UDP. One goroutine waits for datagrams and for the next
// beat at once, by a deadline for the read: what heartbeats cost is the threads
// that Go wakes, not the sealing, and so nothing is handed from one to another.
// Waiting in poll(2) was tried and is no cheaper: Go's watcher thread does not
// rest while a system call blocks.
type socket struct {
	conn *net.UDPConn
	raw  syscall.RawConn
	send func(fd uintptr) bool
	due  ha.Instant  // for which the deadline is set; zero: for none
	rung atomic.Bool // by wake

	// What send works on: write fills it in, so that no datagram costs memory.
	b    []byte
	to4  unix.SockaddrInet4
	to6  unix.SockaddrInet6
	six  bool
	zone uint32
	err  error
}

// openSocket binds the socket of a network. It fails while the address is not
// there; there is no IP_FREEBIND, because a socket of an address that nobody has
// would look open and hear nothing.
func openSocket(n Network, dscp int) (wire, error) {
	network := "udp6"
	if n.Local.Addr().Is4() {
		network = "udp4"
	}
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		return cmp.Or(raw.Control(func(fd uintptr) { err = options(int(fd), n, dscp) }), err)
	}}
	pc, err := lc.ListenPacket(context.Background(), network, n.Local.String())
	if err != nil {
		return nil, fmt.Errorf("opening the socket of network %s: %w", n.Name, err)
	}
	conn, ok := pc.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("network %s: a %T is no UDP socket", n.Name, pc), pc.Close())
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the socket of network %s: %w", n.Name, err), conn.Close())
	}
	s := &socket{conn: conn, raw: raw, six: n.Local.Addr().Is6(), zone: zone(n.Local.Addr())}
	s.send = s.sendNow
	return s, nil
}

// zone is the number of the interface of a link-local address.
func zone(a netip.Addr) uint32 {
	if a.Zone() == "" {
		return 0
	}
	if i, err := net.InterfaceByName(a.Zone()); err == nil {
		return uint32(i.Index)
	}
	n, _ := strconv.ParseUint(a.Zone(), 10, 32) // zero: none, and the kernel says so
	return uint32(n)
}

func options(fd int, n Network, dscp int) error {
	errs := []error{unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)}
	if n.Device != "" {
		errs = append(errs, unix.BindToDevice(fd, n.Device))
	}
	if dscp != 0 {
		level, option := unix.IPPROTO_IP, unix.IP_TOS
		if n.Local.Addr().Is6() {
			level, option = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
		}
		errs = append(errs,
			unix.SetsockoptInt(fd, level, option, dscp<<2),
			// After the mark, which sets a priority of its own; 6 is what needs no privilege.
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, 6))
	}
	return errors.Join(errs...)
}

// read waits by the monotonic clock: on a machine that was suspended a beat is
// late by at most what was left of its interval.
func (s *socket) read(b []byte, due, now ha.Instant) (int, netip.AddrPort, error) {
	if due != s.due {
		if err := s.conn.SetReadDeadline(time.Now().Add(due.Sub(now))); err != nil {
			return 0, netip.AddrPort{}, err
		}
		s.due = due
	}
	if s.rung.Swap(false) { // looked at after the deadline was set, or that would undo wake
		s.due = 0
		return 0, netip.AddrPort{}, errNothing
	}
	n, _, flags, from, err := s.conn.ReadMsgUDPAddrPort(b, nil)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.due, err = 0, errNothing
	}
	if flags&unix.MSG_TRUNC != 0 {
		n = 0
	}
	return n, from, err
}

func (s *socket) wake() {
	s.rung.Store(true)
	_ = s.conn.SetReadDeadline(time.Unix(1, 0)) // fails if it is closed: then nobody reads
}

func (s *socket) write(b []byte, to netip.AddrPort) error {
	s.b = b
	if s.six {
		s.to6 = unix.SockaddrInet6{Port: int(to.Port()), ZoneId: s.zone, Addr: to.Addr().As16()}
	} else {
		s.to4 = unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	if err := s.raw.Write(s.send); err != nil {
		return err
	}
	return s.err
}

// sendNow is one try. It always says that it is done: package net would wait for
// room in the queue.
func (s *socket) sendNow(fd uintptr) bool {
	var to unix.Sockaddr = &s.to4
	if s.six {
		to = &s.to6
	}
	s.err = unix.Sendto(int(fd), s.b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, to)
	return true
}

func (s *socket) close() error { return s.conn.Close() }

// passing reports whether a failure to send is one of the way or of a rule, which
// ends by itself, and not one of the socket.
func passing(err error) bool {
	for _, e := range [...]unix.Errno{
		unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM, unix.EINTR, // queues
		unix.EPERM, unix.EACCES, // a packet filter, a route that prohibits
		unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ENETDOWN, unix.EHOSTDOWN, unix.ECONNREFUSED, // the way
		unix.EMSGSIZE,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
