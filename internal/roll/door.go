package roll

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"gemel/internal/mtls"
	"gemel/internal/mtls/join"
	"gemel/internal/tcp"
)

const (
	greetTime   = 10 * time.Second // for a handshake
	greetMost   = 64               // handshakes at once
	removeEvery = 500 * time.Millisecond
	sowPause    = 100 * time.Millisecond
	openAgain   = time.Second // an address that is not there yet
	enlistTime  = 45 * time.Second
)

// Serve answers other machines at this node's addresses, until ctx ends. A witness
// answers nobody. socket is the store's, for those that have no member of it.
func (c *Clerk) Serve(ctx context.Context, socket string) error {
	if c.role == mtls.Witness {
		<-ctx.Done()
		return ctx.Err()
	}
	for c.Home.seeded() { // before the store has begun no token is known
		pause(ctx, sowPause)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	config, err := c.files.Server([]string{overHTTP, overStore}, false, mtls.Node, mtls.Witness, mtls.Person)
	if err != nil {
		return err
	}
	enroll := &join.Enroll{Cluster: c.Roll().Cluster.ID, Book: book{c.Store}, Admit: c.books.admit, Who: c.files.Peer, Log: c.Log}
	d := &porch{clerk: c, config: config, socket: socket, http: make(chan net.Conn), done: make(chan struct{}), seats: make(chan struct{}, greetMost)}
	mux := http.NewServeMux()
	mux.Handle(certificates+"/", enroll)
	mux.HandleFunc(enlistPath, func(w http.ResponseWriter, r *http.Request) { d.answer(w, r, d.enlist) })
	mux.HandleFunc(leavePath, func(w http.ResponseWriter, r *http.Request) { d.answer(w, r, d.leave) })
	mux.HandleFunc(rollPath, func(w http.ResponseWriter, r *http.Request) { d.answer(w, r, d.roll) })
	mux.HandleFunc(signerPath, func(w http.ResponseWriter, r *http.Request) { d.answer(w, r, d.signer) })
	mux.HandleFunc(clockPath, func(w http.ResponseWriter, r *http.Request) { d.answer(w, r, d.clock) })
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: greetTime, ReadTimeout: askTime, WriteTimeout: 2 * askTime, IdleTimeout: askTime, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug)}
	var wg sync.WaitGroup
	me, _ := c.Roll().Node(c.me)
	for _, at := range me.Addresses {
		wg.Go(func() { d.open(ctx, at) })
	}
	wg.Go(func() { _ = srv.Serve(d) })
	<-ctx.Done()
	close(d.done)
	_ = srv.Close()
	wg.Wait()
	d.talks.Wait()
	return ctx.Err()
}

// fits refuses addresses that do not fit to those of the others.
func (r Roll) fits(n Node, one bool) error {
	if len(n.Addresses) < len(r.Networks) && !one {
		var lacks []string
		for _, w := range r.Networks {
			if _, ok := n.Addresses[w.Name]; !ok {
				lacks = append(lacks, w.Name)
			}
		}
		return fmt.Errorf("it has no address in %v: %s. Give it: --address NET=IP, or say that you know it: --one-network", lacks, oneNetwork)
	}
	for _, o := range r.Nodes {
		for net, at := range n.Addresses {
			if !slices.ContainsFunc(r.Networks, func(w network) bool { return w.Name == net }) {
				return fmt.Errorf("there is no network %s in the cluster; there are %s", net, r.names())
			}
			if o.Name != n.Name && o.Addresses[net] == at {
				return fmt.Errorf("%s is the address of %s already: two machines with one address are reached by turns", at, o.Name)
			}
		}
	}
	return nil
}

func (r Roll) names() string {
	var out []string
	for _, n := range r.Networks {
		out = append(out, n.Name)
	}
	return fmt.Sprint(out)
}

// A porch accepts connections and sends each to where its protocol belongs.
type porch struct {
	clerk  *Clerk
	config *tls.Config
	socket string
	http   chan net.Conn
	done   chan struct{}
	seats  chan struct{}
	talks  sync.WaitGroup
}

// open listens at an address, also if it comes later than we do.
func (d *porch) open(ctx context.Context, at netip.AddrPort) {
	told := false
	for ctx.Err() == nil {
		l, err := tcp.Listen(at.String())
		if err != nil {
			if !told {
				d.clerk.Log.Warn("other machines cannot ask here; it is tried again", "address", at.String(), "error", err)
			}
			told = true
			pause(ctx, openAgain)
			continue
		}
		stop := context.AfterFunc(ctx, func() { _ = l.Close() })
		d.accept(ctx, l)
		stop()
		_ = l.Close()
	}
}

func (d *porch) accept(ctx context.Context, l net.Listener) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			pause(ctx, 50*time.Millisecond) // no descriptor is free
			continue
		}
		select {
		case d.seats <- struct{}{}:
			d.talks.Go(func() { d.greet(ctx, conn) })
		default: // who is pushed away asks again
			_ = conn.Close()
		}
	}
}

// greet makes the handshake.
func (d *porch) greet(ctx context.Context, raw net.Conn) {
	conn := tls.Server(raw, d.config)
	within, cancel := context.WithTimeout(ctx, greetTime)
	err := conn.HandshakeContext(within)
	cancel()
	<-d.seats
	if err != nil {
		d.clerk.Log.Debug("a connection was refused", "from", raw.RemoteAddr().String(), "error", err)
		_ = raw.Close()
		return
	}
	cs := conn.ConnectionState()
	if cs.NegotiatedProtocol == overStore {
		if _, err := d.clerk.files.Peer(cs, mtls.Node); err != nil {
			d.clerk.Log.Warn("somebody who is no node asked for the store", "from", raw.RemoteAddr().String(), "error", err)
			_ = raw.Close()
			return
		}
		d.pass(ctx, conn)
		return
	}
	select {
	case d.http <- conn:
	case <-d.done:
		_ = raw.Close()
	}
}

// pass joins a connection to the store's socket of this machine.
func (d *porch) pass(ctx context.Context, conn net.Conn) {
	near, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", d.socket)
	if err != nil {
		_ = conn.Close()
		return
	}
	splice(ctx, conn, near)
}

// splice carries bytes both ways until one side ends.
func splice(ctx context.Context, a, b net.Conn) {
	stop := context.AfterFunc(ctx, func() { _, _ = a.Close(), b.Close() })
	defer stop()
	var wg sync.WaitGroup
	for _, p := range [][2]net.Conn{{a, b}, {b, a}} {
		wg.Go(func() {
			_, _ = io.Copy(p[0], p[1])
			_, _ = a.Close(), b.Close()
		})
	}
	wg.Wait()
}

// Accept gives the HTTP server its next connection.
func (d *porch) Accept() (net.Conn, error) {
	select {
	case c := <-d.http:
		return c, nil
	case <-d.done:
		return nil, net.ErrClosed
	}
}

// Close is part of net.Listener.
func (d *porch) Close() error { return nil }

// Addr is part of net.Listener.
func (d *porch) Addr() net.Addr { return &net.TCPAddr{} }

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
