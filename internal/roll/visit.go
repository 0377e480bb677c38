package roll

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"gemel/internal/mtls"
)

const (
	visitTime = 5 * time.Second
	knocks    = 5 // datagrams, of which one must come back
)

// visit goes to each address that a newcomer says it has, by the ports that matter: it
// must be there, and be that one. What could not be reached now would not be reached
// by heartbeats either.
func (d *porch) visit(ctx context.Context, who mtls.Name, n Node, waits []netip.AddrPort) error {
	config, err := d.clerk.files.Client(nil, who)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, visitTime)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	look := func(where string, at netip.AddrPort, port uint16, tries ...func() error) {
		wg.Go(func() {
			var failed []error
			for _, try := range tries {
				failed = append(failed, try())
			}
			if err := errors.Join(failed...); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("%s does not reach %s %s at %s: %w. Let TCP and UDP %d, and TCP %d, through between all machines", d.clerk.me, n.Name, where, at, err, port, storePort))
			}
		})
	}
	for net, at := range n.Addresses {
		look("on "+net, at, at.Port(), func() error { return knock(ctx, at, config) }, func() error { return echo(ctx, at) })
	}
	for _, at := range waits {
		if !slices.Contains(n.Store, at) {
			continue
		}
		look("for the store", at, Port, func() error { return knock(ctx, at, config) })
	}
	wg.Wait()
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

func knock(ctx context.Context, at netip.AddrPort, config *tls.Config) error {
	conn, err := call(ctx, at.String(), config)
	if err != nil {
		return fmt.Errorf("TCP: %w", err)
	}
	return conn.Close()
}

// echo sends datagrams and waits for one of them to come back.
func echo(ctx context.Context, at netip.AddrPort) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", at.String())
	if err != nil {
		return fmt.Errorf("UDP: %w", err)
	}
	defer conn.Close()
	word := make([]byte, 16)
	if _, err := rand.Read(word); err != nil {
		return err
	}
	back := make([]byte, 64)
	for range knocks {
		if _, err = conn.Write(word); err == nil {
			_ = conn.SetReadDeadline(time.Now().Add(visitTime / (knocks + 1)))
			var n int
			if n, err = conn.Read(back); err == nil && string(back[:n]) == string(word) {
				return nil
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	return fmt.Errorf("UDP: nothing comes back: %w", err)
}

// stand is where a newcomer waits to be visited: at the addresses that it will have.
type stand struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// waitAt listens at all ways of a newcomer, and where its member of the store will be.
func waitAt(ctx context.Context, ways []way, more []netip.AddrPort, config *tls.Config) (*stand, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &stand{cancel: cancel}
	all := slices.Clone(more)
	for _, w := range ways {
		all = append(all, w.at)
	}
	for _, at := range all {
		l, err := net.Listen("tcp", at.String())
		if err != nil {
			s.end()
			return nil, fmt.Errorf("waiting to be visited: %w", err)
		}
		context.AfterFunc(ctx, func() { _ = l.Close() })
		s.wg.Go(func() { s.tcp(ctx, l, config) })
	}
	for _, w := range ways {
		u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(w.at))
		if err != nil {
			s.end()
			return nil, fmt.Errorf("waiting to be visited: %w", err)
		}
		context.AfterFunc(ctx, func() { _ = u.Close() })
		s.wg.Go(func() {
			b := make([]byte, 64)
			for {
				n, from, err := u.ReadFromUDPAddrPort(b)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err == nil && n <= 16 { // no more than came
					_, _ = u.WriteToUDPAddrPort(b[:n], from)
				}
			}
		})
	}
	return s, nil
}

func (s *stand) tcp(ctx context.Context, l net.Listener, config *tls.Config) {
	for {
		raw, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			pause(ctx, 50*time.Millisecond)
			continue
		}
		s.wg.Go(func() {
			within, cancel := context.WithTimeout(ctx, visitTime)
			defer cancel()
			defer raw.Close()
			_ = tls.Server(raw, config).HandshakeContext(within)
		})
	}
}

func (s *stand) end() {
	s.cancel()
	s.wg.Wait()
}
