package spawn

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
	"gemel/internal/need"
	"gemel/internal/proc"
)

// What the user of a program may do to Gemel.

// TestStoppedWhileParked has a child stopped while it waits, which its user may do
// at any time: the release lets it go on.
func TestStoppedWhileParked(t *testing.T) {
	r, err := Prepare(shell("exit 7"), quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := r.Park()
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(p.PID(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	until(t, "it is stopped", func() bool { s, _ := readStat(p.PID()); return s.state == 'T' })
	c, err := p.Release()
	if err != nil {
		t.Fatal(err)
	}
	if st := await(t, c); st.Code != 7 {
		t.Errorf("ended with %v", st)
	}
}

// TestUrge: the same between the setuid and the exec of an ordinary start, where
// this process waits in the kernel for the child.
func TestUrge(t *testing.T) {
	c, err := begin(t, "start", shell("sleep 600"), quiet())
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.PidfdSendSignal(c.PIDFD, unix.SIGSTOP, nil, 0); err != nil {
		t.Fatal(err)
	}
	state := func() byte { s, _ := readStat(c.PID); return s.state }
	until(t, "it is stopped", func() bool { return state() == 'T' })
	calm := urge(&plan{hand: hand{pid: uint64(c.PID)}})
	until(t, "it goes on", func() bool { return state() == 'S' })
	calm()
	if err := unix.PidfdSendSignal(c.PIDFD, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	await(t, c)
}

// TestOutputBlocksAgain: a program that makes its standard output non-blocking
// leaves nothing of that to its successor, which shares it.
func TestOutputBlocksAgain(t *testing.T) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer shut(p[:]...)
	for _, way := range ways {
		if err := unix.SetNonblock(p[1], true); err != nil {
			t.Fatal(err)
		}
		o := quiet()
		o.Stdout, o.Stderr = p[1], p[1]
		c, err := begin(t, way, shell("exit 0"), o)
		if err != nil {
			t.Fatal(err)
		}
		await(t, c)
		if flags, err := unix.FcntlInt(uintptr(p[1]), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("%s: flags %#x, %v", way, flags, err)
		}
	}
}

// TestPipeInPlaceOfProgram: the hint never waits for a writer.
func TestPipeInPlaceOfProgram(t *testing.T) {
	path := filepath.Join(openDir(t), "program")
	if err := unix.Mkfifo(path, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, way := range ways {
		wantFailure(t, way, way, &proc.Spec{Path: path}, StartError{"exec", unix.EACCES, path, "it is no file"})
	}
	if in := interpreter(path); in != "" {
		t.Errorf("interpreter %q", in)
	}
}

// TestAmbientIsNotInherited: what Gemel, not root, was given by ambient
// capabilities does not reach a program of another user.
func TestAmbientIsNotInherited(t *testing.T) {
	root(t)
	if os.Getenv("SPAWN_TEST_AMBIENT") == "" {
		c := exec.Command(self(t), "-test.run=^TestAmbientIsNotInherited$", "-test.v")
		c.Env = append(os.Environ(), "SPAWN_TEST_AMBIENT=1")
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	runtime.LockOSThread() // of a process that ends with this test
	if err := likeGemel(); err != nil {
		t.Fatal(err)
	}
	for _, way := range ways {
		s := shell("cat /proc/self/status")
		s.SetIDs, s.UID, s.GID = true, 65534, 65534
		text, st := output(t, way, s, quiet())
		if got := value(text, "CapEff"); st.Code != 0 || strings.Trim(got, "0") != "" {
			t.Errorf("%s: effective capabilities %s, %v", way, got, st)
		}
	}
}

// likeGemel makes this thread one of user 4242 with ambient CAP_SETUID and
// CAP_SETGID, as systemd's AmbientCapabilities= does.
func likeGemel() error {
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return err
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, 4242, 4242, 4242); e != 0 {
		return e
	}
	const keep = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: keep, Permitted: keep, Inheritable: keep}}
	if err := unix.Capset(&head, &data[0]); err != nil {
		return err
	}
	for _, c := range []uintptr{unix.CAP_SETUID, unix.CAP_SETGID} {
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0); err != nil {
			return err
		}
	}
	return nil
}

// TestFullRunDirectory: a claim fails on a full file system. The write into the
// mapping would end the process.
func TestFullRunDirectory(t *testing.T) {
	root(t)
	dir := openDir(t)
	need.Done(t, unix.Mount("none", dir, "tmpfs", 0, "size=64k"), "mounting a tmpfs")
	defer unix.Unmount(dir, unix.MNT_DETACH)
	tab, err := OpenTable(dir+"/table", "boot")
	if err != nil {
		t.Fatal(err)
	}
	defer tab.Close()
	if err := os.WriteFile(dir+"/flood", make([]byte, 1<<20), 0o644); err == nil {
		t.Fatal("the file system is not full")
	}
	claims := 0
	for id := ha.StartID(1); id < 1000; id++ {
		if _, err = tab.Claim(id, "p"); err != nil {
			break
		}
		claims++
	}
	if err == nil || !strings.Contains(err.Error(), "full") || claims != os.Getpagesize()/rowSize-1 {
		t.Fatalf("%d claims, %v", claims, err)
	}
	if err := os.Remove(dir + "/flood"); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.Claim(5000, "p"); err != nil {
		t.Errorf("after room was made: %v", err)
	}
}
