package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
	"gemel/internal/need"
)

// The reuse of a pid is under test where the signals are sent, in a pid
// namespace with few pids: TestPIDReuse of internal/proc/spawn.

// script is a process of a manifest that runs a shell script.
func script(name, text string, keys ...string) string {
	s := fmt.Sprintf("  %s:\n    ramp-up: 50ms\n    command: [/bin/sh, -c, %q]\n", name, text)
	for _, k := range keys {
		s += "    " + k + "\n"
	}
	return s
}

func (i *Instance) there(name string) bool {
	_, err := os.Stat(i.Path(name))
	return err == nil
}

// TestForkBombHurtsNobodyElse: with a limit of its tasks, another program is
// back at once when it dies, the API answers within a second, and a stop leaves
// nothing of the bomb.
func TestForkBombHurtsNobodyElse(t *testing.T) {
	need.Cgroup(t, "pids")
	python := need.Command(t, "python3")
	bomb := "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass\n"
	i := Start(t, "processes:\n"+
		fmt.Sprintf("  bomb:\n    command: [%s, -c, %q]\n    ramp-up: 50ms\n    nice: 10\n    resources: {pids: 50}\n    stop: {grace: 100ms}\n", python, bomb)+
		"  other:\n    ramp-up: 50ms\n"+sleeper)
	i.Running("other")
	i.Running("bomb")
	await(t, "the bomb has gone off", func() bool { return len(i.Programs()) >= 40 })
	if n := len(i.Programs()); n > 51+1 {
		t.Errorf("%d processes; the limit is 50 and one other program", n)
	}
	var asked []time.Duration
	for range 7 {
		began := time.Now()
		i.Status()
		asked = append(asked, time.Since(began))
	}
	slices.Sort(asked)
	if asked[len(asked)/2] > time.Second {
		t.Errorf("the API answers after %v", asked)
	}
	mark, began := i.Mark(), time.Now()
	i.Signal(int(i.Running("other").GetPid()), unix.SIGKILL)
	i.Await(mark, ha.ProcessStarted, "other")
	back := time.Since(began)
	if back > time.Second {
		t.Errorf("the other program was away for %v", back)
	}
	began = time.Now()
	i.Ask(gemelv1.Verb_VERB_STOP, aProcess, "bomb")
	i.State("bomb", "stopped")
	t.Logf("answers %v at most, the other back after %v, the bomb stopped after %v", asked[len(asked)-1].Round(time.Microsecond), back.Round(time.Microsecond), time.Since(began).Round(time.Millisecond))
	await(t, "only the other program is left", func() bool { return len(i.Programs()) == 1 })
}

// TestDoubleForkIsStopped: what a program put into sessions of their own, with
// another parent and deaf to SIGTERM, ends with its stop.
func TestDoubleForkIsStopped(t *testing.T) {
	i := New(t, "")
	i.Write("processes:\n" + script("one", fmt.Sprintf(
		`(setsid sh -c 'trap "" TERM; : > %s; while :; do sleep 1; done' &) ; exec sleep 100000`, i.Path("forked")), "stop: {grace: 200ms}"))
	i.Begin()
	i.Running("one")
	await(t, "it forked twice", func() bool { return i.there("forked") })
	i.Ask(gemelv1.Verb_VERB_STOP, aProcess, "one")
	i.State("one", "stopped")
	if left := i.Programs(); len(left) != 0 {
		t.Errorf("left when the stop was said to be done: %v", i.Left())
	}
}

// TestDaemonisedChildDiesBeforeTheSuccessor: a program that ends and leaves a
// child behind is not there twice: the successor looks whether the child lives.
func TestDaemonisedChildDiesBeforeTheSuccessor(t *testing.T) {
	i := New(t, "")
	i.Write("processes:\n" + script("one", strings.ReplaceAll(`
if [ -e DIR/child ]; then
  grep '^State:' "/proc/$(cat DIR/child)/status" 2>/dev/null | grep -v '[ZX] (' > DIR/twice
  : > DIR/second; exec sleep 100000
fi
setsid sh -c 'trap "" TERM HUP; echo $$ > DIR/child.new; mv DIR/child.new DIR/child; while :; do sleep 1; done' &
while [ ! -e DIR/child ]; do sleep 0.01; done
exit 3`, "DIR", i.Dir)))
	i.Begin()
	i.Await(0, ha.ExistenceRecovering, "one")
	await(t, "the successor has looked", func() bool { return i.there("second") })
	if b, err := os.ReadFile(i.Path("twice")); err != nil || len(b) > 0 {
		t.Errorf("a child of the one before was there when the successor ran: %s %v", b, err)
	}
	i.Await(0, ha.Recovered, "one")
}

