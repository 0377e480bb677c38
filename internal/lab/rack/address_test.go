package rack

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
)

// TestShadowHangs: while the shadow hangs, the guard ends the group at the deadline that the
// shadow was given last. The monitor, whose authority is good, does not fight it over the
// address.
func TestShadowHangs(t *testing.T) {
	t.Parallel()
	r := begun(t, Options{})
	n := active(t, r, "")
	must(t, n.Signal(unix.SIGSTOP, "shadow"))
	hung := clock.Now()
	eventually(t, "the guard ends the group", func() bool { _, err := r.Active(time.Millisecond); return err != nil })
	// For as long as the fight would go on: the shadow is not replaced before 10 s.
	eventually(t, "two seconds have passed", func() bool { return clock.Now() > hung.Add(4*time.Second) })
	must(t, n.Signal(unix.SIGCONT, "shadow"))
	active(t, r, "")
	out := n.Tool("events", "-n", "500")
	if lost := strings.Count(out, "it is gone from this machine"); lost > 2 {
		t.Errorf("the address was taken away %d times:\n%s", lost, last(out, 30))
	}
}
