package shadow

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/need"
	"gemel/internal/proc"
)

func TestExitStatuses(t *testing.T) {
	w := newWorld(t)
	w.up()
	for i, c := range []struct {
		script string
		want   string
	}{
		{"exit 0", "exit 0"}, {"exit 1", "exit 1"}, {"exit 127", "exit 127"}, {"exit 255", "exit 255"},
		{"exit 257", "exit 1"}, {"kill -9 $$", "signal 9 (SIGKILL)"}, {"kill -15 $$", "signal 15 (SIGTERM)"},
	} {
		id := haID(i + 1)
		m := w.mark()
		w.run(w.sh("p", c.script), id)
		if got := w.about(m, proc.ReportExited, id).Report.Status.String(); got != c.want {
			t.Errorf("%s: told as %s", c.script, got)
		}
	}
}

func TestStartsThatFail(t *testing.T) {
	w := newWorld(t)
	w.up()
	missing := w.spec("missing")
	missing.Path = filepath.Join(w.dir, "missing")
	plain := w.spec("plain")
	plain.Path = filepath.Join(w.dir, "plain")
	if err := os.WriteFile(plain.Path, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, s := range []*proc.Spec{missing, plain} {
		m := w.mark()
		w.send(proc.Order{Kind: proc.OrderSpec, Process: s.Process, Spec: s})
		w.send(proc.Order{Kind: proc.OrderStart, Process: s.Process, Start: haID(i + 1)})
		if r := w.about(m, proc.ReportFailed, haID(i+1)); !strings.Contains(r.Report.Error, s.Path) {
			t.Errorf("the error does not name the file: %q", r.Report.Error)
		}
	}
	m := w.mark()
	w.send(proc.Order{Kind: proc.OrderStart, Process: "nobody", Start: 9})
	w.about(m, proc.ReportFailed, 9)
	// One copy at a time, whatever is ordered.
	w.run(w.spec("one", "sleep"), 10)
	m = w.mark()
	w.send(proc.Order{Kind: proc.OrderStart, Process: "one", Start: 11})
	if r := w.about(m, proc.ReportFailed, 11); !strings.Contains(r.Report.Error, "runs already") {
		t.Errorf("a second copy: %q", r.Report.Error)
	}
}

func TestStandingOrder(t *testing.T) {
	for _, spare := range []bool{false, true} {
		t.Run(fmt.Sprintf("spare=%v", spare), func(t *testing.T) {
			w := newWorld(t)
			w.up()
			s := w.spec("p", "sleep")
			s.Spare = spare
			pid := w.run(s, 1).Report.PID
			for id := 2; id < 12; id++ {
				m := w.mark()
				w.send(proc.Order{Kind: proc.OrderArm, Process: "p", Start: haID(id - 1), Next: haID(id)})
				w.send(proc.Order{Kind: proc.OrderSignal, Process: "p", Start: haID(id - 1), Signal: int(unix.SIGKILL)})
				x := w.about(m, proc.ReportExited, haID(id-1)).Report
				if x.Next != haID(id) || x.Status.Signal != int(unix.SIGKILL) || x.PID == pid || !living(x.PID) {
					t.Fatalf("exit of start %d: %+v", id-1, x)
				}
				pid = x.PID
			}
			// Taken back, it is not carried out.
			m := w.mark()
			w.send(proc.Order{Kind: proc.OrderArm, Process: "p", Start: 11, Next: 12})
			w.send(proc.Order{Kind: proc.OrderArm, Process: "p", Start: 11})
			w.send(proc.Order{Kind: proc.OrderSignal, Process: "p", Start: 11, Signal: int(unix.SIGKILL)})
			if x := w.about(m, proc.ReportExited, 11).Report; x.Next != 0 {
				t.Errorf("a standing order that was taken back: %+v", x)
			}
		})
	}
}

func TestStandingOrderThatFails(t *testing.T) {
	w := newWorld(t)
	w.up()
	exe := filepath.Join(w.dir, "program")
	hardlink(t, exe)
	s := w.spec("p", "sleep")
	s.Path = exe
	w.run(s, 1)
	m := w.mark()
	w.send(proc.Order{Kind: proc.OrderArm, Process: "p", Start: 1, Next: 2})
	w.send(proc.Order{Kind: proc.OrderForget, Process: "nobody"})
	w.barrier()
	if err := os.Remove(exe); err != nil {
		t.Fatal(err)
	}
	w.send(proc.Order{Kind: proc.OrderSignal, Process: "p", Start: 1, Signal: int(unix.SIGKILL)})
	if x := w.about(m, proc.ReportExited, 1).Report; x.Next != 0 {
		t.Errorf("exit with a successor that could not start: %+v", x)
	}
	w.about(m, proc.ReportFailed, 2)
}

func TestStopLadder(t *testing.T) {
	w := newWorld(t, "SHADOW_TEST_STUCK=1s")
	w.up()
	t.Run("signal", func(t *testing.T) {
		w.run(w.spec("polite", "sleep"), 1)
		m := w.mark()
		w.send(proc.Order{Kind: proc.OrderArm, Process: "polite", Start: 1, Next: 100})
		w.send(proc.Order{Kind: proc.OrderStop, Process: "polite", Start: 1})
		if x := w.about(m, proc.ReportExited, 1).Report; x.Status.Signal != int(unix.SIGTERM) || x.Next != 0 {
			t.Errorf("%+v", x)
		}
	})
	t.Run("deaf", func(t *testing.T) {
		ready := filepath.Join(w.dir, "deaf")
		s := w.spec("deaf", "deaf", "touch="+ready, "sleep")
		s.StopGrace = 100 * time.Millisecond
		w.run(s, 2)
		w.wait("the deaf one", func() bool { return exists(ready) })
		m := w.mark()
		w.send(proc.Order{Kind: proc.OrderStop, Process: "deaf", Start: 2})
		if x := w.about(m, proc.ReportExited, 2).Report; x.Status.Signal != int(unix.SIGKILL) {
			t.Errorf("%+v", x)
		}
	})
	t.Run("stopped", func(t *testing.T) {
		w.run(w.spec("frozen", "sleep"), 3)
		m := w.mark()
		w.send(proc.Order{Kind: proc.OrderSignal, Process: "frozen", Start: 3, Signal: int(unix.SIGSTOP)})
		w.send(proc.Order{Kind: proc.OrderStop, Process: "frozen", Start: 3})
		if x := w.about(m, proc.ReportExited, 3).Report; x.Status.Signal != int(unix.SIGTERM) {
			t.Errorf("%+v", x)
		}
	})
	t.Run("a stopped child", func(t *testing.T) {
		ready := filepath.Join(w.dir, "stopping")
		s := w.sh("waits", "trap 'exit 7' TERM; /bin/sh -c 'echo $$ >"+ready+"; kill -STOP $$'; sleep 1000")
		s.StopGrace = time.Hour
		w.run(s, 30)
		var pid string
		w.wait("the child stopped", func() bool {
			b, _ := os.ReadFile(ready)
			pid = strings.TrimSpace(string(b))
			b, err := os.ReadFile("/proc/" + pid + "/stat")
			return pid != "" && err == nil && strings.Contains(string(b), ") T ")
		})
		if b, err := os.ReadFile("/proc/" + pid + "/cgroup"); err != nil || !strings.Contains(string(b), "/start-30\n") {
			need.CgroupV2(t)
			t.Fatalf("it is not in its control group: %q, %v", b, err)
		}
		m := w.mark()
		w.send(proc.Order{Kind: proc.OrderStop, Process: "waits", Start: 30})
		if x := w.about(m, proc.ReportExited, 30).Report; x.Status.Code != 7 {
			t.Errorf("%+v", x)
		}
	})
	t.Run("kill", func(t *testing.T) {
		w.run(w.spec("now", "sleep"), 4)
		m := w.mark()
		w.send(proc.Order{Kind: proc.OrderStop, Process: "now", Start: 4, Kill: true})
		if x := w.about(m, proc.ReportExited, 4).Report; x.Status.Signal != int(unix.SIGKILL) {
			t.Errorf("%+v", x)
		}
	})
	t.Run("more time", func(t *testing.T) {
		ready := filepath.Join(w.dir, "slow")
		s := w.sh("slow", "trap 'sleep 1.5; exit 7' TERM; touch "+ready+"; while :; do sleep 0.01; done")
		s.StopGrace = time.Second
		w.run(s, 40)
		w.wait("the slow one", func() bool { return exists(ready) })
		m := w.mark()
		w.send(proc.Order{Kind: proc.OrderStop, Process: "slow", Start: 40})
		w.send(proc.Order{Kind: proc.OrderStop, Process: "slow", Start: 40, At: clock.Now().Add(time.Hour)})
		w.send(proc.Order{Kind: proc.OrderStop, Process: "slow", Start: 40, At: clock.Now()}) // takes nothing back
		w.send(proc.Order{Kind: proc.OrderStop, Process: "slow", Start: 40})
		if x := w.about(m, proc.ReportExited, 40).Report; x.Status.Code != 7 {
			t.Errorf("%+v", x)
		}
	})
	t.Run("no more time", func(t *testing.T) {
		ready := filepath.Join(w.dir, "forever")
		s := w.spec("forever", "deaf", "touch="+ready, "sleep")
		s.StopGrace = time.Hour
		w.run(s, 41)
		w.wait("the deaf one", func() bool { return exists(ready) })
		m := w.mark()
		w.send(proc.Order{Kind: proc.OrderStop, Process: "forever", Start: 41, At: clock.Now().Add(2 * time.Hour)})
		w.send(proc.Order{Kind: proc.OrderStop, Process: "forever", Start: 41, Kill: true})
		w.send(proc.Order{Kind: proc.OrderStop, Process: "forever", Start: 41, At: clock.Now().Add(2 * time.Hour)})
		if x := w.about(m, proc.ReportExited, 41).Report; x.Status.Signal != int(unix.SIGKILL) {
			t.Errorf("%+v", x)
		}
	})
	t.Run("command", func(t *testing.T) {
		s := w.sh("command", "trap '' TERM; while :; do sleep 0.01; done")
		s.StopCommand = []string{"/bin/sh", "-c", "kill -USR1 $MAINPID"}
		w.run(s, 5)
		m := w.mark()
		w.send(proc.Order{Kind: proc.OrderStop, Process: "command", Start: 5})
		if x := w.about(m, proc.ReportExited, 5).Report; x.Status.Signal != int(unix.SIGUSR1) {
			t.Errorf("%+v", x)
		}
	})
	t.Run("gone", func(t *testing.T) {
		w.send(proc.Order{Kind: proc.OrderStop, Process: "command", Start: 5})
		w.send(proc.Order{Kind: proc.OrderStop, Process: "nobody", Start: 77})
		w.barrier()
	})
	t.Run("without a monitor", func(t *testing.T) {
		ready := filepath.Join(w.dir, "alone")
		s := w.spec("alone", "deaf", "touch="+ready, "sleep")
		s.StopGrace = 300 * time.Millisecond
		pid := w.run(s, 6).Report.PID
		w.wait("the deaf one", func() bool { return exists(ready) })
		w.send(proc.Order{Kind: proc.OrderStop, Process: "alone", Start: 6})
		w.barrier()
		m := w.mark()
		w.kill(w.monitorPID())
		w.gone(pid)
		w.about(m, proc.ReportExited, 6)
	})
}

func TestTreeIsGoneBeforeSuccessor(t *testing.T) {
	w := newWorld(t)
	w.up()
	pids := filepath.Join(w.dir, "child")
	s := w.sh("p", "setsid sleep 1000 & echo $! >>"+pids+"; read x <"+filepath.Join(w.dir, "never"))
	if err := unix.Mkfifo(filepath.Join(w.dir, "never"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.run(s, 1)
	m := w.mark()
	w.send(proc.Order{Kind: proc.OrderArm, Process: "p", Start: 1, Next: 2})
	w.wait("the child", func() bool { b, err := os.ReadFile(pids); return err == nil && strings.Count(string(b), "\n") == 1 })
	b, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	var child int
	fmt.Sscan(string(b), &child)
	w.send(proc.Order{Kind: proc.OrderSignal, Process: "p", Start: 1, Signal: int(unix.SIGKILL)})
	if x := w.about(m, proc.ReportExited, 1).Report; x.Next != 2 {
		t.Fatalf("%+v", x)
	}
	if living(child) {
		t.Errorf("child %d of the dead program lives beside its successor", child)
	}
}

func TestEnvironment(t *testing.T) {
	w := newWorld(t)
	w.up()
	file := filepath.Join(w.dir, "env")
	s := w.spec("p", "env="+file, "touch="+file+".done", "sleep")
	s.Notify, s.Beats, s.Watchdog = true, true, 1500*time.Millisecond
	w.run(s, 1)
	w.wait("the environment", func() bool { return exists(file + ".done") })
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"GEMEL_PROCESS=p", "GEMEL_START=1", "NOTIFY_SOCKET=" + w.dir + "/notify/p.sock",
		"GEMEL_BEAT_PAGE=" + w.dir + "/beats/p", "WATCHDOG_USEC=1500000",
	} {
		if !strings.Contains("\n"+string(b)+"\n", "\n"+want+"\n") {
			t.Errorf("%s is missing in the environment:\n%s", want, b)
		}
	}
	for _, no := range []string{proc.PairEnv, stateEnv, "SHADOW_TEST_DIR"} {
		if strings.Contains(string(b), no) {
			t.Errorf("%s is passed on to a program", no)
		}
	}
}

func TestRefused(t *testing.T) {
	w := newWorld(t)
	first := w.up()
	second := w.start()
	err := second.Wait()
	if second.ProcessState.ExitCode() != 70 {
		t.Errorf("a second shadow: %v; it must be refused", err)
	}
	if !living(first.Process.Pid) {
		t.Error("the first shadow is gone")
	}
}

func TestRace(t *testing.T) {
	w := newWorld(t)
	m := w.mark()
	for range 5 {
		w.start()
	}
	w.kind(m, proc.ReportSynced)
	refused := 0
	for _, c := range w.shadows {
		if c.Process.Pid == w.shadowPID() {
			continue
		}
		_ = c.Wait()
		if c.ProcessState.ExitCode() == 70 {
			refused++
		}
	}
	if refused != 4 {
		t.Errorf("%d of 5 were refused, 4 must be", refused)
	}
}

func TestKept(t *testing.T) {
	w := newWorld(t)
	w.up()
	file := filepath.Join(w.dir, "kept")
	if err := os.WriteFile(file, []byte("something kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.sendFile(proc.Order{Kind: proc.OrderKeep, Name: "it"}, file)
	w.barrier()
	m := w.mark()
	w.kill(w.monitorPID())
	if s := w.kind(m, proc.ReportKept); s.Report.Name != "it" || s.Text != "something kept" {
		t.Errorf("kept over the death of the monitor: %+v", s)
	}
	w.kind(m, proc.ReportSynced)
	// And over that of the shadow, and then of the monitor.
	m = w.mark()
	w.kill(w.shadowPID())
	w.kind(m, proc.ReportShadowBack)
	w.barrier()
	m = w.mark()
	w.kill(w.monitorPID())
	if s := w.kind(m, proc.ReportKept); s.Text != "something kept" {
		t.Errorf("kept over the death of the shadow: %+v", s)
	}
	w.kind(m, proc.ReportSynced)
	w.send(proc.Order{Kind: proc.OrderDrop, Name: "it"})
	w.barrier()
	m = w.mark()
	w.kill(w.monitorPID())
	w.kind(m, proc.ReportSynced)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.log[m:] {
		if s.Report.Kind == proc.ReportKept {
			t.Error("dropped, and told again")
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// hardlink makes another name for the test binary.
func hardlink(t *testing.T, path string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Link(exe, path); err == nil {
		return
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o700); err != nil {
		t.Fatal(err)
	}
}

// barrier returns when every order given before was carried out: a start that
// must fail is answered after them.
func (w *world) barrier() {
	w.t.Helper()
	w.fences++
	id := haID(1<<40 + w.fences)
	m := w.mark()
	w.send(proc.Order{Kind: proc.OrderStart, Process: "barrier", Start: id})
	w.about(m, proc.ReportFailed, id)
}

// shadowPID is the present shadow as the monitors told it.
func (w *world) shadowPID() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.log) - 1; i >= 0; i-- {
		switch r := w.log[i].Report; r.Kind {
		case proc.ReportHello, proc.ReportShadowBack:
			return r.PID
		}
	}
	return 0
}
