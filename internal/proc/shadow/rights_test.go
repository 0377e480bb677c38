package shadow

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/proc"
)

// forever is a life that no test outlives.
const forever = time.Hour

// right is one of group g that ends soon: its kill comes after nine tenths of life.
func right(g ha.Group, fence uint64, life time.Duration) proc.Right {
	now := clock.Now()
	return proc.Right{
		Group: g, Fence: ha.Fence{Era: 1, Counter: fence}, Incarnation: "one", Life: life,
		Until: now.Add(life), Kill: now.Add(life / 10 * 9), Withdraw: []string{string(g) + "-address"},
	}
}

func (w *world) rights(list ...proc.Right) {
	w.t.Helper()
	w.send(proc.Order{Kind: proc.OrderRights, Rights: list})
}

// in makes a program one of a group.
func in(g ha.Group, s *proc.Spec) *proc.Spec {
	s.Group = g
	return s
}

// environ waits for the environment that a program wrote down, with the marker.
func (w *world) environ(file, marker string) (env []string) {
	w.t.Helper()
	w.wait("an environment with "+marker, func() bool {
		b, err := os.ReadFile(file)
		env = strings.Split(string(b), "\n")
		return err == nil && slices.Contains(env, marker)
	})
	return env
}

func (w *world) lines(file string) []string {
	b, err := os.ReadFile(filepath.Join(w.dir, file))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

// refused tries a start that is to fail for want of a right.
func (w *world) refused(p ha.Process, id ha.StartID) {
	w.t.Helper()
	m := w.mark()
	w.send(proc.Order{Kind: proc.OrderStart, Process: p, Start: id})
	if r := w.about(m, proc.ReportFailed, id).Report; !strings.Contains(r.Error, "no authority for group g") {
		w.t.Errorf("a start without a right failed with %q", r.Error)
	}
}

func TestRight(t *testing.T) {
	w := newWorld(t)
	w.up()
	file := filepath.Join(w.dir, "environ")
	w.send(proc.Order{Kind: proc.OrderSpec, Process: "p", Spec: in("g", w.spec("p", "env="+file, "sleep"))})
	w.refused("p", 1)
	leaving := right("g", 7, forever)
	leaving.Leaving = true
	w.rights(leaving)
	w.refused("p", 2)
	w.rights(right("other", 7, forever))
	w.refused("p", 3)
	w.rights(right("g", 7, forever), right("other", 7, forever))
	m := w.mark()
	w.send(proc.Order{Kind: proc.OrderStart, Process: "p", Start: 4})
	pid := w.about(m, proc.ReportStarted, 4).Report.PID
	env := w.environ(file, "GEMEL_START=4")
	for _, want := range []string{"GEMEL_GROUP=g", "GEMEL_FENCE=1.7", "GEMEL_ROLE=active"} {
		if !slices.Contains(env, want) {
			t.Errorf("%s is not in the environment", want)
		}
	}
	// A program of no group has nothing of it.
	plain := filepath.Join(w.dir, "plain")
	q := w.run(w.spec("q", "env="+plain, "sleep"), 5).Report.PID
	if i := slices.IndexFunc(w.environ(plain, "GEMEL_START=5"), func(s string) bool {
		return strings.HasPrefix(s, "GEMEL_GROUP") || strings.HasPrefix(s, "GEMEL_FENCE") || strings.HasPrefix(s, "GEMEL_ROLE")
	}); i >= 0 {
		t.Error("a program of no group was told of one")
	}
	// Its last deadline holds for what runs when it is not named any more.
	w.send(proc.Order{Kind: proc.OrderArm, Process: "p", Start: 4, Next: 6})
	m = w.mark()
	w.rights(right("g", 7, 300*time.Millisecond))
	w.rights()
	w.refusedNow("p", 7)
	lapsed := w.kind(m, proc.ReportLapsed).Report
	if lapsed.Group != "g" || lapsed.Fence.Counter != 7 {
		t.Errorf("%+v", lapsed)
	}
	x := w.about(m, proc.ReportExited, 4).Report
	if x.Status.Signal != int(unix.SIGKILL) || x.Next != 0 || living(pid) {
		t.Errorf("%+v", x)
	}
	w.order(m, "g", 4)
	if !living(q) {
		t.Error("a program of no group was killed")
	}
	w.wait("the withdrawal", func() bool { return slices.Contains(w.lines("withdrawn"), "g-address") })
	if w.lines("reset") != nil {
		t.Error("the machine was reset")
	}
}

// refusedNow tries a start of a process that runs: either refusal is right.
func (w *world) refusedNow(p ha.Process, id ha.StartID) {
	w.t.Helper()
	m := w.mark()
	w.send(proc.Order{Kind: proc.OrderStart, Process: p, Start: id})
	w.about(m, proc.ReportFailed, id)
}

// order checks that the lapse of a group was told before the exit of a start.
func (w *world) order(m int, g ha.Group, id ha.StartID) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	told := false
	for _, s := range w.log[m:] {
		r := s.Report
		told = told || r.Kind == proc.ReportLapsed && r.Group == g
		if r.Kind == proc.ReportExited && r.Start == id && !told {
			w.t.Errorf("the exit of start %d was told before the lapse of %s", id, g)
		}
	}
}

