package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"gemel/api/gemel/v1/gemelv1connect"
	"gemel/internal/access"
	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// APILevel is the number of this contract; it grows with each addition to it.
const APILevel = 1

const (
	headTime = 10 * time.Second // for the header of a request
	idleTime = 2 * time.Minute  // for a connection between two calls
	endTime  = 2 * time.Second  // for calls under way when the server ends
)

// Server answers the API. It serves one listener, once.
type Server struct {
	b       Backend
	policy  *access.Policy
	log     *slog.Logger
	house   *house
	denials denials
	begun   time.Time
	ending  chan struct{} // closed when Serve is to end

	following atomic.Int32 // calls that follow output

	mu     sync.Mutex
	socket *listener // while it is served
}

type connKey struct{}

// NewServer returns a server; nothing is served before Serve.
func NewServer(b Backend, policy *access.Policy, log *slog.Logger) *Server {
	return &Server{b: b, policy: policy, log: log, house: newHouse(), begun: time.Now(), ending: make(chan struct{})}
}

// Admit puts the access lists of a manifest in force: for the next call of each
// connection and for streams at once. The socket lets others connect only while
// the lists name anybody.
func (s *Server) Admit(ctx context.Context, lists manifest.Access) {
	s.warn(s.policy.Set(ctx, lists))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.socket != nil {
		if err := s.socket.open(s.policy.Shared()); err != nil {
			s.log.Error("the socket of the API keeps its mode", "error", err)
		}
	}
}

func (s *Server) warn(unknown []string) {
	if len(unknown) > 0 {
		s.log.Warn("nobody on this machine has these names of the access lists; they let nobody in", "names", unknown)
	}
}

// Serve answers on l, which it closes, until ctx ends: then streams end at once
// and other calls have two seconds. It returns nil after ctx ended.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if own, ok := l.(*listener); ok {
		s.mu.Lock()
		s.socket = own
		err := own.open(s.policy.Shared())
		s.mu.Unlock()
		if err != nil {
			return errors.Join(fmt.Errorf("serving the API: %w", err), l.Close())
		}
	}
	// Calls outlive ctx by endTime; only what they are told of it ends them.
	calls, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	srv := s.http(calls)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(&door{l, s.house}) }()
	refresh := time.NewTicker(time.Minute)
	defer refresh.Stop()
	s.warn(s.policy.Refresh(ctx))
	for {
		select {
		case err := <-served:
			return errors.Join(fmt.Errorf("serving the API: %w", err), srv.Close())
		case <-refresh.C:
			s.policy.Refresh(ctx)
		case <-ctx.Done():
			s.mu.Lock()
			s.socket = nil
			s.mu.Unlock()
			close(s.ending)
			last, cancel := context.WithTimeout(calls, endTime)
			err := srv.Shutdown(last)
			cancel()
			if err != nil {
				cut()
				_ = srv.Close()
			}
			<-served
			return nil
		}
	}
}

// http returns the HTTP server whose calls end with ctx.
func (s *Server) http(ctx context.Context) *http.Server {
	options := connect.WithHandlerOptions(
		connect.WithInterceptors(guard{s}),
		connect.WithRequestGate(guard{s}.gate),
		connect.WithReadMaxBytes(largeBody),
		connect.WithCodec(strict{"json"}),
		connect.WithCodec(strict{"json; charset=utf-8"}),
		// A body that is small on the wire stays small in memory.
		connect.WithCompression("gzip", nil, nil),
		connect.WithRecover(func(_ context.Context, spec connect.Spec, _ http.Header, v any) error {
			s.log.Error("a call of the API failed inside", "method", method(spec.Procedure), "panic", v)
			return toWire(ctx, fault(ha.ErrFailed, "internal", "the log of gemel has the cause", "%s failed inside", method(spec.Procedure)))
		}),
	)
	_, methods := gemelv1connect.NewGemelHandler(&api{s, rollAPI{s}}, options)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // gRPC
	return &http.Server{
		Handler:           &front{next: methods, house: s.house, errors: connect.NewErrorWriter(options)},
		ReadHeaderTimeout: headTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    16 << 10,
		Protocols:         protocols,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 64, MaxReadFrameSize: 64 << 10, SendPingTimeout: time.Minute, PingTimeout: 15 * time.Second, WriteByteTimeout: writeTime},
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
}
