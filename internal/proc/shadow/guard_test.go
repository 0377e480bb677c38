package shadow

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/proc"
	"gemel/internal/proc/lapse"
)

func (w *world) guardPID() int {
	var held *proc.HeldError
	if asHeld(proc.ProbeLock(filepath.Join(w.dir, proc.GuardLock), 0), &held) {
		return held.PID
	}
	return 0
}

// guarded waits until the guard is told to be there.
func (w *world) guarded(mark int, not int) int {
	w.t.Helper()
	return w.after(mark, "a guard", func(r proc.Report) bool {
		return r.Kind == proc.ReportGuard && r.PID != 0 && r.PID != not && r.Error == ""
	}).Report.PID
}

// both ends both halves at once.
func (w *world) both(sig unix.Signal) {
	w.t.Helper()
	shadow, monitor := w.shadowPID(), w.monitorPID()
	for _, pid := range []int{shadow, monitor} {
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			w.t.Fatal(err)
		}
	}
	if sig == unix.SIGSTOP {
		return
	}
	w.kill(shadow)
	w.kill(monitor)
	w.gone(shadow)
	w.gone(monitor)
}

// Both halves die, or are stopped: the guard ends what runs at its deadline.
func TestGuard(t *testing.T) {
	for _, how := range []unix.Signal{unix.SIGKILL, unix.SIGSTOP} {
		t.Run(ha.SignalName(int(how)), func(t *testing.T) {
			w := newWorld(t)
			w.up()
			m := w.mark()
			w.rights(right("g", 1, forever), right("free", 1, forever))
			guard := w.guarded(m, 0)
			if pid := w.guardPID(); pid != guard {
				w.wait("the lock of the guard", func() bool { return w.guardPID() == guard })
			}
			ids, pids := w.crowd(1)
			other := w.run(in("free", w.spec("other", "sleep")), 20).Report.PID
			none := w.run(w.spec("none", "sleep"), 21).Report.PID
			r := right("g", 1, 1200*time.Millisecond)
			m = w.mark()
			w.rights(r, right("free", 1, forever))
			w.barrier()
			w.both(how)
			if now := clock.Now(); anyAlive(pids) != (now < r.Kill) && now < r.Kill {
				t.Error("killed before the deadline")
			}
			w.wait("the kill", func() bool { return !anyAlive(pids) })
			if late := clock.Now().Sub(r.Kill); late < 0 {
				t.Errorf("killed %v before the deadline", -late)
			} else {
				t.Logf("seen dead %v after the deadline", late)
			}
			w.wait("the withdrawal", func() bool { return slices.Contains(w.lines("withdrawn"), "g-address") })
			if !living(other) || !living(none) {
				t.Error("the guard ended more than what was past its deadline")
			}
			if how == unix.SIGSTOP {
				for _, pid := range []int{w.shadowPID(), w.monitorPID()} {
					if err := unix.Kill(pid, unix.SIGCONT); err != nil {
						t.Fatal(err)
					}
				}
			} else {
				w.start()
			}
			// The next pair tells all of it.
			w.kind(m, proc.ReportLapsed)
			for _, id := range ids {
				w.about(m, proc.ReportExited, id)
				w.order(m, "g", id)
			}
			if how == unix.SIGKILL {
				w.about(m, proc.ReportRunning, 20)
				w.kind(m, proc.ReportSynced)
				if pid := w.guarded(m, 0); pid != guard {
					t.Errorf("guard %d was replaced by %d", guard, pid)
				}
			}
			w.again("g", 30)
		})
	}
}

// again gives a group a right and starts something by it, once all of it was seen gone.
func (w *world) again(g ha.Group, first ha.StartID) { w.t.Helper(); w.againIn("one", g, first) }

func (w *world) againIn(incarnation ha.Incarnation, g ha.Group, first ha.StartID) {
	w.t.Helper()
	id := first
	s := in(g, w.spec("again", "sleep"))
	for end := time.Now().Add(testPatience); ; id++ {
		m := w.mark()
		list := []proc.Right{right(g, 1, forever), right("free", 1, forever)}
		for i := range list {
			list[i].Incarnation = incarnation
		}
		w.rights(list...)
		w.send(proc.Order{Kind: proc.OrderSpec, Process: s.Process, Spec: s})
		w.send(proc.Order{Kind: proc.OrderStart, Process: s.Process, Start: id})
		r := w.after(m, "an answer", func(r proc.Report) bool {
			return r.Start == id && (r.Kind == proc.ReportStarted || r.Kind == proc.ReportFailed)
		})
		if r.Report.Kind == proc.ReportStarted {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("it cannot start again: %s", r.Report.Error)
		}
	}
}

