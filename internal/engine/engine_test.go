package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gemel/internal/config"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/proc"
	"gemel/internal/status"
)

const one = `
processes:
  p: {command: [/bin/p], ramp-up: 1s}
`

var errFull = errors.New("no space left")

func started(p ha.Process, s ha.StartID, pid int) proc.Report {
	return proc.Report{Kind: proc.ReportStarted, Process: p, Start: s, PID: pid}
}

func exited(p ha.Process, s ha.StartID, code int) proc.Report {
	return proc.Report{Kind: proc.ReportExited, Process: p, Start: s, Status: ha.ExitStatus{Code: code}}
}

// A start, an end with a successor, and one without: all is written before it is
// done, and an end is acknowledged only when it is written.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, one)
		want(t, r.since(), "journal booted", "journal - emit:2040", "event 2040 info")
		r.settle()
		want(t, r.since(), "open p", "order spec p 0 0", "journal settled start", "order start p 1 0", "order arm p 1 2", "synced")
		r.reports <- started("p", 1, 100)
		want(t, r.since(), "journal started", "runs p 1 pid 100", "event 2020 info")
		r.reports <- proc.Report{Kind: proc.ReportExited, Process: "p", Start: 1, Next: 2, PID: 101, Status: ha.ExitStatus{Code: 3}}
		said := r.since()
		want(t, said, "journal exited", "gone p 1", "runs p 2 pid 101", "order ack p 1 0", "event 368 assert")
		if p := r.process("p"); p.PID != 101 || p.Start != 2 || p.Last.Code != 3 {
			t.Errorf("picture: %+v", p)
		}
		if a := r.picture().Alarms; len(a) != 1 || a[0].Code != ha.ExistenceRecovering {
			t.Errorf("alarms: %+v", a)
		}
		time.Sleep(time.Second) // its ramp-up
		want(t, r.since(), "journal tick emit:375", "event 375 clear")
		if a := r.picture().Alarms; len(a) != 0 {
			t.Errorf("alarms: %+v", a)
		}
		// The same end, told again by a shadow that did not hear the acknowledgement.
		r.reports <- exited("p", 1, 3)
		said = r.since()
		want(t, said, "order ack p 1 0")
		never(t, said, "journal")
	})
}

// A start that runs already, and an end that a monitor before this one wrote down.
func TestAdoption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, one, func(s *Setup) {
			s.Past.Exits = map[ha.Process][]ha.StartID{"p": {4}}
			s.Past.NextStart = 9
		})
		r.reports <- proc.Report{Kind: proc.ReportHello, PID: 11, Cgroup: "v2", Notes: []string{"a note"}}
		r.reports <- proc.Report{Kind: proc.ReportMonitor, Status: ha.ExitStatus{Signal: 9, Code: -1}}
		r.reports <- exited("p", 4, 1)
		r.reports <- proc.Report{Kind: proc.ReportRunning, Process: "p", Start: 5, PID: 100, At: -5000}
		r.reports <- proc.Report{Kind: proc.ReportSynced}
		said := r.since()
		want(t, said, "journal half-died", "journal half-back", "order ack p 4 0", "journal adopted", "runs p 5 pid 100", "open p", "journal settled")
		never(t, said, "journal exited")
		never(t, said, "order start")
		s := r.picture()
		if n := s.Node; n.Shadow != 11 || n.Cgroup != "v2" || len(n.Notes) != 1 {
			t.Errorf("node: %+v", n)
		}
		if p := s.Processes[0]; p.Started != -5000 || p.Since != -5000 || p.PID != 100 {
			t.Errorf("process: %+v", p)
		}
	})
}

