package shadow

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
	"gemel/internal/proc"
)

// pointFile names the instant at which a shadow of the tests ends a half: "NAME
// VICTIM". It is removed by the one that does.
const pointFile = "point"

// strike is the Point of a shadow that plays its part in a sweep.
func strike(dir string) func(string) {
	path := filepath.Join(dir, pointFile)
	return func(name string) {
		b, err := os.ReadFile(path)
		if err != nil {
			return
		}
		at, victim, _ := strings.Cut(string(b), " ")
		if at != name || os.Remove(path) != nil {
			return
		}
		if victim != "shadow" {
			b, _ := os.ReadFile(filepath.Join(dir, proc.MonitorLock))
			if pid, err := strconv.Atoi(strings.Fields(string(b))[0]); err == nil {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		if victim != "monitor" {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		}
	}
}

// Each half, and both, die at each named instant of a start, of a standing order
// and of an end: nothing runs twice, and each end is told as it was.
func TestSweep(t *testing.T) {
	points := []string{"claimed", "prepared", "launched", "started", "armed", "ended", "recorded", "succeeded", "told", "reaped", "acked"}
	for _, spare := range []bool{false, true} {
		for _, victim := range []string{"shadow", "monitor", "both"} {
			for _, point := range points {
				t.Run(fmt.Sprintf("%s/%s/spare=%v", point, victim, spare), func(t *testing.T) {
					t.Parallel()
					sweep(t, point, victim, spare)
				})
			}
		}
	}
}

func sweep(t *testing.T, point, victim string, spare bool) {
	w := newWorld(t, "SHADOW_TEST_POINTS=1")
	w.up()
	trace := filepath.Join(w.dir, "trace")
	s := w.sh("p", "echo $GEMEL_START $$ >>"+trace+"; read x <"+w.gate("p")+"; exit 11")
	s.Spare = spare
	shadow := w.shadowPID()
	if err := os.WriteFile(filepath.Join(w.dir, pointFile), []byte(point+" "+victim), 0o600); err != nil {
		t.Fatal(err)
	}
	struck := func() bool { return !exists(filepath.Join(w.dir, pointFile)) }
	// again waits for the blow, and then until a complete pair has told everything.
	// A start that nobody knows then is not coming any more.
	again := func(m int) {
		w.wait("the blow", struck)
		switch victim {
		case "shadow":
			w.kind(m, proc.ReportShadowBack)
		case "both":
			w.gone(shadow)
			w.start()
			fallthrough
		default:
			w.kind(m, proc.ReportSynced)
		}
	}
	// knows reports whether a start was told to run or to have ended since the mark.
	knows := func(m int, id ha.StartID) bool {
		for _, s := range w.log[m:] {
			r := s.Report
			if r.Start == id && (r.Kind == proc.ReportStarted || r.Kind == proc.ReportRunning || r.Kind == proc.ReportExited) || r.Next == id && r.Kind == proc.ReportExited {
				return true
			}
		}
		return false
	}
	m := w.mark()
	order := func(id ha.StartID) {
		w.send(proc.Order{Kind: proc.OrderSpec, Process: "p", Spec: s})
		w.send(proc.Order{Kind: proc.OrderStart, Process: "p", Start: id})
	}
	id := ha.StartID(1)
	order(id)
	if slices.Contains([]string{"claimed", "prepared", "launched", "started"}, point) {
		again(m)
		w.mu.Lock()
		known := knows(m, id)
		w.mu.Unlock()
		if !known && victim != "shadow" {
			// What the core does about a start that no shadow knows.
			id = 10
			order(id)
		}
	}
	w.wait("the first copy", func() bool { return knows(m, id) })
	m2 := w.mark()
	w.send(proc.Order{Kind: proc.OrderArm, Process: "p", Start: id, Next: id + 1})
	w.wait("the copy at work", func() bool { b, _ := os.ReadFile(trace); return strings.Contains("\n"+string(b), "\n"+id.String()+" ") })
	if point == "armed" {
		again(m2)
		w.send(proc.Order{Kind: proc.OrderArm, Process: "p", Start: id, Next: id + 1})
	}
	w.barrier()
	m3 := w.mark()
	w.open("p")
	if slices.Contains([]string{"ended", "recorded", "succeeded", "told", "reaped", "acked"}, point) {
		again(m3)
	}
	w.wait("the end of the first copy", func() bool { return len(w.ended[id]) > 0 })
	w.mu.Lock()
	st := w.ended[id][0].Status
	next := knows(m2, id+1)
	w.mu.Unlock()
	if st.Code != 11 && (!st.Unknown || victim != "both" || point != "ended") {
		t.Errorf("start %d ended with 11, and was told as %v", id, st)
	}
	if !next {
		w.run(s, id+2)
	}
	w.barrier()
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if seen[f[0]] {
			t.Errorf("start %s ran twice:\n%s", f[0], b)
		}
		seen[f[0]] = true
		n, _ := strconv.ParseUint(f[0], 10, 64)
		w.mu.Lock()
		if !knows(m, ha.StartID(n)) {
			t.Errorf("start %d ran, and nobody was told", n)
		}
		w.mu.Unlock()
	}
	w.once()
}