// TestZombieFlood: children that nobody waits for are neither counted as alive
// nor in the way of a restart and of a stop.
func TestZombieFlood(t *testing.T) {
	python := need.Command(t, "python3")
	i := New(t, "")
	flood := fmt.Sprintf("import os,time\nfor n in range(300):\n  if os.fork()==0: os._exit(0)\nopen(%q,'w')\ntime.sleep(100000)\n", i.Path("flooded"))
	i.Write(fmt.Sprintf("processes:\n  one:\n    command: [%s, -c, %q]\n    ramp-up: 50ms\n", python, flood))
	i.Begin()
	await(t, "300 zombies", func() bool { return i.there("flooded") })
	p := i.Running("one")
	_ = os.Remove(i.Path("flooded"))
	mark := i.Mark()
	i.Signal(int(p.GetPid()), unix.SIGKILL)
	i.Await(mark, ha.Recovered, "one")
	await(t, "300 zombies again", func() bool { return i.there("flooded") })
	i.Ask(gemelv1.Verb_VERB_STOP, aProcess, "one")
	if last := i.State("one", "stopped").GetLast(); last.GetSignal() != int32(unix.SIGTERM) {
		t.Errorf("it ended with %s", last.GetText())
	}
}

// TestStoppedProgramCanBeStopped: SIGSTOP does not hold up the orderly stop.
func TestStoppedProgramCanBeStopped(t *testing.T) {
	i := Start(t, "processes:\n"+script("one", "trap 'exit 7' TERM; while :; do sleep 0.05; done", "stop: {grace: 30s}"))
	i.Signal(int(i.Running("one").GetPid()), unix.SIGSTOP)
	i.Ask(gemelv1.Verb_VERB_STOP, aProcess, "one")
	if last := i.State("one", "stopped").GetLast(); last.GetCode() != 7 {
		t.Errorf("it ended with %s; its own end is exit 7", last.GetText())
	}
}

// TestIgnoredTermIsKilledAfterTheGrace: first the signal, then the whole grace,
// then SIGKILL to the tree. The program tells when the signal came.
func TestIgnoredTermIsKilledAfterTheGrace(t *testing.T) {
	const grace = 700 * time.Millisecond
	i := New(t, "")
	i.Write("processes:\n" + script("one", fmt.Sprintf(
		`trap ": > %s" TERM; (trap "" TERM; while :; do sleep 1; done) & while :; do sleep 0.05; done`, i.Path("asked")), "stop: {grace: "+grace.String()+"}"))
	i.Begin()
	p := i.Running("one")
	began := time.Now()
	i.Ask(gemelv1.Verb_VERB_STOP, aProcess, "one")
	await(t, "the signal came", func() bool { return i.there("asked") })
	if !Alive(int(p.GetPid())) && time.Since(began) < grace {
		t.Error("it was killed before the grace was over")
	}
	now := i.State("one", "stopped")
	took := time.Since(began)
	if now.GetLast().GetSignal() != int32(unix.SIGKILL) || took < grace {
		t.Errorf("it ended with %s after %v; want SIGKILL after %v", now.GetLast().GetText(), took, grace)
	}
	if len(i.Programs()) != 0 {
		t.Errorf("left: %v", i.Left())
	}
	t.Logf("killed %v after the grace of %v", (took - grace).Round(time.Millisecond), grace)
}

// TestMoreTimeIsGiven: a program that needs more than its bounds, and says so by
// EXTEND_TIMEOUT_USEC=, becomes ready and ends in its own time, also when the
// monitor that it asked dies.
func TestMoreTimeIsGiven(t *testing.T) {
	i := Start(t, "processes:\n  one:\n    ready: {notify: true, timeout: 2s}\n    stop: {grace: 2s}\n"+Helper(t, "slow", "2500ms"))
	asked := func(s *gemelv1.Snapshot) bool {
		return strings.Contains(Process(s, "one").GetReason(), "asked for more time")
	}
	i.Until("it asked for more time to become ready", asked)
	p := i.Running("one")
	if p.GetStarts() != 1 {
		t.Errorf("it was restarted: %s", p.GetReason())
	}
	i.Ask(gemelv1.Verb_VERB_STOP, aProcess, "one")
	i.Until("it asked for more time to end", asked)
	mark := i.Mark()
	_, monitor := i.halves()
	i.Signal(monitor, unix.SIGKILL)
	i.Await(mark, ha.Recovered, "monitor")
	if last := i.State("one", "stopped").GetLast(); last.GetCode() != 7 {
		t.Errorf("it ended with %s; its own end is exit 7", last.GetText())
	}
	for _, e := range i.Events(0, "one") {
		if e.GetCode() == uint32(ha.IntegrityRecovering) {
			t.Errorf("a fault although it had asked: %s", line(e))
		}
	}
}

