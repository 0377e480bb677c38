package rack

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The disk of a node takes nothing while it is full, and nobody else's is; it is gone with its
// rack, and what was on it stays if that was asked for.
func TestDisk(t *testing.T) {
	tools(t)
	for _, keep := range []bool{false, true} {
		r, err := New(Options{Disk: 8 << 20, Gemel: "/bin/false", Program: []string{"/bin/false"}})
		must(t, err)
		a, b := r.Node("a"), r.Node("b")
		must(t, a.Fill())
		big := bytes.Repeat([]byte("x"), 64<<10)
		if err := os.WriteFile(a.Path("data/new"), big, 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("a disk without room took a file: %v", err)
		}
		must(t, os.WriteFile(b.Path("data/new"), big, 0o600))
		must(t, empty(a))
		must(t, os.WriteFile(a.Path("data/new"), big, 0o600))
		if keep {
			r.Keep()
		}
		dir := r.Dir
		must(t, r.Close())
		mounts, err := os.ReadFile("/proc/self/mounts")
		must(t, err)
		if strings.Contains(string(mounts), dir) {
			t.Errorf("disks of %s are still mounted", dir)
		}
		got, err := os.ReadFile(a.Path("data/new"))
		if keep != bytes.Equal(got, big) {
			t.Errorf("keep %v: %d bytes are there, %v", keep, len(got), err)
		}
		must(t, os.RemoveAll(dir))
	}
}
