package beat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

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
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
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

// listen makes a socket, new or kept by the shadow, ready for receive. It blocks,
// which receive does not heed: Go puts an os.File of a descriptor that does not
// block into its own poller, which each datagram would wake while ours rests.
func listen(fd int) error {
	if err := unix.SetNonblock(fd, false); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
}

const (
	batch       = 8                                                // datagrams that one system call takes
	controlSize = (unix.SizeofCmsghdr + unix.SizeofUcred + 7) &^ 7 // of one, see mailbox
)

// mailbox is the room for what one system call takes from a socket. Beside a
// datagram it has room for the credentials and for nothing else: the kernel itself
// closes descriptors that were sent along, before they ever are ours.
type mailbox struct {
	heads [batch]struct {
		unix.Msghdr
		n uint32
		_ uint32
	}
	iov     [batch]unix.Iovec
	body    [batch][maxDatagram]byte
	control [batch][controlSize]byte
}

func newMailbox() *mailbox {
	m := &mailbox{}
	for i := range m.heads {
		m.iov[i].Base = &m.body[i][0]
		m.iov[i].SetLen(maxDatagram)
		m.heads[i].Iov, m.heads[i].Iovlen = &m.iov[i], 1
		m.heads[i].Control = &m.control[i][0]
	}
	return m
}

// receive takes what waits in a socket, most of batch at most: fewer than that are
// all that there were. That they are asked for together spares the question
// whether there is another one.
func (m *mailbox) receive(fd, most int) (n int) {
	most = min(most, batch)
	for i := range m.heads[:most] {
		m.heads[i].SetControllen(controlSize)
	}
	for {
		n, _, e := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m.heads[0])), uintptr(most),
			unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT, 0, 0)
		switch e {
		case 0:
			return int(n)
		case unix.EINTR:
		default:
			return 0
		}
	}
}

// datagram returns number i of the last receive. One that is too long, or that
// carries no credentials, comes back empty.
func (m *mailbox) datagram(i int) datagram {
	h := &m.heads[i]
	d := datagram{pid: -1, uid: -1}
	c := m.control[i][:min(h.Controllen, controlSize)]
	head, data, _, err := unix.ParseOneSocketControlMessage(c)
	if err != nil || head.Level != unix.SOL_SOCKET || head.Type != unix.SCM_CREDENTIALS || len(data) < unix.SizeofUcred {
		return d
	}
	d.pid, d.uid = int(int32(binary.NativeEndian.Uint32(data))), int(binary.NativeEndian.Uint32(data[4:]))
	if h.Flags&unix.MSG_TRUNC == 0 && d.pid > 0 {
		d.body = m.body[i][:min(h.n, maxDatagram)]
	}
	return d
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
