package daemon_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/proc"
	"gemel/internal/rpc"
)

// patience is how long a test waits for what must come, on a busy machine.
const patience = 40 * time.Second

// manager plays systemd for one unit: Type=notify, NotifyAccess=all,
// KillMode=process, Restart=always. Without it (alone) it is a shell that starts
// gemel in the foreground.
//
//budget:fields it is a world
type manager struct {
	t     *testing.T
	dir   string
	exe   string
	env   []string
	alone bool
	pause time.Duration // RestartSec
	user  *syscall.Credential
	sock  *net.UnixConn
	log   *os.File
	wg    sync.WaitGroup

	mu      sync.Mutex
	main    int  // MAINPID
	on      bool // the unit is started
	starts  []*exec.Cmd
	ends    []end
	said    []said
	changed chan struct{} // closed with each change
}

// said is one notification.
type said struct {
	at   time.Time
	pid  int
	text string
}

// end is the end of a process that the manager started.
type end struct {
	pid  int
	code int // -1: by a signal
}

// newManager makes a directory with a manifest; nothing runs before start.
func newManager(t *testing.T, manifest string) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "gd-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{t: t, dir: dir, exe: exe, pause: 100 * time.Millisecond, changed: make(chan struct{}),
		env: []string{"PATH=" + proc.DefaultPath, playEnv + "=1", "GEMEL_DATA_DIR=" + dir + "/data", "GEMEL_RUN_DIR=" + dir + "/run"}}
	if m.log, err = os.Create(m.path("log")); err != nil {
		t.Fatal(err)
	}
	m.write(manifest)
	if m.sock, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path("notify"), Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(m.path("notify"), 0o777); err != nil {
		t.Fatal(err)
	}
	raw, err := m.sock.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
		err = errors.Join(err, cerr)
	}
	if err != nil {
		t.Fatal(err)
	}
	m.wg.Go(m.listen)
	t.Cleanup(m.end)
	return m
}

func (m *manager) path(name string) string { return filepath.Join(m.dir, name) }

func (m *manager) write(manifest string) {
	m.t.Helper()
	if err := os.WriteFile(m.path("gemel.yaml"), []byte(manifest), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// plain makes it the service of a plain user, who has no right in the control
// groups.
func (m *manager) plain() {
	m.t.Helper()
	if os.Geteuid() != 0 {
		return // it is one
	}
	m.user = &syscall.Credential{Uid: 65534, Gid: 65534, NoSetGroups: false}
	exe := m.path("gemel")
	if err := copyFile(m.exe, exe); err != nil {
		m.t.Fatal(err)
	}
	m.exe = exe
	for _, d := range []string{"state", "runtime"} {
		if err := errors.Join(os.Mkdir(m.path(d), 0o700), os.Chown(m.path(d), 65534, 65534)); err != nil {
			m.t.Fatal(err)
		}
	}
	m.env = slices.DeleteFunc(m.env, func(s string) bool { return strings.HasPrefix(s, "GEMEL_DATA") || strings.HasPrefix(s, "GEMEL_RUN") })
	m.env = append(m.env, "XDG_STATE_HOME="+m.path("state"), "XDG_RUNTIME_DIR="+m.path("runtime"), "HOME="+m.dir)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// run is the run directory.
func (m *manager) run() string {
	if m.user != nil {
		return m.path("runtime/gemel")
	}
	return m.path("run")
}

// change notes something under the lock and wakes those who wait.
func (m *manager) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
	close(m.changed)
	m.changed = make(chan struct{})
}

// listen takes notifications.
func (m *manager) listen() {
	buf, oob := make([]byte, 4096), make([]byte, 256)
	for {
		n, on, _, _, err := m.sock.ReadMsgUnix(buf, oob)
		if err != nil {
			return // closed
		}
		msgs, err := unix.ParseSocketControlMessage(oob[:on])
		s := said{at: time.Now(), text: string(buf[:n])}
		for i := range msgs {
			if c, cerr := unix.ParseUnixCredentials(&msgs[i]); err == nil && cerr == nil {
				s.pid = int(c.Pid)
			}
		}
		m.change(func() { m.said = append(m.said, s) })
		for l := range strings.Lines(s.text) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(l), "MAINPID="); ok {
				if pid, err := strconv.Atoi(v); err == nil {
					m.follow(pid)
				}
			}
		}
	}
}

