package lab

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
)

// TestStopIsInReverseOrder: one SIGTERM to the shadow is an orderly end through
// the monitor: what needs another program ends before it, and each end is in the
// journal, which the next life shows.
func TestStopIsInReverseOrder(t *testing.T) {
	i := Start(t, "processes:\n  base:\n    ramp-up: 50ms\n"+sleeper+
		"  middle:\n    needs: [base]\n    ramp-up: 50ms\n"+sleeper+
		"  top:\n    needs: [middle]\n    ramp-up: 50ms\n"+sleeper)
	i.Running("top")
	mark := i.Mark()
	shadow, _ := i.halves()
	i.Signal(shadow, unix.SIGTERM)
	await(t, "both halves are gone", func() bool { s, m := i.halves(); return s == 0 && m == 0 })
	i.unfollow()
	i.Begin()
	i.Running("top")
	var ends []string
	for _, e := range i.Events(mark, "") {
		if e.GetCode() == uint32(ha.ProcessStopped) {
			ends = append(ends, about(e))
		}
	}
	if want := []string{"top", "middle", "base"}; !slices.Equal(ends, want) {
		t.Errorf("they ended in the order %s; want %s", strings.Join(ends, ", "), strings.Join(want, ", "))
	}
	for _, a := range i.Status().GetAlarms() {
		t.Errorf("an alarm stands: %s", line(a))
	}
}

// TestReplayFindsNoDifference: the journal of a life with faults, requests and
// deaths of both halves explains every action in it.
func TestReplayFindsNoDifference(t *testing.T) {
	i := Start(t, "processes:\n  one:\n    ramp-up: 50ms\n"+sleeper+"  two:\n    needs: [one]\n    ramp-up: 50ms\n"+sleeper)
	for range 2 {
		mark := i.Mark()
		i.Signal(int(i.Running("one").GetPid()), unix.SIGKILL)
		i.Await(mark, ha.Recovered, "one")
		i.Ask(gemelv1.Verb_VERB_RESTART, aProcess, "two")
		i.Running("two")
		mark = i.Mark()
		_, monitor := i.halves()
		i.Signal(monitor, unix.SIGKILL)
		i.Await(mark, ha.Recovered, "monitor")
		i.Kill()
		i.Begin()
		i.Running("two")
	}
	r, err := i.Client.Replay(t.Context(), &gemelv1.ReplayRequest{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d inputs, %d actions", r.GetInputs(), r.GetActions())
	if r.GetDifferences() != 0 || r.GetInputs() == 0 {
		t.Errorf("%d differences in %d inputs:\n%s", r.GetDifferences(), r.GetInputs(), r.GetText())
	}
}
