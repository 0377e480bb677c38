package beat

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
)

// bench is a watcher that runs, with what it told.
type bench struct {
	*Watcher
	t    testing.TB
	dir  string
	told chan ha.Input
	skew *atomic.Int64 // added to the clock
}

func (b *bench) clock() ha.Instant { return clock.Now() + ha.Instant(b.skew.Load()) }

// quiet makes a watcher without running it.
func quiet(t testing.TB) *bench {
	t.Helper()
	dir, err := os.MkdirTemp("", "beat")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &bench{t: t, dir: dir, told: make(chan ha.Input, 1000), skew: new(atomic.Int64)}
	b.Watcher = New(dir, b.clock, func(in ha.Input) { b.told <- in }, slog.New(slog.DiscardHandler))
	return b
}

func running(t testing.TB) *bench {
	t.Helper()
	b := quiet(t)
	b.run(b.Watcher)
	return b
}

// run runs w until the test ends, and returns what ends it earlier.
func (b *bench) run(w *Watcher) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("Run: %v", err)
		}
	}
	b.t.Cleanup(stop)
	return stop
}

func (b *bench) open(p ha.Process, notify, page bool) []*os.File {
	b.t.Helper()
	fds, err := b.Open(p, -1, -1, notify, page)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		for _, f := range fds {
			f.Close()
		}
	})
	return fds
}

// next is the next thing told.
func (b *bench) next() ha.Input {
	b.t.Helper()
	select {
	case in := <-b.told:
		return in
	case <-time.After(20 * time.Second):
		b.t.Fatal("nothing was told within 20 s")
		return nil
	}
}

// none fails if anything was told by now.
func (b *bench) none() {
	b.t.Helper()
	select {
	case in := <-b.told:
		b.t.Fatalf("told %s %+v", in.Name(), in)
	default:
	}
}

func (b *bench) send(p ha.Process, text string) {
	b.t.Helper()
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: SocketPath(b.dir, p), Net: "unixgram"})
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(text)); err != nil {
		b.t.Fatal(err)
	}
}

// until waits for what must come true soon.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// mark is what a program writes into one slot.
type mark struct {
	state, start uint32
	count        uint64
	name         string
}

// poke writes one slot of a page, as a program does.
func poke(t testing.TB, path string, i int, m mark) {
	t.Helper()
	state, start, count, name := m.state, m.start, m.count, m.name
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [slotSize]byte
	binary.LittleEndian.PutUint64(b[:], count)
	binary.LittleEndian.PutUint32(b[8:], state)
	binary.LittleEndian.PutUint32(b[12:], start)
	copy(b[24:56], name)
	if _, err := f.WriteAt(b[:], int64(headerSize+i*slotSize)); err != nil {
		t.Fatal(err)
	}
	var used [4]byte
	if _, err := f.ReadAt(used[:], 20); err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint32(used[:], max(binary.LittleEndian.Uint32(used[:]), uint32(i+1)))
	if _, err := f.WriteAt(used[:], 20); err != nil {
		t.Fatal(err)
	}
}

func TestNotify(t *testing.T) {
	b := running(t)
	b.open("p", true, false)
	b.Began("p", 7, os.Getpid())
	b.send("p", "STATUS=warming \x1b[31mup\nNONSENSE=4\n=\nREADY=1\n")
	if got, want := b.next(), (ha.Ready{Process: "p", Start: 7, How: "notify"}); got != want {
		t.Fatalf("told %+v, want %+v", got, want)
	}
	if got, want := b.Status("p"), "warming ?[31mup"; got != want {
		t.Errorf("status %q, want %q", got, want)
	}
	b.send("p", "READY=1") // once for each start
	b.send("p", "STOPPING=1")
	if got, want := b.next(), (ha.Stopping{Process: "p", Start: 7}); got != want {
		t.Fatalf("told %+v, want %+v", got, want)
	}
	b.send("p", "WATCHDOG=1")
	until(t, "the beat is heard", func() bool { return b.Threads("p") == 1 })
	if h := b.Heard("p"); len(h) != 1 || h[0].Name != "" || h[0].At == 0 {
		t.Errorf("heard %+v", h)
	}
	b.none()
}

