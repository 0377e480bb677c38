package netpath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receiveBuffer is small on purpose: it holds about a second of heartbeats. What
// waits longer, because this process stood still, would be taken as heard just
// now.
const receiveBuffer = 128 << 10

// A wire sends and receives the datagrams of one network, for one goroutine.
type wire interface {
	// read waits for a datagram, but no longer than wait, and not after wake:
	// then it is errNothing. One that is too long comes as one without content.
	read(b []byte, wait time.Duration) (n int, from netip.AddrPort, err error)
	// write never waits: a full queue is a lost heartbeat, as on the way.
	write(b []byte, to netip.AddrPort) error
	// wake ends a read, from any goroutine, before close.
	wake()
	close() error
}

// errNothing says that a read came to its end without a datagram.
var errNothing = errors.New("nothing came")

// A socket is a wire of UDP. It is not one of package net: there a datagram and a
// beat each wake two or three threads, which was two thirds of all the work that
// heartbeats are. Here the loop waits in the kernel, for both at once.
type socket struct {
	fd    int
	bell  int // an eventfd: rung by wake
	six   bool
	zone  uint32
	polls [2]unix.PollFd
	limit unix.Timespec

	// What the calls work on, so that no datagram costs memory.
	to4  unix.SockaddrInet4
	to6  unix.SockaddrInet6
	from unix.RawSockaddrAny
	size uint32
}

// openSocket binds the socket of a network. It fails while the address is not
// there; there is no IP_FREEBIND, because a socket of an address that nobody has
// would look open and hear nothing.
func openSocket(n Network, dscp int) (wire, error) {
	s := &socket{fd: -1, bell: -1, six: n.Local.Addr().Is6(), zone: zone(n.Local.Addr())}
	if err := s.open(n, dscp); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the socket of network %s at %v: %w", n.Name, n.Local, err), s.close())
	}
	return s, nil
}

func (s *socket) open(n Network, dscp int) (err error) {
	if s.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	family := unix.AF_INET
	if s.six {
		family = unix.AF_INET6
	}
	if s.fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return err
	}
	s.polls = [2]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}, {Fd: int32(s.bell), Events: unix.POLLIN}}
	if err := options(s.fd, n, dscp); err != nil {
		return err
	}
	return unix.Bind(s.fd, s.address(n.Local))
}

func (s *socket) address(a netip.AddrPort) unix.Sockaddr {
	if s.six {
		s.to6 = unix.SockaddrInet6{Port: int(a.Port()), ZoneId: s.zone, Addr: a.Addr().As16()}
		return &s.to6
	}
	s.to4 = unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	return &s.to4
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
	if n.Local.Addr().Is6() {
		errs = append(errs, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1))
	}
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

// read waits by the kernel's monotonic clock: on a machine that was suspended a
// beat is late by at most what was left of its interval.
func (s *socket) read(b []byte, wait time.Duration) (int, netip.AddrPort, error) {
	s.limit = unix.NsecToTimespec(max(int64(wait), 0))
	n, err := unix.Ppoll(s.polls[:], &s.limit, nil)
	switch {
	case err == unix.EINTR || err == nil && (n == 0 || s.polls[0].Revents == 0):
		return 0, netip.AddrPort{}, errNothing
	case err != nil:
		return 0, netip.AddrPort{}, err
	}
	s.size = unix.SizeofSockaddrAny
	got, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		unix.MSG_DONTWAIT|unix.MSG_TRUNC, uintptr(unsafe.Pointer(&s.from)), uintptr(unsafe.Pointer(&s.size)))
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR: // a datagram with a bad checksum wakes us as well
		return 0, netip.AddrPort{}, errNothing
	case errno != 0:
		return 0, netip.AddrPort{}, errno
	case int(got) > len(b):
		got = 0
	}
	return int(got), s.source(), nil
}

// source is where a datagram came from. It has no zone: the socket is bound to
// one address, and with it to one link.
func (s *socket) source() netip.AddrPort {
	if s.six {
		from := (*unix.RawSockaddrInet6)(unsafe.Pointer(&s.from))
		return netip.AddrPortFrom(netip.AddrFrom16(from.Addr), ntohs(&from.Port))
	}
	from := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.from))
	return netip.AddrPortFrom(netip.AddrFrom4(from.Addr), ntohs(&from.Port))
}

func ntohs(port *uint16) uint16 { return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(port))[:]) }

func (s *socket) write(b []byte, to netip.AddrPort) error {
	return unix.Sendto(s.fd, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, s.address(to))
}

func (s *socket) wake() {
	// It fails only when it was rung 2^64 times.
	_, _ = unix.Write(s.bell, binary.NativeEndian.AppendUint64(nil, 1))
}

func (s *socket) close() error {
	var errs []error
	for _, fd := range []*int{&s.fd, &s.bell} {
		if *fd >= 0 {
			errs = append(errs, unix.Close(*fd))
			*fd = -1
		}
	}
	return errors.Join(errs...)
}

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
