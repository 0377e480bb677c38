package beat

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBellDoesNotStarve rings for each wait, as a thousand starts at once do,
// while datagrams come one after the other: the sockets are looked at all the same.
func TestBellDoesNotStarve(t *testing.T) {
	p, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	})
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	if err := p.add(pair[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(pair[1], []byte("WATCHDOG=1")); err != nil {
		t.Fatal(err)
	}
	p.prompt, p.filled, p.looked = 0, time.Now(), time.Now()
	for end := time.Now().Add(30 * time.Second); ; {
		p.wake()
		ready, err := p.wait(time.Second, longRest)
		if err != nil {
			t.Fatal(err)
		}
		if len(ready) == 1 && int(ready[0].Fd) == pair[0] {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the bell kept the socket from being looked at")
		}
	}
}

// TestKeptSocketIsNotPolled makes sure that a copy of a notify socket in an os.File
// is not put into Go's own poller, which each datagram would wake.
func TestKeptSocketIsNotPolled(t *testing.T) {
	b := quiet(t)
	for _, f := range b.open("p", true, false) {
		if err := f.SetDeadline(time.Now()); err == nil {
			t.Error("the socket is in the poller of the runtime")
		}
	}
}

// TestReceiveInBatches sends more than one system call takes.
func TestReceiveInBatches(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	if err := listen(pair[0]); err != nil {
		t.Fatal(err)
	}
	texts := []string{"READY=1", "", "STATUS=a", "WATCHDOG=1", "b", "c", "d", "e", "f"}
	for _, s := range texts {
		if _, err := unix.SendmsgN(pair[1], []byte(s), nil, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	m := newMailbox()
	var got []string
	for _, want := range []int{3, batch - 2, 0} {
		most := batch
		if len(got) == 0 {
			most = 3
		}
		n := m.receive(pair[0], most)
		if n != want {
			t.Fatalf("%d datagrams, not %d, after %q", n, want, got)
		}
		for i := range n {
			d := m.datagram(i)
			if d.pid != unix.Getpid() || d.uid != unix.Getuid() {
				t.Errorf("from pid %d, uid %d", d.pid, d.uid)
			}
			got = append(got, string(d.body))
		}
	}
	for i, s := range texts {
		if got[i] != s {
			t.Errorf("%q instead of %q", got[i], s)
		}
	}
}