func TestSocketIsTheUsersOwn(t *testing.T) {
	b := quiet(t)
	old := syscall.Umask(0o077) // of a careful root
	b.open("p", true, true)
	syscall.Umask(old)
	for _, dir := range []string{"notify", "beats"} {
		if st, err := os.Stat(filepath.Join(b.dir, dir)); err != nil || st.Mode().Perm() != 0o711 {
			t.Errorf("%s: %v, %v: the users of programs must reach what is in it", dir, st.Mode(), err)
		}
	}
	for _, path := range []string{SocketPath(b.dir, "p"), PagePath(b.dir, "p")} {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, st.Mode())
		}
	}
	if _, err := b.Open("../x", -1, -1, true, true); err == nil || !strings.Contains(err.Error(), "cannot be a file name") {
		t.Errorf("a name that leads elsewhere: %v", err)
	}
	if _, err := b.Open(ha.Process(strings.Repeat("x", 120)), -1, -1, true, false); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("a name that is too long: %v", err)
	}
}

// A READY of a successor may be read before the news of its start, and one of a
// dead start after it. Each counts for its own start alone.
func TestNotificationsOfTwoStarts(t *testing.T) {
	b := quiet(t)
	e := b.proc("p")
	b.Began("p", 1, 1000001)
	now := b.now()
	take := func(pid int, text string) { b.take(e, held{parse([]byte(text)), pid, now}, now) }

	take(1000002, "READY=1") // the successor's
	take(1000003, "READY=1\nX_GEMEL_START=3")
	if len(b.said) != 0 {
		t.Fatal("an early READY counted for the start before it")
	}
	b.Began("p", 2, 1000002)
	take(1000001, "STOPPING=1") // the dead one's
	take(1000009, "STOPPING=1\nX_GEMEL_START=1")
	b.Began("p", 3, 1000003)
	for _, in := range b.said {
		b.told <- in
	}
	for _, want := range []ha.StartID{2, 3} {
		if got := b.next(); got != (ha.Ready{Process: "p", Start: want, How: "notify"}) {
			t.Errorf("told %+v, want Ready of start %d", got, want)
		}
	}
	b.none()
}

// A helper of the program, as systemd-notify, is heard although its parents are
// gone.
func TestHelperNotifies(t *testing.T) {
	b := running(t)
	b.open("p", true, false)
	b.Began("p", 7, 1) // this test is no descendant of it, as far as the watcher looks
	b.send("p", "READY=1")
	if got := b.next(); got.(ha.Ready).Start != 7 {
		t.Fatalf("told %+v", got)
	}
}

func TestForeignUserIsNotHeard(t *testing.T) {
	b := running(t)
	b.open("p", true, false)
	b.mu.Lock()
	b.proc("p").uid = 12345
	b.mu.Unlock()
	asked := make(chan int, 10)
	b.mu.Lock()
	b.Member = func(pid int, start ha.StartID) bool { asked <- pid; return len(asked) > 1 && start == 7 }
	b.mu.Unlock()
	b.Began("p", 7, os.Getpid())
	b.send("p", "READY=1")
	b.send("p", "STOPPING=1")
	if got, ok := b.next().(ha.Stopping); !ok {
		t.Fatalf("told %+v; READY=1 of a foreign process counted", got)
	}
	if pid := <-asked; pid != os.Getpid() {
		t.Errorf("asked about pid %d", pid)
	}
}

// What a program sent while there was no monitor is read by the next one, from
// the descriptor that the shadow kept.
func TestNextMonitorGoesOn(t *testing.T) {
	b := quiet(t)
	kept := b.open("p", true, true)[0]
	stop := b.run(b.Watcher)
	poke(t, PagePath(b.dir, "p"), 0, mark{slotLive, 7, 1, "main"})
	stop()
	b.send("p", "READY=1\nX_GEMEL_START=7")

	next := New(b.dir, b.clock, func(in ha.Input) { b.told <- in }, slog.New(slog.DiscardHandler))
	b.Watcher = next
	b.Adopt("p", kept)
	b.open("p", true, true)
	b.Began("p", 7, os.Getpid())
	b.run(next)
	if got := b.next(); got != (ha.Ready{Process: "p", Start: 7, How: "notify"}) {
		t.Fatalf("told %+v", got)
	}
	if n := b.Threads("p"); n != 1 {
		t.Errorf("%d threads on the page that was there", n)
	}
	b.send("p", "STOPPING=1") // by the old path
	b.next()

	kept = b.open("p", true, true)[0] // as the shadow still holds it
	b.Close("p")
	b.mu.Lock()
	if err := b.poll.add(int(kept.Fd())); err != nil {
		t.Errorf("the poller still has the socket: %v", err)
	}
	b.mu.Unlock()
	for _, path := range []string{SocketPath(b.dir, "p"), PagePath(b.dir, "p")} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s after Close: %v", path, err)
		}
	}
}

