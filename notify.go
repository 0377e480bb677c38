package gemel

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// notifyWait bounds how long a notification waits for a listener that is being
// replaced. A program is never held up for longer by Gemel's own restart.
const notifyWait = 2 // seconds

// notify sends one datagram by the protocol of sd_notify, with the number of the
// start, so that one sent just before a death is not taken for the successor's.
func notify(state string) error {
	addr := os.Getenv("NOTIFY_SOCKET")
	if addr == "" {
		return nil
	}
	if !strings.HasPrefix(addr, "/") && !strings.HasPrefix(addr, "@") {
		return fmt.Errorf("gemel: NOTIFY_SOCKET is %q: only a path and an abstract name (@...) can be used", addr)
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("gemel: socket for %s: %w", addr, err)
	}
	defer syscall.Close(fd)
	tv := syscall.Timeval{Sec: notifyWait}
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &tv); err != nil {
		return fmt.Errorf("gemel: bound for %s: %w", addr, err)
	}
	if n := Start(); n != 0 {
		state += fmt.Sprintf("\nX_GEMEL_START=%d", n)
	}
	for {
		err = syscall.Sendto(fd, []byte(state), syscall.MSG_NOSIGNAL, &syscall.SockaddrUnix{Name: addr})
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("gemel: notifying %s: %w", addr, err)
	}
	return nil
}
