package roll

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
	"gemel/internal/mtls"
)

const (
	// deafTime is after what a machine that answers nothing is left for another one.
	deafTime = time.Second
	// voteLook is how often a machine that goes by way of another one looks whether it
	// has a vote of its own by now.
	voteLook = 200 * time.Millisecond
)

// Tunnel serves a socket at path as if the store was there, until ctx ends. own is the
// socket of this machine's member, which is taken once it votes.
func (c *Clerk) Tunnel(ctx context.Context, path, own string) error {
	if c.role == mtls.Witness {
		<-ctx.Done()
		return ctx.Err()
	}
	config, err := c.files.Client([]string{overStore}, mtls.Name{Cluster: c.Roll().Cluster.ID, Role: mtls.Node})
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("making the way to the store: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("making the way to the store: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(fmt.Errorf("making the way to the store: %w", err), l.Close())
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		near, err := l.Accept()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			pause(ctx, 50*time.Millisecond)
			continue
		}
		wg.Go(func() {
			far, borrowed, err := c.far(ctx, config, own)
			switch {
			case err != nil:
				c.Log.Debug("the store is not reached", "error", err)
				_ = near.Close()
			case borrowed:
				borrow(ctx, c, near, far)
			default:
				splice(ctx, near, far)
			}
		})
	}
}

// borrow is splice by way of another machine, until this one votes: the death of that
// machine would take the store from this one for as long as it takes to notice it, though
// a member of it is here. Who asks connects anew then, and is connected to that.
func borrow(ctx context.Context, c *Clerk, near, far net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		for ctx.Err() == nil && !votes(c) {
			pause(ctx, voteLook)
		}
		cancel()
	})
	splice(ctx, near, far)
}

// votes reports whether this machine's member of the store has its vote.
func votes(c *Clerk) bool {
	me, _ := c.Roll().Node(c.me)
	return me.Voter && !c.Home.Joining()
}

// far connects to a member that votes: this machine's own, or the first of the others
// that answers, which is borrowed then. If none does, the own member may have its vote
// without our knowing: the one that gave it may be dead.
func (c *Clerk) far(ctx context.Context, config *tls.Config, own string) (conn net.Conn, borrowed bool, err error) {
	if !votes(c) {
		me, _ := c.Roll().Node(c.me)
		if conn, err = c.Roll().elsewhere(ctx, config, c.me); err == nil || !me.Voter {
			return conn, true, err
		}
	}
	conn, err2 := (&net.Dialer{Timeout: deafTime}).DialContext(ctx, "unix", own)
	if err2 != nil {
		return nil, false, errors.Join(err, err2)
	}
	return conn, false, nil
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
			conn, err := call(ctx, to, config)
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

// call makes one connection. One that is not answered any more ends soon.
func call(ctx context.Context, at string, config *tls.Config) (net.Conn, error) {
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deafTime/time.Millisecond))
		}), err)
	}}
	raw, err := d.DialContext(ctx, "tcp", at)
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
