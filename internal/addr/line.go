package addr

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A line is one packet socket of a device: for ARP or for neighbour discovery.
type line struct {
	device
	v6   bool
	conn *packet.Conn
}

// A device is an interface as it was last seen.
type device struct {
	index int
	name  string
	mac   mac
	up    bool // it can send: it is up and has a carrier
	// speaks says that neighbours are asked for hardware addresses here at all: not on
	// a tunnel or on the loopback.
	speaks bool
	// odd says that they are, but not in the way of Ethernet.
	odd bool
}

func deviceOf(l netlink.Link) device {
	a := l.Attrs()
	d := device{index: a.Index, name: a.Name}
	d.up = a.Flags&net.FlagUp != 0 && a.RawFlags&unix.IFF_RUNNING != 0
	d.speaks = a.RawFlags&(unix.IFF_NOARP|unix.IFF_LOOPBACK|unix.IFF_POINTOPOINT) == 0
	if len(a.HardwareAddr) == len(d.mac) {
		d.mac = mac(a.HardwareAddr)
	} else {
		d.odd = d.speaks
	}
	return d
}

func openLine(d device, v6 bool) (*line, error) {
	what, protocol := "ARP", unix.ETH_P_ARP
	if v6 {
		what, protocol = "neighbour discovery", unix.ETH_P_IPV6
	}
	program, err := filter(v6)
	if err == nil {
		var conn *packet.Conn
		conn, err = packet.Listen(&net.Interface{Index: d.index, Name: d.name}, packet.Raw, protocol, &packet.Config{Filter: program})
		if err == nil {
			return &line{d, v6, conn}, nil
		}
	}
	return nil, fmt.Errorf("opening a socket for %s on %s: %w", what, d.name, allowed(err))
}

// maxSend bounds how long a device that takes nothing can hold up the others.
const maxSend = 20 * time.Millisecond

// send puts frames on the wire.
func (l *line) send(frames ...frame) error {
	if err := l.conn.SetWriteDeadline(time.Now().Add(maxSend)); err != nil {
		return fmt.Errorf("sending on %s: %w", l.name, err)
	}
	for _, f := range frames {
		if _, err := l.conn.WriteTo(f.bytes, &packet.Addr{HardwareAddr: f.to.hardware()}); err != nil {
			return fmt.Errorf("sending on %s: %w", l.name, err)
		}
	}
	return nil
}

// listen gives every claim to heard until the socket is closed.
func (l *line) listen(heard func(*line, netip.Addr, mac)) {
	b := make([]byte, maxFrame)
	for failures := 0; failures < 100; {
		n, _, err := l.conn.ReadFrom(b)
		switch {
		case errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrClosed):
			return
		case err != nil:
			failures++ // a link that went down is told once, as ENETDOWN
			continue
		}
		failures = 0
		if ip, m, ok := claim(b[:n]); ok {
			heard(l, ip, m)
		}
	}
}

// The lines are the sockets that are open. They share the Keeper's lock, which is
// held by whoever calls a method.
type lines struct {
	host    *host
	lock    sync.Locker
	heard   func(*line, netip.Addr, mac) // called without the lock
	all     map[lineKey]*line
	readers sync.WaitGroup // and those that close
	closed  bool
}

type lineKey struct {
	index int
	v6    bool
}

// open returns the socket of a device, opened when it is first needed.
func (o *lines) open(d device, v6 bool) (*line, error) {
	key := lineKey{d.index, v6}
	if l := o.all[key]; l != nil {
		return l, nil
	}
	var l *line
	var err error
	o.host.enter(func() { l, err = openLine(d, v6) })
	if err != nil {
		return nil, err
	}
	o.all[key] = l
	o.readers.Go(func() {
		l.listen(o.heard)
		o.lock.Lock()
		defer o.lock.Unlock()
		o.discard(l)
	})
	return l, nil
}

// discard closes a socket, so that the next round opens another. Nobody waits for
// it but the end: the kernel takes 10 ms and more until no processor uses it.
func (o *lines) discard(l *line) {
	if key := (lineKey{l.index, l.v6}); o.all[key] == l {
		delete(o.all, key)
	}
	if !o.closed {
		o.readers.Go(func() { _ = l.conn.Close() })
	}
}

// tidy closes the sockets that no address needs, unless one was just opened to ask.
func (o *lines) tidy(held map[netip.Addr]*holding, idle bool) {
	used := map[lineKey]bool{}
	for _, h := range held {
		used[lineKey{h.dev.index, h.Addr.Is6()}] = true
	}
	for key, l := range o.all {
		if !used[key] && idle {
			o.discard(l)
		}
	}
}

// close ends all of them; the caller waits for the readers without the lock.
func (o *lines) close() {
	o.closed = true
	for _, l := range o.all {
		_ = l.conn.Close()
	}
}
