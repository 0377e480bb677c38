package store

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
)

const (
	connectTime = time.Second     // for one attempt to connect, handshake included
	loginTime   = 3 * time.Second // to be known to an etcd by name and password, which costs it a tenth of a second of its processor
	firstPause  = 10 * time.Millisecond
	// Who says nothing for so long is asked whether it lives, and has so long to say so.
	aliveAfter = 10 * time.Second
	aliveTime  = 3 * time.Second
	// So much may be on its way to us; a document fits.
	receiveWindow = 2 << 20
)

// errClosed ends what is asked of a client that was closed.
var errClosed = errors.New("this client of the store is closed")

// errLate says that nothing was heard.
var errLate = errors.New("no answer in time")

// An end is one way to the store. There is one connection at a time, which is made
// when somebody needs it.
type end struct {
	name  string
	base  string // what stands before the name of a call
	open  func(context.Context) (*http.ClientConn, error)
	login func(context.Context, *line) (string, error) // the token of a new connection; nil: none is needed
	again time.Duration                                // the longest pause between two attempts to connect

	mu     sync.Mutex
	line   *line
	past   []*line       // those that take no new calls, and may have some still
	trying chan struct{} // closed when the attempt that runs has ended; nil: none runs
	stop   context.CancelFunc
	pause  time.Duration // after the next failure
	from   time.Time     // no attempt before
	why    error         // of the last failure
	shut   bool
}

// A line is one connection. All that is asked over it is answered by one process.
type line struct {
	*http.ClientConn
	base string
	fit  atomic.Bool // its version and its cluster are known, and are right
	// token says who we are with each call; empty: the certificate does, or nobody asks.
	token string
	login bool        // a token was asked for
	stale atomic.Bool // the token is good no more: there has to be another connection
}

// Do implements connect.HTTPClient. Nothing is sent twice: what cannot be sent over
// this connection is not sent.
func (l *line) Do(r *http.Request) (*http.Response, error) { return l.RoundTrip(r) }

// dead reports whether no call can be made any more: it is closed, or the other end
// takes no more of them.
func (l *line) dead() bool { return l.stale.Load() || l.Err() != nil || l.Available() <= 0 }

// connect returns the connection, and makes one if there is none. It waits until
// there is one or ctx ends. An attempt goes on when nobody waits for it any more:
// the next one who asks is not to begin anew.
func (e *end) connect(ctx context.Context) (*line, error) {
	for {
		l, trying, wait, err := e.look()
		if l != nil || err != nil {
			return l, err
		}
		t := time.NewTimer(wait)
		select {
		case <-trying:
		case <-t.C:
		case <-ctx.Done():
			err = ctx.Err()
		}
		t.Stop()
		if err != nil {
			e.mu.Lock()
			why := e.why
			e.mu.Unlock()
			if why != nil {
				return nil, why
			}
			return nil, err
		}
	}
}

// look returns the connection, or what to wait for: an attempt that runs, and for how
// long at most.
func (e *end) look() (*line, <-chan struct{}, time.Duration, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.shut {
		return nil, nil, 0, errClosed
	}
	if e.line != nil && !e.line.dead() {
		return e.line, nil, 0, nil
	}
	if e.line != nil {
		e.past = append(e.past, e.line)
		e.line = nil
	}
	if e.trying == nil {
		if wait := time.Until(e.from); wait > 0 {
			return nil, nil, wait, nil
		}
		ctx, stop := context.WithTimeout(context.Background(), connectTime+loginTime)
		e.trying, e.stop = make(chan struct{}), stop
		go e.try(ctx, e.trying)
	}
	return nil, e.trying, 2 * connectTime, nil
}

// try makes one attempt to connect.
func (e *end) try(ctx context.Context, done chan struct{}) {
	defer close(done)
	l, err := e.begin(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stop()
	e.trying = nil
	for i := len(e.past) - 1; i >= 0; i-- {
		if e.past[i].Err() != nil {
			e.past = append(e.past[:i], e.past[i+1:]...)
		}
	}
	switch {
	case err != nil:
		e.why = err
		e.from = time.Now().Add(e.pause)
		e.pause = min(e.pause*8/5, e.again)
	case e.shut:
		_ = l.Close()
	default:
		e.line, e.why, e.pause = l, nil, firstPause
	}
}

// begin makes a connection, and says over it who we are.
func (e *end) begin(ctx context.Context) (*line, error) {
	within, cancel := context.WithTimeout(ctx, connectTime)
	conn, err := e.open(within)
	cancel()
	if err != nil {
		return nil, err
	}
	l := &line{ClientConn: conn, base: e.base}
	if l.login = e.login != nil; l.login {
		if l.token, err = e.login(ctx, l); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return l, nil
}

// close ends all connections, and returns when nothing of it runs.
func (e *end) close() error {
	e.mu.Lock()
	e.shut = true
	trying := e.trying
	all := e.past
	if e.line != nil {
		all = append(all, e.line)
	}
	if trying != nil {
		e.stop()
	}
	e.mu.Unlock()
	var errs []error
	for _, l := range all {
		if l.Err() == nil {
			errs = append(errs, l.Close())
		}
	}
	if trying != nil {
		<-trying
	}
	return errors.Join(errs...)
}

// client is a call of etcd's API, as "KV/Txn", over one connection.
func client[Req, Res any](l *line, method string) *connect.Client[Req, Res] {
	return connect.NewClient[Req, Res](l, l.base+method,
		connect.WithGRPC(),
		connect.WithAcceptCompression("gzip", nil, nil),
		connect.WithReadMaxBytes(Quota), connect.WithSendMaxBytes(2*RequestLimit))
}

// ask makes a call of etcd's API.
func ask[Req, Res any](ctx context.Context, l *line, method string, req *Req) (*Res, error) {
	r := connect.NewRequest(req)
	l.sign(r.Header())
	resp, err := client[Req, Res](l, method).CallUnary(ctx, r)
	if err != nil {
		l.judge(err)
		return nil, err
	}
	return resp.Msg, nil
}

// plain takes the words of gRPC from an error.
func plain(err error) error {
	var said *connect.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded) || connect.CodeOf(err) == connect.CodeDeadlineExceeded:
		return errLate
	case denied.is(err):
		return fmt.Errorf("%w: it does not give us our keys: our user needs a role that may read and write all keys below the prefix (etcdctl role grant-permission ROLE --prefix=true readwrite PREFIX/)", errLogin)
	case noUser.is(err):
		return fmt.Errorf("%w: it has users, and takes us for none: give it a user and a password-file, or a certificate whose common name is a user", errLogin)
	case errors.As(err, &said) && said.Unwrap() != nil:
		return said.Unwrap()
	}
	return err
}

// A refusal is an error of etcd by its code and its words, which are all that there
// is of it on the wire.
type refusal struct {
	code connect.Code
	text string
}

func (r refusal) is(err error) bool {
	var said *connect.Error
	return errors.As(err, &said) && said.Code() == r.code && said.Message() == r.text
}

func (r refusal) String() string { return fmt.Sprintf("%v: %s", r.code, r.text) }
