package ask

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gemel/internal/config"
	"gemel/internal/decide/ladder"
	"gemel/internal/ha"
	"gemel/internal/journal"
	"gemel/internal/status"
)

const yaml = `processes:
  web:
    command: [/bin/true]
    severity: major
    restarts: {limit: 2, within: 15m}
    ramp-up: 5s
  db:
    command: [/bin/true]
checks:
  pages:
    tcp: {address: "127.0.0.1:1"}
    failures: 2
    covers: [web]
`

// A lab is the loop of the engine without edges: the test plays them.
type lab struct {
	t       *testing.T
	dir     string
	o       journal.Options
	j       *journal.Journal
	m       *ladder.Machine
	now     ha.Instant
	event   uint64
	version uint64
	last    []ha.Action
	boot    string
	text    string // of the manifest in force
}

func newLab(t *testing.T) *lab {
	l := &lab{t: t, dir: t.TempDir(), boot: "boot-1", now: ha.Instant(100 * time.Second)}
	l.o = journal.Options{Dir: l.dir}
	t.Cleanup(func() {
		if l.j != nil {
			if err := l.j.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	l.life(yaml)
	return l
}

// epoch is the wall time of instant 0.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func (l *lab) wall() time.Time { return epoch.Add(time.Duration(l.now)) }

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// life begins a life of a monitor.
func (l *lab) life(text string) {
	l.t.Helper()
	if l.j != nil {
		l.must(l.j.Close())
	}
	l.o.Boot = l.boot
	l.o.Now = func() (ha.Instant, time.Time) { return l.now, l.wall() }
	j, past, err := journal.Open(l.o)
	l.must(err)
	l.j = j
	l.event = past.NextEvent - 1
	if string(past.Manifest) != text {
		l.version = past.ManifestVersion + 1
		l.must(j.Manifest(l.version, "gemel.yaml", []byte(text)))
	}
	man, err := config.Parse("gemel.yaml", []byte(text))
	l.must(err)
	l.must(j.Boot(journal.Life{At: l.now, Wall: l.wall(), Boot: l.boot, Version: "test", First: past.NextStart}))
	l.text = text
	l.m = ladder.New(man, past.Kept, past.NextStart)
	l.in(ha.Booted{Boot: l.boot, NewBoot: past.Boot != "" && past.Boot != l.boot, Version: "test", First: past.Empty})
}

func (l *lab) apply(text string) {
	l.t.Helper()
	man, err := config.Parse("gemel.yaml", []byte(text))
	l.must(err)
	l.version++
	l.text = text
	l.must(l.j.Manifest(l.version, "gemel.yaml", []byte(text)))
	l.m.Want(man)
	l.in(ha.Applied{Version: l.version, Digest: man.Digest})
}

func (l *lab) in(in ha.Input) {
	l.t.Helper()
	acts := l.m.Step(l.now, in)
	for i, a := range acts {
		if e, ok := a.(ha.Emit); ok {
			l.event++
			e.Event.ID, e.Event.At, e.Event.Wall = l.event, l.now, l.wall()
			acts[i] = e
		}
	}
	l.last = acts
	l.must(l.j.Step(journal.Step{At: l.now, Wall: l.wall(), Input: in, Actions: acts}))
}

// pass lets time go by, with the ticks that the core asks for, and starts what
// is ordered.
func (l *lab) pass(d time.Duration) {
	l.t.Helper()
	end := l.now.Add(d)
	for {
		for _, a := range l.last {
			if s, ok := a.(ha.Start); ok {
				l.last = nil
				l.now = l.now.Add(time.Millisecond)
				l.in(ha.Started{Process: s.Process, Start: s.Start, PID: 1000 + int(s.Start)})
			}
		}
		at, ok := l.m.Wake()
		if !ok || at > end {
			break
		}
		l.now = max(l.now, at)
		l.in(ha.Tick{})
	}
	l.now = max(l.now, end)
}

func (l *lab) running(p ha.Process) ladder.View {
	for _, v := range l.m.Processes() {
		if v.Name == p {
			return v
		}
	}
	l.t.Fatalf("no process %s", p)
	return ladder.View{}
}

// start brings both programs up.
func (l *lab) start() {
	l.t.Helper()
	l.in(ha.Settled{})
	for range 2 {
		for _, a := range append([]ha.Action(nil), l.last...) {
			if s, ok := a.(ha.Start); ok {
				l.in(ha.Started{Process: s.Process, Start: s.Start, PID: 1000 + int(s.Start)})
			}
		}
	}
	for _, p := range []ha.Process{"web", "db"} {
		if v := l.running(p); v.PID == 0 {
			l.in(ha.Started{Process: p, Start: v.Start, PID: 1000 + int(v.Start)})
		}
	}
	l.pass(time.Minute)
}

// crash ends a program, with the successor of a standing order if there is one.
func (l *lab) crash(p ha.Process, code int) {
	l.t.Helper()
	v := l.running(p)
	in := ha.Exited{Process: p, Start: v.Start, Status: ha.ExitStatus{Code: code}}
	if next := l.armed(p, v.Start); next != 0 {
		in.Successor, in.PID = next, 1000+int(next)
	}
	l.in(in)
}

// armed finds the standing order in the journal.
func (l *lab) armed(p ha.Process, start ha.StartID) (next ha.StartID) {
	l.t.Helper()
	l.must(journal.Read(l.dir, 0, func(r journal.Record) bool {
		for _, a := range r.Actions {
			if arm, ok := a.(ha.Arm); ok && arm.Process == p && arm.Start == start {
				next = arm.Next
			}
		}
		return true
	}))
	return next
}

func (l *lab) why(q Question) Answer {
	l.t.Helper()
	a, err := Why(l.dir, q)
	l.must(err)
	for _, line := range strings.Split(a.Text(), "\n") {
		if n := len([]rune(line)); n > columns && strings.Contains(strings.TrimSpace(line), " ") {
			l.t.Errorf("%d columns: %s", n, line)
		}
	}
	return a
}

// wants checks that the text has these parts, in this order.
func wants(t *testing.T, text string, parts ...string) {
	t.Helper()
	flat := strings.Join(strings.Fields(text), " ")
	rest := flat
	for _, p := range parts {
		i := strings.Index(rest, p)
		if i < 0 {
			t.Fatalf("no %q (in this place) in\n%s", p, text)
		}
		rest = rest[i+len(p):]
	}
}

func (l *lab) same() Report {
	l.t.Helper()
	r, err := Replay(l.dir, time.Time{}, 0)
	l.must(err)
	if r.Differences > 0 || len(r.Notes) > 0 {
		l.t.Fatalf("%s", r.Text())
	}
	return r
}

func TestWhyACrash(t *testing.T) {
	l := newLab(t)
	l.start()
	l.pass(4*time.Minute + 2*time.Second)
	l.crash("web", 3)
	l.pass(time.Minute)
	a := l.why(Question{Process: "web"})
	wants(t, a.Text(), "process web.", "by the journal start", "ended with exit 3 after 5 min 2 s; by its standing order start",
		"because it ended with exit 3 [ladder.exit:", "means=fault",
		"-> event", "Process existence fault; attempting recovery (exit 3) [assert major]",
		"Attempting process restart recovery action", "the time was over that was waited for", "ladder.recovered", "Recovery successful")
	if len(a.Chain) != 2 || len(a.Chain[0].Events) < 2 {
		t.Fatalf("%+v", a.Chain)
	}
	// The event of the fault: what it means, what led to it, what came of it.
	e := l.why(Question{Event: a.Chain[0].Events[0]})
	wants(t, e.Text(), "event", "process web: Process existence fault; attempting recovery (exit 3).",
		"It means: The process is gone", "To the service:", "To do: Nothing yet", "ended with exit 3", "What came of it:", "Recovery successful")
	// The first start is another episode.
	all := l.why(Question{Process: "web", Last: 5})
	if len(all.Chain) <= len(a.Chain) {
		t.Fatalf("%d links, %d in the last episode", len(all.Chain), len(a.Chain))
	}
	// Nothing of the other program is told.
	if strings.Contains(all.Text(), "db") {
		t.Errorf("%s", all.Text())
	}
	r := l.same()
	if r.Lives != 1 || r.Inputs < 5 || r.Actions < 10 {
		t.Fatalf("%+v", r)
	}
}

func TestWhyGivenUpLockedAndStopped(t *testing.T) {
	l := newLab(t)
	l.start()
	for range 4 {
		if l.running("web").PID == 0 {
			break
		}
		l.crash("web", 1)
		l.pass(2 * time.Second)
	}
	v := l.running("web")
	if !v.Disabled {
		t.Fatalf("%+v", v)
	}
	snap := func(p status.ProcessStatus) *status.Snapshot {
		p.Name = "web"
		return &status.Snapshot{At: l.now, Processes: []status.ProcessStatus{p}, Node: status.NodeStatus{Admin: status.Unlocked}}
	}
	a := l.why(Question{Process: "web", Now: snap(status.ProcessStatus{State: "given-up", Reason: "all was tried", Op: status.Disabled, Admin: status.Unlocked})})
	wants(t, a.Text(), "Now given-up: all was tried.", "it was given up at 2026-", "monitoring disabled (exit 1)", "gemel lock web; gemel unlock web",
		"ladder.excess", "Recovery failure due to excessive restarts")

	l.in(ha.Request{ID: "1", Verb: ha.VerbLock, Target: ha.OfProcess("web"), By: "uid 0 (root)"})
	l.pass(time.Hour)
	// Much goes on with the other program meanwhile.
	for i := range 30 {
		l.in(ha.Request{ID: fmt.Sprint(i), Verb: ha.VerbClear, Target: ha.OfProcess("db")})
	}
	a = l.why(Question{Process: "web", Now: snap(status.ProcessStatus{State: "given-up", Op: status.Disabled, Admin: status.Locked})})
	wants(t, a.Text(), "it is locked: uid 0 (root) asked: lock process web at 2026-", "to undo: gemel unlock web")
	l.in(ha.Request{ID: "2", Verb: ha.VerbUnlock, Target: ha.OfProcess("web"), By: "x"})
	l.pass(time.Minute)
	if v := l.running("web"); v.PID == 0 {
		t.Fatalf("not started again: %+v", v)
	}
	l.in(ha.Request{ID: "3", Verb: ha.VerbStop, Target: ha.OfProcess("web"), By: "uid 7 (eve)"})
	l.in(ha.Exited{Process: "web", Start: l.running("web").Start, Status: ha.ExitStatus{Signal: 15, Code: -1}})
	a = l.why(Question{Process: "web", Now: snap(status.ProcessStatus{State: "stopped", Reason: "an operator stopped it", Admin: status.Unlocked, Op: status.Enabled})})
	wants(t, a.Text(), "Now stopped: an operator stopped it.", "it was stopped: uid 7 (eve) asked: stop process web", "gemel start web",
		"uid 7 (eve) asked: stop process web.", "-> granted: web is stopped", "the stop of start", "ended with signal 15 (SIGTERM)", "Process stopped")
	// A refusal is told with its reason.
	l.in(ha.Request{ID: "4", Verb: ha.VerbLock, Target: ha.OfProcess("web"), By: "op"})
	l.in(ha.Request{ID: "5", Verb: ha.VerbStart, Target: ha.OfProcess("web"), By: "op"})
	a = l.why(Question{Process: "web"})
	wants(t, a.Text(), "op asked: start process web", "ladder.refused", "-> refused: web is locked; first: gemel unlock web")
	l.same()
}

func TestWhyACheckAndTheNode(t *testing.T) {
	l := newLab(t)
	l.start()
	for range 2 {
		l.in(ha.Verdict{Check: "pages", Detail: "connection refused"})
	}
	l.in(ha.Examined{Process: "web", Start: l.running("web").Start, Ref: "0001-web.txt"})
	l.in(ha.Exited{Process: "web", Start: l.running("web").Start, Status: ha.ExitStatus{Signal: 9, Code: -1}})
	l.pass(time.Minute)
	a := l.why(Question{Process: "web"})
	wants(t, a.Text(), "Evidence: 0001-web.txt", "check pages failed: connection refused", "check pages failed 2 times in a row", "Process integrity fault",
		"evidence of start", "was kept as 0001-web.txt", "ended with signal 9", "start", "Recovery successful")
	a = l.why(Question{Check: "pages", Last: 3})
	wants(t, a.Text(), "check pages.", "check pages failed: connection refused", "process web, event", "Process integrity fault; attempting recovery")
	l.in(ha.HalfDied{Half: ha.KindShadow, Status: ha.ExitStatus{Signal: 9, Code: -1}})
	l.in(ha.HalfBack{Half: ha.KindShadow, PID: 77})
	a = l.why(Question{Node: true, Last: 2})
	wants(t, a.Text(), "node.", "the shadow ended with signal 9", "Process existence fault", "the shadow runs as pid 77")
	// Without a subject: the last alarm.
	a = l.why(Question{})
	wants(t, a.Text(), "shadow: Process existence fault")
	l.same()
}

func TestNoSuchThing(t *testing.T) {
	l := newLab(t)
	l.start()
	for q, want := range map[*Question]string{
		{Process: "nobody"}: "nothing is recorded of process nobody",
		{Check: "nothing"}:  "nothing is recorded of check nothing",
		{Event: 4711}:       "there is no event 4711: the journal holds 1 to",
	} {
		if _, err := Why(l.dir, *q); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", *q, err)
		}
	}
	if _, err := Why(filepath.Join(l.dir, "gone"), Question{}); err == nil || !strings.Contains(err.Error(), "no journal") {
		t.Errorf("%v", err)
	}
	if a := l.why(Question{Check: "pages"}); a.Title != "check pages" {
		t.Errorf("%+v", a)
	}
}

// story is many lives and boots, with restarts, requests and applies.
func story(l *lab) {
	l.start()
	for i := range 12 {
		l.crash("web", i%4+1)
		l.pass(time.Duration(i*i) * time.Second)
		switch i % 4 {
		case 0:
			l.in(ha.Request{ID: fmt.Sprint(i), Verb: ha.VerbRestart, Target: ha.OfProcess("db"), By: "op"})
			l.in(ha.Exited{Process: "db", Start: l.running("db").Start, Status: ha.ExitStatus{Signal: 15, Code: -1}})
			l.pass(time.Second)
		case 1:
			l.apply(strings.Replace(yaml, "limit: 2", fmt.Sprintf("limit: %d", 5+i), 1))
			l.pass(time.Second)
		case 2:
			old := map[ha.Process]ladder.View{"web": l.running("web"), "db": l.running("db")}
			l.now = l.now.Add(time.Second)
			l.life(l.text)
			for _, p := range []ha.Process{"db", "web"} {
				if v := old[p]; v.PID != 0 {
					l.in(ha.Adopted{Process: p, Start: v.Start, PID: v.PID, Age: v.Started})
				}
			}
			l.in(ha.Settled{})
			l.pass(time.Minute)
		case 3:
			l.boot += "x"
			l.now = ha.Instant(5 * time.Second)
			l.life(l.text)
			l.start()
		}
		if !l.alive("web") {
			l.in(ha.Request{ID: "l", Verb: ha.VerbLock, Target: ha.OfProcess("web")})
			l.in(ha.Request{ID: "u", Verb: ha.VerbUnlock, Target: ha.OfProcess("web")})
			l.pass(time.Minute)
		}
	}
}

func (l *lab) alive(p ha.Process) bool { return l.running(p).PID != 0 }

func TestReplayOfManyLives(t *testing.T) {
	l := newLab(t)
	story(l)
	r := l.same()
	if r.Lives < 6 || r.Skipped != 0 || r.Actions < 100 {
		t.Fatalf("%+v", r)
	}
	wants(t, r.Text(), "no difference.")
}

func TestReplayOverSegments(t *testing.T) {
	l := newLab(t)
	must := l.must
	must(l.j.Close())
	l.j = nil
	l.dir = t.TempDir()
	l.o = journal.Options{Dir: l.dir, Limit: 16 << 10, Segment: 2 << 10}
	l.life(yaml)
	story(l)
	r := l.same()
	if r.Lives == 0 || r.Skipped == 0 {
		t.Fatalf("the beginning should be deleted: %+v", r)
	}
}

func TestReplayTellsADifference(t *testing.T) {
	l := newLab(t)
	l.start()
	l.in(ha.Request{ID: "a", Verb: ha.VerbLock, Target: ha.OfProcess("web"), By: "op"})
	// A turn that the core would not have: another order, and no answer.
	why := ha.Reason{Rule: "made.up", Text: "for the test"}
	l.must(l.j.Step(journal.Step{At: l.now, Wall: l.wall(), Input: ha.Request{ID: "b", Verb: ha.VerbUnlock, Target: ha.OfProcess("web")},
		Actions: []ha.Action{ha.Start{Process: "web", Start: 99, Why: why}}}))
	// What the engine tells beside the core is no turn of it.
	l.must(l.j.Step(journal.Step{At: l.now, Wall: l.wall(), Input: ha.Tick{},
		Actions: []ha.Action{ha.Emit{Event: ha.Event{ID: 900, Code: ha.MonitorStarted, Subject: ha.OfNode(), Why: ha.Reason{Rule: ownRule, Text: "x"}}}}}))
	r, err := Replay(l.dir, time.Time{}, 0)
	l.must(err)
	if r.Differences != 1 || len(r.First) != 1 {
		t.Fatalf("%s", r.Text())
	}
	wants(t, r.Text(), "1 turn differs.", `input request {"id":"b"`, "recorded start", "made.up", "replayed")
	if r, err := Replay(l.dir, l.wall().Add(time.Hour), 0); err != nil || r.Differences != 0 || r.Actions != 0 {
		t.Fatalf("since: %v, %s", err, r.Text())
	}
}

func TestReplayGoesOnAfterAGap(t *testing.T) {
	l := newLab(t)
	l.start()
	l.crash("web", 1)
	l.pass(time.Minute)
	l.must(l.j.Close())
	l.j = nil
	list, err := filepath.Glob(filepath.Join(l.dir, "*.journal"))
	l.must(err)
	b, err := os.ReadFile(list[0])
	l.must(err)
	at := strings.Index(string(b), `"started"`)
	b[at] ^= 1
	l.must(os.WriteFile(list[0], b, 0o600))
	l.life(yaml)
	l.in(ha.Settled{})
	l.start()
	r, err := Replay(l.dir, time.Time{}, 0)
	l.must(err)
	if r.Differences != 0 || r.Lives != 2 || r.Skipped == 0 || len(r.Notes) == 0 {
		t.Fatalf("%s", r.Text())
	}
	wants(t, r.Text(), "records were left out", "Note: record", "damaged")
}
