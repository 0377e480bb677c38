package evidence

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
)

// generous is a bound that a loaded machine keeps.
const generous = 20 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv("EVIDENCE_HELPER") != "" {
		// A program that waits: it hangs in a read of its standard input.
		fmt.Println("ready")
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// helper is a program that hangs.
func helper(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "EVIDENCE_HELPER=1", "SECRET=hunter2")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func TestTake(t *testing.T) {
	pid := helper(t)
	dir := t.TempDir()
	log := filepath.Join(dir, "out.log")
	if err := os.WriteFile(log, []byte(strings.Repeat("early line\n", 1000)+"the last \x1b[31mline\n== threads\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	k := New(filepath.Join(dir, "evidence"))
	ref, err := k.Take(Case{Process: "a/b", Start: 7, PID: pid, Tree: []int{pid, os.Getpid(), 1 << 30}, Log: log,
		Notes: []string{"thread worker-1 was last heard 4s ago\nand lies"}, At: 12e9}, generous)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(ref, "-a_b-7.txt") {
		t.Errorf("ref %q", ref)
	}
	b, err := Read(k.dir, ref)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, want := range []string{
		"evidence of process a/b, start 7, pid ", "12s after boot", "thread worker-1 was last heard 4s ago?and lies\n",
		"== threads\n", " in state S", ", waits in ", "\n== processes of its tree\n", fmt.Sprintf("child of %d", os.Getppid()),
		"-- status\n", "VmRSS:", "-- limits\n", "Max open files", "-- io\n", "== the machine", "MemAvailable:",
		"== open files\n", "0 pipe:[", "| early line\n| the last ?[31mline\n| == threads\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in it", want)
		}
	}
	for _, bad := range []string{"hunter2", "\x1b", "not complete", "cut after"} {
		if strings.Contains(text, bad) {
			t.Errorf("%q is in it", bad)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
	st, err := os.Stat(filepath.Join(k.dir, ref))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if all, err := List(k.dir); err != nil || len(all) != 1 || all[0].Ref != ref || all[0].Size != st.Size() || time.Since(all[0].At) > time.Hour {
		t.Errorf("list %+v, %v", all, err)
	}
	if k.Pending() != 0 {
		t.Errorf("%d pending", k.Pending())
	}
}

// A program that is gone leaves evidence that says so.
func TestGone(t *testing.T) {
	k := New(t.TempDir())
	ref, err := k.Take(Case{Process: "p", Start: 1, PID: 1 << 30}, generous)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Read(k.dir, ref)
	if err != nil || strings.Count(string(b), "not readable") < 4 {
		t.Errorf("%s, %v", b, err)
	}
}

// fakeProc is a /proc of one process with n threads.
func fakeProc(t *testing.T, n int, state func(tid int) string) string {
	t.Helper()
	root := t.TempDir()
	file := func(path, text string) {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for tid := 1000; tid < 1000+n; tid++ {
		dir := fmt.Sprintf("1000/task/%d/", tid)
		file(dir+"stat", fmt.Sprintf("%d (a) b\n(c) %s 1 1 1", tid, state(tid)))
		file(dir+"wchan", "nfs_wait")
		file(dir+"stack", strings.Repeat("[<0>] some_long_function_name+0x1/0x2\n", 30))
	}
	file("1000/status", strings.Repeat("x", 1<<20))
	file("1000/cgroup", "0::/../../etc/gemel\n3:memory:/\n")
	return root
}

// Whatever the program is, evidence is bounded, and what hangs comes first.
func TestBoundedSize(t *testing.T) {
	k := New(t.TempDir())
	k.proc = fakeProc(t, 300, func(tid int) string {
		if tid == 1299 {
			return "D"
		}
		return "S"
	})
	ref, err := k.Take(Case{Process: "p", Start: 1, PID: 1000, Notes: make([]string, 5000)}, generous)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Read(k.dir, ref)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > maxSize {
		t.Errorf("%d bytes", len(b))
	}
	text := string(b)
	if !strings.Contains(text, "300 threads, 1 in state D, 299 in state S; 256 are shown\n1299 a) b?(c state D, waits in nfs_wait, syscall -\n    some_long") {
		t.Errorf("it begins with %.600s", text)
	}
	if !strings.Contains(text, "(cut after 131072 bytes)") {
		t.Error("it does not say that it was cut")
	}
}

// A reading that the kernel holds up is given up, told, and counted until it ends.
func TestHeldUp(t *testing.T) {
	k := New(t.TempDir())
	k.proc = fakeProc(t, 3, func(int) string { return "D" })
	hung := filepath.Join(k.proc, "1000/io")
	if err := unix.Mkfifo(hung, 0o600); err != nil {
		t.Fatal(err)
	}
	c := Case{Process: "p", Start: 1, PID: 1000}
	ref, err := k.Take(c, 400*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Read(k.dir, ref)
	if err != nil || !strings.Contains(string(b), "(not complete: the kernel did not answer in time)") ||
		!strings.Contains(string(b), "3 in state D") {
		t.Errorf("%s, %v", b, err)
	}
	if k.Pending() != 1 {
		t.Errorf("%d pending", k.Pending())
	}
	for k.Pending() < maxLost {
		if _, err := k.Take(c, 20*time.Millisecond); err != nil && !strings.Contains(err.Error(), "not written") {
			t.Fatal(err)
		}
	}
	threads := runtime.NumGoroutine()
	for range 20 {
		if _, err := k.Take(c, 20*time.Millisecond); err == nil || !strings.Contains(err.Error(), "held up by the kernel") {
			t.Fatalf("beyond the bound: %v", err)
		}
	}
	if n := runtime.NumGoroutine(); n > threads {
		t.Errorf("%d goroutines, and %d before", n, threads)
	}
	for end := time.Now().Add(generous); k.Pending() > 0; {
		f, err := os.OpenFile(hung, os.O_WRONLY|unix.O_NONBLOCK, 0)
		if err == nil {
			f.Close()
		}
		if time.Now().After(end) {
			t.Fatalf("%d pending although nothing holds them up", k.Pending())
		}
	}
	if _, err := k.Take(Case{Process: "p", PID: 1 << 30}, generous); err != nil {
		t.Error(err)
	}
}

func TestOldestMakesRoom(t *testing.T) {
	k := New(t.TempDir())
	t0 := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := Case{Process: "p"}
	for i := range maxKept + 5 {
		if _, err := k.write(c, "x", t0.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	all, err := List(k.dir)
	if err != nil || len(all) != maxKept || all[0].At != t0.Add(5*time.Second) {
		t.Errorf("%d are kept, the oldest of %v, %v", len(all), all[0].At, err)
	}
	for i := range 3 {
		if _, err := k.write(c, strings.Repeat("x", maxBytes/2), t0.Add(time.Hour+time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if all, err = List(k.dir); err != nil || len(all) != 2 {
		t.Errorf("%d large ones are kept, %v", len(all), err)
	}
}

func TestReadLeadsNowhere(t *testing.T) {
	dir := t.TempDir()
	k := New(filepath.Join(dir, "evidence"))
	if all, err := List(k.dir); err != nil || all != nil {
		t.Errorf("list of no directory: %v, %v", all, err)
	}
	if _, err := k.write(Case{Process: "p"}, "x", time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret.txt"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"", ".", "..", "../secret.txt", "x/../../secret.txt", "/etc/passwd", "none.txt", ".new-1.txt"} {
		var kind *ha.Error
		if _, err := Read(k.dir, ref); !errors.As(err, &kind) || kind.Kind != ha.ErrNotFound {
			t.Errorf("%q: %v", ref, err)
		}
	}
}