// A disk that refuses writes: an alarm, and nothing stops. Ends are acknowledged
// only when they are written, and what costs of the budget is not done.
func TestDiskTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, `
processes:
  p: {command: [/bin/p], ramp-up: 1s, restarts: {delay: 0s}}
  q: {command: [/bin/q], ramp-up: 1s, recovery: failover-restart}
`)
		r.settle()
		r.reports <- started("p", 1, 100)
		r.reports <- started("q", 2, 101)
		r.since()
		r.setDisk(errFull)
		r.reports <- exited("p", 1, 1)
		said := r.since()
		want(t, said, "journal exited", "event 368", "order start p", "journal - emit:2042 FAILED", "event 2042 assert")
		never(t, said, "order ack")
		if e := r.events(ha.DiskTrouble); len(e) != 1 || e[0].Severity != ha.Major || e[0].Detail != errFull.Error() || e[0].Why.Rule != "engine" {
			t.Errorf("%+v", e)
		}
		// A failover takes an entry of the node's budget, which has to be on the disk.
		r.reports <- exited("q", 2, 1)
		said = r.since()
		want(t, said, "journal exited", "journal failed-over")
		never(t, said, "failover q")
		never(t, said, "event 2042") // it stands already
		r.setDisk(nil)
		r.e.Note(ha.OutputDropped, ha.OfProcess("p"), "3 lines")
		want(t, r.since(), "journal - emit:", "order ack p 1 0", "order ack q 2 0", "journal - emit:2042", "event 2042 clear")
		for _, a := range r.picture().Alarms {
			if a.Code == ha.DiskTrouble {
				t.Errorf("the alarm stands: %+v", a)
			}
		}
		// It finds out by itself, between two steps.
		r.e.Trouble(errFull)
		want(t, r.since(), "journal - emit:2042", "event 2042 assert")
	})
}

// The alarm of a monitor that ended with a full disk is taken away by the next.
func TestDiskTroubleBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := ha.Event{ID: 7, Code: ha.DiskTrouble, Subject: ha.OfNode(), Change: ha.Assert}
		budget := ha.Event{ID: 6, Code: ha.ExcessiveReboots, Subject: ha.OfNode(), Change: ha.Assert}
		r := newRig(t, one, func(s *Setup) { s.Past.Alarms, s.Past.NextEvent = []ha.Event{budget, old}, 8 })
		want(t, r.since(), "journal booted", "journal - emit:2042", "event 2042 clear")
		if a := r.picture().Alarms; len(a) != 1 || a[0].Code != ha.ExcessiveReboots {
			t.Errorf("alarms: %+v", a)
		}
	})
}

// A reboot whose cost is not on the disk is refused.
func TestNoRebootUnwritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, `
processes:
  p: {command: [/bin/p], severity: critical, ramp-up: 1s, recovery: failover-reboot}
`)
		r.settle()
		r.reports <- started("p", 1, 100)
		time.Sleep(2 * time.Second)
		r.since()
		r.setDisk(errFull)
		r.reports <- exited("p", 1, 1)
		said := r.since()
		never(t, said, "reboot")
		never(t, said, "failover p")
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, `
processes:
  p: {command: [/bin/p], severity: critical, ramp-up: 1s, recovery: failover-reboot}
node: {reboot: [/bin/true, now]}
`)
		r.settle()
		r.reports <- started("p", 1, 100)
		time.Sleep(2 * time.Second)
		r.since()
		r.reports <- exited("p", 1, 1)
		want(t, r.since(), "failover p")
		r.e.Tell(ha.FailedOver{Process: "p", Outcome: ha.Refused, StillActive: true})
		want(t, r.since(), "journal failed-over", "reboot p [/bin/true now]")
	})
}

func TestRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, one)
		r.settle()
		r.reports <- started("p", 1, 100)
		r.since()
		ctx := t.Context()
		a, err := r.e.Request(ctx, ha.Request{Verb: ha.VerbLock, Target: ha.OfProcess("p"), By: "root"})
		if err != nil || !a.OK || a.Undo == "" {
			t.Errorf("lock: %+v, %v", a, err)
		}
		want(t, r.since(), "journal request")
		if p := r.process("p"); p.Admin != status.Locked {
			t.Errorf("not locked: %+v", p)
		}
		a, err = r.e.Request(ctx, ha.Request{Verb: ha.VerbStop, Target: ha.OfProcess("nobody")})
		if err != nil || a.OK || a.Why.Text == "" {
			t.Errorf("a process that is not there: %+v, %v", a, err)
		}
		// What cannot be kept is not promised.
		r.setDisk(errFull)
		_, err = r.e.Request(ctx, ha.Request{Verb: ha.VerbUnlock, Target: ha.OfProcess("p")})
		var known *ha.Error
		if !errors.As(err, &known) || known.Reason != "not-on-disk" || !errors.Is(err, errFull) {
			t.Errorf("a setting that is not on the disk: %v", err)
		}
		r.setDisk(nil)
		// Who has gone is not waited for, and what they asked for is not done.
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := r.e.Request(gone, ha.Request{Verb: ha.VerbStop, Target: ha.OfProcess("p")}); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		never(t, r.since(), "order stop")
		if n := len(r.e.loop.requests.waiting); n != 0 {
			t.Errorf("%d questions wait for ever", n)
		}
		r.cancel()
		if err := <-r.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the engine ended: %v", err)
		}
		r.ended <- nil
		for name, ask := range map[string]func() error{
			"request": func() error { _, err := r.e.Request(ctx, ha.Request{Verb: ha.VerbStop}); return err },
			"turn":    func() error { return r.e.Turn(ctx) },
			"apply":   func() error { _, err := r.e.Apply(ctx, "x", []byte(one), true); return err },
		} {
			if err := ask(); !errors.As(err, &known) || known.Kind != ha.ErrUnavailable {
				t.Errorf("%s after the end: %v", name, err)
			}
		}
	})
}

// A question that waits for its answer when the caller goes leaves nothing behind.
func TestRequestAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, one) // before settled: the core keeps questions back
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error)
		go func() {
			_, err := r.e.Request(ctx, ha.Request{Verb: ha.VerbLock, Target: ha.OfProcess("p")})
			got <- err
		}()
		synctest.Wait()
		if n := len(r.e.loop.requests.waiting); n != 1 {
			t.Fatalf("%d questions wait", n)
		}
		cancel()
		if err := <-got; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		synctest.Wait()
		if n := len(r.e.loop.requests.waiting); n != 0 {
			t.Errorf("%d questions wait for ever", n)
		}
		r.settle() // the answer to nobody
		want(t, r.since(), "journal settled")
	})
}

func TestApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := `
processes:
  a: {command: [/bin/a], ramp-up: 1s}
  b: {command: [/bin/b], ramp-up: 1s}
  gone: {command: [/bin/gone], ramp-up: 1s}
  idle: {command: [/bin/idle], autostart: false}
checks:
  same: {command: [/bin/same], covers: [a]}
  old: {command: [/bin/old], covers: [a]}
`
		r := newRig(t, first)
		r.settle()
		for i, p := range []ha.Process{"a", "b", "gone"} {
			r.reports <- started(p, ha.StartID(i+1), 100+i)
		}
		r.since()
		ctx := t.Context()

		var bad config.Errors
		if _, err := r.e.Apply(ctx, "bad.yaml", []byte("processes: {a: {}}"), false); !errors.As(err, &bad) {
			t.Errorf("a manifest with an error: %v", err)
		}
		if _, err := r.e.Apply(ctx, "bad.yaml", []byte("processes: {a: {command: [/bin/a], user: nobody-here}}"), false); err == nil || !strings.Contains(err.Error(), "no such user") {
			t.Errorf("a manifest that cannot be resolved: %v", err)
		}
		next := `
processes:
  a: {command: [/bin/a], ramp-up: 2s}
  b: {command: [/bin/b, more], ramp-up: 1s}
  new: {command: [/bin/new]}
checks:
  same: {command: [/bin/same], covers: [a]}
  other: {command: [/bin/other], covers: [a]}
node: {journal-limit: 32MiB}
`
		changes, err := r.e.Apply(ctx, "next.yaml", []byte(next), true)
		if err != nil || len(changes) == 0 {
			t.Errorf("dry run: %v, %v", changes, err)
		}
		if said := r.since(); len(said) != 0 {
			t.Errorf("a dry run did something:\n%s", strings.Join(said, "\n"))
		}
		if name, b, v := r.e.Current(); name != "gemel.yaml" || string(b) != first || v != 1 {
			t.Errorf("in force: %s, version %d", name, v)
		}

		again, err := r.e.Apply(ctx, "next.yaml", []byte(next), false)
		if err != nil || fmt.Sprint(again) != fmt.Sprint(changes) {
			t.Errorf("apply: %v, %v", again, err)
		}
		said := r.since()
		want(t, said, "manifest 2 next.yaml", "open b", "order spec b 0 0", "open new", "order spec new", "uncheck old", "check other", "admit", "journal applied", "order forget idle", "close idle")
		want(t, said, "journal applied", "order stop b 2 0")
		want(t, said, "journal applied", "order stop gone 3 0")
		for _, l := range []string{"order spec a", "open a", "order stop a", "check same", "order forget gone", "close gone"} {
			never(t, said, l)
		}
		if r.bound != 32<<20 {
			t.Errorf("the journal's bound is %d", r.bound)
		}
		if name, b, v := r.e.Current(); name != "next.yaml" || string(b) != next || v != 2 {
			t.Errorf("in force: %s, version %d", name, v)
		}
		r.reports <- exited("gone", 3, 0)
		want(t, r.since(), "journal exited", "order ack gone 3 0", "order forget gone", "close gone")
		for _, p := range r.picture().Processes {
			if p.Name == "gone" || p.Name == "idle" {
				t.Errorf("%s is still there", p.Name)
			}
		}
	})
}

// A manifest that is not on the disk is not in force, now or at the next start.
func TestApplyUnwritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, one)
		r.settle()
		r.since()
		r.setDisk(errFull)
		_, err := r.e.Apply(t.Context(), "next.yaml", []byte("processes: {q: {command: [/bin/q]}}"), false)
		var known *ha.Error
		if !errors.As(err, &known) || known.Kind != ha.ErrRefused || !errors.Is(err, errFull) {
			t.Errorf("%v", err)
		}
		said := r.since()
		want(t, said, "manifest 2 next.yaml", "manifest 1 gemel.yaml", "event 2042 assert")
		never(t, said, "order")
		never(t, said, "journal applied")
		r.setDisk(nil)
		if _, err := r.e.Apply(t.Context(), "next.yaml", []byte("processes: {q: {command: [/bin/q]}}"), false); err != nil {
			t.Error(err)
		}
		want(t, r.since(), "manifest 3 next.yaml", "journal applied")
	})
}

// A process that is removed while its start is on its way is forgotten when that
// came to its end, and not before.
func TestApplyWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, one)
		r.settle()
		r.since()
		if _, err := r.e.Apply(t.Context(), "next.yaml", []byte("processes: {q: {command: [/bin/q], autostart: false}}"), false); err != nil {
			t.Fatal(err)
		}
		never(t, r.since(), "order forget")
		r.reports <- started("p", 1, 100)
		never(t, r.since(), "order forget")
		r.reports <- exited("p", 1, 0)
		want(t, r.since(), "order ack p 1 0", "order forget p", "close p")
	})
}

