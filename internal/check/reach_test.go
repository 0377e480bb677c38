package check

import (
	"context"
	"net"
	"testing"

	"gemel/internal/manifest"
	"gemel/internal/need"
)

func TestReach(t *testing.T) {
	need.Root(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	for _, to := range []manifest.Target{{Host: "127.0.0.1"}, {Host: "::1"}, {Host: "localhost"}, {Host: "127.0.0.1", Port: port}} {
		if err := Reach(t.Context(), to); err != nil {
			t.Errorf("%s: %v", to, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Reach(t.Context(), manifest.Target{Host: "127.0.0.1", Port: port}); err == nil {
		t.Error("a port at which nobody listens was reached")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Reach(ctx, manifest.Target{Host: "127.0.0.1"}); err == nil {
		t.Error("it did not end with its context")
	}
	if err := Reach(t.Context(), manifest.Target{Host: "no-such-host.invalid"}); err == nil {
		t.Error("a name that is none was reached")
	}
}
