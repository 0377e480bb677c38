package attach

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/proc/spawn"
)

// patience is how long a test waits for what must come, on a busy machine.
const patience = 30 * time.Second

// rig is a Holder and what it tells.
type rig struct {
	*Holder
	t    *testing.T
	told chan ha.Input

	mu  sync.Mutex
	ran []string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, told: make(chan ha.Input, 64)}
	r.Holder = New(Ways{
		Tell: func(in ha.Input) { r.told <- in }, Now: clock.Now, Log: slog.New(slog.DiscardHandler),
		Exit: func(pidfd int) (ha.ExitStatus, bool) {
			st, ok, err := spawn.ExitStatus(pidfd, false)
			return st, err == nil && ok
		},
		Run: func(argv, env []string, _ time.Duration) error {
			r.mu.Lock()
			r.ran = append(r.ran, strings.Join(append(argv, env...), " "))
			r.mu.Unlock()
			cmd := exec.Command(argv[0], argv[1:]...)
			cmd.Env = append(os.Environ(), env...)
			return cmd.Run()
		},
	})
	t.Cleanup(r.Close)
	return r
}

// next returns the next fact.
func (r *rig) next() ha.Input {
	r.t.Helper()
	select {
	case in := <-r.told:
		return in
	case <-time.After(patience):
		r.t.Fatal("nothing is told")
		return nil
	}
}

// adopted returns the next fact, which has to be that a program was found.
func (r *rig) adopted(start ha.StartID, pid int) {
	r.t.Helper()
	a, ok := r.next().(ha.Adopted)
	if !ok || a.Start != start || a.PID != pid || !a.Foreign {
		r.t.Fatalf("told %+v, want pid %d as start %d", a, pid, start)
	}
}

func (r *rig) notFound(why string) {
	r.t.Helper()
	switch in := r.next().(type) {
	case ha.NotFound:
		if !strings.Contains(in.Detail, why) {
			r.t.Errorf("not found because %q, want %q", in.Detail, why)
		}
	default:
		r.t.Errorf("told %+v, want that nothing is found: %s", in, why)
	}
}

func (r *rig) exited(start ha.StartID) ha.ExitStatus {
	r.t.Helper()
	x, ok := r.next().(ha.Exited)
	if !ok || x.Start != start {
		r.t.Fatalf("told %+v, want the end of start %d", x, start)
	}
	return x.Status
}

// orphan runs a script whose parent is not this process. What it reads from the
// pipe that is returned comes as $line.
func orphan(t *testing.T, script string, args ...string) (pid int, pipe string) {
	t.Helper()
	pipe = filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", `pipe=$1; script=$2; shift 2; PIPE=$pipe /bin/sh -c "$script" "$@" </dev/null >/dev/null 2>&1 & echo $!`,
		"parent", pipe, script}, args...)...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		_ = unix.Close(fd)
	})
	return pid, pipe
}

