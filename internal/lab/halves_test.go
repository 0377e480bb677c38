package lab

import (
	"testing"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
)

// TestHungHalves: a half that lives and does not answer is replaced by the other
// one; the programs notice nothing, and what dies afterwards is restarted.
func TestHungHalves(t *testing.T) {
	for _, half := range []string{"monitor", "shadow"} {
		t.Run(half, func(t *testing.T) {
			t.Parallel()
			i := Start(t, "processes:\n  one:\n    ramp-up: 50ms\n"+sleeper)
			p := i.Running("one")
			mark := i.Mark()
			shadow, monitor := i.halves()
			pid := map[string]int{"monitor": monitor, "shadow": shadow}[half]
			i.Signal(pid, unix.SIGSTOP)
			i.Await(mark, ha.WatchdogRecovering, half)
			i.Await(mark, ha.Recovered, half)
			compare(t, half, i.Classic(mark, half), recovery(ha.WatchdogRecovering, "major"))
			if now := i.Running("one"); now.GetPid() != p.GetPid() {
				t.Errorf("the program was restarted: pid %d, now %d", p.GetPid(), now.GetPid())
			}
			mark = i.Mark()
			i.Signal(int(p.GetPid()), unix.SIGKILL)
			i.Await(mark, ha.Recovered, "one")
		})
	}
}
