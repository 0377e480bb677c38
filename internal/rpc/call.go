package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"gemel/internal/access"
	"gemel/internal/ha"
)

const (
	bodyTime  = 30 * time.Second // for the whole body of a request
	writeTime = 30 * time.Second // for one message of a stream, or one answer
)

// caller is who makes a call, and the call itself.
type caller struct {
	peer access.Peer
	wire *http.ResponseController
	role access.Role // set by the gate
	why  string      // of the role
	row  *row        // set by the gate
}

type callerKey struct{}

func callerOf(ctx context.Context) *caller {
	c, _ := ctx.Value(callerKey{}).(*caller)
	return c
}

// by names a caller for the journal and the audit.
func (s *Server) by(p access.Peer) string {
	return fmt.Sprintf("%s (uid %d)", s.policy.Name(p.UID), p.UID)
}

// body is the body of a request: bounded in bytes and, from the first read on,
// in time. When all of it is read the time no longer counts, so that a stream
// may last.
type body struct {
	io.ReadCloser
	wire  *http.ResponseController
	timed bool
	over  bool
}

func (b *body) Read(p []byte) (int, error) {
	if !b.timed && !b.over {
		b.timed = true
		// HTTP/2 has no deadline for a stream that is already read; that is no loss.
		_ = b.wire.SetReadDeadline(time.Now().Add(bodyTime))
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil && b.timed {
		b.timed, b.over = false, true
		_ = b.wire.SetReadDeadline(time.Time{})
	}
	return n, err
}

// front stands before the methods: it bounds what a call may use.
type front struct {
	next   http.Handler
	house  *house
	errors *connect.ErrorWriter
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, ok := r.Context().Value(connKey{}).(*conn)
	if !ok {
		http.Error(w, "who is calling is not known", http.StatusForbidden)
		return
	}
	refuse := func(err error) {
		w.Header().Set("Connection", "close")
		if e := f.errors.Write(w, r, toWire(r.Context(), err)); e != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}
	law, known := table[r.URL.Path]
	switch {
	case !known:
		refuse(connect.NewError(connect.CodeUnimplemented, fmt.Errorf("there is no method %.100q; see api/gemel/v1/gemel.proto", r.URL.Path)))
		return
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "methods are called with POST", http.StatusMethodNotAllowed)
		return
	}
	if !f.house.begin(c) {
		refuse(fault(ha.ErrBound, "calls", "let some of them end first", "user %d has %d calls under way, which is the bound", c.peer.UID, f.house.perCalls))
		return
	}
	defer f.house.end(c)
	wire := http.NewResponseController(w)
	_ = wire.SetWriteDeadline(time.Time{}) // an earlier call of this connection may have left one
	r.Body = &body{ReadCloser: http.MaxBytesReader(w, r.Body, int64(law.body)), wire: wire}
	f.next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, &caller{peer: c.peer, wire: wire})))
}

// guard stands between a call and its method: the gate, before anything of the
// body is read, and the interceptor around it.
type guard struct{ *Server }

// gate decides before anything of the body is read.
func (s guard) gate(ctx context.Context, spec connect.Spec, _ connect.Peer, _ http.Header) (context.Context, error) {
	c := callerOf(ctx)
	if c == nil {
		return nil, toWire(ctx, fault(ha.ErrDenied, "peer", "", "who is calling is not known"))
	}
	if err := s.allow(c, spec.Procedure); err != nil {
		s.denied(c, spec.Procedure)
		return nil, toWire(ctx, err)
	}
	return ctx, nil
}

// allow looks up what the caller may do now.
func (s guard) allow(c *caller, procedure string) error {
	law, ok := table[procedure]
	if !ok {
		return fault(ha.ErrDenied, "method", "", "%s has no row in the table of roles, so nobody may call it", method(procedure))
	}
	c.role, c.why = s.policy.Role(c.peer)
	if c.role < law.least {
		return fault(ha.ErrDenied, "role",
			fmt.Sprintf("run it as root, or let an admin write node: {access: {%ss: [%s]}} into the manifest and apply it", law.least, s.policy.Name(c.peer.UID)),
			"%s needs the role %s and user %s has %s: %s", method(procedure), law.least, s.policy.Name(c.peer.UID), c.role, c.why)
	}
	c.row = &law
	return nil
}

// WrapUnary runs a method for a caller that the gate let in.
func (s guard) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		c := callerOf(ctx)
		if c == nil || c.row == nil {
			return nil, toWire(ctx, fault(ha.ErrDenied, "gate", "", "the call did not pass the gate"))
		}
		_ = c.wire.SetReadDeadline(time.Time{}) // all of it was read; the call may last
		res, err := next(ctx, req)
		if c.row.change {
			s.keep(c, req, res, err)
		}
		_ = c.wire.SetWriteDeadline(time.Now().Add(writeTime))
		return res, toWire(ctx, err)
	}
}

// WrapStreamingClient does nothing: this is the server's side.
func (s guard) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler runs a stream until it ends, its caller loses the role
// that it needs, or the server ends.
func (s guard) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, stream connect.StreamingHandlerConn) error {
		c := callerOf(ctx)
		if c == nil || c.row == nil {
			return toWire(ctx, fault(ha.ErrDenied, "gate", "", "the call did not pass the gate"))
		}
		ctx, cancel := context.WithCancelCause(ctx)
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			s.watch(ctx, *c, stream.Spec().Procedure, cancel)
		}()
		err := next(ctx, bounded{stream, c.wire})
		err = toWire(ctx, err)
		cancel(nil)
		<-watched
		_ = c.wire.SetWriteDeadline(time.Now().Add(writeTime))
		return err
	}
}

// watch ends a stream whose caller may no longer have it.
func (s guard) watch(ctx context.Context, c caller, procedure string, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		changed := s.policy.Changed()
		if err := s.allow(&c, procedure); err != nil {
			cancel(err)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-s.ending:
			cancel(fault(ha.ErrUnavailable, "ending", "connect again", "this monitor is ending"))
			return
		case <-changed:
		case <-tick.C:
		}
	}
}

// bounded is a stream whose reader has a bounded time for each message.
type bounded struct {
	connect.StreamingHandlerConn
	wire *http.ResponseController
}

func (b bounded) Receive(m any) error {
	err := b.StreamingHandlerConn.Receive(m)
	_ = b.wire.SetReadDeadline(time.Time{}) // the stream may last
	return err
}

func (b bounded) Send(m any) error {
	_ = b.wire.SetWriteDeadline(time.Now().Add(writeTime))
	if err := b.StreamingHandlerConn.Send(m); err != nil {
		return errors.Join(errGone, err)
	}
	return nil
}

// errGone says that the caller left or did not read; nobody will see it.
var errGone = errors.New("the caller does not read any more")
