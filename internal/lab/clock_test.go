package lab

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
	"gemel/internal/journal"
)

// TestClockStep: the wall clock was set by a day, forward or back, while the
// programs ran.
//
// The wall clock belongs to the machine and cannot be set for one test, and
// there is no name space for it; so the past is moved instead of the present. A
// life runs and both halves are killed; every wall time in its journal is moved by
// a day, ahead and behind; then the next life begins. Nothing differs from a
// life without a step: the programs are taken back, the restart before the step
// still counts in its window of an hour, what was given up stays so, ids go on
// growing, restarts come without a pause, and the journal with the step in its
// middle replays. That the core cannot look at the wall clock at all is a law of
// its own: bannedTime in internal/law_test.go.
func TestClockStep(t *testing.T) {
	for _, step := range []time.Duration{0, 24 * time.Hour, -24 * time.Hour} {
		t.Run(fmt.Sprint(step), func(t *testing.T) {
			t.Parallel()
			i := Start(t, "processes:\n  one:\n    ramp-up: 50ms\n    restarts: {limit: 2, within: 1h, delay: 0s}\n"+sleeper+
				"  lost:\n    ramp-up: 50ms\n    recovery: none\n"+sleeper)
			i.Signal(int(i.Running("lost").GetPid()), unix.SIGKILL)
			i.Await(0, ha.ExistenceDisabled, "lost")
			i.Signal(int(i.Running("one").GetPid()), unix.SIGKILL)
			i.Await(0, ha.Recovered, "one")
			p := i.Running("one")
			mark := i.Mark()
			i.Kill()
			stepped(t, i, step)
			i.Begin()

			now := i.Running("one")
			if now.GetPid() != p.GetPid() || now.GetWindow() != 1 || now.GetStarts() != 2 {
				t.Errorf("pid %d, %d restarts in the window, %d starts; want %d, 1, 2", now.GetPid(), now.GetWindow(), now.GetStarts(), p.GetPid())
			}
			if l := Process(i.Status(), "lost"); l.GetState() != "given-up" || l.GetPid() != 0 {
				t.Errorf("lost is %s", l.GetState())
			}
			for _, r := range []ha.Code{ha.Recovered, ha.ExistenceDisabled} {
				last := i.Mark()
				i.Signal(int(i.Running("one").GetPid()), unix.SIGKILL)
				e := i.Await(last, r, "one")
				if took := time.Until(e.GetAt().AsTime()).Abs(); took > Bound {
					t.Errorf("the event is %v away from now", took)
				}
			}
			for last, n := uint64(0), 0; n < len(i.Events(0, "")); n++ {
				id := i.Events(0, "")[n].GetId()
				if id <= last {
					t.Errorf("event %d comes after %d", id, last)
				}
				last = id
			}
			if len(i.Events(mark, "")) == 0 {
				t.Error("no event is newer than those before the step")
			}
			if r, err := i.Client.Replay(t.Context(), &gemelv1.ReplayRequest{}); err != nil || r.GetDifferences() != 0 {
				t.Errorf("replay: %v, %d differences\n%s", err, r.GetDifferences(), r.GetText())
			}
		})
	}
}

// stepped writes the journal of an instance anew with every wall time moved.
func stepped(t *testing.T, i *Instance, by time.Duration) {
	t.Helper()
	was, is := i.Path("data/journal"), i.Path("data/stepped")
	var at journal.Record
	j, _, err := journal.Open(journal.Options{Dir: is, Now: func() (ha.Instant, time.Time) { return at.At, at.Wall.Add(by) }})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	write := func(r journal.Record) error {
		switch r.Kind {
		case journal.KindBoot:
			l := *r.Life
			l.Wall = l.Wall.Add(by)
			return j.Boot(l)
		case journal.KindManifest:
			return j.Manifest(r.Version, r.Name, r.Bytes)
		case journal.KindStep:
			for k, a := range r.Actions {
				if e, ok := a.(ha.Emit); ok {
					e.Event.Wall = e.Event.Wall.Add(by)
					r.Actions[k] = e
				}
			}
			for _, q := range r.Quiet {
				if err := j.Step(journal.Step{At: q, Input: ha.Tick{}}); err != nil {
					return err
				}
			}
			return j.Step(journal.Step{At: r.At, Wall: r.Wall.Add(by), Input: r.Input, Actions: r.Actions})
		case journal.KindBase:
			return nil
		}
		return fmt.Errorf("a record of kind %s", r.Kind)
	}
	var failed error
	err = journal.Read(was, 0, func(r journal.Record) bool {
		at = r
		n++
		failed = write(r)
		return failed == nil
	})
	if err != nil || failed != nil || n < 10 {
		t.Fatalf("moving %d records: %v, %v", n, err, failed)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(was); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(is, was); err != nil {
		t.Fatal(err)
	}
}
