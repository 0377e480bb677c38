package tcp

import (
	"context"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPrompt asks the kernel what it was told, at both ends of a connection.
func TestPrompt(t *testing.T) {
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	called, err := Dialer{Give: 3 * time.Second}.Dial(ctx, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = called.Close() }()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = accepted.Close() }()
	if got, err := get(t, called, unix.TCP_USER_TIMEOUT); err != nil || got != 3000 {
		t.Errorf("the caller gives up after %d ms, %v; want 3000", got, err)
	}
	for end, c := range map[string]net.Conn{"caller": called, "called": accepted} {
		for _, o := range []struct {
			name   string
			option int
			want   int
			new    bool // a kernel before 6.16 has it not
		}{
			{"linear", unix.TCP_THIN_LINEAR_TIMEOUTS, 1, false},
			{"repeat", unix.TCP_RTO_MIN_US, 30_000, true},
			{"acknowledge", unix.TCP_DELACK_MAX_US, 5_000, true},
		} {
			if o.new && !Prompt() {
				t.Logf("this kernel has no %s", o.name)
				continue
			}
			got, err := get(t, c, o.option)
			// The kernel counts the delay in ticks of its own, of 1 to 10 ms.
			if err != nil || got < o.want || got > 2*o.want {
				t.Errorf("%s: %s is %d, %v; want %d", end, o.name, got, err, o.want)
			}
		}
	}
}

func get(t *testing.T, c net.Conn, option int) (int, error) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var v int
	var told error
	if err := raw.Control(func(fd uintptr) { v, told = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option) }); err != nil {
		t.Fatal(err)
	}
	return v, told
}