func write(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func byPID(path string) manifest.Process {
	return manifest.Process{Name: "p", Attach: manifest.Attach{PIDFile: path}, Stop: manifest.Stop{Signal: int(unix.SIGTERM), Grace: patience}}
}

// waits says READY when it waits, so that a signal does not come before a trap.
const waits = `read line <"$PIPE"; exit $line`

// A program that is nobody's child here is found by its pid file; its true exit
// code is told.
func TestPIDFile(t *testing.T) {
	r := newRig(t)
	pid, pipe := orphan(t, waits)
	file := filepath.Join(t.TempDir(), "p.pid")
	write(t, file, fmt.Sprintf("  %d\n/var/lib/data\n", pid))
	before := clock.Now()
	r.Seek(ha.Seek{Process: "p", Start: 4}, byPID(file))
	a, ok := r.next().(ha.Adopted)
	if !ok || a.PID != pid || a.Start != 4 || !a.Foreign {
		t.Fatalf("told %+v", a)
	}
	if age := before.Sub(a.Age); age < -time.Second || age > patience {
		t.Errorf("it began %v ago", age)
	}
	write(t, pipe, "7\n")
	if st := r.exited(4); st.Code != 7 && !st.Unknown || st.Unknown && kernel(t) {
		t.Errorf("it ended with %v, want exit 7", st)
	}
}

// kernel reports whether this kernel tells the exit of a program that is no child.
func kernel(t *testing.T) bool {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major > 6 || major == 6 && minor >= 15
}

func TestBadPIDFiles(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	pid, _ := orphan(t, waits)
	dead := exec.Command("/bin/true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	zombie := exec.Command("/bin/true")
	if err := zombie.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = zombie.Wait() }()
	waitState(t, zombie.Process.Pid, "Z")
	for name, c := range map[string]struct{ text, why string }{
		"missing":  {"", "no such file"},
		"empty":    {" ", "holds no pid"},
		"words":    {"none", "holds no pid"},
		"negative": {"-1", "holds no pid"},
		"dead":     {strconv.Itoa(dead.Process.Pid), "does not run"},
		"zombie":   {strconv.Itoa(zombie.Process.Pid), "does not run"},
		"init":     {"1", "Gemel itself or process 1"},
		"self":     {strconv.Itoa(os.Getpid()), "Gemel itself or process 1"},
		"huge":     {"99999999999999999999", "holds no pid"},
	} {
		file := filepath.Join(dir, name)
		if c.text != "" {
			write(t, file, c.text)
		}
		r.Seek(ha.Seek{Process: "p", Start: 1}, byPID(file))
		r.notFound(c.why)
	}
	pipe := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	r.Seek(ha.Seek{Process: "p", Start: 1}, byPID(pipe))
	r.notFound("no regular file")
	file := filepath.Join(dir, "open")
	write(t, file, strconv.Itoa(pid))
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	r.Seek(ha.Seek{Process: "p", Start: 1}, byPID(file))
	r.notFound("chmod o-w")
	if os.Geteuid() == 0 {
		// A user must not choose a program of root to be stopped.
		if err := errors.Join(os.Chmod(file, 0o644), os.Chown(file, 65534, 65534)); err != nil {
			t.Fatal(err)
		}
		r.Seek(ha.Seek{Process: "p", Start: 1}, byPID(file))
		r.notFound("belongs to user 65534")
	}
}

// waitState waits until a process is in a state.
func waitState(t *testing.T, pid int, state string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		if f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])); f[0] == state {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("pid %d does not come to state %s", pid, state)
		}
	}
}

// A command line is found exactly; a worker is not counted, two strangers are
// refused.
func TestCommandLine(t *testing.T) {
	r := newRig(t)
	mark := fmt.Sprintf("mark of %d", os.Getpid())
	line := fmt.Sprintf(`/bin/sh -c "%s" "%s"`, strings.ReplaceAll(waits, `"`, ``), mark)
	script := strings.ReplaceAll(waits, `"`, ``)
	p := manifest.Process{Name: "p", Attach: manifest.Attach{CommandLine: line}}
	r.Seek(ha.Seek{Process: "p", Start: 1}, p)
	r.notFound("no process has the command line")
	pid, pipe := orphan(t, script, mark)
	r.Seek(ha.Seek{Process: "p", Start: 1}, p)
	r.adopted(1, pid)
	orphan(t, script, mark)
	r.Seek(ha.Seek{Process: "p", Start: 2}, p)
	r.notFound("attach by pidfile or unit")
	write(t, pipe, "0\n")
	for _, bad := range []string{`a "b`, "", "  "} {
		p.Attach.CommandLine = bad
		r.Seek(ha.Seek{Process: "p", Start: 3}, p)
		if _, ok := r.next().(ha.NotFound); !ok {
			t.Errorf("%q was found", bad)
		}
	}
}

// fakeProc is a /proc with processes: pid to parent and arguments.
func fakeProc(t *testing.T, dir string, list map[int]struct {
	parent int
	began  int
	line   string
},
) {
	t.Helper()
	for pid, p := range list {
		d := filepath.Join(dir, strconv.Itoa(pid))
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(d, "stat"), fmt.Sprintf("%d (odd) 1 (name) S %d 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0", pid, p.parent, p.began))
		write(t, filepath.Join(d, "cmdline"), p.line)
	}
}

