package roll

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"gemel/internal/ha"
	"gemel/internal/mtls"
	"gemel/internal/store/disk"
	"gemel/internal/tcp"
)

const (
	// deafTime is after what a machine that answers nothing is left for another one, at most.
	deafTime = time.Second
	// homeLook is how often a machine that goes by way of another one looks whether its
	// own member votes and serves by now.
	homeLook = 200 * time.Millisecond
	// serveTime is in what time a member of this machine answers, and how often one that
	// does not is asked again.
	serveTime = 50 * time.Millisecond
)

// Way makes a connection to the store: to this machine's own member, whose socket is own,
// if that votes and serves, and else by way of another machine. So a member that begins
// anew, which takes longer than a short authority lasts, takes the store from nobody.
func (c *Clerk) Way(ctx context.Context, own string) (net.Conn, error) {
	config, err := c.files.Client([]string{overStore}, mtls.Name{Cluster: c.Roll().Cluster.ID, Role: mtls.Node})
	if err != nil {
		return nil, err
	}
	far := func(ctx context.Context) (net.Conn, error) { return c.Roll().elsewhere(ctx, config, c.me) }
	home := func(ctx context.Context) bool { return votes(c) && serves(ctx, own) }
	conn, err := detour(ctx, own, far, home)
	if me, _ := c.Roll().Node(c.me); err != nil && me.Voter {
		// The own member may have its vote without our knowing: the one that gave it may be dead.
		if conn, err2 := near(ctx, own); err2 == nil {
			return conn, nil
		}
	}
	return conn, err
}

// detour connects to own if this machine is at home there, and over far if it is not
// before that answers.
func detour(ctx context.Context, own string, far func(context.Context) (net.Conn, error), home func(context.Context) bool) (net.Conn, error) {
	if home(ctx) {
		return near(ctx, own)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	got := make(chan result, 1)
	go func() { // ends with ctx
		conn, err := far(ctx)
		got <- result{conn, err}
	}()
	look := time.NewTicker(serveTime)
	defer look.Stop()
	for {
		select {
		case r := <-got:
			if r.err != nil {
				return nil, r.err
			}
			return borrow(r.conn, home), nil
		case <-look.C:
			if !home(ctx) {
				continue
			}
			go func() {
				if r := <-got; r.conn != nil {
					_ = r.conn.Close()
				}
			}()
			return near(ctx, own)
		}
	}
}

// near connects to a socket of this machine.
func near(ctx context.Context, at string) (net.Conn, error) {
	d := net.Dialer{Timeout: deafTime}
	if until, ok := ctx.Deadline(); ok {
		d.Deadline = until
	}
	return disk.Dial(&d, at)
}

// serves reports whether the member at a socket answers. It listens long before that.
func serves(ctx context.Context, own string) bool {
	ctx, cancel := context.WithTimeout(ctx, serveTime)
	defer cancel()
	t := http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return near(ctx, own) }}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://store/version", nil)
	if err != nil {
		return false
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// A loan is a connection by way of another machine, until this one is at home in its own
// member: the death of that machine would take the store from this one for as long as it
// takes to notice it, though a member of it is here. Who asks connects anew then, and is
// connected to that.
type loan struct {
	net.Conn
	back context.CancelFunc
}

func borrow(conn net.Conn, home func(context.Context) bool) *loan {
	ctx, cancel := context.WithCancel(context.Background())
	l := &loan{conn, cancel}
	go func() { // ends with the connection
		for ctx.Err() == nil && !home(ctx) {
			pause(ctx, homeLook)
		}
		_ = conn.Close()
	}()
	return l
}

// Close is part of net.Conn.
func (l *loan) Close() error {
	l.back()
	return l.Conn.Close()
}

// votes reports whether this machine's member of the store has its vote.
func votes(c *Clerk) bool {
	me, _ := c.Roll().Node(c.me)
	return me.Voter && !c.Home.Joining()
}

// elsewhere connects to the first of the other nodes with a vote that answers.
func (r Roll) elsewhere(ctx context.Context, config *tls.Config, me ha.Node) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*deafTime)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	var at []string
	for _, n := range r.Nodes {
		if n.Voter && !n.Witness && n.Name != me {
			at = append(at, doors(n)...)
		}
	}
	results := make(chan result, len(at))
	for i, to := range at {
		go func() {
			pause(ctx, time.Duration(i)*60*time.Millisecond)
			conn, err := callFor(ctx, to, config, r.deaf())
			results <- result{conn, err}
		}()
	}
	errs := []error{errors.New("no voter is reached")}
	for i := range at {
		res := <-results
		if res.err != nil {
			errs = append(errs, res.err)
			continue
		}
		cancel()
		go func() { // those that come later are not needed
			for range len(at) - i - 1 {
				if late := <-results; late.conn != nil {
					_ = late.conn.Close()
				}
			}
		}()
		return res.conn, nil
	}
	return nil, errors.Join(errs...)
}

// deaf is for how long a machine by way of which the store is reached may be silent. When it
// dies, there has to be time to go by way of another one before an authority ends, which is
// renewed by that: the death of a voter stops nothing on a node without a vote.
func (r Roll) deaf() time.Duration {
	if life := r.Timers.Life; life > 0 {
		return min(deafTime, life/4)
	}
	return deafTime
}

// call makes one connection. One that is not answered any more ends soon.
func call(ctx context.Context, at string, config *tls.Config) (net.Conn, error) {
	return callFor(ctx, at, config, deafTime)
}

func callFor(ctx context.Context, at string, config *tls.Config, deaf time.Duration) (net.Conn, error) {
	raw, err := tcp.Dialer{Give: deaf}.Dial(ctx, at)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	return conn, nil
}
