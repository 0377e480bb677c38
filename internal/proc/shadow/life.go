package shadow

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
)

// life is a mapped page in the run directory with the last instant up to which
// this shadow, or the one before it, had seen every exit. An exit that nobody saw
// happened after it.
type life struct {
	page   []byte
	before ha.Instant // of the shadow before this one; 0 if not known
}

func openLife(path string) (*life, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	defer unix.Close(fd)
	// Not a hole: on a full file system a store into one would be SIGBUS.
	if err := unix.Fallocate(fd, 0, 0, 8); err != nil {
		return nil, fmt.Errorf("making %s: %w", path, err)
	}
	page, err := unix.Mmap(fd, 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping %s: %w", path, err)
	}
	return &life{page: page, before: ha.Instant(binary.NativeEndian.Uint64(page))}, nil
}

func (l *life) seen(at ha.Instant) { binary.NativeEndian.PutUint64(l.page, uint64(at)) }

// last is the latest instant known: of this shadow, else of the one before.
func (l *life) last() ha.Instant { return ha.Instant(binary.NativeEndian.Uint64(l.page)) }