func TestWorkers(t *testing.T) {
	type one = struct {
		parent int
		began  int
		line   string
	}
	dir := t.TempDir()
	f := finder{proc: dir}
	fakeProc(t, dir, map[int]one{
		// Workers before and after their parent in the order of the directory.
		100: {500, 5, "web\x00-x\x00"}, 500: {1, 4, "web\x00-x\x00"}, 900: {500, 6, "web\x00-x\x00"}, 901: {900, 7, "web\x00-x\x00"},
		2: {1, 1, "web\x00"}, 3: {1, 1, "web -x\x00"}, 4: {1, 1, ""},
	})
	if pid, err := f.byCommandLine("web  -x"); pid != 500 || err != nil {
		t.Errorf("found %d, %v", pid, err)
	}
	if pid, err := f.byCommandLine(`"web -x"`); pid != 3 || err != nil {
		t.Errorf("found %d, %v", pid, err)
	}
	if st, ok := f.stat(901); !ok || st.parent != 900 || st.began != ha.Instant(70*time.Millisecond) {
		t.Errorf("%+v, %t", st, ok)
	}
}

// A unit is found by its control group, wherever that is mounted and in whichever
// slice: its main process is the oldest whose parent is outside.
func TestUnit(t *testing.T) {
	type one = struct {
		parent int
		began  int
		line   string
	}
	list := map[int]one{70: {1, 9, ""}, 80: {1, 3, ""}, 81: {80, 4, ""}, 82: {81, 5, ""}}
	for name, at := range map[string]string{
		"v2": "system.slice/web.service", "hybrid": "unified/system.slice/web.service", "v1": "systemd/system.slice/web.service",
		"template": "system.slice/system-web.slice/web.service", "user": "user.slice/user-1.slice/web.service",
		"delegated": "system.slice/web.service",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			f := finder{proc: filepath.Join(dir, "proc"), cgroups: filepath.Join(dir, "cgroup")}
			fakeProc(t, f.proc, list)
			group := filepath.Join(f.cgroups, at)
			if err := os.MkdirAll(filepath.Join(group, "sub"), 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(group, "cgroup.procs"), "")
			if pid, err := f.byUnit("web"); err == nil || !strings.Contains(err.Error(), "no process") {
				t.Errorf("an empty unit: %d, %v", pid, err)
			}
			file := filepath.Join(group, "cgroup.procs")
			if name == "delegated" {
				file = filepath.Join(group, "sub", "cgroup.procs")
			}
			write(t, file, "70\n82\n81\n80\n7777\n")
			for _, unit := range []string{"web", "web.service"} {
				if pid, err := f.byUnit(unit); pid != 80 || err != nil {
					t.Errorf("%s: found %d, %v", unit, pid, err)
				}
			}
			for _, unit := range []string{"other", "../web", "web.slice"} {
				if pid, err := f.byUnit(unit); err == nil {
					t.Errorf("%s: found %d", unit, pid)
				}
			}
		})
	}
}

// A unit of a made control group with a real process, held to its end.
func TestUnitHeld(t *testing.T) {
	r := newRig(t)
	r.finder.cgroups = t.TempDir()
	group := filepath.Join(r.finder.cgroups, "system.slice", "web.service")
	if err := os.MkdirAll(group, 0o755); err != nil {
		t.Fatal(err)
	}
	pid, pipe := orphan(t, waits)
	write(t, filepath.Join(group, "cgroup.procs"), fmt.Sprintln(pid))
	r.Seek(ha.Seek{Process: "p", Start: 1}, manifest.Process{Name: "p", Attach: manifest.Attach{Unit: "web"}})
	r.adopted(1, pid)
	write(t, pipe, "0\n")
	if st := r.exited(1); !st.Success() && kernel(t) {
		t.Errorf("it ended with %v", st)
	}
}

