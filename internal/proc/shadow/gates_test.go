package shadow

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/echo"
	"gemel/internal/need"
	"gemel/internal/proc"
)

const bound = 10 * time.Second // for an answer that has to come

// dial waits for the address that a program writes down.
func (w *world) dial(file string) net.Conn {
	w.t.Helper()
	var c net.Conn
	w.wait("the address of a program", func() bool {
		at, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		c, err = net.Dial("udp", string(at))
		return err == nil
	})
	w.t.Cleanup(func() { c.Close() })
	return c
}

// Everything of Gemel stands still and a program of a group runs on: from its deadline
// on nobody hears of it. What belongs to no group is let alone.
func TestNoAnswerAfterTheDeadline(t *testing.T) {
	need.Root(t)
	need.CgroupV2(t)
	w := newWorld(t)
	w.up()
	m := w.mark()
	w.rights(right("g", 1, forever))
	guard := w.guarded(m, 0)
	file, plain := filepath.Join(w.dir, "at"), filepath.Join(w.dir, "plain-at")
	pid := w.run(in("g", w.spec("p", "echo="+file)), 1).Report.PID
	w.run(w.spec("q", "echo="+plain), 2)
	c, q := w.dial(file), w.dial(plain)
	if !echo.Asks(c, bound) || !echo.Asks(q, bound) {
		t.Fatal("no answer")
	}
	w.wait("the lock of the guard", func() bool { return w.guardPID() == guard })
	last := right("g", 1, 2*time.Second)
	w.rights(last)
	w.barrier()
	stopped := []int{w.shadowPID(), w.monitorPID(), guard}
	for _, p := range stopped {
		if err := unix.Kill(p, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	before := 0
	for clock.Now() < last.Kill {
		if echo.Asks(c, 20*time.Millisecond) {
			before++
		}
	}
	late := 0
	for clock.Now() < last.Kill.Add(200*time.Millisecond) {
		if sent := clock.Now(); echo.Asks(c, 20*time.Millisecond) && sent >= last.Kill {
			late++
		}
	}
	if before == 0 || late != 0 {
		t.Errorf("%d answers before the deadline, and %d after it", before, late)
	}
	if !living(pid) {
		t.Error("the program does not run any more: its silence shows nothing")
	}
	if !echo.Asks(q, bound) {
		t.Error("a program of no group does not answer")
	}
	for _, p := range stopped {
		if err := unix.Kill(p, unix.SIGCONT); err != nil {
			t.Error(err)
		}
	}
	w.gone(pid)
}

// A shadow that takes over puts the gates before what it finds running.
func TestGateOfTheNextShadow(t *testing.T) {
	need.Root(t)
	need.CgroupV2(t)
	w := newWorld(t)
	w.up()
	m := w.mark()
	w.rights(right("g", 1, forever))
	w.guarded(m, 0)
	file := filepath.Join(w.dir, "at")
	pid := w.run(in("g", w.spec("p", "echo="+file)), 1).Report.PID
	c := w.dial(file)
	m = w.mark()
	old := w.shadowPID()
	w.kill(old)
	w.kind(m, proc.ReportShadowBack)
	w.rights(right("g", 1, forever))
	w.barrier()
	if !echo.Asks(c, bound) || !living(pid) {
		t.Error("no answer of a program that was adopted")
	}
	shut := right("g", 1, forever)
	shut.Kill = clock.Now().Add(400 * time.Millisecond)
	w.send(proc.Order{Kind: proc.OrderRights, Rights: []proc.Right{shut}})
	w.barrier()
	stopped := []int{w.shadowPID(), w.monitorPID(), w.guardPID()}
	for _, p := range stopped {
		if err := unix.Kill(p, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	for clock.Now() < shut.Kill {
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
