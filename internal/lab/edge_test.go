package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
	"gemel/internal/need"
)

// spare lets a half have n more descriptors than it has open now.
func spare(t *testing.T, pid, n int) {
	t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	most := uint64(len(open) + n)
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: most, Max: most}, nil); err != nil {
		t.Fatalf("limiting the descriptors of %d: %v", pid, err)
	}
}

// TestDescriptorsOfTheMonitor: somebody takes every descriptor of the monitor by
// connections that say nothing. Programs are restarted all the same, and when the
// connections are gone, the API answers as before.
func TestDescriptorsOfTheMonitor(t *testing.T) {
	i := Start(t, "processes:\n  one:\n    ramp-up: 50ms\n"+sleeper)
	p := i.Running("one")
	_, monitor := i.halves()
	spare(t, monitor, 20)
	mark := i.Mark()
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range 100 {
		c, err := net.Dial("unix", i.Path("run/api.sock"))
		if err != nil {
			break // the queue is full: the monitor takes no more
		}
		conns = append(conns, c)
	}
	t.Logf("%d connections", len(conns))
	i.Signal(int(p.GetPid()), unix.SIGKILL)
	// By the kernel's word: the API may be out of reach.
	await(t, "the successor runs", func() bool {
		all := i.Programs()
		return len(all) == 1 && all[0] != int(p.GetPid())
	})
	for _, c := range conns {
		c.Close()
	}
	conns = nil
	i.Await(mark, ha.Recovered, "one")
	if now := i.Running("one"); now.GetStarts() != p.GetStarts()+1 {
		t.Errorf("%d starts; want %d", now.GetStarts(), p.GetStarts()+1)
	}
}

// TestDescriptorsOfTheShadow: more programs than descriptors. Those that run are
// not touched, those that cannot be started say why, and with fewer programs the
// rest is started.
func TestDescriptorsOfTheShadow(t *testing.T) {
	const many = 40
	manifest := func(n int) string {
		var b strings.Builder
		b.WriteString("processes:\n")
		for k := range n {
			fmt.Fprintf(&b, "  p%02d:\n    ramp-up: 50ms\n    restarts: {limit: 1000, delay: 50ms, delay-max: 200ms}\n%s", k, sleeper)
		}
		return b.String()
	}
	i := Start(t, manifest(5))
	pids := map[string]int32{}
	for k := range 5 {
		name := fmt.Sprintf("p%02d", k)
		pids[name] = i.Running(name).GetPid()
	}
	shadow, _ := i.halves()
	spare(t, shadow, 40)
	mark := i.Mark()
	i.apply(manifest(many))
	var told *gemelv1.Event
	await(t, "a start fails for want of a descriptor, or all run", func() bool {
		for _, e := range i.Events(mark, "") {
			if strings.Contains(e.GetDetail(), "too many open files") {
				told = e
				return true
			}
		}
		running := 0
		for _, p := range i.Status().GetProcesses() {
			if p.GetState() == "running" {
				running++
			}
		}
		return running == many
	})
	if told == nil {
		t.Fatalf("%d programs run with 40 descriptors more: the test has lost its point", many)
	}
	t.Logf("%s: %s", about(told), told.GetDetail())
	for name, pid := range pids {
		if now := Process(i.Status(), name); now.GetPid() != pid {
			t.Errorf("%s was restarted: pid %d, now %d", name, pid, now.GetPid())
		}
	}
	i.apply(manifest(8))
	for k := range 8 {
		i.Running(fmt.Sprintf("p%02d", k))
	}
	for name, pid := range pids {
		if now := Process(i.Status(), name); now.GetPid() != pid {
			t.Errorf("%s was restarted later: pid %d, now %d", name, pid, now.GetPid())
		}
	}
}

func (i *Instance) apply(manifest string) {
	i.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Bound)
	defer cancel()
	r, err := i.Client.Apply(ctx, &gemelv1.ApplyRequest{Name: "test", Manifest: []byte(manifest)})
	if err != nil || len(r.GetProblems()) > 0 {
		i.tb.Fatalf("applying: %v %v", err, r.GetProblems())
	}
}

