package journal

import (
	"fmt"
	"testing"
	"time"

	"gemel/internal/ha"
)

func open(t testing.TB, o Options) (*Journal, Past) {
	t.Helper()
	if o.Boot == "" {
		o.Boot = "boot-1"
	}
	j, p, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Logf("closing: %v", err)
		}
	})
	return j, p
}

// step is a small turn of the core: the n-th start of a program, with an event.
func step(n int) Step {
	why := ha.Reason{Rule: "ladder.restart", Text: "it exited"}
	return Step{At: ha.Instant(n) * ha.Instant(time.Second), Wall: time.Unix(int64(1700000000+n), 0),
		Input: ha.Exited{Process: "p", Start: ha.StartID(n), Status: ha.ExitStatus{Code: n % 256}},
		Actions: []ha.Action{
			ha.Start{Process: "p", Start: ha.StartID(n + 1), Why: why},
			ha.Keep{Key: "process/p", Value: fmt.Sprintf(`{"n":%d}`, n)},
			ha.Emit{Event: ha.Event{ID: uint64(n), Code: ha.AttemptRestart, Subject: ha.OfProcess("p"), Text: "x"}},
		}}
}

func readSteps(t testing.TB, dir string, from uint64) (steps []Record, gaps []string) {
	t.Helper()
	err := Read(dir, from, func(r Record) bool {
		switch r.Kind {
		case KindStep:
			steps = append(steps, r)
		case KindGap:
			gaps = append(gaps, r.Note)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return steps, gaps
}

func TestRemembers(t *testing.T) {
	dir := t.TempDir()
	j, p := open(t, Options{Dir: dir})
	if !p.Empty || p.NextStart != 1 || p.NextEvent != 1 || len(p.Repairs) != 0 {
		t.Fatalf("fresh: %+v", p)
	}
	if err := j.Boot(Life{At: 5, Wall: time.Unix(9, 0), Boot: "boot-1", Version: "v"}); err != nil {
		t.Fatal(err)
	}
	if err := j.Manifest(3, "gemel.yaml", []byte("processes: {}\n")); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 10; n++ {
		if err := j.Step(step(n)); err != nil {
			t.Fatal(err)
		}
	}
	assert := Step{At: 1, Input: ha.Settled{}, Sync: true, Actions: []ha.Action{
		ha.Emit{Event: ha.Event{ID: 11, Code: ha.DiskTrouble, Subject: ha.OfNode(), Change: ha.Assert}},
		ha.Emit{Event: ha.Event{ID: 12, Code: ha.ExistenceRecovering, Subject: ha.OfProcess("p"), Change: ha.Assert}},
		ha.Emit{Event: ha.Event{ID: 13, Code: ha.Recovered, Subject: ha.OfProcess("p"), Change: ha.Clear}},
		ha.Keep{Key: "gone", Value: "1"}, ha.Keep{Key: "gone"},
		ha.Arm{Process: "p", Start: 11, Next: 40},
	}}
	if err := j.Step(assert); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	_, p = open(t, Options{Dir: dir})
	if p.Empty || p.NextStart != 41 || p.NextEvent != 14 || p.Kept["process/p"] != `{"n":10}` || len(p.Kept) != 1 ||
		string(p.Manifest) != "processes: {}\n" || p.ManifestName != "gemel.yaml" || p.ManifestVersion != 3 ||
		p.Boot != "boot-1" || len(p.Alarms) != 1 || p.Alarms[0].Code != ha.DiskTrouble || len(p.Repairs) != 0 {
		t.Fatalf("%+v", p)
	}
	steps, gaps := readSteps(t, dir, 0)
	if len(steps) != 11 || len(gaps) != 0 {
		t.Fatalf("%d steps, gaps %q", len(steps), gaps)
	}
	if in := steps[4].Input.(ha.Exited); in.Status.Code != 5 || len(steps[4].Actions) != 3 || steps[4].Boot != "boot-1" {
		t.Fatalf("%+v", steps[4])
	}
}

func TestRotates(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, Options{Dir: dir, Limit: 64 << 10, Segment: 8 << 10})
	for n := 1; n <= 2000; n++ {
		if err := j.Step(step(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Sync(); err != nil {
		t.Fatal(err)
	}
	list, _, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, s := range list {
		sum += s.size
	}
	if len(list) < 3 || sum > 64<<10 {
		t.Fatalf("%d segments, %d bytes", len(list), sum)
	}
	steps, gaps := readSteps(t, dir, 0)
	if len(gaps) != 0 || steps[len(steps)-1].Input.(ha.Exited).Start != 2000 {
		t.Fatalf("gaps %q", gaps)
	}
	for i := 1; i < len(steps); i++ {
		if a, b := steps[i-1].Input.(ha.Exited).Start, steps[i].Input.(ha.Exited).Start; b != a+1 {
			t.Fatalf("%d after %d", b, a)
		}
	}
}

func TestBootFillsInAndBoundIsKept(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, Options{Dir: dir, Segment: 8 << 10})
	if err := j.Boot(Life{Version: "v"}); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 1000; n++ {
		if err := j.Step(step(n)); err != nil {
			t.Fatal(err)
		}
	}
	j.Bound(64 << 10)
	if err := j.Sync(); err != nil {
		t.Fatal(err)
	}
	list, _, err := segments(dir)
	if err != nil || len(list) > 8 || len(list) < 2 {
		t.Fatalf("%v, %d segments", err, len(list))
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, p := open(t, Options{Dir: dir}); p.Boot != "boot-1" || p.LastWall.IsZero() || p.NextStart != 1002 {
		t.Fatalf("%+v", p)
	}
}

func TestTake(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, Options{Dir: dir, Segment: 4 << 10})
	var p Past
	p.Take(Record{Kind: KindStep, Actions: step(1).Actions}) // a reader whose first base record is damaged
	for n := 1; n <= 100; n++ {
		s := step(n)
		e := s.Actions[2].(ha.Emit)
		e.Event.Change = ha.Change(n % 3)
		s.Actions[2] = e
		if err := j.Step(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Manifest(4, "m", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := Read(dir, 0, func(r Record) bool { p.Take(r); return true }); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	_, want := open(t, Options{Dir: dir})
	if p.Kept["process/p"] != want.Kept["process/p"] || p.NextStart != want.NextStart || p.NextEvent != want.NextEvent ||
		p.ManifestVersion != 4 || len(p.Alarms) != len(want.Alarms) {
		t.Fatalf("%+v, want %+v", p, want)
	}
}

func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, Options{Dir: dir, Segment: 4 << 10})
	for n := 1; n <= 200; n++ {
		s := step(n)
		if n%50 == 0 {
			s.Input = ha.Ready{Process: "other", Start: ha.StartID(n)}
		}
		if err := j.Step(s); err != nil {
			t.Fatal(err)
		}
	}
	var seen []string
	if err := Read(dir, 0, func(r Record) bool {
		if r.Kind != KindBase {
			seen = append(seen, r.Kind)
		}
		return true
	}, `"other"`); err != nil || fmt.Sprint(seen) != "[step step step step]" {
		t.Fatalf("%v, %v", err, seen)
	}
}