// crowd starts programs of g of all kinds that are hard to end, and returns their
// start ids and one pid of each.
func (w *world) crowd(first ha.StartID) (ids []ha.StartID, pids []int) {
	w.t.Helper()
	pidFile := filepath.Join(w.dir, "pids")
	stopping := w.sh("stopping", "trap '' TERM; echo $$ >>"+pidFile+"; while :; do sleep 1000; done")
	stopping.StopGrace = forever
	stopping.StopCommand = []string{"/bin/sh", "-c", "echo $$ >>" + pidFile + "; sleep 1000"}
	list := []*proc.Spec{
		w.spec("deaf", "deaf", "sleep"),
		w.sh("forks", "trap '' TERM; while :; do sleep 0.001 & done"),
		w.sh("leaves", "setsid sh -c 'echo $$ >>"+pidFile+"; exec sleep 1000' & sleep 1000"),
		w.sh("polite", "sleep 1000"),
		stopping,
	}
	for i, s := range list {
		id := first + ha.StartID(i)
		pids = append(pids, w.run(in("g", s), id).Report.PID)
		ids = append(ids, id)
	}
	// polite stops in good order when its time comes; stopping is in its command.
	w.send(proc.Order{Kind: proc.OrderStop, Process: "stopping", Start: ids[4]})
	w.wait("the stop command", func() bool { return len(w.lines("pids")) == 3 })
	for _, l := range w.lines("pids") {
		n := 0
		fmt.Sscan(l, &n)
		pids = append(pids, n)
	}
	return ids, pids
}

func anyAlive(pids []int) bool { return slices.ContainsFunc(pids, living) }

