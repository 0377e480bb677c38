package shadow

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/proc"
)

// policies are the scheduling policies of the threads of a process.
func policies(t *testing.T, pid int) (all []string) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("no threads of %d (%v)", pid, err)
	}
	for _, file := range tasks {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has ended
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		all = append(all, f[38])
	}
	return all
}

const normal, roundRobin = "0", "2"

// What holds deadlines has real-time scheduling, where that is allowed; what it starts
// has not.
func TestRealTime(t *testing.T) {
	allowed := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here
		allowed <- proc.RealTime(true)
	}()
	may := <-allowed == nil
	w := newWorld(t, "SHADOW_TEST_REALTIME=1")
	one := filepath.Join(w.dir, "gemel-v1")
	hardlink(t, one)
	m := w.mark()
	w.startAs(one)
	w.kind(m, proc.ReportSynced)
	if slices.Contains(policies(t, w.shadowPID()), roundRobin) {
		t.Error("real time without any right")
	}
	m = w.mark()
	w.rights(right("g", 1, forever))
	guard := w.guarded(m, 0)
	if !may {
		w.after(m, "that there is no real time", func(r proc.Report) bool {
			return r.Kind == proc.ReportGuard && len(r.Notes) == 1 && strings.Contains(r.Notes[0], "no real-time scheduling")
		})
		return
	}
	for round := range 2 {
		spare := in("g", w.spec(ha.Process(fmt.Sprint("spare", round)), "sleep"))
		spare.Spare = true
		first := haID(10*round + 1)
		pids := []int{
			w.run(in("g", w.spec(ha.Process(fmt.Sprint("p", round)), "sleep")), first).Report.PID,
			w.run(spare, first+1).Report.PID,
		}
		m = w.mark()
		w.send(proc.Order{Kind: proc.OrderArm, Process: spare.Process, Start: first + 1, Next: first + 2})
		w.barrier()
		w.kill(pids[1])
		pids[1] = w.about(m, proc.ReportExited, first+1).Report.PID
		m = w.mark()
		w.kill(w.monitorPID())
		w.kind(m, proc.ReportSynced)
		for _, pid := range append(pids, w.monitorPID()) {
			if got := policies(t, pid); slices.Contains(got, roundRobin) {
				t.Errorf("pid %d inherited real time: %v", pid, got)
			}
		}
		shadow := w.shadowPID()
		w.wait("real time", func() bool {
			return len(slices.DeleteFunc(policies(t, shadow), func(s string) bool { return s != roundRobin })) == 2 &&
				slices.Contains(policies(t, guard), roundRobin)
		})
		// Not every thread of the runtime has it, also not after an exec.
		if !slices.Contains(policies(t, w.shadowPID()), normal) {
			t.Error("all threads have real time")
		}
		m = w.mark()
		w.send(proc.Order{Kind: proc.OrderExec, Path: one})
		w.kind(m, proc.ReportUpgraded)
	}
}

// How late the last of twenty is dead when the monitor is stopped and every processor
// is busy. It is printed, and judged only by what would be wrong anywhere.
func TestPrecision(t *testing.T) {
	for _, how := range []string{"shadow", "shadow in real time", "guard"} {
		t.Run(how, func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			// A thread that is in no hurry must not keep from it what a goroutine needs to run.
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(16))
			var env []string
			if how != "shadow" {
				env = append(env, "SHADOW_TEST_REALTIME=1")
			}
			w := newWorld(t, env...)
			w.up()
			m := w.mark()
			w.rights(right("g", 1, forever))
			w.guarded(m, 0)
			var fds []unix.PollFd
			for i := range 20 {
				pid := w.run(in("g", w.sh(ha.Process(fmt.Sprint("p", i)), "trap '' TERM; sleep 1000 & sleep 1001 & wait")), haID(i+1)).Report.PID
				fd, err := unix.PidfdOpen(pid, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Close(fd)
				fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
			}
			r := right("g", 1, 2*time.Second)
			r.Kill = r.Until - ha.Instant(time.Second)
			w.rights(r)
			w.barrier()
			if how == "guard" {
				w.both(unix.SIGSTOP)
				w.kill(w.shadowPID()) // the monitor that is stopped starts no other
			} else if err := unix.Kill(w.monitorPID(), unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			for range runtime.NumCPU() {
				busy := exec.Command("/bin/sh", "-c", "while :; do :; done")
				if err := busy.Start(); err != nil {
					t.Fatal(err)
				}
				defer func() {
					_ = busy.Process.Kill()
					_ = busy.Wait()
				}()
			}
			// What is late is not to be the one who looks. What this thread started before has
			// not inherited it.
			if proc.RealTime(true) == nil {
				defer func() { _ = proc.RealTime(false) }()
			}
			var half, one time.Duration
			for end := time.Now().Add(testPatience); len(fds) > 0; {
				_, _ = unix.Poll(fds, 100) // an interrupted one is one more look
				if one == 0 && slices.ContainsFunc(fds, func(p unix.PollFd) bool { return p.Revents != 0 }) {
					one = clock.Now().Sub(r.Kill)
				}
				if half == 0 && len(fds) <= 10 {
					half = clock.Now().Sub(r.Kill)
				}
				fds = slices.DeleteFunc(fds, func(p unix.PollFd) bool { return p.Revents != 0 })
				if time.Now().After(end) {
					t.Fatalf("%d of them live", len(fds))
				}
			}
			late := clock.Now().Sub(r.Kill)
			t.Logf("by the %s: the first of 20 is dead %v, the tenth %v, the last %v after the deadline", how, one, half, late)
			if late < 0 {
				t.Error("killed before the deadline")
			}
		})
	}
}
