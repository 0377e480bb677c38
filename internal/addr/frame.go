package addr

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/mdlayher/ndp"
	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// A mac is an Ethernet address that can be compared.
type mac [6]byte

func (m mac) hardware() net.HardwareAddr { return append(net.HardwareAddr(nil), m[:]...) }

func everyone() mac { return mac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} }

// A frame is an Ethernet frame and where it goes.
type frame struct {
	bytes []byte
	to    mac
}

const (
	ethernetLen = 14
	ipv6Len     = 40
	arpRequest  = 1
	arpReply    = 2
)

// ethernet begins a frame.
func ethernet(to, from mac, protocol uint16, room int) []byte {
	b := append(make([]byte, 0, ethernetLen+room), to[:]...)
	return binary.BigEndian.AppendUint16(append(b, from[:]...), protocol)
}

// arp is one ARP packet in a broadcast frame, 42 bytes.
func arp(op uint16, from mac, ip netip.Addr, at mac, target netip.Addr) frame {
	b := ethernet(everyone(), from, unix.ETH_P_ARP, 28)
	b = binary.BigEndian.AppendUint16(b, unix.ARPHRD_ETHER)
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IP)
	b = append(b, 6, 4) // lengths of the addresses
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(append(b, from[:]...), ip.AsSlice()...)
	return frame{append(append(b, at[:]...), target.AsSlice()...), everyone()}
}

// nd is one neighbour discovery message in its frame.
func nd(m ndp.Message, from mac, source, to netip.Addr) (frame, error) {
	body, err := ndp.MarshalMessageChecksum(m, source, to)
	if err != nil {
		return frame{}, err
	}
	tail := to.As16()
	group := mac{0x33, 0x33, tail[12], tail[13], tail[14], tail[15]}
	b := ethernet(group, from, unix.ETH_P_IPV6, ipv6Len+len(body))
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	b = append(b, unix.IPPROTO_ICMPV6, ndp.HopLimit)
	b = append(append(b, source.AsSlice()...), to.AsSlice()...)
	return frame{append(b, body...), group}, nil
}

// announcement tells the neighbours that ip is at from. For IPv4 a request and a
// reply, since some systems heed only the one or the other; in the reply both
// hardware addresses are ours, otherwise Linux does not take it for gratuitous and
// keeps an entry that is younger than a second.
func announcement(ip netip.Addr, from mac, router bool) ([]frame, error) {
	if ip.Is4() {
		return []frame{arp(arpRequest, from, ip, mac{}, ip), arp(arpReply, from, ip, from, ip)}, nil
	}
	f, err := nd(&ndp.NeighborAdvertisement{
		Router: router, Override: true, TargetAddress: ip,
		Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: from.hardware()}},
	}, from, ip, netip.IPv6LinkLocalAllNodes())
	return []frame{f}, err
}

// probe asks whether somebody else has ip, without saying that we do: the sender
// is unspecified, so that no cache changes (RFC 5227, RFC 4862).
func probe(ip netip.Addr, from mac) (frame, error) {
	if ip.Is4() {
		return arp(arpRequest, from, netip.IPv4Unspecified(), mac{}, ip), nil
	}
	group, err := ndp.SolicitedNodeMulticast(ip)
	if err != nil {
		return frame{}, err
	}
	return nd(&ndp.NeighborSolicitation{TargetAddress: ip}, from, netip.IPv6Unspecified(), group)
}

// claim reads out of a received frame who says that an address is his: an ARP
// packet sent from it, an advertisement of it, a solicitation sent from it. A
// probe claims nothing. Checksums are not looked at: a frame has its own.
func claim(b []byte) (netip.Addr, mac, bool) {
	if len(b) < ethernetLen {
		return netip.Addr{}, mac{}, false
	}
	switch binary.BigEndian.Uint16(b[12:]) {
	case unix.ETH_P_ARP:
		return arpClaim(b[ethernetLen:])
	case unix.ETH_P_IPV6:
		return ndClaim(b[ethernetLen:], mac(b[6:12]))
	}
	return netip.Addr{}, mac{}, false
}

func arpClaim(p []byte) (netip.Addr, mac, bool) {
	if len(p) < 28 || string(p[:6]) != "\x00\x01\x08\x00\x06\x04" {
		return netip.Addr{}, mac{}, false
	}
	if op := binary.BigEndian.Uint16(p[6:]); op != arpRequest && op != arpReply {
		return netip.Addr{}, mac{}, false
	}
	ip := netip.AddrFrom4([4]byte(p[14:18]))
	return ip, mac(p[8:14]), !ip.IsUnspecified()
}

// ndClaim takes the hardware address out of the message's option, or, as an
// advertisement may go without, the frame's.
func ndClaim(p []byte, source mac) (netip.Addr, mac, bool) {
	if len(p) < ipv6Len || p[0]>>4 != 6 || p[6] != unix.IPPROTO_ICMPV6 || p[7] != ndp.HopLimit {
		return netip.Addr{}, mac{}, false
	}
	from, body := netip.AddrFrom16([16]byte(p[8:24])), p[ipv6Len:]
	if n := int(binary.BigEndian.Uint16(p[4:])); n < len(body) {
		body = body[:n]
	}
	m, err := ndp.ParseMessage(body)
	if err != nil {
		return netip.Addr{}, mac{}, false
	}
	var options []ndp.Option
	ip, direction := from, ndp.Source
	switch m := m.(type) {
	case *ndp.NeighborAdvertisement:
		ip, direction, options = m.TargetAddress, ndp.Target, m.Options
	case *ndp.NeighborSolicitation:
		options = m.Options
	default:
		return netip.Addr{}, mac{}, false
	}
	for _, o := range options {
		if l, ok := o.(*ndp.LinkLayerAddress); ok && l.Direction == direction && len(l.Addr) == len(source) {
			source = mac(l.Addr)
		}
	}
	return ip, source, !ip.IsUnspecified()
}

// filter is what the kernel lets through to us: packets for this machine that have
// no VLAN tag left (those are of another network), and of IPv6 only solicitations
// and advertisements.
func filter(v6 bool) ([]bpf.RawInstruction, error) {
	const otherHost = 3 // PACKET_OTHERHOST
	program := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: otherHost, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	}
	if v6 {
		program = append(program,
			bpf.LoadAbsolute{Off: ethernetLen + 6, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 1},
			bpf.RetConstant{Val: 0},
			bpf.LoadAbsolute{Off: ethernetLen + ipv6Len, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(ipv6.ICMPTypeNeighborSolicitation), SkipTrue: 2},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(ipv6.ICMPTypeNeighborAdvertisement), SkipTrue: 1},
			bpf.RetConstant{Val: 0},
		)
	}
	return bpf.Assemble(append(program, bpf.RetConstant{Val: maxFrame}))
}

// maxFrame is as much of a frame as is looked at.
const maxFrame = 512