// Without the descriptor a new socket takes the place of the old one.
func TestLostDescriptor(t *testing.T) {
	b := quiet(t)
	b.open("p", true, false)
	b.run(b.Watcher)()
	next := New(b.dir, b.clock, func(in ha.Input) { b.told <- in }, slog.New(slog.DiscardHandler))
	b.Watcher = next
	b.open("p", true, false)
	b.Began("p", 8, os.Getpid())
	b.run(next)
	b.send("p", "READY=1")
	b.next()
}

// Descriptors sent along are closed at once: a pipe's other end sees that.
func TestSentDescriptorsAreClosed(t *testing.T) {
	b := running(t)
	b.open("p", true, false)
	b.Began("p", 7, os.Getpid())
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	to := &unix.SockaddrUnix{Name: SocketPath(b.dir, "p")}
	if err := unix.Sendmsg(fd, []byte("BARRIER=1"), unix.UnixRights(int(w.Fd())), to, 0); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := r.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("read %d, %v; want the end of the pipe", n, err)
	}
}

// A program that floods its socket is slowed down; another one is heard at once.
func TestFlood(t *testing.T) {
	b := running(t)
	b.open("flood", true, false)
	b.open("calm", true, false)
	b.Began("flood", 1, os.Getpid())
	b.Began("calm", 2, os.Getpid())
	end := make(chan struct{})
	done := make(chan int)
	go func() {
		n := 0
		defer func() { done <- n }()
		c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: SocketPath(b.dir, "flood"), Net: "unixgram"})
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		for {
			select {
			case <-end:
				return
			default:
			}
			if err := c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
				t.Error(err)
				return
			}
			if _, err := c.Write([]byte("STATUS=again\nWATCHDOG=1")); err == nil {
				n++
			}
		}
	}()
	until(t, "the flood is slowed down", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.procs["flood"].muted
	})
	b.send("calm", "READY=1")
	if got, ok := b.next().(ha.Ready); !ok || got.Process != "calm" {
		t.Errorf("told %+v", got)
	}
	until(t, "the flood goes on", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return !b.procs["flood"].muted
	})
	close(end)
	<-done
}

func TestTooLongDatagram(t *testing.T) {
	b := running(t)
	b.open("p", true, false)
	b.Began("p", 7, os.Getpid())
	b.send("p", "READY=1\nSTATUS="+strings.Repeat("x", maxDatagram))
	b.send("p", "STOPPING=1\nMAINPID=1\nEXTEND_TIMEOUT_USEC=-1")
	if got, ok := b.next().(ha.Stopping); !ok {
		t.Errorf("told %+v", got)
	}
}

func TestMainPID(t *testing.T) {
	b := quiet(t)
	b.Member = func(pid int, start ha.StartID) bool { return pid == 4000001 && start == 7 }
	e := b.proc("p")
	b.Began("p", 7, os.Getpid())
	take := func(pid int, text string) { b.take(e, held{parse([]byte(text)), pid, b.now()}, b.now()) }
	take(os.Getpid(), "MAINPID=4000002")
	if e.pid != os.Getpid() {
		t.Error("a foreign process is the main one")
	}
	take(os.Getpid(), "MAINPID=4000001")
	take(4000001, "READY=1")
	if len(b.said) != 1 || e.pid != 4000001 {
		t.Errorf("told %v; the main process is %d", b.said, e.pid)
	}
}

func TestPathsOfThisPackageAreThose(t *testing.T) {
	if got := SocketPath("/run/gemel", "p"); got != filepath.Join("/run/gemel/notify", "p.sock") {
		t.Error(got)
	}
}
