package addr

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// What marks an address as Gemel's: its protocol (Linux 5.18), as that of a route,
// and for IPv4 the end of its label.
const (
	protocol  = 0x47
	labelTail = ":gemel"
)

// A socket is one connection to the kernel's routing netlink. It allocates next
// to nothing, and each wait has a bound. It can be used by several goroutines.
type socket struct {
	mu  sync.Mutex
	fd  int // -1: closed
	seq uint32
	in  []byte
	out []byte
}

// An entry is one address of this machine as the kernel lists it.
type entry struct {
	index int
	bits  int
	addr  netip.Addr
	peer  netip.Addr // what IFA_ADDRESS says; the same but on a point-to-point link
	flags uint32
	ours  bool
}

// Attributes of an address; unix lacks the newer one.
const ifaProto = 11

// errAgain is a list that changed while it was read.
var errAgain = errors.New("the list changed while it was read")

func openSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	// The kernel answers at once or, when another holds its lock, within moments; the
	// bound is for what is broken.
	wait := unix.Timeval{Sec: 1}
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	return &socket{fd: fd, in: make([]byte, 64<<10), out: make([]byte, 0, 256)}, nil
}

func (s *socket) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil
	}
	fd := s.fd
	s.fd = -1
	return unix.Close(fd)
}

// start begins a message in out.
func (s *socket) start(kind, flags uint16, family, bits uint8, index int) {
	s.seq++
	b := append(s.out[:0], 0, 0, 0, 0) // the length, set by exchange
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = binary.NativeEndian.AppendUint32(b, s.seq)
	b = append(b, 0, 0, 0, 0)         // port id, of the kernel
	b = append(b, family, bits, 0, 0) // struct ifaddrmsg: flags and scope stay zero
	s.out = binary.NativeEndian.AppendUint32(b, uint32(index))
}

// attr adds an attribute to the message in out.
func (s *socket) attr(kind uint16, value ...byte) {
	b := binary.NativeEndian.AppendUint16(s.out, uint16(unix.SizeofRtAttr+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	for len(b)%unix.RTA_ALIGNTO != 0 {
		b = append(b, 0)
	}
	s.out = b
}

// exchange sends the message in out and reads what answers it, up to the
// acknowledgement or the end of the list.
func (s *socket) exchange(visit func(entry)) error {
	if s.fd < 0 {
		return unix.EBADF
	}
	binary.NativeEndian.PutUint32(s.out, uint32(len(s.out)))
	if err := retry(func() error { return unix.Sendto(s.fd, s.out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) }); err != nil {
		return err
	}
	torn := false
	for {
		n := 0
		err := retry(func() (err error) { n, _, err = unix.Recvfrom(s.fd, s.in, 0); return err })
		if err != nil {
			return err
		}
		for b := s.in[:n]; len(b) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr || size > len(b) {
				return unix.EBADMSG
			}
			kind, flags, body := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]), b[unix.SizeofNlMsghdr:size]
			seq := binary.NativeEndian.Uint32(b[8:])
			b = b[min(len(b), (size+3)&^3):]
			if seq != s.seq {
				continue // the late answer to a question that was given up
			}
			torn = torn || flags&unix.NLM_F_DUMP_INTR != 0
			switch kind {
			case unix.NLMSG_ERROR, unix.NLMSG_DONE:
				if len(body) >= 4 {
					if errno := int32(binary.NativeEndian.Uint32(body)); errno < 0 {
						return unix.Errno(-errno)
					}
				}
				if torn {
					return errAgain
				}
				return nil
			case unix.RTM_NEWADDR:
				if e, ok := parseEntry(body); ok && visit != nil {
					visit(e)
				}
			}
		}
	}
}

func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// parseEntry reads an ifaddrmsg and its attributes.
func parseEntry(b []byte) (entry, bool) {
	if len(b) < unix.SizeofIfAddrmsg {
		return entry{}, false
	}
	e := entry{bits: int(b[1]), flags: uint32(b[2]), index: int(binary.NativeEndian.Uint32(b[4:]))}
	for b = b[unix.SizeofIfAddrmsg:]; len(b) >= unix.SizeofRtAttr; {
		size, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if size < unix.SizeofRtAttr || size > len(b) {
			return entry{}, false
		}
		value := b[unix.SizeofRtAttr:size]
		b = b[min(len(b), (size+3)&^3):]
		switch kind {
		case unix.IFA_LOCAL:
			e.addr, _ = netip.AddrFromSlice(value)
		case unix.IFA_ADDRESS:
			e.peer, _ = netip.AddrFromSlice(value)
		case unix.IFA_LABEL:
			e.ours = e.ours || hasTail(value)
		case unix.IFA_FLAGS:
			if len(value) >= 4 {
				e.flags = binary.NativeEndian.Uint32(value)
			}
		case ifaProto:
			e.ours = e.ours || len(value) == 1 && value[0] == protocol
		}
	}
	if !e.addr.IsValid() {
		e.addr = e.peer
	}
	if !e.peer.IsValid() {
		e.peer = e.addr
	}
	return e, e.addr.IsValid() && e.bits <= e.addr.BitLen()
}

