package beat

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
	"gemel/internal/need"
)

// Who is to notify, and how many of them, in a helper of BenchmarkNotifications.
const (
	envNotifyDir   = "BEAT_TEST_NOTIFY_DIR"
	envNotifyCount = "BEAT_TEST_NOTIFY_COUNT"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envNotifyDir); dir != "" {
		if err := notifyAll(dir, os.Getenv(envNotifyCount)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// notifyAll beats once a second for each process, spread over the second, until it
// is killed.
func notifyAll(dir, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	// As sd_notify(3) does it: a socket for each. One that is kept, and in the poller of
	// Go, would have the reader pay for waking up the sender.
	tick := time.NewTicker(time.Second / time.Duration(n))
	defer tick.Stop()
	for i := 0; ; i++ {
		<-tick.C
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = errors.Join(unix.Sendto(fd, []byte("WATCHDOG=1"), 0, &unix.SockaddrUnix{Name: SocketPath(dir, name(i%n))}), unix.Close(fd))
		}
		if err != nil {
			return err
		}
	}
}

func name(i int) ha.Process { return ha.Process(fmt.Sprint("p", i)) }

// used is the time of this process on the processor.
func used() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// share runs the watcher for a while and reports its part of one core.
func share(b *testing.B, w *bench) {
	const span = 10 * time.Second
	for b.Loop() {
		before := used()
		timer := time.NewTimer(span)
		<-timer.C
		b.ReportMetric(float64(used()-before)/float64(span)*100, "%core")
	}
	select {
	case in := <-w.told:
		b.Fatalf("told %+v", in)
	default:
	}
}

// BenchmarkThreads is the cost of 10,000 threads in ten programs that beat each
// second through the page. Run it with -benchtime=1x.
func BenchmarkThreads(b *testing.B) {
	exe := filepath.Join(b.TempDir(), "beats")
	build(b, need.Command(b, "gcc"), "-O2", "-Iinclude", "-pthread", "-o", exe, "examples/c/beats.c")
	w := running(b)
	for i := range 10 {
		w.open(name(i), true, true)
		start(b, exec.Command(exe, "1000", "1000"), "GEMEL_BEAT_PAGE="+PagePath(w.dir, name(i)), "GEMEL_START=7")
		w.Began(name(i), 7, 0)
		until(b, "all threads beat", func() bool { return w.Threads(name(i)) == 1000 })
		w.Watch(ha.Watch{Process: name(i), Start: 7, Within: 4 * time.Second})
	}
	share(b, w)
}

// BenchmarkNotifications is the cost of 1,000 programs that beat each second by
// sd_notify. Run it with -benchtime=1x.
func BenchmarkNotifications(b *testing.B) {
	const n = 1000
	w := running(b)
	for i := range n {
		w.open(name(i), true, false)
		w.Began(name(i), 7, 0)
	}
	start(b, exec.Command("/proc/self/exe"), envNotifyDir+"="+w.dir, fmt.Sprint(envNotifyCount, "=", n))
	for i := range n {
		until(b, "all are heard", func() bool { return w.Threads(name(i)) == 1 })
		w.Watch(ha.Watch{Process: name(i), Start: 7, Within: 4 * time.Second})
	}
	share(b, w)
}

// BenchmarkPrograms is the cost of 1,000 programs of one thread that beat through
// the page. Run it with -benchtime=1x.
func BenchmarkPrograms(b *testing.B) {
	const n = 1000
	w := running(b)
	for i := range n {
		w.open(name(i), false, true)
		w.Began(name(i), 7, 0)
		poke(b, PagePath(w.dir, name(i)), 0, mark{slotLive, 7, 1, "main"})
		// Nobody beats here, but each page is looked at once a second.
		w.Watch(ha.Watch{Process: name(i), Start: 7, Within: time.Minute})
	}
	share(b, w)
}

// start runs a program until the test ends.
func start(tb testing.TB, cmd *exec.Cmd, env ...string) {
	tb.Helper()
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			tb.Error(err)
		}
		_ = cmd.Wait()
	})
}