// follow takes a process that the manager did not start for the main one.
func (m *manager) follow(pid int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.main == pid {
		return
	}
	m.main = pid
	if slices.ContainsFunc(m.starts, func(c *exec.Cmd) bool { return c.Process.Pid == pid }) {
		return
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	m.wg.Go(func() {
		defer unix.Close(fd)
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			if n, err := unix.Poll(p, 100); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
				break
			}
			m.mu.Lock()
			over := m.main != pid
			m.mu.Unlock()
			if over {
				return
			}
		}
		m.gone(pid)
	})
}

// command is one run of gemel as the unit has it.
func (m *manager) command(args ...string) *exec.Cmd {
	c := exec.Command(m.exe, args...)
	c.Env = slices.Clone(m.env)
	if !m.alone {
		c.Env = append(c.Env, "NOTIFY_SOCKET="+m.path("notify"), "INVOCATION_ID=1")
	}
	c.Stdout, c.Stderr = m.log, m.log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: m.user}
	return c
}

// start starts the unit.
func (m *manager) start() {
	m.t.Helper()
	m.change(func() { m.on = true })
	if err := m.spawn(); err != nil {
		m.t.Fatal(err)
	}
}

// spawn runs ExecStart=.
func (m *manager) spawn() error {
	c := m.command("run", m.path("gemel.yaml"))
	m.mu.Lock()
	err := c.Start()
	if err == nil {
		m.main = c.Process.Pid
		m.starts = append(m.starts, c)
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	m.wg.Go(func() {
		_ = c.Wait()
		m.change(func() { m.ends = append(m.ends, end{c.Process.Pid, c.ProcessState.ExitCode()}) })
		m.gone(c.Process.Pid)
	})
	return nil
}

// gone is the end of a process: if it was the main one the unit is started again.
func (m *manager) gone(pid int) {
	m.mu.Lock()
	again := m.on && m.main == pid
	if m.main == pid {
		m.main = 0
	}
	m.mu.Unlock()
	if !again || m.alone {
		return
	}
	time.Sleep(m.pause) // RestartSec
	m.mu.Lock()
	again = m.on && m.main == 0 // nobody named another one meanwhile
	m.mu.Unlock()
	if again {
		if err := m.spawn(); err != nil {
			m.t.Errorf("starting the unit again: %v", err)
		}
	}
}

// mainPID is what the manager holds for the main process.
func (m *manager) mainPID() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.main
}

// until waits for a change that makes holds true; it is called with the lock held.
func (m *manager) until(what string, holds func() bool) {
	m.t.Helper()
	over := time.NewTimer(patience)
	defer over.Stop()
	for {
		m.mu.Lock()
		ok, changed := holds(), m.changed
		m.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-over.C:
			m.t.Fatalf("waited %v in vain: %s", patience, what)
		}
	}
}

// heard counts the notifications that hold a line.
func (m *manager) heard(line string) (n int) {
	for _, s := range m.said {
		if slices.Contains(strings.Split(s.text, "\n"), line) {
			n++
		}
	}
	return n
}

// ready waits for READY=1.
func (m *manager) ready() {
	m.t.Helper()
	m.until("READY=1", func() bool { return m.heard("READY=1") > 0 })
}

// signal sends a signal to the main process, as systemctl does with
// KillMode=process.
func (m *manager) signal(sig unix.Signal) {
	m.t.Helper()
	if err := unix.Kill(m.mainPID(), sig); err != nil {
		m.t.Fatalf("sending %v: %v", sig, err)
	}
}

// stop is systemctl stop: SIGTERM to the main process alone, and then its end. It
// returns the exit status.
func (m *manager) stop() int {
	m.t.Helper()
	pid := m.mainPID()
	m.change(func() { m.on = false })
	m.signal(unix.SIGTERM)
	code := 0
	m.until("the end of the main process", func() bool {
		i := slices.IndexFunc(m.ends, func(e end) bool { return e.pid == pid })
		if i < 0 {
			return false
		}
		code = m.ends[i].code
		return true
	})
	return code
}

// poll waits for something that gives no event.
func (m *manager) poll(what string, done func() bool) {
	m.t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			m.t.Fatalf("waited %v in vain: %s", patience, what)
		}
	}
}

// ask calls the API.
func (m *manager) ask(f func(ctx context.Context, c *rpc.Client) error) error {
	c, err := rpc.Dial(filepath.Join(m.run(), "api.sock"))
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return f(ctx, c)
}

// status is the present picture; nil if nobody answers.
func (m *manager) status() (s *gemelv1.Snapshot) {
	_ = m.ask(func(ctx context.Context, c *rpc.Client) error {
		r, err := c.Status(ctx, &gemelv1.StatusRequest{})
		s = r.GetSnapshot()
		return err
	})
	return s
}

