package disk

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The kernel takes so many bytes of a path in the address of a socket.
const sunPath = 107

// A Place is a path of a socket as an address. A long one goes through a
// descriptor of its directory, which must stay open for as long as it is used.
type Place struct {
	Addr string
	dir  *os.File
}

// PlaceOf returns the address of a path.
func PlaceOf(path string) (Place, error) {
	if len(path) <= sunPath {
		return Place{Addr: path}, nil
	}
	dir, base := filepath.Split(path)
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return Place{}, fmt.Errorf("opening the directory of the store's socket: %w", err)
	}
	p := Place{Addr: fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), base), dir: f}
	if len(p.Addr) > sunPath {
		p.Close()
		return Place{}, fmt.Errorf("the name of the store's socket %q is too long: at most %d bytes", base, sunPath-len("/proc/self/fd/1234/"))
	}
	return p, nil
}

// Close gives the directory back. The address is of no use after that.
func (p Place) Close() {
	if p.dir != nil {
		_ = p.dir.Close()
	}
}

// Dial connects to a socket by its path.
func Dial(d *net.Dialer, path string) (net.Conn, error) {
	p, err := PlaceOf(path)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return d.Dial("unix", p.Addr)
}

// Clear makes room for a socket. What was left behind is taken away; what
// somebody listens on, or is no socket, is not.
func Clear(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for an old socket of the store: %w", err)
	}
	if st.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s is in the way of the store's socket and is no socket; move it away", path)
	}
	c, err := Dial(&net.Dialer{}, path)
	if err == nil {
		_ = c.Close()
		return fmt.Errorf("somebody serves a store on %s already", path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("trying whether somebody serves on %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("removing the socket that a former store left: %w", err)
	}
	return nil
}

func fdatasync(f *os.File) error {
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return fmt.Errorf("fdatasync: %w", err)
	}
	return nil
}
