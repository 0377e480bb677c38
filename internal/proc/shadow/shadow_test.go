package shadow

import (
	"testing"

	"golang.org/x/sys/unix"

	"gemel/internal/proc"
)

func TestStartAndExit(t *testing.T) {
	w := newWorld(t)
	w.up()
	m := w.mark()
	w.run(w.sh("seven", "exit 7"), 1)
	if r := w.about(m, proc.ReportExited, 1); r.Report.Status.Code != 7 {
		t.Errorf("exit is told as %v", r.Report.Status)
	}
}

func TestStandingOrder(t *testing.T) {
	w := newWorld(t)
	w.up()
	r := w.run(w.spec("p", "sleep"), 1)
	pid := r.Report.PID
	for id := 2; id < 6; id++ {
		m := w.mark()
		w.send(proc.Order{Kind: proc.OrderArm, Process: "p", Start: haID(id - 1), Next: haID(id)})
		w.send(proc.Order{Kind: proc.OrderSignal, Process: "p", Start: haID(id - 1), Signal: int(unix.SIGKILL)})
		x := w.about(m, proc.ReportExited, haID(id-1))
		if x.Report.Next != haID(id) || x.Report.Status.Signal != int(unix.SIGKILL) || x.Report.PID == pid || !living(x.Report.PID) {
			t.Fatalf("exit of start %d: %+v", id-1, x.Report)
		}
		pid = x.Report.PID
	}
}
