package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"gemel/internal/store/etcdpb"
)

const (
	visitTime = 5 * time.Second // for each endpoint
	trials    = 30              // writes by which a store is measured
)

// A visit is what was found at an external etcd before anything rests on it.
type visit struct {
	Cluster uint64        // etcd's id of itself
	Write   time.Duration // the slowest of some writes
	Silent  []error       // of endpoints that did not answer
	Here    bool          // there are keys below the prefix
}

// Visit goes to each endpoint, and writes some keys below the prefix, which it takes away
// again. What answers and is wrong is an error, as is a store of which nothing answers.
func (c *Client) Visit(ctx context.Context) (visit, error) {
	errs := make([]error, len(c.ends))
	var wg sync.WaitGroup
	for i, e := range c.ends {
		wg.Go(func() {
			within, cancel := context.WithTimeout(ctx, visitTime)
			defer cancel()
			l, err := e.begin(within) // once: what is refused now is not worth waiting for
			if err == nil {
				_ = l.Close()
				err = c.enter(within, e)
			}
			if err != nil {
				errs[i] = fmt.Errorf("the etcd at %s: %w", e.name, err)
			}
		})
	}
	wg.Wait()
	var v visit
	var wrong error
	for i, err := range errs {
		switch {
		case err == nil:
			c.first.Store(int32(i))
		case silent(err):
			v.Silent = append(v.Silent, err)
		default:
			wrong = errors.Join(wrong, err)
		}
	}
	if wrong == nil && len(v.Silent) == len(c.ends) {
		wrong = errors.Join(v.Silent...)
	}
	if wrong != nil {
		return v, wrong
	}
	v.Cluster = c.cluster.Load()
	var err error
	if v.Here, err = inhabited(ctx, &c.pool); err == nil {
		v.Write, err = measure(ctx, &c.pool)
	}
	return v, err
}

// enter is fit. Who is refused for the certificate that he shows, or does not show, hears of
// that after his handshake, if he does not write first: then he hears nothing, and asks again.
func (c *pool) enter(ctx context.Context, e *end) error {
	for try := 1; ; try++ {
		_, err := c.fit(ctx, e)
		var said *net.OpError
		switch {
		case err == nil, ctx.Err() != nil,
			errors.Is(err, ErrVersion), errors.Is(err, ErrForeign), errors.Is(err, ErrRefused), errors.As(err, &said) && said.Op == "remote error":
			return err
		case try == 10:
			return fmt.Errorf("it takes connections and answers nothing; it may want a certificate of who asks: %w", err)
		}
		wait(ctx, watchGap)
	}
}

// silent reports whether nobody was reached, which may be over soon.
func silent(err error) bool {
	var op *net.OpError
	var name *net.DNSError
	if errors.As(err, &name) && name.IsNotFound {
		return false
	}
	return errors.Is(err, errLate) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &op) && op.Op == "dial"
}

// inhabited reports whether there is any key below the prefix.
func inhabited(ctx context.Context, c *pool) (bool, error) {
	within, cancel := context.WithTimeout(ctx, visitTime)
	defer cancel()
	resp, err := c.scan(within, below([]byte(c.c.Prefix)))
	if err != nil {
		return false, fmt.Errorf("reading the keys below %s: %w", c.c.Prefix, err)
	}
	return len(kvs(resp, 0)) > 0, nil
}

// measure returns what the slowest of some writes took.
func measure(ctx context.Context, c *pool) (worst time.Duration, err error) {
	key := c.key("trial/" + rand.Text())
	for i := range trials + 1 {
		op := put(key, []byte{byte(i)})
		if i == trials {
			op = remove(key)
		}
		within, cancel := context.WithTimeout(ctx, visitTime)
		began := time.Now()
		_, err := c.once(within, &etcdpb.TxnRequest{Success: []*etcdpb.RequestOp{op}})
		cancel()
		if err != nil {
			return 0, fmt.Errorf("trying to write below %s: %w", c.c.Prefix, err)
		}
		worst = max(worst, time.Since(began))
	}
	return worst, nil
}
