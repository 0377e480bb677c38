package rack

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/need"
	"gemel/internal/places"
	"gemel/internal/store"
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

// TestSlowDisk: each fsync of all voters takes as long as this profile bears. So does a write;
// no authority ends by it, and what is asked for is done, if later.
func TestSlowDisk(t *testing.T) {
	need.Command(t, "strace")
	r := begun(t, Options{})
	n := active(t, r, "")
	other := otherOf(r, n)
	const slow = 50 * time.Millisecond
	for _, x := range r.Nodes() {
		must(t, x.Slow(slow))
	}
	c, err := store.Dial(store.Config{Socket: places.Places{Data: n.Path("data"), Run: n.Path("run")}.StoreSocket(), Prefix: "/another/"})
	must(t, err)
	defer c.Close()
	var took time.Duration
	eventually(t, "the disks are slow", func() bool { // the tracers take hold in a moment
		d, err := c.Doc(t.Context(), "slow")
		must(t, err)
		began := time.Now()
		_, err = c.PutDoc(t.Context(), "slow", d.Rev, []byte(began.String()))
		took = time.Since(began)
		return err == nil && took >= slow
	})
	t.Logf("a write takes %v", took)
	before := lives(t, r)
	for i, to := range []*Node{other, n} {
		began := time.Now()
		eventually(t, "it can be moved", func() bool { return strings.Contains(n.Tool("move", string(Group), string(to.Name)), "goes to") })
		active(t, r, to.Name)
		t.Logf("a move takes %v", time.Since(began))
		if got := lives(t, r); got != before+i+1 {
			t.Errorf("the program was started %d times for move %d", got-before, i+1)
		}
	}
	for _, x := range r.Nodes() {
		must(t, x.Mend())
	}
	must(t, r.Whole(bound))
}