// hasTail reports whether a label, with its NUL, is one of ours.
func hasTail(b []byte) bool {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return len(b) >= len(labelTail) && string(b[len(b)-len(labelTail):]) == labelTail
}

// each visits every address of this machine.
func (s *socket) each(visit func(entry)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start(unix.RTM_GETADDR, unix.NLM_F_DUMP, unix.AF_UNSPEC, 0, 0)
	return s.exchange(visit)
}

// drop removes one entry; that it is gone already is no error.
func (s *socket) drop(e entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start(unix.RTM_DELADDR, unix.NLM_F_ACK, family(e.addr), uint8(e.bits), e.index)
	s.put(unix.IFA_LOCAL, e.addr)
	s.put(unix.IFA_ADDRESS, e.peer)
	if err := s.exchange(nil); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// put adds an address as attribute.
func (s *socket) put(kind uint16, ip netip.Addr) {
	if ip.Is4() {
		b := ip.As4()
		s.attr(kind, b[:]...)
		return
	}
	b := ip.As16()
	s.attr(kind, b[:]...)
}

// add puts an address on a device, or renews what is there.
func (s *socket) add(ip netip.Addr, bits, index int, device string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start(unix.RTM_NEWADDR, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_REPLACE, family(ip), uint8(bits), index)
	s.put(unix.IFA_LOCAL, ip)
	s.put(unix.IFA_ADDRESS, ip)
	s.attr(ifaProto, protocol)
	if ip.Is4() {
		if bits < 31 {
			s.put(unix.IFA_BROADCAST, last(netip.PrefixFrom(ip, bits)))
		}
		label := device[:min(len(device), maxName-len(labelTail))] + labelTail
		s.attr(unix.IFA_LABEL, append([]byte(label), 0)...)
		return s.exchange(nil)
	}
	// Usable at once, without the kernel's own detection, which takes a second. And
	// never the source of a connection that did not ask for it: for IPv4 the first
	// address of the network is, for IPv6 it would be the newest, and such a
	// connection would break when the group moves.
	s.attr(unix.IFA_FLAGS, binary.NativeEndian.AppendUint32(nil, unix.IFA_F_NODAD)...)
	const forever = 0xffffffff
	life := binary.NativeEndian.AppendUint32(make([]byte, 0, unix.SizeofIfaCacheinfo), 0) // preferred
	life = binary.NativeEndian.AppendUint32(life, forever)
	s.attr(unix.IFA_CACHEINFO, append(life, 0, 0, 0, 0, 0, 0, 0, 0)...)
	return s.exchange(nil)
}

// promote lets the kernel keep the other addresses of a network when the first one
// is removed. Without it, a host's own address that was added after ours, in the
// same network, would go with ours.
func (s *socket) promote(index int) error {
	const promoteSecondaries = 20 // IPV4_DEVCONF_PROMOTE_SECONDARIES
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start(unix.RTM_SETLINK, unix.NLM_F_ACK, unix.AF_UNSPEC, 0, index)
	s.out = append(s.out, 0, 0, 0, 0, 0, 0, 0, 0) // struct ifinfomsg is 8 bytes longer: flags and change
	conf := nest(promoteSecondaries, binary.NativeEndian.AppendUint32(nil, 1))
	s.attr(unix.IFLA_AF_SPEC, nest(unix.AF_INET, nest(unix.IFLA_INET_CONF, conf))...)
	return s.exchange(nil)
}

// nest is an attribute as the value of another.
func nest(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	return append(binary.NativeEndian.AppendUint16(b, kind), value...)
}

// index is that of the device with a name, by the old way, which needs no buffer:
// it works on any socket. Zero: there is none.
func (s *socket) index(device string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := unix.NewIfreq(device)
	if err != nil {
		return 0, err
	}
	err = unix.IoctlIfreq(s.fd, unix.SIOCGIFINDEX, r)
	if errors.Is(err, unix.ENODEV) {
		return 0, nil
	}
	return int(r.Uint32()), err
}

func family(ip netip.Addr) uint8 {
	if ip.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// last is the last address of an IPv4 network: its broadcast address.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	n := binary.BigEndian.Uint32(b[:]) | uint32(1<<(32-p.Bits())-1)
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

// allowed says what to do about a refusal by the kernel.
func allowed(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: this needs the capabilities CAP_NET_ADMIN and CAP_NET_RAW; run the daemon as root, or give it both (systemd: AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW)", err)
	}
	return err
}