// A program that was found is let go when the manifest names it no more; one that
// takes its name is Gemel's own.
func TestAttached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attach := "processes: {p: {attach: {pidfile: /run/p.pid}, ramp-up: 1s}}"
		r := newRig(t, attach)
		r.settle()
		want(t, r.since(), "journal settled seek", "seek p 1")
		r.e.Tell(ha.Adopted{Process: "p", Start: 1, PID: 77, Foreign: true})
		want(t, r.since(), "runs p 1 pid 77")
		if _, err := r.e.Apply(t.Context(), "x", []byte("processes: {q: {command: [/bin/q], autostart: false}}"), false); err != nil {
			t.Fatal(err)
		}
		said := r.since()
		want(t, said, "order forget p", "close p")
		never(t, said, "halt")
		never(t, said, "order stop")
		// Its end, or that it was found again, is of no interest any more.
		r.e.Tell(ha.Adopted{Process: "p", Start: 1, PID: 77, Foreign: true})
		never(t, r.since(), "runs")

		if _, err := r.e.Apply(t.Context(), "x", []byte(attach), false); err != nil {
			t.Fatal(err)
		}
		want(t, r.since(), "seek p 2")
		r.e.Tell(ha.Adopted{Process: "p", Start: 2, PID: 77, Foreign: true})
		if _, err := r.e.Apply(t.Context(), "x", []byte("processes: {p: {command: [/bin/p], ramp-up: 1s}}"), false); err != nil {
			t.Fatal(err)
		}
		want(t, r.since(), "halt p 2")
		r.e.Tell(ha.Exited{Process: "p", Start: 2})
		said = r.since()
		never(t, said, "order ack")
		want(t, said, "order start p 3 0")
		r.reports <- started("p", 3, 100)
		if _, err := r.e.Request(t.Context(), ha.Request{Verb: ha.VerbStop, Target: ha.OfProcess("p")}); err != nil {
			t.Fatal(err)
		}
		said = r.since()
		want(t, said, "order stop p 3 0")
		never(t, said, "halt")
	})
}

// A restart of an attached program is by its start command.
func TestAttachedRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "processes: {p: {attach: {pidfile: /run/p.pid, start: [/bin/start]}, ramp-up: 1s}}")
		r.settle()
		r.e.Tell(ha.Adopted{Process: "p", Start: 1, PID: 77, Foreign: true})
		r.since()
		r.e.Tell(ha.Exited{Process: "p", Start: 1, Status: ha.ExitStatus{Code: 2}})
		want(t, r.since(), "journal exited", "launch p 2")
		r.e.Tell(ha.Adopted{Process: "p", Start: 2, PID: 78, Foreign: true})
		want(t, r.since(), "runs p 2 pid 78")
		if _, err := r.e.Request(t.Context(), ha.Request{Verb: ha.VerbStop, Target: ha.OfProcess("p")}); err != nil {
			t.Fatal(err)
		}
		want(t, r.since(), "halt p 2")
	})
}

// Handlers stand beside a rung, with the event that it told last.
func TestHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, `
processes:
  p: {command: [/bin/p], ramp-up: 1s, restarts: {limit: 1}, handlers: {restart: {command: [/bin/r]}, give-up: {command: [/bin/g]}, recovered: {command: [/bin/ok]}}}
`)
		r.settle()
		r.reports <- started("p", 1, 100)
		r.since()
		r.reports <- exited("p", 1, 1)
		want(t, r.since(), "event 378", "handle p restart [/bin/r] after 378")
		r.reports <- started("p", 3, 101)
		time.Sleep(2 * time.Second)
		want(t, r.since(), "event 375", "handle p recovered [/bin/ok] after 375")
		r.reports <- exited("p", 3, 1)
		want(t, r.since(), "event 371", "handle p give-up [/bin/g] after 371")
	})
}

// Evidence is taken of the program that runs; its start may be over by then.
func TestExamine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, `
processes:
  p: {command: [/bin/p], ramp-up: 1s}
checks:
  c: {command: [/bin/c], covers: [p], failures: 1}
`)
		r.settle()
		r.reports <- started("p", 1, 100)
		time.Sleep(2 * time.Second)
		want(t, r.since(), "check c", "judge c true")
		r.e.Tell(ha.Verdict{Check: "c", Detail: "no"})
		want(t, r.since(), "journal verdict", "examine p 1 pid 100")
		r.e.Tell(ha.Examined{Process: "p", Start: 1, Ref: "proof"})
		want(t, r.since(), "journal examined", "order stop p 1 0")
		if e := r.events(ha.EvidenceTaken); len(e) != 1 || e[0].Evidence != "proof" {
			t.Errorf("%+v", e)
		}
	})
}

