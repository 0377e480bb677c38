package beat

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
)

// hearing is all that changes in a Watcher. Guarded by its lock.
type hearing struct {
	member func(pid int, start ha.StartID) bool
	log    *slog.Logger
	poll   *poller

	procs map[ha.Process]*proc
	socks map[int32]*proc // by descriptor
	due   queue
	said  []ha.Input // to be told without the lock, in order

	rest time.Duration // how long a datagram may wait when there are many
	buf  []byte        // for pages
	mail *mailbox
}

// proc returns the record of a process, and makes one.
func (h *hearing) proc(p ha.Process) *proc {
	e := h.procs[p]
	if e == nil {
		e = &proc{name: p, sock: -1, index: -1, tokens: burst}
		h.procs[p] = e
	}
	return e
}

// bind makes the socket of e and listens to it.
func (h *hearing) bind(e *proc, runDir string, uid, gid int) error {
	if err := passable(filepath.Join(runDir, "notify")); err != nil {
		return fmt.Errorf("directory of notify sockets: %w", err)
	}
	fd, err := bindSocket(SocketPath(runDir, e.name), uid, gid)
	if err != nil {
		return err
	}
	return h.listen(e, fd)
}

// passable makes a directory through which the users of programs reach what is
// their own, whatever the umask of the daemon is.
func passable(dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	return os.Chmod(dir, 0o711)
}

// listen takes fd, a datagram socket, as that of e; fd is closed on failure.
func (h *hearing) listen(e *proc, fd int) error {
	if err := h.poll.add(fd); err != nil {
		return errors.Join(fmt.Errorf("watching the notify socket: %w", err), unix.Close(fd))
	}
	e.sock = fd
	h.socks[int32(fd)] = e
	h.setEager(e, true)
	return nil
}

// setEager says whether what e sends next is worth a wake-up: until its first
// READY=1 or beat others may wait for it, and then it is one of many.
func (h *hearing) setEager(e *proc, on bool) {
	if e.sock < 0 || e.eager == on {
		return
	}
	set := h.poll.patient
	if on {
		set = h.poll.eager
	}
	if err := set(e.sock); err != nil {
		h.log.Warn("notify socket is heard late", "process", e.name, "error", err)
	}
	e.eager = on
}

// hurry wakes the loop if e made it have something to do earlier than it thinks.
func (h *hearing) hurry(e *proc) {
	if e.index == 0 || len(h.said) > 0 {
		h.poll.wake()
	}
}

// remove removes a file of a process that is watched no more.
func (h *hearing) remove(path string) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		h.log.Warn("file of an ended process not removed", "error", err)
	}
}

// release closes the descriptors of e.
func (h *hearing) release(e *proc) {
	if e.sock >= 0 {
		delete(h.socks, int32(e.sock))
		// The shadow holds a copy, so that closing alone would leave it in the poller.
		if err := h.poll.remove(e.sock); err != nil {
			h.log.Warn("notify socket cannot be left", "process", e.name, "error", err)
		}
		unix.Close(e.sock)
		e.sock, e.eager = -1, false
	}
	if e.page != nil {
		e.page.f.Close()
		e.page = nil
	}
}