// smallDisk mounts a file system of one megabyte at a directory of the instance.
func (i *Instance) smallDisk(name string) {
	i.tb.Helper()
	dir := i.Path(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		i.tb.Fatal(err)
	}
	if err := unix.Mount("lab", dir, "tmpfs", 0, "size=1m,mode=700"); err != nil {
		i.tb.Fatal(err)
	}
	i.tb.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// fill takes what is left of a file system.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for b := make([]byte, 4096); len(b) > 0; {
		if _, err := f.Write(b); err != nil {
			b = b[:len(b)/2]
		}
	}
}

// TestFullDiskUnderEverything: no byte can be written to the data directory.
// Programs are supervised on, one that prints is not held up, the alarm says so,
// stands as long as it is true, and is cleared when there is room.
func TestFullDiskUnderEverything(t *testing.T) {
	need.Root(t)
	i := New(t, "")
	// After New's own cleanup was set, so that it is unmounted before it.
	i.smallDisk("data")
	i.Write("node: {journal-limit: 1MiB}\nprocesses:\n  one:\n    ramp-up: 50ms\n    restarts: {limit: 1000, delay: 0s}\n" + sleeper +
		script("talker", fmt.Sprintf(`n=0; while :; do n=$((n+1)); echo "$n ................................................................"; echo $n > %s/said.new; mv %s/said.new %s/said; sleep 0.01; done`, i.Dir, i.Dir, i.Dir)))
	i.Begin()
	p := i.Running("one")
	fill(t, i.Path("data/filler"))
	mark := i.Mark()
	i.Signal(int(p.GetPid()), unix.SIGKILL)
	e := i.Await(mark, ha.DiskTrouble, "node")
	t.Logf("%s -- %s", line(e), e.GetDetail())
	i.Await(mark, ha.Recovered, "one")
	said := func() int {
		b, _ := os.ReadFile(i.Path("said"))
		n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		return n
	}
	from := said()
	await(t, "the program that prints goes on", func() bool { return said() > from+100 })
	for range 3 {
		before := i.Mark()
		i.Signal(int(i.Running("one").GetPid()), unix.SIGKILL)
		i.Await(before, ha.Recovered, "one")
	}
	for _, e := range i.Events(mark, "node") {
		if e.GetCode() == uint32(ha.DiskTrouble) && e.GetChange() == gemelv1.Change_CHANGE_CLEAR {
			t.Errorf("the alarm was cleared (event %d) while the disk was full", e.GetId())
			break
		}
	}
	// The picture may be an instant behind the events.
	i.Until("the alarm of the disk alone stands", func(s *gemelv1.Snapshot) bool {
		a := s.GetAlarms()
		return len(a) == 1 && a[0].GetCode() == uint32(ha.DiskTrouble)
	})
	if err := os.Remove(i.Path("data/filler")); err != nil {
		t.Fatal(err)
	}
	// By itself: nothing happens that would have to be written.
	i.Until("the alarm is cleared", func(s *gemelv1.Snapshot) bool { return len(s.GetAlarms()) == 0 })
	p = i.Running("one")
	i.Kill()
	i.Begin()
	if now := i.Running("one"); now.GetPid() != p.GetPid() || now.GetStarts() != p.GetStarts() {
		t.Errorf("the next life knows of %d starts and pid %d; it was %d and %d", now.GetStarts(), now.GetPid(), p.GetStarts(), p.GetPid())
	}
}

// TestCrashLoopIsCheap: a program that ends at once is started again with growing
// pauses; it costs next to nothing, and never more than its events.
func TestCrashLoopIsCheap(t *testing.T) {
	i := Start(t, "processes:\n  crasher:\n    command: [/bin/false]\n    restarts: {limit: 10000}\n")
	i.Await(0, ha.AttemptRestart, "crasher")
	used, began := i.cpu(), time.Now()
	mark := i.Mark()
	for n, last := 0, mark; n < 4; n++ {
		last = i.Await(last, ha.AttemptRestart, "crasher").GetId()
	}
	spent, took := i.cpu()-used, time.Since(began)
	percent := 100 * spent.Seconds() / took.Seconds()
	events := len(i.Events(mark, ""))
	t.Logf("4 restarts in %v: %.1f %% of a core, %d events", took.Round(time.Millisecond), percent, events)
	if percent > 5 {
		t.Errorf("%.1f %% of a core; want below 5", percent)
	}
	if events > 20 {
		t.Errorf("%d events for 4 restarts", events)
	}
}