// A thousand ends at once are not a thousand pictures, and the last one is drawn
// all the same.
func TestPictures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		var b strings.Builder
		b.WriteString("processes:\n")
		for i := range n {
			fmt.Fprintf(&b, "  p%04d: {command: [/bin/p], ramp-up: 1s}\n", i)
		}
		r := newRig(t, b.String())
		r.settle()
		for i := range n {
			r.reports <- started(ha.Process(fmt.Sprintf("p%04d", i)), ha.StartID(i+1), i+1)
		}
		synctest.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		before, _ := r.board.Last()
		for i := range n {
			r.reports <- exited(ha.Process(fmt.Sprintf("p%04d", i)), ha.StartID(i+1), 1)
		}
		synctest.Wait()
		time.Sleep(spacing)
		synctest.Wait()
		after, _ := r.board.Last()
		if d := after.Revision - before.Revision; d < 1 || d > 2 {
			t.Errorf("%d pictures were drawn of %d ends at one instant", d, n)
		}
		for _, p := range after.Processes {
			if p.Last == nil {
				t.Fatalf("the last picture knows nothing of the end of %s", p.Name)
			}
		}
		if s := r.picture(); s.Revision != after.Revision {
			t.Error("a look at a picture that has not changed drew it anew")
		}
	})
}

// What is measured for somebody who looks is in the picture when Look returns.
func TestLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, one)
		r.settle()
		r.reports <- started("p", 1, 100)
		use := map[ha.Process]status.Usage{"p": {Memory: 5}}
		if err := r.e.Look(t.Context(), Sight{Usage: use, Differs: true}); err != nil {
			t.Fatal(err)
		}
		s, _ := r.board.Last()
		if !s.Node.Differs || s.Processes[0].Usage.Memory != 5 {
			t.Errorf("%+v", s)
		}
		if s := r.picture(); s.Node.Differs || s.Processes[0].Usage.Memory != 5 {
			t.Errorf("%+v", s)
		}
	})
}

// The end: each program is stopped, then Stopped is told once. A shadow that is
// gone for good is no failure.
func TestQuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, one)
		r.settle()
		r.reports <- started("p", 1, 100)
		r.since()
		r.reports <- proc.Report{Kind: proc.ReportQuit, Error: "SIGTERM"}
		want(t, r.since(), "journal quit", "order stop p 1 0")
		if !r.picture().Node.Stopping {
			t.Error("the picture does not say that the node stops")
		}
		r.reports <- exited("p", 1, 0)
		want(t, r.since(), "journal exited", "order ack p 1 0", "stopped")
		close(r.reports)
		if err := <-r.ended; err != nil {
			t.Error(err)
		}
		r.ended <- nil
	})
}

// A program that is being stopped and asks for more time gets it from the shadow.
func TestMoreTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, one)
		r.settle()
		r.reports <- started("p", 1, 100)
		r.reports <- proc.Report{Kind: proc.ReportQuit, Error: "SIGTERM"}
		want(t, r.since(), "order stop p 1 0")
		until := ha.Instant(time.Minute) // no time goes by in a bubble that nobody sleeps in
		r.e.Tell(ha.Busy{Process: "p", Start: 1, For: time.Minute})
		want(t, r.since(), "journal busy extend", fmt.Sprintf("order stop p 1 0 at %v", until))
		r.reports <- exited("p", 1, 0)
		want(t, r.since(), "stopped")
	})
}

