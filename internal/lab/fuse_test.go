package lab

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"gemel/internal/need"
)

// silence is a file system that answers nothing: whoever opens a file in it
// waits in state D, where no signal reaches it, until the server goes away.
type silence struct {
	dir  string
	file *os.File
	once sync.Once
	done chan struct{}
	busy chan struct{} // closed at the first request that is not answered
}

// mountSilence mounts one at dir.
func mountSilence(t *testing.T, dir string) *silence {
	t.Helper()
	need.Root(t)
	need.Device(t, "/dev/fuse")
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatalf("opening /dev/fuse: %v", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("lab", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd)); err != nil {
		_ = unix.Close(fd)
		t.Fatalf("mounting a FUSE file system: %v", err)
	}
	// Not before: the device wakes nobody who began to wait before the mount.
	s := &silence{dir: dir, file: os.NewFile(uintptr(fd), "/dev/fuse"), done: make(chan struct{}), busy: make(chan struct{})}
	go s.serve()
	t.Cleanup(s.leave)
	return s
}

// serve answers the first request of the protocol (INIT) and takes all others
// without a word.
func (s *silence) serve() {
	defer close(s.done)
	b := make([]byte, 1<<17)
	first := true
	for {
		n, err := s.file.Read(b)
		if err != nil || n < 40 {
			return
		}
		switch opcode := binary.LittleEndian.Uint32(b[4:]); {
		case opcode == 26: // INIT
			out := make([]byte, 16+64)
			binary.LittleEndian.PutUint32(out, uint32(len(out)))
			copy(out[8:16], b[8:16]) // the request's number
			binary.LittleEndian.PutUint32(out[16:], 7)
			binary.LittleEndian.PutUint32(out[20:], 31)
			binary.LittleEndian.PutUint32(out[24:], 65536) // read ahead
			binary.LittleEndian.PutUint32(out[36:], 65536) // write
			if _, err := s.file.Write(out); err != nil {
				return
			}
		case first:
			first = false
			close(s.busy)
		}
	}
}

// leave ends the server: whoever waits gets an error.
func (s *silence) leave() {
	s.once.Do(func() {
		_ = s.file.Close()
		_ = unix.Unmount(s.dir, unix.MNT_DETACH)
		<-s.done
	})
}
