package spawn

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"strconv"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"gemel/internal/need"
	"gemel/internal/proc"
)

// TestShelf: a start with thousands of descriptors open works, its program sees
// three, and the table of the parent is afterwards what it was before, also where
// the kernel refuses a part of the way.
func TestShelf(t *testing.T) {
	for _, how := range []string{"plain", "no range", "no part", "no share"} {
		t.Run(how, func(t *testing.T) {
			out, st := output(t, "start", helper(t, "shelf", how), quiet())
			if out != "well\n" || !st.Success() {
				t.Errorf("%v: %s", st, out)
			}
		})
	}
}

func onShelf(args []string) {
	runtime.LockOSThread()
	tr := &Tree{name: "shelf"}
	die(tr.Reserve(nil))
	low := tr.Reserved()
	if len(low) != shelfPlaces+1 || tr.shelf.below > 32 {
		die(fmt.Errorf("reserved are %v", low))
	}
	crowd(3000)
	switch args[0] {
	case "no range": // it takes a copy of its own
		refuse(unix.SYS_CLOSE_RANGE, 2, unix.CLOSE_RANGE_UNSHARE)
	case "no part": // it begins again with a copy
		refuse(unix.SYS_CLOSE_RANGE, 2, unix.CLOSE_RANGE_UNSHARE)
		refuse(unix.SYS_UNSHARE, 0, unix.CLONE_FILES)
	case "no share": // it cannot begin with the table of the parent, and not even by clone3
		refuse(unix.SYS_CLONE3, -1, 0)
		refuse(unix.SYS_CLONE, 0, unix.CLONE_FILES|unix.CLONE_VM|unix.CLONE_VFORK|unix.CLONE_PIDFD|uint32(unix.SIGCHLD))
	}
	var before map[string]string
	for i := range 20 {
		startOnShelf(tr)
		if i == 0 { // what the runtime opens once is open now
			before = table()
		}
	}
	if after := table(); !maps.Equal(before, after) {
		die(fmt.Errorf("the table had %d descriptors and has %d: %v", len(before), len(after), changed(before, after)))
	}
	off := args[0] != "plain" && args[0] != "no range"
	if tr.shelf.off != off {
		die(fmt.Errorf("the shelf is off: %v", tr.shelf.off))
	}
	if err := startInFull(tr); !errors.Is(err, unix.EMFILE) || tr.shelf.off != off {
		die(fmt.Errorf("start without a free descriptor: %v; the shelf is off: %v", err, tr.shelf.off))
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
		die(fmt.Errorf("a child is left: %v", err))
	}
	fmt.Println("well")
}

// startOnShelf starts a program that works and three that do not. What they need
// has high numbers.
func startOnShelf(tr *Tree) {
	r, w, err := os.Pipe()
	die(err)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	die(err)
	s := &proc.Spec{Process: "ls", Path: "/bin/ls", Args: []string{"ls", "/proc/self/fd"}, Env: []string{"LC_ALL=C"}}
	o := Options{Start: 5, Cgroup: &Cgroup{tree: tr, id: 5}, Stdin: -1, Stdout: int(w.Fd()), Stderr: int(w.Fd()), Handover: pair[1], Hold: pair[0]}
	ready, err := Prepare(s, o)
	die(err)
	c, err := ready.Start()
	die(err)
	ready.Close()
	var b [16]byte
	if n, err := unix.Read(pair[0], b[:]); n != len(b) || err != nil {
		die(fmt.Errorf("the announcement: %d bytes, %v", n, err))
	}
	w.Close()
	text, err := io.ReadAll(r) // ends when nobody has the other end: not the shelf either
	die(err)
	if got := bytes.Join(bytes.Fields(text), []byte(" ")); string(got) != "0 1 2 3" { // 3 is the directory that ls reads
		die(fmt.Errorf("open in the program: %s", got))
	}
	reap(c.PID)
	shut(c.PIDFD)
	for _, bad := range []*proc.Spec{{Path: "/no/such/program"}, {Path: "/bin/true", Dir: "/no/such/directory"}, {Path: "/bin/true", Limits: []proc.Rlimit{{Resource: 99}}}} {
		bad.Process = "bad"
		o := o
		o.Stdout = pair[0]
		ready, err := Prepare(bad, o)
		die(err)
		if _, err := ready.Start(); err == nil {
			die(errors.New("it started"))
		}
		ready.Close()
	}
	r.Close()
	shut(pair[:]...)
}

// startInFull starts a program when this process may not open one more descriptor.
func startInFull(tr *Tree) error {
	r, err := Prepare(shell(""), Options{Start: 6, Cgroup: &Cgroup{tree: tr, id: 6}, Stdin: -1, Stdout: -1, Stderr: -1, Handover: -1})
	die(err)
	defer r.Close()
	for {
		if _, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 3); err != nil {
			_, err = r.Start()
			return err
		}
	}
}

// crowd opens n descriptors that stay open.
func crowd(n int) {
	var lim unix.Rlimit
	die(unix.Getrlimit(unix.RLIMIT_NOFILE, &lim))
	lim.Cur = max(lim.Cur, min(lim.Max, uint64(n)+100))
	die(unix.Setrlimit(unix.RLIMIT_NOFILE, &lim))
	for range n {
		_, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 3)
		die(err)
	}
}

