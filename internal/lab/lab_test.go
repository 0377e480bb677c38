package lab

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
)

func TestMain(m *testing.M) {
	code := Main(m, helpers())
	for _, what := range []string{"server", "etcdutl"} {
		_ = os.Remove(etcdPath(what)) // it may never have been built
	}
	os.Exit(code)
}

// sleeper is a program that does nothing, well.
const sleeper = "    command: [sleep, 100000]\n"

// TestHarness starts one program, kills it, kills each half and both, and finds
// nothing left at the end.
func TestHarness(t *testing.T) {
	i := Start(t, "processes:\n  one:\n    ramp-up: 100ms\n"+sleeper)
	p := i.Running("one")
	mark := i.Mark()
	i.Signal(int(p.GetPid()), unix.SIGKILL)
	i.Await(mark, ha.Recovered, "one")
	p = i.Running("one")

	mark = i.Mark()
	shadow, monitor := i.halves()
	i.Signal(monitor, unix.SIGKILL)
	i.Await(mark, ha.Recovered, "monitor")
	if got := i.Running("one"); got.GetPid() != p.GetPid() {
		t.Errorf("the program was restarted with the monitor: pid %d, now %d", p.GetPid(), got.GetPid())
	}
	mark = i.Mark()
	i.Signal(shadow, unix.SIGKILL)
	i.Await(mark, ha.Recovered, "shadow")
	if got := i.Running("one"); got.GetPid() != p.GetPid() {
		t.Errorf("the program was restarted with the shadow: pid %d, now %d", p.GetPid(), got.GetPid())
	}
	i.Kill()
	if !Alive(int(p.GetPid())) {
		t.Error("the program died with both halves")
	}
	i.Begin()
	if got := i.Running("one"); got.GetPid() != p.GetPid() {
		t.Errorf("the program was not taken back: pid %d, now %d", p.GetPid(), got.GetPid())
	}
}