// The guard is started again when it dies, is not in the way of what is sent to the
// group of the shadow, and ends when nothing is left to keep.
func TestGuardOfAPair(t *testing.T) {
	w := newWorld(t)
	c := w.up()
	m := w.mark()
	w.rights(right("g", 1, forever))
	guard := w.guarded(m, 0)
	m = w.mark()
	w.wait("the lock of the guard", func() bool { return w.guardPID() == guard })
	w.kill(guard)
	gone := w.after(m, "the death of the guard", func(r proc.Report) bool { return r.Kind == proc.ReportGuard && r.PID == 0 }).Report
	if gone.Error != "it ended: signal 9 (SIGKILL)" {
		t.Errorf("%+v", gone)
	}
	guard = w.guarded(m, guard)
	w.wait("the lock of the guard", func() bool { return w.guardPID() == guard })
	// A monitor that comes later is told.
	m = w.mark()
	w.kill(w.monitorPID())
	if pid := w.guarded(m, 0); pid != guard {
		t.Errorf("told %d, and it is %d", pid, guard)
	}
	w.kind(m, proc.ReportSynced)
	if a, err := unix.Getpgid(guard); err != nil || a == c.Process.Pid {
		t.Errorf("the guard is in process group %d (%v), the shadow in %d", a, err, c.Process.Pid)
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
		if err := unix.Kill(guard, sig); err != nil {
			t.Fatal(err)
		}
	}
	r := right("g", 1, 500*time.Millisecond)
	w.rights(r)
	pid := w.run(in("g", w.spec("p", "sleep")), 1).Report.PID
	w.both(unix.SIGKILL)
	w.gone(pid)
	if clock.Now() < r.Kill {
		t.Error("it ended before its deadline")
	}
	w.gone(guard)
	if w.lines("withdrawn") == nil {
		t.Error("the guard ended before it withdrew")
	}
}

// spoil changes the page of a world whose halves and guard are dead.
func (w *world) spoil(change func([]byte)) {
	w.t.Helper()
	path := filepath.Join(w.dir, lapse.File)
	b, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	change(b)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// otherBoot makes a slot one of another boot, with a sum that is right.
func otherBoot(t *testing.T, slot []byte, boot string) {
	t.Helper()
	n := binary.NativeEndian.Uint32(slot[4:])
	body := slot[4 : 8+n]
	i := bytes.Index(body, []byte(boot))
	if i < 0 {
		t.Fatalf("no boot id in %q", body)
	}
	copy(body[i:], "00000000")
	binary.NativeEndian.PutUint32(slot, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
}

// The guard reads the same: a deadline that cannot be believed is past.
func TestBadPageOfGuard(t *testing.T) {
	w := newWorld(t)
	w.up()
	m := w.mark()
	w.rights(right("g", 1, forever))
	guard := w.guarded(m, 0)
	pid := w.run(in("g", w.spec("p", "deaf", "sleep")), 1).Report.PID
	w.wait("the lock of the guard", func() bool { return w.guardPID() == guard })
	if err := unix.Kill(guard, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w.both(unix.SIGKILL)
	w.spoil(func(b []byte) { b[4096+200] ^= 1 })
	if !living(pid) {
		t.Fatal("it ended too soon")
	}
	if err := unix.Kill(guard, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	w.gone(pid)
	w.gone(guard)
}

// A deadline that cannot be believed is past: what ran by it ends at once, before the
// new pair does anything else.
func TestBadPage(t *testing.T) {
	boot, err := clock.BootID()
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func([]byte){
		"torn":    func(b []byte) { b[4096+200] ^= 1 },
		"head":    func(b []byte) { b[9] ^= 1; b[4096+200] ^= 1 },
		"emptied": func(b []byte) { clear(b[4096:]) },
		"boot":    nil,
		"missing": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.up()
			m := w.mark()
			w.rights(right("g", 1, forever))
			guard := w.guarded(m, 0)
			pid := w.run(in("g", w.spec("p", "deaf", "sleep")), 1).Report.PID
			none := w.run(w.spec("none", "sleep"), 2).Report.PID
			w.wait("the lock of the guard", func() bool { return w.guardPID() == guard })
			if err := unix.Kill(guard, unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			w.both(unix.SIGKILL)
			w.kill(guard)
			w.gone(guard)
			if !living(pid) {
				t.Fatal("it ended too soon")
			}
			switch name {
			case "boot":
				w.spoil(func(b []byte) { otherBoot(t, b[4096:8192], boot) })
			case "missing":
				if err := os.Remove(filepath.Join(w.dir, lapse.File)); err != nil {
					t.Fatal(err)
				}
			default:
				w.spoil(change)
			}
			m = w.mark()
			w.start()
			w.gone(pid)
			if x := w.about(m, proc.ReportExited, 1).Report; x.Next != 0 {
				t.Errorf("%+v", x)
			}
			w.kind(m, proc.ReportSynced)
			if !living(none) {
				t.Error("a program of no group was ended")
			}
			w.again("g", 10)
			if w.lines("reset") != nil {
				t.Errorf("the machine was reset: %q", w.lines("reset"))
			}
		})
	}
}
