package check

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"gemel/internal/manifest"
)

// Reach asks once whether a target can be reached: by a TCP connection, or without a
// port by an ICMP echo. It returns nil if so, and else why not, at the latest when ctx
// ends. A name counts as reached when one of its addresses is.
func Reach(ctx context.Context, t manifest.Target) error {
	if t.Port != 0 {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(t.Host, fmt.Sprint(t.Port)))
		if err != nil {
			return fmt.Errorf("reaching %s: %w", t, err)
		}
		_ = c.Close()
		return nil
	}
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", t.Host)
	if err != nil {
		return fmt.Errorf("reaching %s: %w", t, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan error, len(all))
	for _, a := range all {
		go func() { answers <- echo(ctx, a.Unmap()) }()
	}
	var errs []error
	for range all {
		err := <-answers
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("reaching %s: %w", t, errors.Join(errs...))
}

// echo sends one ICMP echo and waits for its answer until ctx ends.
func echo(ctx context.Context, to netip.Addr) error {
	c, raw, err := pinger(to)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var kind, answer icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	proto := 1
	if to.Is6() {
		kind, answer, proto = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, 58
	}
	// What tells the answer from those to others: the kernel sets the id of a socket
	// that is not raw, and a raw one hears all that arrives.
	mark := binary.BigEndian.AppendUint64(nil, rand.Uint64())
	ask, err := (&icmp.Message{Type: kind, Body: &icmp.Echo{ID: os.Getpid() & 0xffff, Seq: 1, Data: mark}}).Marshal(nil)
	if err != nil {
		return fmt.Errorf("making an echo: %w", err)
	}
	ip := net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()}
	var at net.Addr = &net.UDPAddr{IP: ip.IP, Zone: ip.Zone}
	if raw {
		at = &ip
	}
	if _, err := c.WriteTo(ask, at); err != nil {
		return fmt.Errorf("asking %s: %w", to, err)
	}
	b := make([]byte, 1500)
	for {
		n, _, err := c.ReadFrom(b)
		if ctx.Err() != nil {
			return fmt.Errorf("%s did not answer: %w", to, context.Cause(ctx))
		}
		if err != nil {
			return fmt.Errorf("waiting for an answer of %s: %w", to, err)
		}
		m, err := icmp.ParseMessage(proto, b[:n])
		if err != nil {
			continue
		}
		if e, ok := m.Body.(*icmp.Echo); ok && m.Type == answer && string(e.Data) == string(mark) {
			return nil
		}
	}
}

// pinger opens a socket for echoes: one that every user may have where the kernel lets
// him (net.ipv4.ping_group_range), else a raw one.
func pinger(to netip.Addr) (c *icmp.PacketConn, raw bool, err error) {
	plain, bare, any := "udp4", "ip4:icmp", "0.0.0.0"
	if to.Is6() {
		plain, bare, any = "udp6", "ip6:ipv6-icmp", "::"
	}
	c, err = icmp.ListenPacket(plain, any)
	if err == nil {
		return c, false, nil
	}
	if c, rerr := icmp.ListenPacket(bare, any); rerr == nil {
		return c, true, nil
	}
	return nil, false, fmt.Errorf("opening a socket for ICMP echoes needs root, CAP_NET_RAW or a wider net.ipv4.ping_group_range: %w", err)
}
