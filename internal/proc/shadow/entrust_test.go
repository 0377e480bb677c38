package shadow

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/echo"
	"gemel/internal/ha"
	"gemel/internal/need"
	"gemel/internal/proc"
)

// entrust orders that a start comes under a right, and returns the answer.
func (w *world) entrust(p ha.Process, id ha.StartID, g ha.Group, fence uint64) *proc.Report {
	w.t.Helper()
	m := w.mark()
	w.send(proc.Order{Kind: proc.OrderEntrust, Process: p, Start: id, Group: g, Fence: ha.Fence{Era: 1, Counter: fence}})
	return w.about(m, proc.ReportEntrusted, id).Report
}

// What runs by no right comes under one, as it is: deadline, successor, and the shadow
// after this one.
func TestEntrust(t *testing.T) {
	w := newWorld(t)
	w.up()
	file := filepath.Join(w.dir, "environ")
	s := w.spec("p", "env="+file, "sleep")
	pid := w.run(s, 1).Report.PID
	w.send(proc.Order{Kind: proc.OrderArm, Process: "p", Start: 1, Next: 2})
	if r := w.entrust("p", 1, "g", 1); !r.Unentitled {
		t.Errorf("before there was a right: %+v", r)
	}
	w.send(proc.Order{Kind: proc.OrderSpec, Process: "p", Spec: in("g", s)})
	w.rights(right("g", 1, forever), right("h", 1, forever))
	if r := w.entrust("p", 1, "g", 2); !r.Unentitled {
		t.Errorf("with another fence: %+v", r)
	}
	leaving := right("g", 1, forever)
	leaving.Leaving = true
	w.rights(leaving, right("h", 1, forever))
	if r := w.entrust("p", 1, "g", 1); !r.Unentitled {
		t.Errorf("with a right that only stops: %+v", r)
	}
	w.rights(right("g", 1, forever), right("h", 1, forever))
	if r := w.entrust("p", 77, "g", 1); r.Error == "" || r.Unentitled {
		t.Errorf("a start that nobody knows: %+v", r)
	}
	for range 2 { // it may be ordered again
		if r := w.entrust("p", 1, "g", 1); r.Error != "" || r.Group != "g" || r.Fence.Counter != 1 {
			t.Errorf("%+v", r)
		}
	}
	if r := w.entrust("p", 1, "h", 1); !strings.Contains(r.Error, "by the right of group g") {
		t.Errorf("a second group: %+v", r)
	}
	// Its successor has the fence, and the next shadow knows whose it is.
	m := w.mark()
	w.kill(w.shadowPID())
	w.kind(m, proc.ReportShadowBack)
	w.rights(right("g", 1, forever), right("h", 1, forever))
	if r := w.entrust("p", 1, "h", 1); !strings.Contains(r.Error, "by the right of group g") {
		t.Errorf("after the death of the shadow: %+v", r)
	}
	w.send(proc.Order{Kind: proc.OrderSpec, Process: "p", Spec: in("g", s)})
	w.send(proc.Order{Kind: proc.OrderArm, Process: "p", Start: 1, Next: 2})
	w.barrier()
	m = w.mark()
	w.kill(pid)
	x := w.about(m, proc.ReportExited, 1).Report
	if x.Next != 2 {
		t.Fatalf("%+v", x)
	}
	if env := w.environ(file, "GEMEL_START=2"); !slices.Contains(env, "GEMEL_FENCE=1.1") {
		t.Errorf("the successor was not told its fence: %q", env)
	}
}

// A program that ran by no right is killed at the deadline of the one that it came under.
func TestEntrustedLapses(t *testing.T) {
	w := newWorld(t)
	w.up()
	pid, plain := w.run(w.spec("p", "sleep"), 1).Report.PID, w.run(w.spec("q", "sleep"), 2).Report.PID
	w.rights(right("g", 1, forever))
	if r := w.entrust("p", 1, "g", 1); r.Error != "" {
		t.Fatalf("%+v", r)
	}
	w.rights(right("g", 1, 300*time.Millisecond))
	w.barrier()
	w.kill(w.monitorPID())
	w.gone(pid)
	if !living(plain) {
		t.Error("what belongs to no group was killed")
	}
}

// The gate is before what came under a right while it ran, and before sockets that it had
// open already.
func TestGateOfEntrusted(t *testing.T) {
	need.Root(t)
	need.CgroupV2(t)
	w := newWorld(t)
	w.up()
	file := filepath.Join(w.dir, "at")
	pid := w.run(w.spec("p", "echo="+file), 1).Report.PID
	c := w.dial(file)
	if !echo.Asks(c, bound) {
		t.Fatal("no answer")
	}
	m := w.mark()
	w.rights(right("g", 1, forever))
	guard := w.guarded(m, 0)
	w.wait("the lock of the guard", func() bool { return w.guardPID() == guard })
	if r := w.entrust("p", 1, "g", 1); r.Error != "" {
		t.Fatalf("%+v", r)
	}
	if !echo.Asks(c, bound) {
		t.Error("no answer of a program whose group has a right")
	}
	last := right("g", 1, forever)
	last.Kill = clock.Now().Add(400 * time.Millisecond)
	w.rights(last)
	w.barrier()
	stopped := []int{w.shadowPID(), w.monitorPID(), guard}
	for _, p := range stopped {
		if err := unix.Kill(p, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	for clock.Now() < last.Kill {
		echo.Asks(c, 10*time.Millisecond)
	}
	if echo.Asks(c, 50*time.Millisecond) || !living(pid) {
		t.Error("an answer after the deadline, or nothing that could give one")
	}
	for _, p := range stopped {
		if err := unix.Kill(p, unix.SIGCONT); err != nil {
			t.Error(err)
		}
	}
	w.gone(pid)
}