// Reports about the halves themselves.
func TestHalves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, one)
		r.settle()
		r.since()
		unknown := ha.ExitStatus{Code: -1, Unknown: true, After: ha.Instant(time.Second), Before: ha.Instant(2 * time.Second)}
		time.Sleep(3 * time.Second)
		r.reports <- proc.Report{Kind: proc.ReportShadowDied, Status: unknown}
		want(t, r.since(), "journal half-died", "event 368 assert")
		if n := r.picture().Node; n.Shadow != 0 {
			t.Errorf("node: %+v", n)
		}
		e := r.events(ha.ExistenceRecovering)[0]
		if !strings.Contains(e.Detail, "died between 2000-01-01T00:00:01.000Z and 2000-01-01T00:00:02.000Z") || !strings.Contains(e.Why.Text, "2000-01-01T") {
			t.Errorf("people do not know when: %q, %q", e.Detail, e.Why.Text)
		}
		r.reports <- proc.Report{Kind: proc.ReportShadowBack, PID: 12, Cgroup: "none"}
		want(t, r.since(), "journal half-back", "event 375 clear")
		r.reports <- proc.Report{Kind: proc.ReportUpgraded, PID: 13, Version: "2"}
		want(t, r.since(), "journal - emit:", "event")
		if n := r.picture().Node; n.Shadow != 13 || n.Cgroup != "none" {
			t.Errorf("node: %+v", n)
		}
		r.reports <- proc.Report{Kind: proc.ReportUpgraded, PID: 13, Error: "no"}
		if e := r.events(ha.Upgraded); len(e) != 2 || !strings.Contains(e[1].Detail, "no") {
			t.Errorf("%+v", e)
		}
		r.reports <- proc.Report{Kind: proc.ReportReload}
		want(t, r.since(), "reload")
		r.reports <- proc.Report{Kind: proc.ReportStuck, Process: "p", Start: 1, Error: "there"}
		want(t, r.since(), "journal stop-failed")
		r.reports <- proc.Report{Kind: proc.ReportFailed, Process: "p", Start: 1, Error: "no such file"}
		want(t, r.since(), "journal start-failed", "event 368")
		r.reports <- proc.Report{Kind: proc.ReportKept, Name: "notify/p"}
		if said := r.since(); len(said) != 0 {
			t.Errorf("%v", said)
		}
	})
}

// An engine without edges answers what has to be answered, and goes on.
func TestNoEdges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, `
processes:
  a: {attach: {pidfile: /run/a.pid, start: [/bin/a]}}
  p: {command: [/bin/p], severity: critical, ramp-up: 1s, recovery: failover-reboot, ready: {port: 127.0.0.1:1}, watchdog: {interval: 1s}}
checks:
  c: {command: [/bin/c], covers: [p], failures: 1}
`, func(s *Setup) { s.Edges, s.Stopped = Edges{Shadow: s.Edges.Shadow}, nil })
		r.settle()
		r.reports <- started("p", 2, 100)
		r.e.Tell(ha.Ready{Process: "p", Start: 2, How: "port"})
		r.e.Tell(ha.Verdict{Check: "c"})
		time.Sleep(time.Minute)
		said := r.since()
		for _, in := range []string{"journal not-found", "journal examined", "journal failed-over", "journal reboot-failed", "journal start-failed"} {
			if !slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, in) }) {
				t.Errorf("%q is missing in\n%s", in, strings.Join(said, "\n"))
			}
		}
		r.reports <- proc.Report{Kind: proc.ReportQuit}
		synctest.Wait()
	})
}

// The ids of events go on where the journal ended, and each is told once in order.
func TestEventIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, one, func(s *Setup) { s.Past.NextEvent, s.Past.Repairs = 42, []string{"cut", "skipped"} })
		r.settle()
		r.reports <- started("p", 1, 100)
		r.since()
		for i, e := range r.told {
			if e.ID != uint64(42+i) || e.Wall.IsZero() {
				t.Errorf("event %d has id %d, wall %v", i, e.ID, e.Wall)
			}
		}
		if e := r.events(ha.JournalRepaired); len(e) != 2 {
			t.Errorf("%d repairs told", len(e))
		}
		for _, s := range r.steps {
			if s.Input == nil && len(s.Actions) != 1 {
				t.Errorf("a record without input: %+v", s)
			}
		}
	})
}

