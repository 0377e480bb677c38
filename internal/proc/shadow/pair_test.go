package shadow

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
	"gemel/internal/proc"
)

func TestMonitorDies(t *testing.T) {
	w := newWorld(t)
	w.up()
	pid := w.run(w.spec("p", "sleep"), 1).Report.PID
	w.send(proc.Order{Kind: proc.OrderArm, Process: "p", Start: 1, Next: 2})
	w.barrier()
	m := w.mark()
	old := w.monitorPID()
	w.kill(old)
	dead := w.kind(m, proc.ReportMonitor).Report
	if dead.Status.Signal != int(unix.SIGKILL) || dead.Hung || dead.PID != old {
		t.Errorf("the death of the monitor: %+v", dead)
	}
	run := w.about(m, proc.ReportRunning, 1).Report
	if run.PID != pid || run.Next != 2 || run.Process != "p" {
		t.Errorf("what runs: %+v", run)
	}
	w.kind(m, proc.ReportSynced)
	// The standing order was kept over the death.
	m = w.mark()
	w.kill(pid)
	if x := w.about(m, proc.ReportExited, 1).Report; x.Next != 2 || !living(x.PID) {
		t.Errorf("%+v", x)
	}
}

func TestStandingOrderWithoutMonitor(t *testing.T) {
	w := newWorld(t)
	w.up()
	w.acks = false
	pid := w.run(w.spec("p", "sleep"), 1).Report.PID
	w.send(proc.Order{Kind: proc.OrderArm, Process: "p", Start: 1, Next: 2})
	w.barrier()
	m := w.mark()
	w.kill(w.monitorPID())
	w.kill(pid)
	x := w.about(m, proc.ReportExited, 1).Report
	if x.Status.Signal != int(unix.SIGKILL) {
		t.Errorf("%+v", x)
	}
	w.kind(m, proc.ReportSynced)
	// An exit that was not acknowledged is told again; its successor runs.
	m = w.mark()
	w.kill(w.monitorPID())
	w.about(m, proc.ReportExited, 1)
	w.about(m, proc.ReportRunning, 2)
}