// A stop in two stages; a program that takes SIGTERM ends with its own code.
func TestStop(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	polite, _ := orphan(t, `trap "exit 9" TERM; echo ok >"`+dir+`/polite"; while :; do sleep 0.05; done`)
	rude, _ := orphan(t, `trap "" TERM; echo ok >"`+dir+`/rude"; while :; do sleep 0.05; done`)
	for i, pid := range []int{polite, rude} {
		name := []string{"polite", "rude"}[i]
		waitFile(t, filepath.Join(dir, name))
		file := filepath.Join(dir, name+".pid")
		write(t, file, strconv.Itoa(pid))
		p := byPID(file)
		start := ha.StartID(i + 1)
		if name == "rude" {
			p.Stop.Grace = 50 * time.Millisecond
		}
		// Stopped by SIGSTOP it could not even take the signal.
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		r.Seek(ha.Seek{Process: "p", Start: start}, p)
		r.adopted(start, pid)
		r.Stop(ha.Stop{Process: "p", Start: start + 50}, p) // another start: nothing
		r.Stop(ha.Stop{Process: "p", Start: start}, p)
		st := r.exited(start)
		if name == "polite" && st.Code != 9 || name == "rude" && st.Signal != int(unix.SIGKILL) {
			t.Errorf("%s ended with %v", name, st)
		}
	}
	r.Stop(ha.Stop{Process: "p", Start: 2}, byPID("x")) // gone: nothing
}

func waitFile(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		if b, err := os.ReadFile(path); err == nil && len(b) > 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not come", path)
		}
	}
}

// A kill skips the first stage; a stop command takes the place of the signal.
func TestKillAndCommand(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "pid")
	pid, _ := orphan(t, `trap "" TERM; echo ok >"`+dir+`/a"; while :; do sleep 0.05; done`)
	waitFile(t, filepath.Join(dir, "a"))
	write(t, file, strconv.Itoa(pid))
	r.Seek(ha.Seek{Process: "p", Start: 1}, byPID(file))
	r.adopted(1, pid)
	r.Stop(ha.Stop{Process: "p", Start: 1, Kill: true}, byPID(file))
	if st := r.exited(1); st.Signal != int(unix.SIGKILL) {
		t.Errorf("it ended with %v", st)
	}

	pid, pipe := orphan(t, waits)
	write(t, file, strconv.Itoa(pid))
	p := byPID(file)
	p.Stop.Command = []string{"/bin/sh", "-c", `test "$MAINPID" = ` + strconv.Itoa(pid) + ` && echo 5 >` + pipe}
	r.Seek(ha.Seek{Process: "p", Start: 2}, p)
	r.adopted(2, pid)
	r.Stop(ha.Stop{Process: "p", Start: 2}, p)
	if st := r.exited(2); st.Code != 5 {
		t.Errorf("it ended with %v", st)
	}

	pid, _ = orphan(t, waits)
	write(t, file, strconv.Itoa(pid))
	p.Stop.Command = []string{"/bin/false"}
	r.Seek(ha.Seek{Process: "p", Start: 3}, p)
	r.adopted(3, pid)
	r.Stop(ha.Stop{Process: "p", Start: 3}, p)
	if st := r.exited(3); st.Signal != int(unix.SIGTERM) {
		t.Errorf("it ended with %v", st)
	}
}

// A program is started by its start command, and then found. What cannot be
// started, or is not found after that, is told.
func TestLaunch(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "pid")
	p := byPID(file)
	p.Attach.Start = []string{"/bin/sh", "-c", "(sleep 0.2; exec sleep 1000) & echo $! >" + file}
	r.Launch(ha.Start{Process: "p", Start: 1}, p)
	a, ok := r.next().(ha.Adopted)
	if !ok || a.Start != 1 {
		t.Fatalf("told %+v", a)
	}
	r.Stop(ha.Stop{Process: "p", Start: 1, Kill: true}, p)
	r.exited(1)

	p.Attach.Start = []string{"/bin/sh", "-c", "exit 3"}
	r.Launch(ha.Start{Process: "p", Start: 2}, p)
	if f, ok := r.next().(ha.StartFailed); !ok || f.Start != 2 || !strings.Contains(f.Error, "exit status 3") {
		t.Errorf("told %+v", f)
	}
}

