package access

import (
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PeerOf asks the kernel who is at the other end of a unix socket: the side that
// connected, as it was when it connected, or the side that listens, as it was
// when it began to listen.
func PeerOf(c *net.UnixConn) (Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Peer{}, fmt.Errorf("asking who is at the other end: %w", err)
	}
	var p Peer
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			failed = err
			return
		}
		p = Peer{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid}
		p.Groups, failed = peerGroups(fd)
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return Peer{}, fmt.Errorf("asking who is at the other end: %w", err)
	}
	return p, nil
}

// peerGroups returns the supplementary groups of the other end. The kernel keeps
// them with the connection since 4.13; reading them from /proc by pid, as one had
// to before, could read those of another process. An older kernel tells none.
func peerGroups(fd uintptr) ([]uint32, error) {
	size := uint32(0)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS, 0, uintptr(unsafe.Pointer(&size)), 0)
	switch errno {
	case 0, unix.ENOPROTOOPT, unix.ENODATA:
		return nil, nil
	case unix.ERANGE:
	default:
		return nil, errno
	}
	if size == 0 || size%4 != 0 || size > 4*65536 {
		return nil, nil
	}
	groups := make([]uint32, size/4)
	_, _, errno = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
		uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return nil, errno
	}
	return groups[:size/4], nil
}