// table is what this process has open, by number.
func table() map[string]string {
	all := map[string]string{}
	names, err := os.ReadDir("/proc/self/fd")
	die(err)
	for _, n := range names {
		if to, err := os.Readlink("/proc/self/fd/" + n.Name()); err == nil {
			fd, err := strconv.Atoi(n.Name())
			die(err)
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			die(err)
			all[n.Name()] = fmt.Sprintf("%s, flags %d", to, flags)
		}
	}
	return all
}

func changed(a, b map[string]string) (out []string) {
	for fd, to := range a {
		if b[fd] != to {
			out = append(out, fmt.Sprintf("%s was %q and is %q", fd, to, b[fd]))
		}
	}
	for fd, to := range b {
		if a[fd] == "" {
			out = append(out, fmt.Sprintf("%s is %q", fd, to))
		}
	}
	return out
}

// refuse lets the kernel answer a call with EPERM, when its argument arg (-1: any)
// has the value.
func refuse(call uint32, arg int, value uint32) {
	load := func(off uint32) unix.SockFilter { return unix.SockFilter{Code: 0x20, K: off} }
	unless := func(k uint32, skip uint8) unix.SockFilter { return unix.SockFilter{Code: 0x15, Jf: skip, K: k} }
	f := []unix.SockFilter{load(0), unless(call, 3), load(uint32(16 + 8*max(arg, 0))), unless(value, 1), {Code: 0x06, K: 0x00050000 | uint32(unix.EPERM)}, {Code: 0x06, K: 0x7fff0000}}
	if arg < 0 {
		f = []unix.SockFilter{load(0), unless(call, 1), {Code: 0x06, K: 0x00050000 | uint32(unix.EPERM)}, {Code: 0x06, K: 0x7fff0000}}
	}
	p := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	die(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, 1, 0, uintptr(unsafe.Pointer(&p))); e != 0 {
		die(fmt.Errorf("seccomp: %w", e))
	}
}

// TestReserveAgain: the next image takes over what it was told of, and nothing else.
func TestReserveAgain(t *testing.T) {
	a := &Tree{}
	if err := a.Reserve(nil); err != nil {
		t.Fatal(err)
	}
	low := a.Reserved()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	told := append([]int{int(r.Fd()), 0, 99999}, low[2:]...)
	b := &Tree{}
	if err := b.Reserve(told); err != nil {
		t.Fatal(err)
	}
	got := b.Reserved()
	if len(got) != len(low) || fmt.Sprint(got[:len(low)-2]) != fmt.Sprint(low[2:]) {
		t.Errorf("had %v, was told %v, has %v", low, told, got)
	}
	b.Close()
	if b.Reserved() != nil || isNull(got[0]) {
		t.Error("it is not given back")
	}
	shut(low[:2]...)
}

// TestBornNoMore: a group in which no child can be born, although one could before,
// is entered after the fork.
func TestBornNoMore(t *testing.T) {
	tr := tree(t)
	need.CgroupV2(t)
	need.Kernel(t, 5, 7)
	if tr.v2 == "" || !tr.born.Load() {
		t.Fatal("no child is born in a control group")
	}
	for _, way := range ways {
		o := quiet()
		s := shell("cat /proc/self/cgroup")
		o.Cgroup = group(t, tr, o.Start, s)
		if way == "shelf" {
			shelved(t, &o)
		}
		r, err := Prepare(s, o)
		if err != nil {
			t.Fatal(err)
		}
		if n := r.plan.groups.procs[0]; n >= 0 {
			t.Errorf("%s: cgroup.procs is open as %d", way, n)
		}
		out, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.plan.files.from[1] = int32(w.Fd())
		null, err := openNull()
		if err != nil {
			t.Fatal(err)
		}
		r.own = append(r.own, null)
		r.plan.groups.dir = int32(null) // the kernel refuses it
		c, err := launch(way, r)
		w.Close()
		if err != nil {
			t.Fatal(way, err)
		}
		text, err := io.ReadAll(out)
		out.Close()
		if err != nil || !bytes.Contains(text, []byte("/start-"+o.Start.String()+"\n")) {
			t.Errorf("%s: it is in %s, %v", way, text, err)
		}
		await(t, c)
		r.Close()
	}
}

// BenchmarkStartMany: what a start costs when the parent has 20,000 descriptors, or as
// many as it may.
func BenchmarkStartMany(b *testing.B) {
	low := &Tree{}
	if err := low.Reserve(nil); err != nil {
		b.Fatal(err)
	}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		b.Fatal(err)
	}
	many := int(min(20_000, lim.Max-100))
	lim.Cur = lim.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		b.Fatal(err)
	}
	var all []int
	defer func() { shut(all...) }()
	for range many {
		fd, err := openNull()
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, fd)
	}
	tr := tree(b)
	s := shell("")
	s.Path, s.Args = "/bin/true", []string{"true"}
	for _, way := range []string{"copied", "shelf"} {
		if way == "shelf" {
			tr.shelf = low.shelf
		}
		b.Run(way, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				o := quiet()
				var err error
				if o.Cgroup, err = tr.Make("true", o.Start, s); err != nil {
					b.Fatal(err)
				}
				r, err := Prepare(s, o)
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				c, err := r.Start()
				b.StopTimer()
				if err != nil {
					b.Fatal(err)
				}
				await(b, c)
				r.Close()
				until(b, "the group is removed", func() bool { return o.Cgroup.Remove() == nil })
				b.StartTimer()
			}
		})
	}
}
