package spawn

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
	"gemel/internal/proc"
)

func TestTreeName(t *testing.T) {
	for _, name := range []string{"", "a/b", "daemon", ".hidden"} {
		if tr, err := Open(name); err == nil {
			tr.Close()
			t.Errorf("%q was taken", name)
		}
	}
}

// TestTree makes, finds and removes groups.
func TestTree(t *testing.T) {
	tr := tree(t)
	if tr.v2 == "" {
		t.Skip(tr)
	}
	s := shell("true")
	a, b := group(t, tr, 5, s), group(t, tr, 7, s)
	ids, err := tr.Find()
	if err != nil || !slices.Equal(ids, []ha.StartID{5, 7}) {
		t.Fatal(ids, err)
	}
	if again, ok := tr.At(5); !ok || again.Path() != a.Path() || filepath.Base(a.Path()) != "start-5" {
		t.Fatal(again, ok)
	}
	if _, ok := tr.At(6); ok {
		t.Fatal("there is no group of start 6")
	}
	if err := os.MkdirAll(b.Path()+"/inner/most", 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	if !b.Empty() || b.Kill() != nil {
		t.Fatal("a group that is gone is empty, and killing it is no error")
	}
	if !strings.HasSuffix(strings.Split(tr.String(), ";")[0], tr.v2) {
		t.Fatal(tr)
	}
}

// TestNoController: a limit without its controller is refused, by name.
func TestNoController(t *testing.T) {
	tr := tree(t)
	bare := &Tree{name: "bare", why: "for the test"}
	for _, c := range []struct {
		name string
		s    proc.Spec
	}{{"memory", proc.Spec{Memory: 1 << 30}}, {"pids", proc.Spec{PIDs: 5}}, {"cpu", proc.Spec{CPU: 1}}} {
		_, err := bare.Make("x", 1, &c.s)
		if err == nil || !strings.Contains(err.Error(), "a "+c.name+" limit is asked for") {
			t.Errorf("%s: %v", c.name, err)
		}
		if bare.Has(c.name) || bare.Has("kill") || bare.Has("freeze") {
			t.Errorf("it has not %s", c.name)
		}
	}
	bare.remark()
	if len(bare.Notes()) != 2 || bare.String() != "process groups: for the test" {
		t.Error(bare, bare.Notes())
	}
	for _, n := range tr.Notes() {
		if !strings.HasSuffix(n, ".") {
			t.Errorf("not a sentence: %q", n)
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	tr := tree(t)
	if !tr.Has("memory") {
		t.Skip(tr)
	}
	for _, way := range ways {
		s := helper(t, "hog")
		s.Memory = 64 << 20
		o := quiet()
		o.Cgroup = group(t, tr, o.Start, s)
		out, st := output(t, way, s, o)
		if st.Signal != int(syscall.SIGKILL) || out != "" {
			t.Errorf("%s: %v, %q", way, st, out)
		}
		if n := o.Cgroup.OOMKills(); n != 1 {
			t.Errorf("%s: %d kills for lack of memory", way, n)
		}
		if st.MaxRSS < 32<<20 || st.CPU <= 0 {
			t.Errorf("%s: used %d bytes and %v", way, st.MaxRSS, st.CPU)
		}
	}
}

// TestForkBomb: the bomb stays within its limit, we go on meanwhile, and it is
// gone when it is killed.
func TestForkBomb(t *testing.T) {
	tr := tree(t)
	if !tr.Has("pids") {
		t.Skip(tr)
	}
	s := helper(t, "bomb")
	s.PIDs, s.CPU = 40, 0.5
	o := quiet()
	o.Cgroup = group(t, tr, o.Start, s)
	c, err := begin(t, "start", s, o)
	if err != nil {
		t.Fatal(err)
	}
	full := false
	until(t, "the bomb is at its limit", func() bool {
		pids, err := o.Cgroup.Procs()
		if err != nil || len(pids) > 40 {
			t.Fatalf("%d processes, %v", len(pids), err)
		}
		full = full || len(pids) >= 30
		return full
	})
	if out, st := output(t, "start", shell("echo well"), quiet()); out != "well\n" || !st.Success() {
		t.Errorf("beside the bomb: %q, %v", out, st)
	}
	if err := o.Cgroup.Kill(); err != nil {
		t.Fatal(err)
	}
	if st := await(t, c); st.Signal != int(syscall.SIGKILL) {
		t.Error(st)
	}
	until(t, "the bomb is gone", o.Cgroup.Empty)
}

func TestCPULimit(t *testing.T) {
	tr := tree(t)
	if !tr.Has("cpu") {
		t.Skip(tr)
	}
	s := shell("true")
	s.CPU = 1.5
	c := group(t, tr, nextStart(), s)
	got := words(c.joins()[0] + "/cpu.max")
	if dir := c.joins()[3]; dir != "" {
		got = append(words(dir+"/cpu.cfs_quota_us"), words(dir+"/cpu.cfs_period_us")...)
	}
	if !slices.Equal(got, []string{"150000", "100000"}) {
		t.Fatal(got)
	}
}

// deafTree starts a program that ignores what asks it to end, with a double-forked
// child in another session.
func deafTree(t *testing.T, c *Cgroup, id ha.StartID) Child {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	o := quiet()
	o.Start, o.Cgroup, o.Stdout = id, c, int(w.Fd())
	child, err := begin(t, "start", helper(t, "deaf"), o)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(r).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatal(line, err)
	}
	return child
}

// deafTreeStands waits until both shells and their sleeps are there, and nobody else:
// a fourth process may also be the shell that started the second one and is about
// to end.
func deafTreeStands(t *testing.T, g *Cgroup) {
	t.Helper()
	until(t, "both shells and their sleeps are there", func() bool {
		pids, err := g.Procs()
		sleeps := 0
		for _, pid := range pids {
			if b, err := os.ReadFile("/proc/" + itoa(pid) + "/comm"); err == nil && string(b) == "sleep\n" {
				sleeps++
			}
		}
		return err == nil && len(pids) == 4 && sleeps == 2
	})
}

// TestKillFrozen kills a frozen tree whose processes ignore every polite signal.
func TestKillFrozen(t *testing.T) {
	tr := tree(t)
	if !tr.Has("freeze") {
		t.Skip(tr)
	}
	for _, one := range []bool{false, true} {
		id := nextStart()
		g := group(t, tr, id, shell(""))
		c := deafTree(t, g, id)
		deafTreeStands(t, g)
		if err := g.Freeze(true); err != nil {
			t.Fatal(err)
		}
		until(t, "the tree is frozen", func() bool { return field(g.Path()+"/cgroup.events", "frozen") == 1 })
		if cpu, memory, tasks := g.Usage(); cpu <= 0 || memory <= 0 || tasks < 3 {
			t.Error(cpu, memory, tasks)
		}
		if g.Empty() {
			t.Error("frozen is not empty")
		}
		if err := g.Remove(); !errors.Is(err, syscall.EBUSY) {
			t.Error(err)
		}
		kill := g.Kill
		if one {
			kill = g.killEach // as on kernels without cgroup.kill
		}
		if err := kill(); err != nil {
			t.Fatal(err)
		}
		if st := await(t, c); st.Signal != int(syscall.SIGKILL) {
			t.Error(st)
		}
		until(t, "the tree is gone", g.Empty)
	}
}

// TestFallbackKill does the same on a machine without control groups.
func TestFallbackKill(t *testing.T) {
	bare := &Tree{name: "bare-" + itoa(os.Getpid()), why: "for the test"}
	id := nextStart()
	g, err := bare.Make("deaf", id, shell(""))
	if err != nil {
		t.Fatal(err)
	}
	if g.Path() != "" {
		t.Fatal(g.Path())
	}
	c := deafTree(t, g, id)
	stranger, err := begin(t, "start", shell("read x"), Options{Start: id, Stdin: pipeEnd(t), Stdout: -1, Stderr: -1, Handover: -1})
	if err != nil {
		t.Fatal(err)
	}
	deafTreeStands(t, g)
	pids, err := g.Procs()
	if err != nil || slices.Contains(pids, stranger.PID) {
		t.Fatal(pids, err)
	}
	if err := g.Freeze(true); err != nil {
		t.Fatal(err)
	}
	until(t, "all are stopped", func() bool {
		for _, pid := range pids {
			if s, _ := readStat(pid); s.state != 'T' {
				return false
			}
		}
		return true
	})
	if cpu, memory, tasks := g.Usage(); memory <= 0 || tasks < 3 {
		t.Error(cpu, memory, tasks)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	if st := await(t, c); st.Signal != int(syscall.SIGKILL) {
		t.Error(st)
	}
	until(t, "the tree is gone", g.Empty)
	if err := g.Remove(); err != nil {
		t.Fatal(err)
	}
	if s, ok := readStat(stranger.PID); !ok || s.state == 'Z' {
		t.Error("the start of another instance with the same id was killed")
	}
	_ = unix.PidfdSendSignal(stranger.PIDFD, unix.SIGKILL, nil, 0)
	await(t, stranger)
}

// pipeEnd is a descriptor to read from that never ends during the test.
func pipeEnd(t *testing.T) int {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return int(r.Fd())
}

// TestLeadElsewhere: the group of an adopted program is found by its process when
// the daemon runs in another place now.
func TestLeadElsewhere(t *testing.T) {
	old, now := tree(t), tree(t)
	if old.v2 == "" {
		t.Skip(old)
	}
	s := shell("read x")
	o := quiet()
	o.Stdin, o.Cgroup = pipeEnd(t), group(t, old, o.Start, s)
	c, err := begin(t, "start", s, o)
	if err != nil {
		t.Fatal(err)
	}
	g, ok := now.At(o.Start)
	if ok {
		t.Fatal("it is not in this tree")
	}
	g.Lead(c.PID)
	if g.Path() != o.Cgroup.Path() {
		t.Fatal(g.Path(), o.Cgroup.Path())
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	await(t, c)
}

func TestHierarchy(t *testing.T) {
	const hybrid = `25 20 0:23 / /sys/fs/cgroup ro - tmpfs tmpfs ro
26 25 0:24 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw
30 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:10 - cgroup cgroup rw,cpu,cpuacct
31 25 0:28 /outer /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 25 0:29 / /sys/fs/cgroup/with\040space rw - cgroup cgroup rw,pids
`
	h := parseHierarchy(hybrid, "4:memory:/outer/inner\n3:cpu,cpuacct:/c\n2:pids:/\n0::/a/b\n")
	want := map[string]place{
		"memory": {"/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/inner"},
		"cpu":    {"/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/c"},
		"pids":   {"/sys/fs/cgroup/with space", "/sys/fs/cgroup/with space"},
		"":       {"/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/a/b"},
	}
	for c, p := range want {
		got := h.v1[c]
		if c == "" {
			got = h.place
		}
		if got != p {
			t.Errorf("%q: %v, want %v", c, got, p)
		}
	}
	const pure = "26 25 0:24 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
	for path, own := range map[string]string{
		"/system.slice/gemel.service":        "/sys/fs/cgroup/system.slice/gemel.service",
		"/system.slice/gemel.service/daemon": "/sys/fs/cgroup/system.slice/gemel.service",
		"/":                                  "/sys/fs/cgroup",
		"/../other":                          "/sys/fs/cgroup",
	} {
		if h := parseHierarchy(pure, "0::"+path+"\n"); h.own != own {
			t.Errorf("%s: %s, want %s", path, h.own, own)
		}
	}
	if h := parseHierarchy("1 2 0:3 / / rw - ext4 /dev/vda rw\n", ""); h.mount != "" || len(h.v1) != 0 {
		t.Error(h)
	}
}
