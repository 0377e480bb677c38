package addr

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// An Address is a service address and where it goes.
type Address struct {
	Addr netip.Addr // without a zone: the device is named by Device
	// Bits is the length of its network. Zero: that of the network on the device
	// which contains it, else 32 or 128.
	Bits int
	// Device is the name of the interface; empty: the one whose network contains the
	// address, and for removing, every one.
	Device string
}

// Parse reads ADDRESS[/BITS][%DEVICE], as 192.0.2.10/24 or 2001:db8::10/64%eth1.
func Parse(s string) (Address, error) {
	text, device, named := strings.Cut(s, "%")
	if named && device == "" {
		return Address{}, fmt.Errorf("address %q: the device after %% is empty", s)
	}
	text, length, long := strings.Cut(text, "/")
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return Address{}, fmt.Errorf("address %q: write it as 192.0.2.10/24, 2001:db8::10/64 or 192.0.2.10/24%%eth0: %w", s, err)
	}
	a := Address{Addr: ip, Device: device}
	if long {
		bits, err := strconv.ParseUint(length, 10, 8)
		if err != nil || bits < 1 || int(bits) > ip.BitLen() {
			return Address{}, fmt.Errorf("address %q: the length %q of its network is not from 1 to %d", s, length, ip.BitLen())
		}
		a.Bits = int(bits)
	}
	return a, a.check()
}

// String is what Parse reads.
func (a Address) String() string {
	s := a.Addr.String()
	if a.Bits > 0 {
		s += "/" + strconv.Itoa(a.Bits)
	}
	if a.Device != "" {
		s += "%" + a.Device
	}
	return s
}

// check says why this cannot be a service address.
func (a Address) check() error {
	bad := func(why string) error { return fmt.Errorf("address %v cannot be a service address: %s", a, why) }
	ip := a.Addr
	switch {
	case !ip.IsValid():
		return fmt.Errorf("a service address is empty; write it as 192.0.2.10/24 or 2001:db8::10/64")
	case ip.Zone() != "":
		return bad("name its device instead of a zone")
	case ip.Is4In6():
		return bad("it is an IPv4 address written as IPv6; write " + ip.Unmap().String())
	case ip.IsUnspecified(), ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return bad("it stands for no machine")
	case ip.IsMulticast():
		return bad("it is a multicast address")
	case ip.IsLoopback():
		return bad("it is a loopback address, which nobody else reaches")
	case a.Bits < 0 || a.Bits > ip.BitLen():
		return bad(fmt.Sprintf("the length of its network is not from 1 to %d", ip.BitLen()))
	case len(a.Device) > maxName || strings.ContainsAny(a.Device, "/ \t\n\x00"):
		return bad("no interface can have the name " + strconv.Quote(a.Device))
	case ip.Is6() && ip.IsLinkLocalUnicast() && a.Device == "":
		return bad("it is link-local and so on every network; name its device, as " + ip.String() + "%eth0")
	}
	return nil
}

// maxName is the longest name of an interface: IFNAMSIZ without its NUL.
const maxName = 15

func compareAddress(a, b Address) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Bits, b.Bits))
}