func TestAlarms(t *testing.T) {
	var a alarms
	ev := func(p string, code ha.Code, c ha.Change) ha.Event {
		return ha.Event{Code: code, Subject: ha.OfProcess(ha.Process(p)), Change: c}
	}
	for _, e := range []ha.Event{
		ev("a", 1, ha.Assert), ev("b", 1, ha.Assert), ev("a", 2, ha.Info), ev("a", 3, ha.Assert), ev("b", 4, ha.Clear), ev("c", 5, ha.Clear),
	} {
		a.take(e)
	}
	if len(a.standing) != 1 || a.standing[0].Code != 3 {
		t.Errorf("%+v", a.standing)
	}
	past := []ha.Event{ev("a", 1, ha.Assert)}
	b := newAlarms(past)
	b.take(ev("a", 2, ha.Assert))
	if past[0].Code != 1 {
		t.Error("what the journal remembered was changed")
	}
}

func TestResolve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := config.Parse("x", []byte("processes: {b: {command: [/b]}, a: {command: [/a]}, c: {command: [/c]}}"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = Resolve(m, "", func(p manifest.Process) (proc.Spec, error) {
			if p.Name == "c" {
				return proc.Spec{}, nil
			}
			return proc.Spec{}, fmt.Errorf("%s is bad", p.Name)
		})
		if err == nil || !strings.Contains(err.Error(), "2 of 3") || strings.Index(err.Error(), "a is bad") > strings.Index(err.Error(), "b is bad") {
			t.Errorf("%v", err)
		}
	})
}

// What is for other nodes is in the picture and nowhere else: it need not be
// possible to start it here. An apply that changes "on:" is as one that takes the
// process out, or brings it in.
func TestOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, `
processes:
  a: {command: [/bin/a], on: [here, there], ramp-up: 1s}
  far: {command: [/bin/far], on: [there], user: nobody-here}
`)
		r.settle()
		said := r.since()
		want(t, said, "open a", "order spec a", "order start a 1")
		never(t, said, "open far")
		never(t, said, "order spec far")
		r.reports <- started("a", 1, 100)
		if p := r.process("far"); p.State != "elsewhere" || p.Reason != "it is not for this node (here): on: names there" {
			t.Errorf("far is %s: %s", p.State, p.Reason)
		}
		r.since()
		changes, err := r.e.Apply(t.Context(), "next.yaml", []byte(`
processes:
  a: {command: [/bin/a], on: [there], ramp-up: 1s}
  far: {command: [/bin/far], on: [here]}
`), false)
		if err != nil || len(changes) != 2 || changes[0].Effect != config.EffectStop || changes[1].Effect != config.EffectStart {
			t.Errorf("changes %v, %v", changes, err)
		}
		said = r.since()
		want(t, said, "open far", "order spec far", "order stop a 1", "order start far")
		never(t, said, "order forget")
		r.reports <- exited("a", 1, 0)
		want(t, r.since(), "order ack a 1 0", "order forget a", "close a")
		if _, err = r.e.Apply(t.Context(), "back.yaml", []byte("processes: {a: {command: [/bin/a]}}"), false); err != nil {
			t.Fatal(err)
		}
		want(t, r.since(), "open a", "order spec a", "order start a")
	})
}

// On one machine a group waits for a cluster, and its programs run.
func TestGroupsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, one+`
groups:
  web: {nodes: [alpha, beta], run: [p], addresses: [192.0.2.10/24]}
`)
		r.settle()
		g := r.picture().Groups
		if len(g) != 1 || g[0].Name != "web" || g[0].State != "waiting" || g[0].Reason != "it waits for a cluster; p runs here, without a standby; its addresses are not served" {
			t.Errorf("groups %+v", g)
		}
	})
}