// A stop that comes before the program was found holds for it; one of a search
// that finds nothing ends it.
func TestStopBeforeFound(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	file, gate := filepath.Join(dir, "pid"), filepath.Join(dir, "gate")
	if err := unix.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	pid, _ := orphan(t, waits)
	write(t, file, strconv.Itoa(pid))
	p := byPID(file)
	p.Attach.Start = []string{"/bin/sh", "-c", "read x <" + gate}
	r.Launch(ha.Start{Process: "p", Start: 1}, p)
	r.Stop(ha.Stop{Process: "p", Start: 1}, p)
	write(t, gate, "go\n")
	r.adopted(1, pid)
	if st := r.exited(1); st.Signal != int(unix.SIGTERM) {
		t.Errorf("it ended with %v", st)
	}

	r.found = 100 * time.Millisecond
	p.Attach.PIDFile = filepath.Join(dir, "none")
	r.Launch(ha.Start{Process: "p", Start: 2}, p)
	r.Stop(ha.Stop{Process: "p", Start: 2}, p)
	write(t, gate, "go\n")
	if f, ok := r.next().(ha.StartFailed); !ok || f.Start != 2 {
		t.Errorf("told %+v", f)
	}
}

// A program that is let go runs on, and nothing is told of it any more.
func TestRelease(t *testing.T) {
	r := newRig(t)
	file := filepath.Join(t.TempDir(), "pid")
	pid, _ := orphan(t, waits)
	write(t, file, strconv.Itoa(pid))
	r.Seek(ha.Seek{Process: "p", Start: 1}, byPID(file))
	r.adopted(1, pid)
	r.Release("p")
	r.Release("nobody")
	r.Stop(ha.Stop{Process: "p", Start: 1, Kill: true}, byPID(file))
	r.Close()
	if err := unix.Kill(pid, 0); err != nil {
		t.Errorf("it does not run any more: %v", err)
	}
	if len(r.told) != 0 {
		t.Errorf("told %+v", <-r.told)
	}
	r.Seek(ha.Seek{Process: "p", Start: 2}, byPID(file)) // after the end: nothing
	if len(r.told) != 0 {
		t.Errorf("told %+v", <-r.told)
	}
}

// A signal that cannot be sent is told: nothing would follow it.
func TestSignalRefused(t *testing.T) {
	r := newRig(t)
	file := filepath.Join(t.TempDir(), "pid")
	pid, _ := orphan(t, waits)
	write(t, file, strconv.Itoa(pid))
	p := byPID(file)
	p.Stop.Signal = 100 // there is no such signal
	r.Seek(ha.Seek{Process: "p", Start: 1}, p)
	r.adopted(1, pid)
	r.Stop(ha.Stop{Process: "p", Start: 1}, p)
	if f, ok := r.next().(ha.StopFailed); !ok || !strings.Contains(f.Detail, "signal 100") {
		t.Errorf("told %+v", f)
	}
}

// Holding and letting go leaves no descriptor behind.
func TestDescriptors(t *testing.T) {
	r := newRig(t)
	file := filepath.Join(t.TempDir(), "pid")
	pid, _ := orphan(t, waits)
	write(t, file, strconv.Itoa(pid))
	r.Seek(ha.Seek{Process: "p", Start: 1}, byPID(file))
	r.adopted(1, pid)
	before := descriptors(t)
	for i := range 200 {
		start := ha.StartID(i + 2)
		r.Seek(ha.Seek{Process: "p", Start: start}, byPID(file))
		r.adopted(start, pid)
	}
	for end := time.Now().Add(patience); descriptors(t) > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d descriptors, %d before", descriptors(t), before)
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestSplit(t *testing.T) {
	for line, want := range map[string][]string{
		"a": {"a"}, " a  b ": {"a", "b"}, `a "b c"`: {"a", "b c"}, `a ""`: {"a", ""}, `a"b c"d`: {"ab cd"}, `"/opt/x y/z" -f`: {"/opt/x y/z", "-f"},
	} {
		if got, err := Split(line); err != nil || !slices.Equal(got, want) {
			t.Errorf("Split(%q) = %q, %v; want %q", line, got, err, want)
		}
	}
	for _, line := range []string{"", " ", `"`, `a "b`} {
		if got, err := Split(line); err == nil {
			t.Errorf("Split(%q) = %q", line, got)
		}
	}
}
