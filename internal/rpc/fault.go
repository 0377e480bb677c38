package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"connectrpc.com/connect"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
	"gemel/internal/status"
)

// fault makes an error of the API.
func fault(kind ha.ErrorKind, reason, hint, format string, args ...any) error {
	return &ha.Error{Kind: kind, Reason: reason, Hint: hint, Err: fmt.Errorf(format, args...)}
}

// toWire turns what a method returned into a Connect error with its ErrorInfo.
func toWire(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, ctx.Err()) {
		err = cause // as when the server ends, or a role was taken away
	}
	var done *connect.Error
	if errors.As(err, &done) {
		return done
	}
	var e *ha.Error
	switch {
	case errors.As(err, &e):
		if text := err.Error(); text != e.Error() {
			e = &ha.Error{Kind: e.Kind, Reason: e.Reason, Hint: e.Hint, Err: errors.New(text)}
		}
	case errors.Is(err, status.ErrLagged):
		e = &ha.Error{Kind: ha.ErrBound, Reason: "laggard", Hint: "go on from the id of the last event that was read", Err: err}
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, err)
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, err)
	default:
		e = &ha.Error{Kind: ha.ErrFailed, Err: err}
	}
	wire := connect.NewError(code(e.Kind), errors.New(e.Error()))
	if d, err := connect.NewErrorDetail(&gemelv1.ErrorInfo{
		Kind: gemelv1.ErrorKind(e.Kind), Reason: e.Reason, Hint: e.Hint,
	}); err == nil {
		wire.AddDetail(d)
	}
	return wire
}

func code(k ha.ErrorKind) connect.Code {
	switch k {
	case ha.ErrInvalid:
		return connect.CodeInvalidArgument
	case ha.ErrNotFound:
		return connect.CodeNotFound
	case ha.ErrDenied:
		return connect.CodePermissionDenied
	case ha.ErrRefused:
		return connect.CodeFailedPrecondition
	case ha.ErrBound:
		return connect.CodeResourceExhausted
	case ha.ErrUnavailable:
		return connect.CodeUnavailable
	case ha.ErrFailed:
		return connect.CodeInternal
	}
	return connect.CodeUnknown
}

// Explain turns an error of the client into an *ha.Error with its kind and what
// to do. It returns nil for nil, and ctx's own errors as they are.
func Explain(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	var local *ha.Error
	if errors.As(err, &local) {
		return local
	}
	var wire *connect.Error
	if !errors.As(err, &wire) {
		return err
	}
	for _, d := range wire.Details() {
		v, err := d.Value()
		if info, ok := v.(*gemelv1.ErrorInfo); ok && err == nil {
			return &ha.Error{Kind: ha.ErrorKind(info.Kind), Reason: info.Reason, Hint: info.Hint, Err: errors.New(wire.Message())}
		}
	}
	return bare(wire)
}

// bare explains an error that no method of ours made: the connection broke, or
// the two sides do not know each other's words.
func bare(wire *connect.Error) error {
	e := &ha.Error{Kind: ha.ErrFailed, Err: errors.New(wire.Message())}
	if errors.Is(wire, io.ErrUnexpectedEOF) || errors.Is(wire, syscall.ECONNRESET) || errors.Is(wire, syscall.EPIPE) {
		// A monitor that was killed within a message, or before it had read one: it
		// looks like a protocol error and is none.
		e.Kind, e.Reason = ha.ErrUnavailable, "connection"
		e.Err = errors.New("the daemon ended in the middle of an answer")
		e.Hint = "the monitor may be starting again; try once more"
		return e
	}
	switch wire.Code() {
	case connect.CodeUnimplemented:
		e.Kind, e.Reason = ha.ErrUnavailable, "version"
		e.Err = errors.New("the running gemel does not know this request: it is older than this tool")
		e.Hint = "replace the running one with: gemel upgrade"
	case connect.CodeUnavailable, connect.CodeAborted:
		e.Kind, e.Reason = ha.ErrUnavailable, "connection"
		e.Hint = "the monitor may be starting again; try once more"
	case connect.CodeInvalidArgument:
		e.Kind = ha.ErrInvalid
	case connect.CodeNotFound:
		e.Kind = ha.ErrNotFound
	case connect.CodePermissionDenied, connect.CodeUnauthenticated:
		e.Kind = ha.ErrDenied
	case connect.CodeFailedPrecondition:
		e.Kind = ha.ErrRefused
	case connect.CodeResourceExhausted:
		e.Kind = ha.ErrBound
	case connect.CodeDeadlineExceeded:
		e.Kind, e.Reason = ha.ErrUnavailable, "timeout"
		e.Err = errors.New("no answer in time")
		e.Hint = "the monitor may hang; it is replaced when it does, so try again in a moment"
	}
	return e
}