func TestMonitorHangs(t *testing.T) {
	w := newWorld(t, "SHADOW_TEST_SILENCE=1s")
	w.up()
	m := w.mark()
	if err := unix.Kill(w.monitorPID(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if r := w.kind(m, proc.ReportMonitor).Report; !r.Hung {
		t.Errorf("a monitor that was stopped: %+v", r)
	}
	w.kind(m, proc.ReportSynced)
}

func TestMonitorCannotStart(t *testing.T) {
	w := newWorld(t, "SHADOW_TEST_NO_MONITOR=1")
	c := w.start()
	lock := filepath.Join(w.dir, proc.ShadowLock)
	w.wait("the lock", func() bool {
		var held *proc.HeldError
		return asHeld(proc.ProbeLock(lock, 0), &held) && held.PID == c.Process.Pid
	})
	// A user's second Ctrl-C ends a shadow without a monitor.
	w.wait("the end", func() bool {
		_ = c.Process.Signal(unix.SIGINT)
		var held *proc.HeldError
		return !asHeld(proc.ProbeLock(lock, 0), &held)
	})
	if err := c.Wait(); err != nil {
		t.Errorf("the shadow ended with %v", err)
	}
}

func TestShadowDies(t *testing.T) {
	for _, how := range []string{"killed", "stopped", "managed"} {
		t.Run(how, func(t *testing.T) {
			env := []string{"SHADOW_TEST_SILENCE=2s"}
			if how == "managed" {
				env = append(env, "SHADOW_TEST_MANAGED=1")
			}
			w := newWorld(t, env...)
			w.up()
			pid := w.run(w.spec("p", "sleep"), 1).Report.PID
			w.run(w.sh("coded", "read x <"+w.gate("coded")+"; exit 33"), 2)
			m := w.mark()
			sig := unix.SIGKILL
			if how == "stopped" {
				sig = unix.SIGSTOP
			}
			monitor, old := w.monitorPID(), w.shadowPID()
			if err := unix.Kill(old, sig); err != nil {
				t.Fatal(err)
			}
			died := w.kind(m, proc.ReportShadowDied).Report
			if died.Hung != (how == "stopped") {
				t.Errorf("%+v", died)
			}
			if how == "managed" {
				w.start()
			}
			back := w.kind(m, proc.ReportShadowBack).Report
			if back.PID == old || w.monitorPID() != monitor {
				t.Errorf("shadow %d to %d, monitor %d to %d", old, back.PID, monitor, w.monitorPID())
			}
			if !living(pid) {
				t.Error("a program died with the shadow")
			}
			// The new one starts, stops and knows exits of what the old one started.
			w.run(w.spec("q", "sleep"), 3)
			w.open("coded")
			if x := w.about(m, proc.ReportExited, 2).Report; x.Status.Code != 33 && !x.Status.Unknown {
				t.Errorf("%+v", x)
			} else if x.Status.Unknown && kernelTells() {
				t.Errorf("the kernel knows, and the report does not: %+v", x)
			}
			w.send(proc.Order{Kind: proc.OrderStop, Process: "p", Start: 1})
			if x := w.about(m, proc.ReportExited, 1).Report; x.Status.Signal != int(unix.SIGTERM) && kernelTells() {
				t.Errorf("%+v", x)
			}
		})
	}
}

// While there is no shadow exits are told, orders wait, and standing orders are
// kept.
func TestWithoutShadow(t *testing.T) {
	w := newWorld(t, "SHADOW_TEST_MANAGED=1")
	w.up()
	w.run(w.sh("coded", "read x <"+w.gate("coded")+"; exit 44"), 1)
	pid := w.run(w.spec("p", "sleep"), 2).Report.PID
	w.send(proc.Order{Kind: proc.OrderArm, Process: "p", Start: 2, Next: 3})
	w.barrier()
	m := w.mark()
	w.kill(w.shadowPID())
	w.kind(m, proc.ReportShadowDied)
	w.open("coded")
	if x := w.about(m, proc.ReportExited, 1).Report; kernelTells() && x.Status.Code != 44 {
		t.Errorf("%+v", x)
	}
	q := w.spec("q", "sleep")
	w.send(proc.Order{Kind: proc.OrderSpec, Process: "q", Spec: q})
	w.send(proc.Order{Kind: proc.OrderStart, Process: "q", Start: 4})
	w.start()
	w.kind(m, proc.ReportShadowBack)
	w.about(m, proc.ReportStarted, 4)
	m = w.mark()
	w.kill(pid)
	if x := w.about(m, proc.ReportExited, 2).Report; x.Next != 3 {
		t.Errorf("the standing order was lost: %+v", x)
	}
}

func TestBothDie(t *testing.T) {
	w := newWorld(t)
	w.up()
	pid := w.run(w.spec("p", "sleep"), 1).Report.PID
	w.run(w.sh("coded", "read x <"+w.gate("coded")+"; exit 55"), 2)
	shadow, monitor := w.shadowPID(), w.monitorPID()
	for _, h := range []int{shadow, monitor} {
		if err := unix.Kill(h, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	w.kill(shadow)
	w.kill(monitor)
	w.gone(shadow)
	w.gone(monitor)
	w.open("coded")
	w.wait("the end of the coded one", func() bool { return !w.tableAlive(2) })
	m := w.mark()
	w.start()
	if r := w.about(m, proc.ReportRunning, 1).Report; r.PID != pid || r.Process != "p" {
		t.Errorf("adopted: %+v", r)
	}
	x := w.about(m, proc.ReportExited, 2).Report
	if !x.Status.Unknown || x.Status.After <= 0 || x.Status.Before <= x.Status.After || x.Status.Success() {
		t.Errorf("an exit that nobody saw: %+v", x)
	}
	w.kind(m, proc.ReportSynced)
	w.send(proc.Order{Kind: proc.OrderStop, Process: "p", Start: 1})
	w.about(m, proc.ReportExited, 1)
}

func TestDetach(t *testing.T) {
	w := newWorld(t)
	c := w.up()
	pid := w.run(w.spec("p", "sleep"), 1).Report.PID
	w.send(proc.Order{Kind: proc.OrderArm, Process: "p", Start: 1, Next: 2})
	w.barrier()
	monitor := w.monitorPID()
	w.send(proc.Order{Kind: proc.OrderDetach})
	if err := c.Wait(); err != nil {
		t.Errorf("the shadow ended with %v", err)
	}
	w.gone(monitor)
	if !living(pid) {
		t.Fatal("a program ended with a detach")
	}
	m := w.mark()
	w.start()
	if r := w.about(m, proc.ReportRunning, 1).Report; r.PID != pid || r.Next != 0 {
		t.Errorf("%+v", r)
	}
	w.kind(m, proc.ReportSynced)
	m = w.mark()
	w.send(proc.Order{Kind: proc.OrderStop, Process: "p", Start: 1})
	w.about(m, proc.ReportExited, 1)
}

func TestQuit(t *testing.T) {
	w := newWorld(t)
	c := w.up()
	pid := w.run(w.spec("p", "sleep"), 1).Report.PID
	m := w.mark()
	if err := c.Process.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	w.kind(m, proc.ReportReload)
	if err := c.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if r := w.kind(m, proc.ReportQuit).Report; r.Error != "SIGTERM" {
		t.Errorf("%+v", r)
	}
	// A monitor that comes in between is told as well.
	m = w.mark()
	w.kill(w.monitorPID())
	w.kind(m, proc.ReportQuit)
	w.kind(m, proc.ReportSynced)
	w.send(proc.Order{Kind: proc.OrderStop, Process: "p", Start: 1})
	w.about(m, proc.ReportExited, 1)
	w.send(proc.Order{Kind: proc.OrderQuit, Code: 4})
	_ = c.Wait()
	if c.ProcessState.ExitCode() != 4 {
		t.Errorf("the shadow ended with %v", c.ProcessState)
	}
	if living(pid) {
		t.Error("a program is left")
	}
}

func TestSecondSignal(t *testing.T) {
	w := newWorld(t)
	c := w.up()
	pid := w.run(w.spec("p", "sleep"), 1).Report.PID
	w.send(proc.Order{Kind: proc.OrderArm, Process: "p", Start: 1, Next: 2})
	w.barrier()
	m := w.mark()
	if err := c.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	w.kind(m, proc.ReportQuit)
	// The monitor hears of the second one too; this one does nothing about it.
	m = w.mark()
	if err := c.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	w.kind(m, proc.ReportQuit)
	if err := c.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("the shadow ended with %v", err)
	}
	if living(pid) {
		t.Error("a program is left")
	}
}

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	got := notifySocket(t, path)
	w := newWorld(t, "SHADOW_TEST_NOTIFY="+path)
	c := w.up()
	seen := ""
	next := func(want string) {
		t.Helper()
		late := time.After(testPatience)
		for !strings.Contains(seen, want) {
			select {
			case s := <-got:
				seen += s + "\n"
			case <-late:
				t.Fatalf("%s was not told; told was %q", want, seen)
			}
		}
		seen = ""
	}
	next("READY=1\nMAINPID=" + strconv.Itoa(c.Process.Pid))
	next("WATCHDOG=1")
	next("WATCHDOG=1")
	w.send(proc.Order{Kind: proc.OrderQuit})
	next("STOPPING=1")
	_ = c.Wait()
}

func TestUpgrade(t *testing.T) {
	w := newWorld(t)
	one, two := filepath.Join(w.dir, "gemel-v1"), filepath.Join(w.dir, "gemel-v2")
	hardlink(t, one)
	hardlink(t, two)
	m := w.mark()
	c := w.startAs(one)
	w.kind(m, proc.ReportSynced)
	pid := w.run(w.spec("p", "sleep"), 1).Report.PID
	spare := w.spec("spare", "sleep")
	spare.Spare = true
	sparePID := w.run(spare, 2).Report.PID
	w.send(proc.Order{Kind: proc.OrderArm, Process: "p", Start: 1, Next: 3})
	w.send(proc.Order{Kind: proc.OrderArm, Process: "spare", Start: 2, Next: 4})
	file := filepath.Join(w.dir, "kept")
	if err := os.WriteFile(file, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.sendFile(proc.Order{Kind: proc.OrderKeep, Name: "it"}, file)
	low := nulls(t, c.Process.Pid)
	next := ha.StartID(10)
	for i := range 6 {
		path, want := two, "2"
		if i%2 == 1 {
			path, want = one, "1"
		}
		codes := map[ha.StartID]int{}
		for j := range 5 {
			name := fmt.Sprintf("c%d", j)
			s := w.sh(ha.Process(name), "read x <"+w.gate(name)+"; exit "+strconv.Itoa(100+j))
			w.run(s, next)
			codes[next] = 100 + j
			next++
		}
		m := w.mark()
		w.send(proc.Order{Kind: proc.OrderExec, Path: path})
		for j := range 5 {
			w.open(fmt.Sprintf("c%d", j))
		}
		up := w.kind(m, proc.ReportUpgraded).Report
		if up.Version != want || up.Error != "" || up.PID != c.Process.Pid {
			t.Fatalf("upgrade %d: %+v", i, up)
		}
		for id, code := range codes {
			if x := w.about(m, proc.ReportExited, id).Report; x.Status.Code != code {
				t.Errorf("upgrade %d: start %d exited with %d, told as %v", i, id, code, x.Status)
			}
		}
	}
	if got := nulls(t, c.Process.Pid); len(low) < 10 || !slices.Equal(got, low) {
		t.Errorf("the reserved descriptors were %v and are %v", low, got)
	}
	// It failed: everything is as before.
	m = w.mark()
	w.send(proc.Order{Kind: proc.OrderExec, Path: filepath.Join(w.dir, "missing")})
	if up := w.kind(m, proc.ReportUpgraded).Report; up.Error == "" || up.Version != "1" {
		t.Errorf("%+v", up)
	}
	plain := filepath.Join(w.dir, "plain")
	if err := os.WriteFile(plain, []byte("no program"), 0o700); err != nil {
		t.Fatal(err)
	}
	m = w.mark()
	w.send(proc.Order{Kind: proc.OrderExec, Path: plain})
	if up := w.kind(m, proc.ReportUpgraded).Report; up.Error == "" {
		t.Errorf("%+v", up)
	}
	m = w.mark()
	w.kill(pid)
	w.kill(sparePID)
	if x := w.about(m, proc.ReportExited, 1).Report; x.Next != 3 || x.Status.Signal != int(unix.SIGKILL) {
		t.Errorf("%+v", x)
	}
	if x := w.about(m, proc.ReportExited, 2).Report; x.Next != 4 || x.Status.Signal != int(unix.SIGKILL) {
		t.Errorf("%+v", x)
	}
	m = w.mark()
	w.kill(w.monitorPID())
	if s := w.kind(m, proc.ReportKept); s.Text != "kept" {
		t.Errorf("%+v", s)
	}
	w.kind(m, proc.ReportSynced)
	// A signal in the middle of it is not lost.
	m = w.mark()
	w.send(proc.Order{Kind: proc.OrderExec, Path: two})
	if err := c.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.kind(m, proc.ReportUpgraded)
	w.kind(m, proc.ReportQuit)
	w.once()
}

// Chaos kills halves at random instants while programs end with known codes. The
// length can be set: SHADOW_CHAOS.
func TestChaos(t *testing.T) {
	rounds := 12
	if n, err := strconv.Atoi(os.Getenv("SHADOW_CHAOS")); err == nil {
		rounds = n
	}
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("SHADOW_CHAOS_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t)
	w.up()
	trace := filepath.Join(w.dir, "trace")
	steady := w.run(w.spec("steady", "touch="+trace, "sleep"), 1).Report.PID
	next := ha.StartID(2)
	codes := map[ha.StartID]int{}
	for round := range rounds {
		victim := [...]string{"monitor", "shadow", "both"}[rnd.IntN(3)]
		first := next
		for j := range 6 {
			name := fmt.Sprintf("c%d", j)
			code := 10 + rnd.IntN(200)
			w.run(w.sh(ha.Process(name), "echo $GEMEL_START $$ >>"+trace+"; read x <"+w.gate(name)+"; exit "+strconv.Itoa(code)), next)
			codes[next] = code
			next++
		}
		m := w.mark()
		shadow, monitor := w.shadowPID(), w.monitorPID()
		strike := time.Duration(rnd.IntN(3000)) * time.Microsecond
		done := make(chan struct{})
		go func() {
			defer close(done)
			for j := range 6 {
				w.open(fmt.Sprintf("c%d", j))
			}
		}()
		time.Sleep(strike)
		if victim != "shadow" {
			_ = unix.Kill(monitor, unix.SIGKILL)
		}
		if victim != "monitor" {
			_ = unix.Kill(shadow, unix.SIGKILL)
		}
		<-done
		switch victim {
		case "monitor":
			w.kind(m, proc.ReportSynced)
		case "shadow":
			w.kind(m, proc.ReportShadowBack)
		case "both":
			w.gone(shadow)
			w.gone(monitor)
			w.start()
			w.kind(m, proc.ReportSynced)
		}
		for id := first; id < next; id++ {
			w.wait(fmt.Sprintf("round %d (%s): the exit of start %d", round, victim, id), func() bool { return len(w.ended[id]) > 0 })
			w.mu.Lock()
			st := w.ended[id][0].Status
			w.mu.Unlock()
			if st.Code != codes[id] && (!st.Unknown || victim != "both" && kernelTells()) {
				t.Errorf("round %d (%s): start %d exited with %d, told as %v", round, victim, id, codes[id], st)
			}
		}
		if !living(steady) {
			t.Fatalf("round %d (%s): the steady program died", round, victim)
		}
	}
	w.once()
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		id := strings.Fields(line)[0]
		if seen[id] {
			t.Errorf("start %s ran twice", id)
		}
		seen[id] = true
	}
}

// once checks that no start was told to have ended in two ways. The same report
// may come again after a death of the monitor, or as unknown after one of both.
func (w *world) once() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, rs := range w.ended {
		for _, r := range rs[1:] {
			if !r.Status.Unknown && (r.Status.Code != rs[0].Status.Code || r.Status.Signal != rs[0].Status.Signal) {
				w.t.Errorf("start %d ended as %v and as %v", id, rs[0].Status, r.Status)
			}
		}
	}
}

// gate makes a pipe that a program waits at.
func (w *world) gate(name string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, "gate-"+name)
	if err := unix.Mkfifo(path, 0o600); err != nil && !exists(path) {
		w.t.Fatal(err)
	}
	return path
}

// open lets the program at a gate go on.
func (w *world) open(name string) {
	f, err := os.OpenFile(filepath.Join(w.dir, "gate-"+name), os.O_WRONLY, 0)
	if err != nil {
		w.t.Error(err)
		return
	}
	_, _ = io.WriteString(f, "go\n") // it may have gone already
	f.Close()
}

// nulls are the descriptors of a process that are /dev/null, above the standard ones.
func nulls(t *testing.T, pid int) (out []string) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		if to, err := os.Readlink(dir + "/" + d.Name()); err == nil && to == "/dev/null" && !slices.Contains([]string{"0", "1", "2"}, d.Name()) {
			out = append(out, d.Name())
		}
	}
	return out
}
