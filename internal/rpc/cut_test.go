package rpc

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"connectrpc.com/connect"

	"gemel/internal/ha"
)

// A monitor that is killed while it writes leaves half a message, which connect
// takes for a fault of the protocol. It is a connection that ended: Follow tries
// again.
func TestCutInTheMiddle(t *testing.T) {
	err := Explain(connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("protocol error: incomplete envelope: %w", io.ErrUnexpectedEOF)))
	var e *ha.Error
	if !errors.As(err, &e) || e.Kind != ha.ErrUnavailable || e.Reason != "connection" {
		t.Errorf("explained as %#v", err)
	}
}
