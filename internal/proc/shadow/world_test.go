package shadow

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/proc"
	"gemel/internal/proc/spawn"
)

const testPatience = 30 * time.Second

// world is a pair on this machine and the test as its decider: the test outlives
// every half.
type world struct {
	t    *testing.T
	dir  string
	name string
	env  []string
	ln   net.Listener

	mu      sync.Mutex
	changed chan struct{}
	log     []said
	conn    net.Conn // to the present monitor
	monitor int
	acks    bool // acknowledge each exit
	ended   map[ha.StartID][]proc.Report
	shadows []*exec.Cmd
	pids    map[int]bool // of every half that was ever seen
	fences  int          // barriers so far
}

func newWorld(t *testing.T, env ...string) *world {
	t.Helper()
	dir := t.TempDir()
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(dir))
	w := &world{
		t: t, dir: dir, name: fmt.Sprintf("gemel-test-%d-%x", os.Getpid(), sum.Sum64()),
		changed: make(chan struct{}), acks: true, ended: map[ha.StartID][]proc.Report{}, pids: map[int]bool{},
	}
	w.env = append(os.Environ(), roleEnv+"=shadow", "SHADOW_TEST_DIR="+w.dir, "SHADOW_TEST_NAME="+w.name)
	w.env = append(w.env, env...)
	ln, err := net.Listen("unix", filepath.Join(w.dir, "test.sock"))
	if err != nil {
		t.Fatal(err)
	}
	w.ln = ln
	go w.accept()
	t.Cleanup(w.clean)
	return w
}

func (w *world) accept() {
	for {
		c, err := w.ln.Accept()
		if err != nil {
			return
		}
		go w.listen(c)
	}
}

func (w *world) listen(c net.Conn) {
	in := json.NewDecoder(c)
	for {
		var s said
		if in.Decode(&s) != nil {
			w.mu.Lock()
			if w.conn == c {
				w.conn = nil
			}
			w.mu.Unlock()
			return
		}
		w.mu.Lock()
		w.conn, w.monitor, w.pids[s.PID] = c, s.PID, true
		if s.Report != nil {
			w.log = append(w.log, s)
			r := *s.Report
			if r.Kind == proc.ReportHello || r.Kind == proc.ReportShadowBack {
				w.pids[r.PID] = true
			}
			if r.Kind == proc.ReportExited {
				w.ended[r.Start] = append(w.ended[r.Start], r)
				if w.acks {
					_ = json.NewEncoder(c).Encode(told{Order: &proc.Order{Kind: proc.OrderAck, Process: r.Process, Start: r.Start}})
				}
			}
		}
		close(w.changed)
		w.changed = make(chan struct{})
		w.mu.Unlock()
	}
}