// TestUnkillableIsNotStartedTwice: a program in state D outlives SIGKILL. That
// is an alarm; no second copy is started, also not when it is asked for; when the
// kernel lets it go, the alarm is cleared and it runs again.
func TestUnkillableIsNotStartedTwice(t *testing.T) {
	i := New(t, "")
	s := mountSilence(t, i.Path("fs"))
	i.Write("processes:\n" + script("one", "read x < "+i.Path("fs/x")+"; exec sleep 100000", "stop: {grace: 100ms}"))
	i.Begin()
	p := i.Running("one")
	select {
	case <-s.busy:
	case <-time.After(Bound):
		t.Fatal("the program does not ask the file system")
	}
	mark := i.Mark()
	i.Ask(gemelv1.Verb_VERB_RESTART, aProcess, "one")
	e := i.Await(mark, ha.ProcessStuck, "one")
	if e.GetChange() != gemelv1.Change_CHANGE_ASSERT {
		t.Errorf("the event is %s", line(e))
	}
	if state, _ := stat(int(p.GetPid())); state != 'D' {
		t.Errorf("the program is in state %c; this test wants D", state)
	}
	i.State("one", "stuck")
	i.Ask(gemelv1.Verb_VERB_START, aProcess, "one")
	if all := i.Programs(); !slices.Equal(all, []int{int(p.GetPid())}) {
		t.Errorf("processes of the program: %v; only %d may be there", all, p.GetPid())
	}
	if n := len(i.Status().GetAlarms()); n != 1 {
		t.Errorf("%d alarms stand", n)
	}
	s.leave()
	now := i.Running("one")
	if now.GetPid() == p.GetPid() {
		t.Error("the old copy is said to run")
	}
	i.Until("the alarm is cleared", func(s *gemelv1.Snapshot) bool { return len(s.GetAlarms()) == 0 })
}

// TestExecFailuresAreTold: a program that cannot be executed is a fault with the
// cause in it, is tried again within the budget, and hurts no other program.
func TestExecFailuresAreTold(t *testing.T) {
	i := New(t, "")
	i.put("plain", "#!/bin/sh\nexit 0\n")
	i.put("lost", "#!/nowhere/interpreter\n")
	if err := os.Chmod(i.Path("lost"), 0o755); err != nil {
		t.Fatal(err)
	}
	m := "processes:\n  good:\n    ramp-up: 50ms\n" + sleeper
	for name, path := range map[string]string{"missing": i.Path("nothing"), "plain": i.Path("plain"), "lost": i.Path("lost")} {
		m += fmt.Sprintf("  %s:\n    command: [%s]\n    restarts: {limit: 2, delay: 10ms}\n    ramp-up: 50ms\n", name, path)
	}
	i.Write(m)
	i.Begin()
	for name, want := range map[string]string{"missing": "no such file", "plain": "permission denied", "lost": "no such file"} {
		e := i.Await(0, ha.ExistenceDisabled, name)
		if !strings.Contains(e.GetDetail(), want) {
			t.Errorf("%s: the cause is %q; want %q in it", name, e.GetDetail(), want)
		}
		t.Logf("%s: %s", name, e.GetDetail())
		compare(t, name, i.Classic(0, name), []string{
			`368 "Process existence fault; attempting recovery" assert minor`,
			`378 "Attempting process restart recovery action" info minor`,
			`383 "Process restart recovery failure" info minor`,
			`378 "Attempting process restart recovery action" info minor`,
			`383 "Process restart recovery failure" info minor`,
			`378 "Attempting process restart recovery action" info minor`,
			`385 "Recovery failure due to excessive restarts" info minor`,
			`381 "Take no action specified for escalated recovery" info minor`,
			`371 "Process existence fault; monitoring disabled" assert minor`,
		})
	}
	if n := i.Running("good").GetStarts(); n != 1 {
		t.Errorf("the good program was started %d times", n)
	}
}

