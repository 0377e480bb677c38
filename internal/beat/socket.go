package beat

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
)

// datagram is one notification and who sent it, as the kernel says.
type datagram struct {
	body     []byte // valid until the next receive
	pid, uid int
}

// maxSocketPath is what fits into a socket address with its final zero.
const maxSocketPath = 107

// bindSocket makes a datagram socket at path that only uid can write to. A socket
// that is there already is replaced in one step: at no instant is there none.
func bindSocket(path string, uid, gid int) (fd int, err error) {
	temp := path + ".new"
	if len(temp) > maxSocketPath {
		return -1, fmt.Errorf("notify socket %s: the path has %d bytes and %d are allowed; use a shorter run directory or process name",
			path, len(path), maxSocketPath-len(".new"))
	}
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return -1, fmt.Errorf("notify socket: %w", err)
	}
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("notify socket: %w", err)
	}
	undo := func(what string, err error) (int, error) {
		return -1, errors.Join(fmt.Errorf("notify socket %s: %s: %w", path, what, err), unix.Close(fd))
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: temp}); err != nil {
		return undo("binding", err)
	}
	if err := os.Chmod(temp, 0o600); err != nil {
		return undo("setting its mode", err)
	}
	if uid >= 0 || gid >= 0 {
		if err := os.Lchown(temp, uid, gid); err != nil {
			return undo("giving it to the program's user", err)
		}
	}
	if err := listen(fd); err != nil {
		return undo("asking for credentials", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return undo("putting it in its place", err)
	}
	return fd, nil
}

// listen makes a socket, new or kept by the shadow, ready for receive.
func listen(fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
}

// controlSize has room for the credentials and for nothing else: the kernel
// itself closes descriptors that were sent along, before they ever are ours.
func controlSize() int { return unix.CmsgSpace(unix.SizeofUcred) }

// receive reads one datagram. ok is false if there is none now. A datagram that
// is too long, or that carries no credentials, comes back empty.
func receive(fd int, body, control []byte) (d datagram, ok bool) {
	n, cn, flags, _, err := unix.Recvmsg(fd, body, control, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return datagram{}, errors.Is(err, unix.EINTR)
	}
	d = datagram{pid: -1, uid: -1}
	msgs, err := unix.ParseSocketControlMessage(control[:cn])
	if err != nil {
		return d, true
	}
	for i := range msgs {
		if c, err := unix.ParseUnixCredentials(&msgs[i]); err == nil {
			d.pid, d.uid = int(c.Pid), int(c.Uid)
			continue
		}
		if fds, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			for _, sent := range fds {
				unix.Close(sent)
			}
		}
	}
	if flags&unix.MSG_TRUNC == 0 && d.pid > 0 {
		d.body = body[:n]
	}
	return d, true
}

// fileName returns the name under which a process has its socket and page, or an
// error for a name that would lead elsewhere.
func fileName(p ha.Process) (string, error) {
	s := string(p)
	if s == "" || s[0] == '.' || strings.ContainsAny(s, "/\x00") || len(s) > 200 {
		return "", fmt.Errorf("process name %q cannot be a file name", s)
	}
	return s, nil
}

// parentOf returns the parent of a process from /proc/PID/stat, which, unlike
// cmdline and environ, never waits for the program's memory. Zero if it is gone.
func parentOf(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, ok := strings.Cut(string(b[max(strings.LastIndexByte(string(b), ')'), 0):]), ") ")
	if !ok {
		return 0
	}
	var state string
	var parent int
	if _, err := fmt.Sscan(rest, &state, &parent); err != nil {
		return 0
	}
	return parent
}

// descends reports whether pid is a descendant of of. The depth is bounded, so
// that a process that forks while it is looked at cannot hold up the loop.
func descends(pid, of int) bool {
	for range 16 {
		if pid = parentOf(pid); pid == of {
			return pid > 1
		}
		if pid <= 1 {
			return false
		}
	}
	return false
}