// clean ends everything that the world started, by pid and by its groups.
func (w *world) clean() {
	w.ln.Close()
	w.mu.Lock()
	pids := w.pids
	shadows := w.shadows
	w.mu.Unlock()
	// The shadow first, or it would start the monitor again; then both, until no
	// half holds its lock.
	deadline := time.Now().Add(testPatience)
	for time.Now().Before(deadline) {
		var alive bool
		for _, lock := range []string{proc.ShadowLock, proc.MonitorLock} {
			var held *proc.HeldError
			err := proc.ProbeLock(filepath.Join(w.dir, lock), 50*time.Millisecond)
			if asHeld(err, &held) {
				alive = true
				if held.PID > 0 {
					_ = unix.Kill(held.PID, unix.SIGKILL)
				}
			}
		}
		// One that was just started may not have told anybody yet.
		for pid := range everybody(pids) {
			if isHalf(pid, w.dir) {
				alive = true
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		if !alive {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, c := range shadows {
		_ = c.Process.Kill()
		_, _ = c.Process.Wait()
	}
	tree, err := spawn.Open(w.name)
	if err != nil {
		w.t.Error(err)
		return
	}
	ids, _ := tree.Find()
	for _, id := range ids {
		g, _ := tree.At(id)
		for until := time.Now().Add(testPatience); ; time.Sleep(5 * time.Millisecond) {
			_ = g.Kill()
			if err := g.Remove(); err == nil || time.Now().After(until) {
				break
			}
		}
	}
	tree.Close()
}

func everybody(known map[int]bool) map[int]bool {
	all := maps.Clone(known)
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		if pid, err := strconv.Atoi(d.Name()); err == nil {
			all[pid] = true
		}
	}
	return all
}

func asHeld(err error, held **proc.HeldError) bool {
	h, ok := err.(*proc.HeldError)
	if ok {
		*held = h
	}
	return ok
}

// isHalf reports whether pid still is a half of the world in dir.
func isHalf(pid int, dir string) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	return err == nil && strings.Contains(string(b), "SHADOW_TEST_DIR="+dir+"\x00")
}

// start begins a shadow, as a user or a service manager would.
func (w *world) start() *exec.Cmd {
	w.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	return w.startAs(exe)
}

func (w *world) startAs(exe string) *exec.Cmd {
	w.t.Helper()
	c := exec.Command(exe)
	c.Env = w.env
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.shadows = append(w.shadows, c)
	w.pids[c.Process.Pid] = true
	w.mu.Unlock()
	return c
}

// wait waits until ok says so, asked after each report.
func (w *world) wait(what string, ok func() bool) {
	w.t.Helper()
	end := time.After(testPatience)
	for {
		w.mu.Lock()
		done := ok()
		changed := w.changed
		w.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-time.After(20 * time.Millisecond): // for what is seen elsewhere than in reports
		case <-end:
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, s := range w.log {
				w.t.Logf("%d: %+v", s.PID, *s.Report)
			}
			w.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// mark is the present end of the log.
func (w *world) mark() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.log)
}

// after waits for a report from the mark on.
func (w *world) after(mark int, what string, ok func(proc.Report) bool) said {
	w.t.Helper()
	var got said
	w.wait(what, func() bool {
		for _, s := range w.log[mark:] {
			if ok(*s.Report) {
				got = s
				return true
			}
		}
		return false
	})
	return got
}

func (w *world) kind(mark int, k proc.ReportKind) said {
	w.t.Helper()
	return w.after(mark, string(k), func(r proc.Report) bool { return r.Kind == k })
}

func (w *world) about(mark int, k proc.ReportKind, id ha.StartID) said {
	w.t.Helper()
	return w.after(mark, fmt.Sprintf("%s of start %d", k, id), func(r proc.Report) bool { return r.Kind == k && r.Start == id })
}

// send gives an order to the present monitor, or the next.
func (w *world) send(o proc.Order) { w.sendFile(o, "") }

func (w *world) sendFile(o proc.Order, file string) {
	w.t.Helper()
	w.wait("a monitor", func() bool {
		return w.conn != nil && json.NewEncoder(w.conn).Encode(told{Order: &o, File: file}) == nil
	})
}

// up starts a pair and waits until it is complete.
func (w *world) up() *exec.Cmd {
	w.t.Helper()
	m := w.mark()
	c := w.start()
	w.kind(m, proc.ReportSynced)
	return c
}

// spec is a program that the test binary plays.
func (w *world) spec(p ha.Process, args ...string) *proc.Spec {
	exe, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	return &proc.Spec{
		Process: p, Path: exe, Args: append([]string{string(p)}, args...),
		Env: []string{roleEnv + "=program", "PATH=/usr/bin:/bin"}, Dir: w.dir, Umask: 0o22,
		Output: "inherit", StopSignal: int(unix.SIGTERM), StopGrace: 5 * time.Second,
	}
}

// sh is a program that a shell plays.
func (w *world) sh(p ha.Process, script string) *proc.Spec {
	s := w.spec(p)
	s.Path, s.Args = "/bin/sh", []string{"sh", "-c", script}
	return s
}

func (w *world) run(s *proc.Spec, id ha.StartID) said {
	w.t.Helper()
	m := w.mark()
	w.send(proc.Order{Kind: proc.OrderSpec, Process: s.Process, Spec: s})
	w.send(proc.Order{Kind: proc.OrderStart, Process: s.Process, Start: id})
	return w.about(m, proc.ReportStarted, id)
}

func (w *world) monitorPID() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.monitor
}

func (w *world) kill(pid int) {
	w.t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		w.t.Errorf("kill %d: %v", pid, err)
	}
}

// gone waits for the end of a process.
func (w *world) gone(pid int) {
	w.t.Helper()
	w.wait(fmt.Sprintf("the end of pid %d", pid), func() bool { return !living(pid) })
}

func living(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	return f[0] != "Z" && f[0] != "X"
}

func haID(n int) ha.StartID { return ha.StartID(n) }

// kernelTells reports whether this kernel keeps the exits of processes that are
// no children (Linux 6.15).
func kernelTells() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var major, minor int
	fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return major > 6 || major == 6 && minor >= 15
}

// tableAlive looks into the table for a start.
func (w *world) tableAlive(id ha.StartID) bool {
	boot, err := clock.BootID()
	if err != nil {
		w.t.Fatal(err)
	}
	tab, err := spawn.OpenTable(filepath.Join(w.dir, "table"), boot)
	if err != nil {
		w.t.Fatal(err)
	}
	defer tab.Close()
	for _, e := range tab.Entries() {
		if e.Start == id {
			return e.Alive()
		}
	}
	return false
}

func notifySocket(t *testing.T, path string) <-chan string {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	got := make(chan string, 1024)
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			select {
			case got <- string(b[:n]):
			default:
			}
		}
	}()
	return got
}
