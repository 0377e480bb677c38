package rpc

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
)

// maxPath is what fits into a socket's address, its end and the suffix under
// which it is made included.
const maxPath = 107 - len(".4194304")

// listener is a unix socket that takes its name away at its end, unless another
// one has it by then.
type listener struct {
	*net.UnixListener
	path   string
	made   unix.Stat_t
	handed atomic.Bool // another one goes on with it
}

// Listen makes the socket of the API at path, whose directory must exist and
// belong to root or to this user alone. The socket appears whole, with mode 0600
// (Server.Admit opens it to others when the manifest lets others in). What a dead
// daemon left there is replaced; a living one is an error.
func Listen(path string) (net.Listener, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("making the socket %s: the path has %d bytes and at most %d are possible; choose a shorter one with --socket or --run-dir",
			path, len(path), maxPath)
	}
	if err := trusted(filepath.Dir(path), uint32(os.Geteuid())); err != nil {
		return nil, fmt.Errorf("making the socket %s: %w", path, err)
	}
	if err := vacate(path); err != nil {
		return nil, err
	}
	// It is made under another name and moved, so that nobody ever finds a
	// socket with a wrong mode, or none.
	temp := path + "." + strconv.Itoa(os.Getpid())
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("making the socket %s: %w", path, err)
	}
	u, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("making the socket %s: %w", path, err)
	}
	u.SetUnlinkOnClose(false)
	l := &listener{UnixListener: u, path: path}
	err = os.Chmod(temp, 0o600)
	if err == nil {
		err = unix.Lstat(temp, &l.made)
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making the socket %s: %w", path, err), u.Close(), os.Remove(temp))
	}
	return l, nil
}

// Handed is a socket of the API that the program before this one, in the same process,
// left open: whoever connects meanwhile waits, and is not told that nobody is there.
type Handed struct {
	FD       int
	Dev, Ino uint64 // of its name
}

// Hand leaves the socket of a listener, and its name, to the program that takes the place
// of this one.
func Hand(l net.Listener) (Handed, error) {
	own, ok := l.(*listener)
	if !ok {
		return Handed{}, errors.New("handing on the API: not a socket of Listen")
	}
	c, err := own.SyscallConn()
	if err != nil {
		return Handed{}, fmt.Errorf("handing on the API: %w", err)
	}
	h := Handed{Dev: own.made.Dev, Ino: own.made.Ino}
	var derr error
	if err := c.Control(func(fd uintptr) { h.FD, derr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) }); err != nil || derr != nil {
		return Handed{}, fmt.Errorf("handing on the API: %w", errors.Join(err, derr))
	}
	own.handed.Store(true)
	return h, nil
}

// Take goes on with a socket that was handed on, if it is still the one at path. The
// descriptor is used up in any case.
func Take(path string, h Handed) (net.Listener, error) {
	f := os.NewFile(uintptr(h.FD), "api")
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, fmt.Errorf("going on with the socket %s: %w", path, err)
	}
	if st.Dev != h.Dev || st.Ino != h.Ino {
		return nil, fmt.Errorf("going on with the socket %s: another one is there now", path)
	}
	n, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("going on with the socket %s: %w", path, err)
	}
	u, ok := n.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("going on with the socket %s: what was handed on is none", path), n.Close())
	}
	u.SetUnlinkOnClose(false)
	return &listener{UnixListener: u, path: path, made: st}, nil
}

// Close ends the listener and takes its name away if it is still its own and was not
// handed on.
func (l *listener) Close() error {
	var now unix.Stat_t
	if l.handed.Load() {
		return l.UnixListener.Close()
	}
	if err := unix.Lstat(l.path, &now); err == nil && now.Ino == l.made.Ino && now.Dev == l.made.Dev {
		if err := os.Remove(l.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(err, l.UnixListener.Close())
		}
	}
	return l.UnixListener.Close()
}

// open lets others connect, or only this user.
func (l *listener) open(others bool) error {
	mode := os.FileMode(0o600)
	if others {
		mode = 0o666
	}
	if err := os.Chmod(l.path, mode); err != nil {
		return fmt.Errorf("setting who may connect: %w", err)
	}
	return nil
}

// vacate takes away a socket that nobody answers at any more.
func vacate(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("making the socket %s: %w", path, err)
	}
	if st.Mode().Type() != fs.ModeSocket {
		return &ha.Error{Kind: ha.ErrRefused, Reason: "not-a-socket", Hint: "move it away, or choose another place with --socket",
			Err: fmt.Errorf("making the socket %s: something else is there (%v)", path, st.Mode().Type())}
	}
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	switch {
	case err == nil:
		_ = c.Close()
		return &ha.Error{Kind: ha.ErrRefused, Reason: "in-use", Hint: "another gemel runs here; give this one directories of its own with --data-dir and --run-dir",
			Err: fmt.Errorf("making the socket %s: somebody answers there", path)}
	case errors.Is(err, unix.ECONNREFUSED):
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("taking away the socket %s of a dead daemon: %w", path, err)
		}
		return nil
	}
	return fmt.Errorf("asking who is at the socket %s: %w", path, err)
}

// trusted says what is wrong with a directory in which a socket is to be
// believed: it must belong to root or to user, and nobody else may write to it.
func trusted(dir string, user uint32) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("looking at %s: %w", dir, err)
	}
	if st.Uid != 0 && st.Uid != user {
		return fmt.Errorf("%s belongs to user %d, neither root nor %d", dir, st.Uid, user)
	}
	if st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0 {
		return fmt.Errorf("%s can be written by others: chmod go-w %s", dir, dir)
	}
	return nil
}