// The monitor is stopped: nobody renews. All that runs of the group is gone before its
// authority is over, and the monitor hears of it in order when it goes on.
func TestLapseWithoutMonitor(t *testing.T) {
	w := newWorld(t)
	w.up()
	w.rights(right("g", 1, forever))
	ids, pids := w.crowd(1)
	m := w.mark()
	r := right("g", 1, time.Second)
	w.rights(r)
	w.barrier()
	if err := unix.Kill(w.monitorPID(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w.wait("the kill", func() bool { return !anyAlive(pids) })
	late := clock.Now().Sub(r.Kill)
	t.Logf("seen dead %v after the deadline", late)
	if late < 0 {
		t.Error("killed before the deadline")
	}
	if err := unix.Kill(w.monitorPID(), unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	w.kind(m, proc.ReportLapsed)
	for _, id := range ids {
		if x := w.about(m, proc.ReportExited, id).Report; x.Next != 0 {
			t.Errorf("%+v", x)
		}
		w.order(m, "g", id)
	}
	// All was seen gone: it may come back, in place.
	w.again("g", 20)
}

// What cannot be withdrawn is there: no renewal, and at the end of the authority the
// machine is reset.
func TestKillNotSeenDone(t *testing.T) {
	w := newWorld(t)
	w.up()
	stays := filepath.Join(w.dir, "stays")
	if err := os.WriteFile(stays, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.rights(right("g", 1, 300*time.Millisecond))
	pid := w.run(in("g", w.spec("p", "sleep")), 1).Report.PID
	m := w.mark()
	w.kind(m, proc.ReportLapsed)
	w.about(m, proc.ReportExited, 1)
	w.gone(pid)
	w.rights(right("g", 2, forever))
	if r := w.kind(m, proc.ReportRefused).Report; r.Group != "g" || !strings.Contains(r.Error, "its kill has begun") {
		t.Errorf("%+v", r)
	}
	w.refused("p", 2)
	w.wait("the reset", func() bool { return len(w.lines("reset")) > 0 })
	for _, got := range w.lines("reset") { // the guard may say so as well
		if got != "g: g-address (it stays)" {
			t.Errorf("%q", got)
		}
	}
	if err := os.Remove(stays); err != nil {
		t.Fatal(err)
	}
	w.wait("the withdrawal", func() bool { return w.lines("withdrawn") != nil })
	w.again("g", 3)
}

func TestRefusedRights(t *testing.T) {
	w := newWorld(t)
	w.up()
	refuse := func(r proc.Right, why string) {
		t.Helper()
		m := w.mark()
		w.rights(r)
		if got := w.kind(m, proc.ReportRefused).Report; !strings.Contains(got.Error, why) || got.Group != r.Group {
			t.Errorf("refused with %q and not %q", got.Error, why)
		}
	}
	long := right("g", 5, forever)
	long.Until = long.Until.Add(time.Minute)
	refuse(long, "later than its life")
	odd := right("g", 5, forever)
	odd.Kill = odd.Until + 1
	refuse(odd, "its kill is later")
	past := right("g", 5, forever)
	past.Kill = clock.Now() - 1
	refuse(past, "its deadline has passed")
	wordy := right("g", 5, forever)
	wordy.Withdraw = []string{strings.Repeat("x", 5000)}
	refuse(wordy, "4088 are the most")
	w.rights(right("g", 5, forever))
	pid := w.run(in("g", w.spec("p", "sleep")), 1).Report.PID
	refuse(right("g", 4, forever), "lower than 1.5")
	other := right("g", 9, forever)
	other.Incarnation = "two"
	refuse(other, `of "one", that of g, may be there`)
	elsewhere := right("h", 9, forever)
	elsewhere.Incarnation = "two"
	refuse(elsewhere, `of "one", that of g, may be there`)
	if !living(pid) {
		t.Error("a refused right ended what runs")
	}
	// It is told once.
	m := w.mark()
	w.rights(elsewhere)
	w.barrier()
	w.mu.Lock()
	if slices.ContainsFunc(w.log[m:], func(s said) bool { return s.Report.Kind == proc.ReportRefused }) {
		t.Error("the same refusal was told again")
	}
	w.mu.Unlock()
	// Once nothing of the former is there, also its fence is of the past.
	m = w.mark()
	w.rights(right("g", 5, 300*time.Millisecond))
	w.about(m, proc.ReportExited, 1)
	w.wait("the withdrawal", func() bool { return w.lines("withdrawn") != nil })
	w.againIn("two", "g", 2)
}

// A successor has the fence of the instant at which it starts, or is not made.
func TestFenceOfSuccessor(t *testing.T) {
	for _, spare := range []bool{false, true} {
		t.Run(fmt.Sprintf("spare=%v", spare), func(t *testing.T) {
			w := newWorld(t)
			w.up()
			file := filepath.Join(w.dir, "environ")
			s := in("g", w.spec("p", "env="+file, "sleep"))
			s.Spare = spare
			w.rights(right("g", 1, forever))
			pid := w.run(s, 1).Report.PID
			w.send(proc.Order{Kind: proc.OrderArm, Process: "p", Start: 1, Next: 2})
			w.barrier()
			w.rights(right("g", 2, forever))
			w.barrier()
			m := w.mark()
			w.kill(pid)
			x := w.about(m, proc.ReportExited, 1).Report
			if x.Next != 2 {
				t.Fatalf("%+v", x)
			}
			if env := w.environ(file, "GEMEL_START=2"); !slices.Contains(env, "GEMEL_FENCE=1.2") {
				t.Errorf("the successor has another fence: %q", env)
			}
			// No right: no successor, and nothing is parked.
			w.send(proc.Order{Kind: proc.OrderArm, Process: "p", Start: 2, Next: 3})
			w.barrier()
			w.rights()
			w.barrier()
			m = w.mark()
			w.kill(x.PID)
			if x := w.about(m, proc.ReportExited, 2).Report; x.Next != 0 {
				t.Errorf("%+v", x)
			}
			w.barrier()
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, s := range w.log[m:] {
				if s.Report.Start == 3 {
					t.Errorf("%+v", s.Report)
				}
			}
		})
	}
}

// The shadow is replaced by exec, or dies: the deadline stays.
func TestDeadlineSurvivesShadow(t *testing.T) {
	for _, how := range []string{"exec", "dies"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t)
			one := filepath.Join(w.dir, "gemel-v1")
			hardlink(t, one)
			m := w.mark()
			w.startAs(one)
			w.kind(m, proc.ReportSynced)
			w.rights(right("g", 1, forever))
			ids, pids := w.crowd(1)
			m = w.mark()
			r := right("g", 1, 1500*time.Millisecond)
			w.rights(r)
			w.barrier()
			if how == "exec" {
				w.send(proc.Order{Kind: proc.OrderExec, Path: one})
				w.kind(m, proc.ReportUpgraded)
			} else {
				w.kill(w.shadowPID())
				w.kind(m, proc.ReportShadowBack)
			}
			if now := clock.Now(); now < r.Kill && !living(pids[0]) {
				t.Error("it ended before its deadline")
			}
			w.kind(m, proc.ReportLapsed)
			for _, id := range ids {
				w.about(m, proc.ReportExited, id)
				w.order(m, "g", id)
			}
			t.Logf("told %v after the deadline", clock.Now().Sub(r.Kill))
			if anyAlive(pids) {
				t.Error("something is left")
			}
			w.again("g", 20)
		})
	}
}
