package rpc

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	"gemel/internal/ha"
)

// A monitor that is killed while it writes leaves half a message, which connect
// takes for a fault of the protocol. It is a connection that ended: Follow tries
// again.
func TestCutInTheMiddle(t *testing.T) {
	for _, cut := range []error{
		connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("protocol error: incomplete envelope: %w", io.ErrUnexpectedEOF)),
		connect.NewError(connect.CodeUnknown, fmt.Errorf("read unix: %w", syscall.ECONNRESET)), // it had not read the request yet
	} {
		err := Explain(cut)
		var e *ha.Error
		if !errors.As(err, &e) || e.Kind != ha.ErrUnavailable || e.Reason != "connection" {
			t.Errorf("explained as %#v", err)
		}
	}
}
