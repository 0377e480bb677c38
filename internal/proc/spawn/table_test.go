package spawn

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
	"gemel/internal/proc"
)

func open(t *testing.T, path, boot string) *Table {
	t.Helper()
	tab, err := OpenTable(path, boot)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tab.Close(); err != nil {
			t.Error(err)
		}
	})
	return tab
}

// TestTableSurvives kills the writer, and finds its programs.
func TestTableSurvives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "table")
	or, ow, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer or.Close()
	ir, iw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer iw.Close()
	o := quiet()
	o.Stdin, o.Stdout = int(ir.Fd()), int(ow.Fd())
	w, err := begin(t, "start", helper(t, "writer", path), o)
	ow.Close()
	ir.Close()
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for lines := bufio.NewScanner(or); lines.Scan() && lines.Text() != "done"; {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	if err := unix.PidfdSendSignal(w.PIDFD, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	await(t, w)
	tab := open(t, path, "boot-a")
	all := tab.Entries()
	if len(all) != 3 || len(pids) != 2 {
		t.Fatal(all, pids)
	}
	for i, e := range all {
		if e.Process != "program" || e.Start == 0 {
			t.Error(e)
		}
		if i < 2 && (e.PID != pids[i] || e.Ticks == 0 || !e.Alive()) {
			t.Errorf("%+v, want pid %d", e, pids[i])
		}
		if i == 2 && (e.PID != 0 || e.Alive()) {
			t.Errorf("%+v never started", e)
		}
	}
	iw.Close() // the programs end
	for _, e := range all[:2] {
		until(t, "its programs end", func() bool { return !e.Alive() || zombieOf(e.PID) })
	}
	tab.Free(all[0].Start)
	if _, err := tab.Claim(all[1].Start, "again"); err == nil {
		t.Error("a start has one row")
	}
	if _, err := tab.Claim(999, "next"); err != nil {
		t.Error(err)
	}
	if got := tab.Entries(); len(got) != 3 || got[0].Start != 999 || got[0].PID != 0 || got[0].Ticks != 0 || got[0].Process != "next" {
		t.Error(got)
	}
}

func zombieOf(pid int) bool {
	s, ok := readStat(pid)
	return ok && s.state == 'Z'
}

func TestTableDiscarded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "table")
	old := open(t, path, "boot-a")
	if _, err := old.Claim(7, "old"); err != nil {
		t.Fatal(err)
	}
	if got := open(t, path, "boot-a").Entries(); len(got) != 1 || got[0].Start != 7 {
		t.Error(got)
	}
	if got := open(t, path, "boot-b").Entries(); len(got) != 0 {
		t.Error("rows of another boot:", got)
	}
	if got := old.Entries(); len(got) != 1 {
		t.Error("who maps the old file reads on:", got)
	}
	for name, damage := range map[string]string{"short": "gemeltab", "other": strings.Repeat("x", rowSize*rowsMax), "empty": ""} {
		if err := os.WriteFile(path, []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		tab := open(t, path, "boot-b")
		if got := tab.Entries(); len(got) != 0 {
			t.Error(name, got)
		}
		if _, err := tab.Claim(1, "x"); err != nil {
			t.Error(name, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenTable(t.TempDir()+"/no/table", "b"); err == nil {
		t.Error("no directory")
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenTable(link, "b"); err == nil {
		t.Error("a symbolic link was followed")
	}
}

func TestTableRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "table")
	tab := open(t, path, "b")
	long := ha.Process(strings.Repeat("n", nameMax))
	if _, err := tab.Claim(1, long); err != nil {
		t.Error(err)
	}
	if _, err := tab.Claim(2, long+"n"); err == nil {
		t.Error("a name too long was taken")
	}
	if _, err := tab.Claim(0, "x"); err == nil {
		t.Error("start 0 was taken")
	}
	for i := ha.StartID(2); i < rowsMax; i++ {
		if _, err := tab.Claim(i, "x"); err != nil {
			t.Fatal(i, err)
		}
	}
	if _, err := tab.Claim(rowsMax, "x"); err == nil || !strings.Contains(err.Error(), "all 65535 rows are taken") {
		t.Error(err)
	}
	tab.Free(50)
	tab.Free(50)
	if _, err := tab.Claim(rowsMax, "x"); err != nil {
		t.Error(err)
	}
	if got := tab.Entries(); len(got) != rowsMax-1 || got[0].Process != long || got[49].Start != rowsMax {
		t.Error(len(got), got[0], got[49])
	}
}

// TestPIDReuse gives the pid of an ended start to a stranger.
func TestPIDReuse(t *testing.T) {
	root(t)
	tr := tree(t)
	tab := open(t, filepath.Join(t.TempDir(), "table"), "b")
	s := shell("read x")
	o := quiet()
	o.Stdin, o.Cgroup = pipeEnd(t), group(t, tr, o.Start, s)
	var err error
	if o.Slot, err = tab.Claim(o.Start, "first"); err != nil {
		t.Fatal(err)
	}
	c, err := begin(t, "start", s, o)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	e := tab.Entries()[0]
	if !e.Alive() || !Identify(c.PID, o.Start) || Identify(c.PID, o.Start+1) {
		t.Fatal("it is not known:", e)
	}
	if err := unix.PidfdSendSignal(c.PIDFD, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	await(t, c)
	if e.Alive() || Identify(c.PID, o.Start) {
		t.Fatal("it is gone")
	}
	until(t, "the clock of /proc ticked", func() bool { return time.Since(began) > 50*time.Millisecond })
	var stranger Child
	for range 200 { // others start processes too
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(fmt.Sprint(c.PID-1)), 0); err != nil {
			t.Skip("cannot choose a pid:", err)
		}
		if stranger, err = begin(t, "start", s, Options{Start: nextStart(), Stdin: o.Stdin, Stdout: -1, Stderr: -1, Handover: -1}); err != nil {
			t.Fatal(err)
		}
		if stranger.PID == c.PID {
			break
		}
		_ = unix.PidfdSendSignal(stranger.PIDFD, unix.SIGKILL, nil, 0)
		await(t, stranger)
	}
	if stranger.PID != c.PID {
		t.Skip("the pid could not be had again")
	}
	if e.Alive() || Identify(stranger.PID, o.Start) {
		t.Error("a stranger is taken for the start")
	}
	bare := &Cgroup{tree: &Tree{name: "bare"}, id: o.Start, lead: c.PID, since: e.Ticks}
	if pids, err := bare.Procs(); err != nil || len(pids) != 0 {
		t.Error("a stranger is taken for a member:", pids, err)
	}
	_ = unix.PidfdSendSignal(stranger.PIDFD, unix.SIGKILL, nil, 0)
	await(t, stranger)
}

// TestParked: nothing runs before the release, and nothing is left of a child that
// is not wanted any more.
func TestParked(t *testing.T) {
	tr := tree(t)
	dir := t.TempDir()
	tab := open(t, filepath.Join(dir, "table"), "b")
	s := shell("echo x > " + dir + "/ran; exit 5")
	o := quiet()
	o.Cgroup = group(t, tr, o.Start, s)
	var err error
	if o.Slot, err = tab.Claim(o.Start, "parked"); err != nil {
		t.Fatal(err)
	}
	r, err := Prepare(s, o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := r.Park()
	if err != nil {
		t.Fatal(err)
	}
	until(t, "it waits in a read", func() bool { st, _ := readStat(p.PID()); return st.state == 'S' })
	if exists(dir+"/ran") || tab.Entries()[0].PID != 0 {
		t.Error("it ran before its release")
	}
	p.Discard()
	noChildren(t)
	if p, err = r.Park(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(p.PID(), unix.SIGTERM); err != nil { // our own child, not reaped yet
		t.Fatal(err)
	}
	until(t, "it was killed", func() bool { return zombieOf(p.PID()) })
	if _, err := p.Release(); err == nil || !strings.Contains(err.Error(), "wait for release: no such process") {
		t.Error(err)
	}
	noChildren(t)
	if exists(dir + "/ran") {
		t.Error("it ran although it was never released")
	}
	if p, err = r.Park(); err != nil {
		t.Fatal(err)
	}
	c, err := p.Release()
	if err != nil {
		t.Fatal(err)
	}
	if e := tab.Entries()[0]; e.PID != c.PID || c.Start != o.Start {
		t.Error(e, c)
	}
	if st := await(t, c); st.Code != 5 || !exists(dir+"/ran") {
		t.Error(st)
	}
}

// TestParkedOrphan: parked children end with the process that could release them,
// also when several are parked.
func TestParkedOrphan(t *testing.T) {
	or, ow, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer or.Close()
	o := quiet()
	o.Stdout = int(ow.Fd())
	c, err := begin(t, "start", helper(t, "parker"), o)
	ow.Close()
	if err != nil {
		t.Fatal(err)
	}
	var a, b int
	if _, err := fmt.Fscan(or, &a, &b); err != nil {
		t.Fatal(err)
	}
	var fds []int
	for _, pid := range []int{a, b} {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	if err := unix.PidfdSendSignal(c.PIDFD, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	await(t, c)
	for _, fd := range fds {
		ended(t, fd)
	}
	shut(fds...)
}

// TestMayHang: which paths are never executed in shared memory.
func TestMayHang(t *testing.T) {
	m := &mounts{}
	defer m.close()
	if m.mayHang("/proc/self/exe", "") || m.mayHang("/bin/sh", "/tmp") || len(m.list) == 0 {
		t.Error("these are local")
	}
	m.list = append(m.list, mount{dir: "/far", remote: true}, mount{dir: "/far/near"})
	if !m.mayHang("/bin/sh", "/far/x") || m.mayHang("/far/near/sh", "/farther") {
		t.Error("the table is kept until it changes, and its longest directory counts")
	}
	if remote("ext4") || !remote("nfs4") || !remote("fuse.sshfs") || !remote("9p") {
		t.Error("remote")
	}
	if !under("/a/b", "/a") || under("/ab", "/a") || !under("/a", "/") {
		t.Error("under")
	}
	r, err := Prepare(&proc.Spec{Path: "/bin/sh", Args: []string{"sh", "-c", "exit 4"}}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.apart = true
	c, err := r.Start()
	if err != nil {
		t.Fatal(err)
	}
	if st := await(t, c); st.Code != 4 {
		t.Error(st)
	}
}
