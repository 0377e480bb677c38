package spawn

import (
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// mounts is the table of mounts, read again only when the kernel says that it
// changed: reading it for each start was half of the cost of a start.
type mounts struct {
	mu   sync.Mutex
	file *os.File // nil: not opened yet
	list []mount
}

type mount struct {
	dir    string
	remote bool // its server may be silent
}

// mayHang reports whether a path lies on a file system whose server may be silent.
// The table of mounts is asked, and not the file system itself.
func (m *mounts) mayHang(paths ...string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refresh()
	for _, path := range paths {
		best, remote := 0, false
		for _, at := range m.list {
			if len(at.dir) >= best && under(path, at.dir) {
				best, remote = len(at.dir), at.remote
			}
		}
		if remote {
			return true
		}
	}
	return false
}

func (m *mounts) refresh() {
	if m.file == nil {
		f, err := os.Open("/proc/self/mounts")
		if err != nil {
			return
		}
		m.file = f
	} else if !m.changed() {
		return
	}
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return
	}
	m.list = m.list[:0]
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) >= 3 {
			m.list = append(m.list, mount{unescape(f[1]), remote(f[2])})
		}
	}
}

// changed asks the kernel, which tells each open file once after each change.
func (m *mounts) changed() bool {
	p := []unix.PollFd{{Fd: int32(m.file.Fd()), Events: unix.POLLPRI}}
	n, err := unix.Poll(p, 0)
	return err != nil || n > 0
}

func (m *mounts) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.file != nil {
		_ = m.file.Close() // nothing was written
		m.file = nil
	}
}

func remote(kind string) bool {
	switch kind {
	case "cifs", "smb3", "ceph", "9p", "afs", "lustre", "gfs2", "ocfs2", "autofs",
		"virtiofs", "beegfs", "gpfs":
		return true
	}
	return strings.HasPrefix(kind, "fuse") || strings.HasPrefix(kind, "nfs")
}
