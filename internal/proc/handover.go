package proc

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Dup returns a copy of the socket to the present shadow, which stays open when
// the Link ends: a monitor that is about to be replaced by exec hands it on, so
// that the shadow sees no end of it. It is -1 while there is no shadow.
//
// Orders that the socket did not take yet are lost with the Link, and a report
// may have been taken and not acted upon. Neither matters: the next monitor says
// OrderHello, is told everything anew, and decides from that.
func (l *Link) Dup() (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client == nil {
		return -1, nil
	}
	rc, err := l.client.file.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("copying the socket to the shadow: %w", err)
	}
	fd := -1
	if cerr := rc.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 3) }); cerr != nil {
		err = cerr
	}
	if err != nil {
		return -1, fmt.Errorf("copying the socket to the shadow: %w", err)
	}
	return fd, nil
}