// TestMissingUserIsRefused: a user that does not exist is an error of gemel run,
// and of an apply, which then changes nothing.
func TestMissingUserIsRefused(t *testing.T) {
	need.Root(t)
	const bad = "processes:\n  one:\n    command: [sleep, 100000]\n    user: nobody-of-that-name\n"
	i := New(t, bad)
	out, err := i.Command("run", i.Path("gemel.yaml")).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("nobody-of-that-name")) {
		t.Errorf("gemel run: %v: %s", err, out)
	}
	i.Write("processes:\n  one:\n    ramp-up: 50ms\n" + sleeper)
	i.Begin()
	p := i.Running("one")
	r, err := i.Client.Apply(context.Background(), &gemelv1.ApplyRequest{Name: "bad.yaml", Manifest: []byte(bad)})
	if err == nil && len(r.GetProblems()) == 0 {
		t.Errorf("applied: %v", r)
	}
	t.Logf("the apply: %v %v", err, r.GetProblems())
	if now := i.Running("one"); now.GetPid() != p.GetPid() {
		t.Error("the program was restarted by a refused apply")
	}
}

// TestOutOfMemoryIsNamed: the cause of the end is shown, and it is recorded once.
func TestOutOfMemoryIsNamed(t *testing.T) {
	need.Root(t)
	need.Cgroup(t, "memory")
	i := Start(t, "processes:\n  eater:\n    ramp-up: 50ms\n    resources: {memory: 48MiB}\n    recovery: none\n"+Helper(t, "eat"))
	i.Await(0, ha.ExistenceDisabled, "eater")
	e := i.Await(0, ha.ExistenceRecovering, "eater")
	last := i.State("eater", "given-up").GetLast()
	if !strings.Contains(e.GetDetail(), "out of memory") || !last.GetOom() || last.GetSignal() != int32(unix.SIGKILL) {
		t.Errorf("it ended with %q, oom %v", e.GetDetail(), last.GetOom())
	}
	if n := len(i.Classic(0, "eater")); n != 3 {
		t.Errorf("%d events: %v", n, i.Classic(0, "eater"))
	}
}

// TestOutOfMemoryOfAChildIsNamed: what the program says of it is only a code.
func TestOutOfMemoryOfAChildIsNamed(t *testing.T) {
	need.Root(t)
	need.Cgroup(t, "memory")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	i := Start(t, "processes:\n"+script("parent", exe+"; exit $?", "environment: {"+helperEnv+": eat}", "resources: {memory: 48MiB}", "recovery: none"))
	i.Await(0, ha.ExistenceDisabled, "parent")
	last := i.State("parent", "given-up").GetLast()
	if e := i.Await(0, ha.ExistenceRecovering, "parent"); !strings.Contains(e.GetDetail(), "exit 137; out of memory") || !last.GetOom() {
		t.Errorf("it ended with %q, oom %v", e.GetDetail(), last.GetOom())
	}
}

// TestHungThreadIsFound: one thread of a program hangs and the others go on.
func TestHungThreadIsFound(t *testing.T) {
	i := Start(t, "processes:\n  threads:\n    ready: notify\n    severity: major\n    watchdog: {interval: 500ms, retries: 2, by: page}\n"+Helper(t, "threads"))
	p := i.Running("threads")
	i.Until("two threads beat", func(s *gemelv1.Snapshot) bool { return Process(s, "threads").GetThreads() == 2 })
	mark := i.Mark()
	i.Signal(int(p.GetPid()), unix.SIGUSR1)
	e := i.Await(mark, ha.WatchdogRecovering, "threads")
	if !strings.Contains(e.GetDetail(), "worker") {
		t.Errorf("the thread is not named: %q", e.GetDetail())
	}
	i.Await(mark, ha.Recovered, "threads")
	compare(t, "a hung thread", i.Classic(mark, "threads"), recovery(ha.WatchdogRecovering, "major"))
	ref := ""
	for _, e := range i.Events(mark, "threads") {
		if e.GetEvidence() != "" {
			ref = e.GetEvidence()
		}
	}
	r, err := i.Client.Evidence(context.Background(), &gemelv1.EvidenceRequest{Ref: ref})
	if err != nil || len(r.GetData()) == 0 {
		t.Errorf("the evidence %q: %v", ref, err)
	}
}
