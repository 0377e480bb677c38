package spawn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
)

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		script       string
		code, signal int
	}{
		{"exit 0", 0, 0}, {"exit 1", 1, 0}, {"exit 127", 127, 0}, {"exit 255", 255, 0}, {"exit 300", 44, 0},
		{"kill -TERM $$", -1, 15}, {"kill -KILL $$", -1, 9}, {"kill -40 $$", -1, 40},
	} {
		child, err := begin(t, "start", shell(c.script), quiet())
		if err != nil {
			t.Fatal(err)
		}
		ended(t, child.PIDFD)
		for range 2 { // asked twice without reaping
			st, ok, err := ExitStatus(child.PIDFD, false)
			if err != nil || !ok || st.Code != c.code || st.Signal != c.signal || st.Unknown || st.MaxRSS <= 0 {
				t.Errorf("%s: %+v, %v, %v", c.script, st, ok, err)
			}
		}
		if st := await(t, child); st.Code != c.code || st.Signal != c.signal {
			t.Errorf("%s: %v", c.script, st)
		}
	}
	noChildren(t)
}

func TestExitAlive(t *testing.T) {
	s := shell("read x")
	o := quiet()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	o.Stdin = int(r.Fd())
	c, err := begin(t, "start", s, o)
	if err != nil {
		t.Fatal(err)
	}
	if st, ok, err := ExitStatus(c.PIDFD, true); ok || err != nil {
		t.Error(st, ok, err)
	}
	if st, ok, err := strange(c.PIDFD); ok || err != nil {
		t.Error(st, ok, err)
	}
	w.Close()
	await(t, c)
	if _, _, err := ExitStatus(12345, true); !errors.Is(err, unix.EBADF) {
		t.Error(err)
	}
}