// picture waits until the picture is as it should be.
func (m *manager) picture(what string, holds func(*gemelv1.Snapshot) bool) *gemelv1.Snapshot {
	m.t.Helper()
	var s *gemelv1.Snapshot
	m.poll(what, func() bool {
		s = m.status()
		return s != nil && holds(s)
	})
	return s
}

// running waits until all processes of these names run.
func (m *manager) running(names ...string) *gemelv1.Snapshot {
	m.t.Helper()
	return m.picture(fmt.Sprint(names, " run"), func(s *gemelv1.Snapshot) bool {
		return !slices.ContainsFunc(names, func(n string) bool { return process(s, n).GetState() != "running" })
	})
}

func process(s *gemelv1.Snapshot, name string) *gemelv1.ProcessStatus {
	for _, p := range s.GetProcesses() {
		if p.GetName() == name {
			return p
		}
	}
	return nil
}

// events lists the events with a code.
func (m *manager) events(code uint32) (found []*gemelv1.Event) {
	_ = m.ask(func(ctx context.Context, c *rpc.Client) error {
		r, err := c.Events(ctx, &gemelv1.EventsRequest{Limit: 1000})
		for _, e := range r.GetEvents() {
			if e.GetCode() == code {
				found = append(found, e)
			}
		}
		return err
	})
	return found
}

// event waits for the first event with a code.
func (m *manager) event(code uint32) *gemelv1.Event {
	m.t.Helper()
	var found []*gemelv1.Event
	m.poll(fmt.Sprintf("event %d", code), func() bool { found = m.events(code); return len(found) > 0 })
	return found[0]
}

// environ is the environment of a process that may be one of ours. That of others
// is not read: the kernel may hold up a reader for as long as it holds them up.
func environ(pid int, comms ...string) []byte {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil || !slices.Contains(comms, strings.TrimSpace(string(comm))) || !alive(pid) {
		return nil
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return nil
	}
	return b
}

// halves lists the living processes that play gemel in this directory.
func (m *manager) halves() (shadows, monitors []int) {
	comm := filepath.Base(m.exe)
	comm = comm[:min(len(comm), 15)] // what the kernel keeps of a name
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		b := environ(pid, comm)
		if !bytes.Contains(b, []byte(m.dir)) || !bytes.Contains(b, []byte(playEnv)) {
			continue
		}
		b, _ = os.ReadFile(filepath.Join("/proc", d.Name(), "cmdline"))
		switch args := strings.Split(string(b), "\x00"); {
		case len(args) < 2:
		case args[1] == "run":
			shadows = append(shadows, pid)
		case args[1] == "monitor":
			monitors = append(monitors, pid)
		}
	}
	return shadows, monitors
}

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	return len(f) > 0 && f[0] != "Z" && f[0] != "X"
}

// programs lists the living programs that were started here.
func (m *manager) programs() (pids []int) {
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		if bytes.Contains(environ(pid, "sh", "dash", "bash", "sleep"), []byte("MARK="+m.dir+"\x00")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// said returns what gemel wrote to its standard error.
func (m *manager) text() string {
	b, _ := os.ReadFile(m.path("log"))
	return string(b)
}

// end ends the test: nothing may be left.
func (m *manager) end() {
	m.change(func() { m.on = false })
	for range 3 {
		shadows, monitors := m.halves()
		for _, pid := range slices.Concat(shadows, monitors, m.programs()) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	_ = m.sock.Close()
	m.change(func() { m.main = 0 })
	m.wg.Wait()
	for _, bad := range []string{"DATA RACE", "panic:"} {
		if strings.Contains(m.text(), bad) {
			m.t.Errorf("gemel said %q", bad)
		}
	}
	if m.t.Failed() {
		b := m.text()
		m.t.Logf("what gemel said:\n%s", b[max(0, len(b)-8192):])
		for _, s := range m.said[max(0, len(m.said)-10):] {
			m.t.Logf("notified by %d: %q", s.pid, s.text)
		}
	}
	_ = m.log.Close()
	_ = os.RemoveAll(m.dir)
}

// sleeper is a process of the manifest that sleeps; more are lines of its own.
func (m *manager) sleeper(name string, more ...string) string {
	return fmt.Sprintf("  %s:\n    command: [/bin/sh, -c, \"trap 'echo %s >>%s/order; exit 0' TERM; sleep 100000 & wait\"]\n    environment: {MARK: %s}\n    ramp-up: 50ms\n%s",
		name, name, m.dir, m.dir, indent(more))
}

func indent(lines []string) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString("    " + l + "\n")
	}
	return b.String()
}