// TestCrashLoopWithoutPause: the worst that a manifest can ask for. The budget of
// restarts ends it, another program and the API do not notice.
func TestCrashLoopWithoutPause(t *testing.T) {
	i := Start(t, "processes:\n  crasher:\n    command: [/bin/false]\n    restarts: {limit: 300, delay: 0s}\n  other:\n    ramp-up: 50ms\n"+sleeper)
	began := time.Now()
	i.Status()
	answer := time.Since(began)
	i.Await(0, ha.ExistenceDisabled, "crasher")
	p := i.State("crasher", "given-up")
	if p.GetStarts() != 301 {
		t.Errorf("%d starts; want 301", p.GetStarts())
	}
	if n := i.Running("other").GetStarts(); n != 1 {
		t.Errorf("the other program was started %d times", n)
	}
	t.Logf("301 starts in %v; an answer meanwhile took %v", time.Since(began).Round(time.Millisecond), answer.Round(time.Microsecond))
}

// cpu is the time that both halves used.
func (i *Instance) cpu() time.Duration {
	var sum int64
	shadow, monitor := i.halves()
	for _, pid := range []int{shadow, monitor} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			i.tb.Fatal(err)
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		for _, k := range []int{11, 12} {
			n, _ := strconv.ParseInt(f[k], 10, 64)
			sum += n
		}
	}
	return time.Duration(sum) * 10 * time.Millisecond // USER_HZ is 100 everywhere
}

// TestOutputOfEveryKind: lines, bytes of every value, and megabytes without an
// end of line neither block the program nor get lost, within the rate.
func TestOutputOfEveryKind(t *testing.T) {
	i := New(t, "")
	m := "processes:\n"
	kinds := map[string]int64{"lines": 98_890, "binary": 1 << 20, "endless": 4 << 20}
	for kind := range kinds {
		m += "  " + kind + ":\n    ramp-up: 50ms\n" + Helper(t, "flood", kind, i.Path(kind+".done"))
	}
	i.Write(m)
	i.Begin()
	for kind, want := range kinds {
		await(t, kind+" is written", func() bool { return i.there(kind + ".done") })
		var size int64
		await(t, kind+" is captured", func() bool { size = i.logged(kind); return size >= want })
		if size > want+want/2 {
			t.Errorf("%s: %d bytes were written and %d captured", kind, want, size)
		}
	}
	b, err := os.ReadFile(i.Path("data/log/lines.log"))
	if err != nil || !strings.Contains(string(b), "line 9999") {
		t.Errorf("the last line is not there: %v", err)
	}
}

// logged is how much output of a process is on the disk.
func (i *Instance) logged(name string) int64 {
	files, _ := filepath.Glob(i.Path("data/log/" + name + ".log*"))
	var sum int64
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			sum += st.Size()
		}
	}
	return sum
}

// TestOutputFloodIsBounded: a program that never stops printing is not blocked,
// does not fill the disk, is told, and hurts nobody else.
func TestOutputFloodIsBounded(t *testing.T) {
	i := Start(t, "processes:\n  yes:\n    command: [yes]\n    nice: 10\n    ramp-up: 50ms\n    output: {rate: 64KiB, size: 64KiB, keep: 2}\n  other:\n    ramp-up: 50ms\n"+sleeper)
	i.Await(0, ha.OutputDropped, "yes")
	mark := i.Mark()
	i.Signal(int(i.Running("other").GetPid()), unix.SIGKILL)
	i.Await(mark, ha.Recovered, "other")
	await(t, "its log was rotated", func() bool { return i.logged("yes") >= 64<<10+1 })
	if n := i.logged("yes"); n > 3*64<<10 {
		t.Errorf("%d bytes are kept; want 2 files of 64 KiB", n)
	}
	if n := len(i.Events(mark, "yes")); n > 10 {
		t.Errorf("%d events about it", n)
	}
	if got := i.Running("yes").GetStarts(); got != 1 {
		t.Errorf("it was started %d times", got)
	}
}