// TestExitUnreaped: a zombie that its parent does not reap is told by /proc, the
// same after it was reaped by the record of the kernel.
func TestExitUnreaped(t *testing.T) {
	c, err := begin(t, "start", shell("exit 41"), quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer shut(c.PIDFD)
	ended(t, c.PIDFD)
	if st, ok, err := strange(c.PIDFD); err != nil || !ok || st.Code != 41 {
		t.Error(st, ok, err)
	}
	reap(c.PID)
	if st, ok, err := ExitStatus(c.PIDFD, true); err != nil || !ok || st.Code != 41 && !st.Unknown {
		t.Error(st, ok, err)
	}
}

// elders starts the helper "parent", which starts script, and returns the parent
// and the socket on which its child reports itself.
func elders(t *testing.T, way, script string, input, output int) (parent Child, socket int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	o := quiet()
	o.Stdin, o.Stdout, o.Stderr = pair[1], input, output
	parent, err = begin(t, "start", helper(t, "parent", way, script), o)
	shut(pair[1])
	if err != nil {
		t.Fatal(err)
	}
	return parent, pair[0]
}

// report reads what a child said over the handover socket; ok is false at its end.
func report(t *testing.T, socket int) (id ha.StartID, pid, pidfd int, ok bool) {
	t.Helper()
	readable(t, socket, "a message over the handover socket")
	b, space := make([]byte, 64), make([]byte, 64)
	n, m, _, _, err := unix.Recvmsg(socket, b, space, unix.MSG_CMSG_CLOEXEC)
	if n == 0 && (err == nil || errors.Is(err, unix.ECONNRESET)) {
		return 0, 0, -1, false
	}
	if err != nil || n != messageSize {
		t.Fatalf("%d bytes, %v", n, err)
	}
	pidfd = -1
	if cmsgs, err := unix.ParseSocketControlMessage(space[:m]); err == nil && len(cmsgs) == 1 {
		if fds, err := unix.ParseUnixRights(&cmsgs[0]); err == nil && len(fds) == 1 {
			pidfd = fds[0]
		}
	}
	return ha.StartID(binary.NativeEndian.Uint64(b)), int(binary.NativeEndian.Uint64(b[8:])), pidfd, true
}

// TestForeignExit: the parent is killed, its child ends later, and its true code
// is known.
func TestForeignExit(t *testing.T) {
	for _, way := range ways {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		parent, socket := elders(t, way, "read x; exit 37", int(r.Fd()), -1)
		r.Close()
		id, pid, pidfd, ok := report(t, socket)
		if !ok || id != 77 || pidfd < 0 {
			t.Fatal(id, pid, pidfd, ok)
		}
		until(t, "the program has its environment", func() bool { return Identify(pid, 77) }) // it reports itself before its exec
		if err := unix.PidfdSendSignal(parent.PIDFD, unix.SIGKILL, nil, 0); err != nil {
			t.Fatal(err)
		}
		await(t, parent)
		if st, ok, err := ExitStatus(pidfd, true); ok || err != nil {
			t.Error("it lives:", st, ok, err)
		}
		w.Close()
		ended(t, pidfd)
		var st ha.ExitStatus
		until(t, "the exit is known", func() bool {
			st, ok, err = ExitStatus(pidfd, true)
			return ok || err != nil
		})
		if err != nil || st.Code != 37 && !st.Unknown {
			t.Errorf("%s: %+v, %v", way, st, err)
		}
		shut(pidfd, socket)
	}
}

// TestHandoverAtDeath kills the parent at many instants around its fork: whenever
// the program ran, the monitor was told before.
func TestHandoverAtDeath(t *testing.T) {
	ran := 0
	for i := range 60 {
		way := ways[i%3]
		or, ow, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		parent, socket := elders(t, way, "echo ran >&1", -1, int(ow.Fd()))
		ow.Close()
		after := time.NewTimer(time.Duration(i) * 150 * time.Microsecond)
		<-after.C
		if err := unix.PidfdSendSignal(parent.PIDFD, unix.SIGKILL, nil, 0); err != nil {
			t.Fatal(err)
		}
		await(t, parent)
		text, err := io.ReadAll(or) // ends when the last holder of the pipe has ended
		if err != nil {
			t.Fatal(err)
		}
		or.Close()
		id, _, pidfd, ok := report(t, socket)
		if string(text) == "ran\n" {
			ran++
			if !ok || id != 77 || pidfd < 0 {
				t.Errorf("trial %d by %s: the program ran and nobody was told", i, way)
			}
		}
		shut(pidfd, socket)
	}
	t.Logf("the program ran in %d of 60 trials", ran)
}

// TestHandoverFull: a monitor that does not read cannot stop a start.
func TestHandoverFull(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(pair[:]...)
	for {
		if err := unix.Send(pair[1], make([]byte, messageSize), unix.MSG_DONTWAIT); errors.Is(err, unix.EAGAIN) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, way := range ways {
		o := quiet()
		o.Handover = pair[1]
		if out, st := output(t, way, shell("echo well"), o); out != "well\n" || !st.Success() {
			t.Error(way, out, st)
		}
	}
	shut(pair[0]) // and one that is dead
	pair[0] = -1
	o := quiet()
	o.Handover = pair[1]
	if out, st := output(t, "start", shell("echo well"), o); out != "well\n" || !st.Success() {
		t.Error(out, st)
	}
}

// TestMany starts 200 programs from four goroutines.
func TestMany(t *testing.T) {
	table, err := OpenTable(t.TempDir()+"/table", "boot")
	if err != nil {
		t.Fatal(err)
	}
	tr := tree(t)
	var wg sync.WaitGroup
	errs := make(chan error, 200)
	for g := range 4 {
		wg.Go(func() {
			for i := range 50 {
				errs <- oneOfMany(tr, table, ways[(g+i)%2], i)
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	if left := table.Entries(); len(left) != 0 {
		t.Error(left)
	}
	if err := table.Close(); err != nil {
		t.Error(err)
	}
	noChildren(t)
}

func oneOfMany(tr *Tree, table *Table, way string, code int) error {
	s := shell("exit " + itoa(code))
	o := quiet()
	var err error
	if o.Cgroup, err = tr.Make("many", o.Start, s); err != nil {
		return err
	}
	if o.Slot, err = table.Claim(o.Start, "many"); err != nil {
		return err
	}
	r, err := Prepare(s, o)
	if err != nil {
		return err
	}
	defer r.Close()
	c, err := launch(way, r)
	if err != nil {
		return err
	}
	defer shut(c.PIDFD)
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(c.PIDFD), Events: unix.POLLIN}}, 60_000); err != nil && !errors.Is(err, unix.EINTR) {
		return err
	}
	for {
		st, ok, err := ExitStatus(c.PIDFD, true)
		if err != nil {
			return err
		}
		if ok {
			if st.Code != code {
				return fmt.Errorf("exit %v, want %d", st, code)
			}
			break
		}
	}
	table.Free(o.Start)
	for {
		if err := o.Cgroup.Remove(); err == nil || !errors.Is(err, syscall.EBUSY) {
			return err
		}
	}
}
