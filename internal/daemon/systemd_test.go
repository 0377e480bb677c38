package daemon_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
	"gemel/internal/rpc"
)

// unit is a manager with three programs: c needs b, b needs a.
func unit(t *testing.T) *manager {
	t.Helper()
	t.Parallel()
	m := newManager(t, "")
	m.write("processes:\n" + m.sleeper("a") + m.sleeper("b", "needs: [a]") + m.sleeper("c", "needs: [b]"))
	return m
}

// same fails unless the programs are the very same starts, with what was counted.
func same(t *testing.T, before, after *gemelv1.Snapshot) {
	t.Helper()
	for _, p := range before.GetProcesses() {
		q := process(after, p.GetName())
		if p.GetPid() != q.GetPid() || p.GetStart() != q.GetStart() || p.GetStarts() != q.GetStarts() || p.GetWindow() != q.GetWindow() || p.GetPid() == 0 {
			t.Errorf("%s was touched: pid %d, start %d, %d starts, %d counted; then pid %d, start %d, %d starts, %d counted", p.GetName(),
				p.GetPid(), p.GetStart(), p.GetStarts(), p.GetWindow(), q.GetPid(), q.GetStart(), q.GetStarts(), q.GetWindow())
		}
	}
}

// settled reports whether a new monitor knows what runs.
func settled(s *gemelv1.Snapshot) bool {
	return !slices.ContainsFunc(s.GetProcesses(), func(p *gemelv1.ProcessStatus) bool { return p.GetState() != "running" })
}

// clean fails unless everything has ended in order.
func (m *manager) clean(code int) {
	m.t.Helper()
	if code != 0 {
		m.t.Errorf("the main process ended with %d", code)
	}
	m.poll("nothing is left", func() bool {
		shadows, monitors := m.halves()
		return len(shadows)+len(monitors)+len(m.programs()) == 0
	})
	for _, bad := range []string{"second signal", "killing the monitor", "level=ERROR", "panic"} {
		if strings.Contains(m.text(), bad) {
			m.t.Errorf("gemel said %q", bad)
		}
	}
}

// The ends of the programs come in the reverse order of their needs.
func (m *manager) order(want string) {
	m.t.Helper()
	b, err := os.ReadFile(m.path("order"))
	if got := strings.Join(strings.Fields(string(b)), " "); err != nil || got != want {
		m.t.Errorf("they ended in the order %q, want %q (%v)", got, want, err)
	}
}

// Type=notify, WatchdogSec=: READY=1 when the monitor is well, WATCHDOG=1 as long
// as it is; one that hangs is replaced, and the programs do not notice.
func TestNotify(t *testing.T) {
	m := unit(t)
	m.env = append(m.env, "WATCHDOG_USEC=15000000")
	m.start()
	m.ready()
	if s := m.status(); s.GetNode().GetMonitor() == 0 {
		t.Error("READY=1 came, and no monitor answers")
	}
	before := m.running("a", "b", "c")
	m.until("WATCHDOG=1", func() bool { return m.heard("WATCHDOG=1") >= 3 })
	m.mu.Lock()
	for i, s := range m.said {
		if i > 0 && s.at.Sub(m.said[i-1].at) > 7500*time.Millisecond {
			t.Errorf("%v between two notifications; at most half of WatchdogSec= is allowed", s.at.Sub(m.said[i-1].at))
		}
	}
	if s := m.said[0]; !strings.Contains(s.text, "READY=1") || !strings.Contains(s.text, fmt.Sprintf("MAINPID=%d", m.main)) {
		t.Errorf("the first notification is %q", s.text)
	}
	m.mu.Unlock()

	old := int(before.GetNode().GetMonitor())
	if err := unix.Kill(old, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var stopped int
	m.until("nothing", func() bool { stopped = m.heard("WATCHDOG=1"); return true })
	after := m.picture("a new monitor", func(s *gemelv1.Snapshot) bool { return int(s.GetNode().GetMonitor()) != old && settled(s) })
	m.until("WATCHDOG=1 again", func() bool { return m.heard("WATCHDOG=1") > stopped+1 })
	same(t, before, after)
	if e := m.event(uint32(ha.WatchdogRecovering)); e.GetSubject().GetKind() != gemelv1.Kind_KIND_MONITOR {
		t.Errorf("event %v", e)
	}
	if alive(old) {
		t.Error("the monitor that hung still lives")
	}
	code := m.stop()
	m.until("STOPPING=1", func() bool { return m.heard("STOPPING=1") > 0 })
	if code != 0 {
		t.Errorf("exit %d", code)
	}
	m.order("c b a")
}

// The shadow is killed, and the manager is quick: its new one becomes the shadow,
// and the monitor starts none. Then one SIGTERM ends it all in order, and the next
// start runs everything again.
func TestShadowKilled(t *testing.T) {
	m := unit(t)
	m.start()
	m.ready()
	before := m.running("a", "b", "c")
	first := m.mainPID()
	m.signal(unix.SIGKILL)
	m.until("a new main process", func() bool { return len(m.starts) == 2 })
	after := m.picture("a new shadow", func(s *gemelv1.Snapshot) bool {
		return s.GetNode().GetShadow() != 0 && int(s.GetNode().GetShadow()) != first
	})
	same(t, before, after)
	if after.GetNode().GetMonitor() != before.GetNode().GetMonitor() {
		t.Error("the monitor was replaced")
	}
	if got := int(after.GetNode().GetShadow()); got != m.mainPID() {
		t.Errorf("the shadow is %d and the main process %d", got, m.mainPID())
	}
	m.poll("one pair", func() bool { s, mon := m.halves(); return len(s) == 1 && len(mon) == 1 })
	code := m.stop()
	m.clean(code)
	m.order("c b a")

	m.start()
	m.running("a", "b", "c")
	m.clean(m.stop())
}

// The manager is slow: the monitor starts a shadow of its own after two seconds.
// The manager's late one ends with exit 0 and says whom to look at.
func TestManagerSlow(t *testing.T) {
	m := unit(t)
	m.pause = 5 * time.Second
	m.start()
	m.ready()
	before := m.running("a", "b", "c")
	m.mu.Lock()
	m.on = false // so that MAINPID of the new shadow does not end the pause
	first := m.main
	m.mu.Unlock()
	if err := unix.Kill(first, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	after := m.picture("a new shadow", func(s *gemelv1.Snapshot) bool {
		return s.GetNode().GetShadow() != 0 && int(s.GetNode().GetShadow()) != first
	})
	same(t, before, after)
	own := int(after.GetNode().GetShadow())
	m.until("MAINPID of the new shadow", func() bool { return m.main == own })
	m.start() // late
	m.until("the end of the late one", func() bool { return len(m.ends) == 2 })
	if e := m.ends[1]; e.code != 0 {
		t.Errorf("the late one ended with %d", e.code)
	}
	m.until("MAINPID again", func() bool { return m.main == own && m.said[len(m.said)-1].pid != 0 })
	m.poll("one pair", func() bool { s, mon := m.halves(); return len(s) == 1 && len(mon) == 1 })
	// The manager stops a main process that it did not start.
	m.mu.Lock()
	m.on = false
	m.mu.Unlock()
	m.signal(unix.SIGTERM)
	m.clean(0)
	m.order("c b a")
}

// Ten starts at once make one pair.
func TestRace(t *testing.T) {
	for _, alone := range []bool{false, true} {
		t.Run(fmt.Sprintf("alone %t", alone), func(t *testing.T) {
			m := unit(t)
			m.alone = alone
			m.mu.Lock()
			m.on = false // none is started again
			m.mu.Unlock()
			for range 10 {
				if err := m.spawn(); err != nil {
					t.Fatal(err)
				}
			}
			m.until("nine of them end", func() bool { return len(m.ends) == 9 })
			s := m.running("a", "b", "c")
			m.poll("one pair", func() bool { s, mon := m.halves(); return len(s) == 1 && len(mon) == 1 })
			for _, e := range m.ends {
				if (e.code != 0) != alone {
					t.Errorf("a start that found a pair ended with %d", e.code)
				}
			}
			if alone && !strings.Contains(m.text(), fmt.Sprintf("runs already with this data directory (pid %d", s.GetNode().GetShadow())) {
				t.Error("nobody was told who runs")
			}
			if n := len(m.programs()); n != 6 { // each has a child
				t.Errorf("%d processes of three programs", n)
			}
			m.change(func() { m.main = int(s.GetNode().GetShadow()) })
			m.stop()
			m.order("c b a")
		})
	}
}

// Detach, or the death of both halves, leaves the programs to the next start.
func TestAdopted(t *testing.T) {
	for _, how := range []string{"detach", "killed", "monitor first"} {
		t.Run(how, func(t *testing.T) {
			m := unit(t)
			m.start()
			m.ready()
			m.running("a", "b", "c")
			// One restart is counted, so that there is something to remember.
			if err := unix.Kill(int(process(m.status(), "a").GetPid()), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			m.picture("the restart of a", func(s *gemelv1.Snapshot) bool { return process(s, "a").GetWindow() == 1 })
			before := m.running("a", "b", "c")
			m.change(func() { m.on = false })
			shadow, monitor := int(before.GetNode().GetShadow()), int(before.GetNode().GetMonitor())
			switch how {
			case "detach":
				if err := m.ask(func(ctx context.Context, c *rpc.Client) error {
					r, err := c.Detach(ctx, &gemelv1.DetachRequest{})
					if r.GetRunning() != 3 {
						t.Errorf("%d programs are said to run on", r.GetRunning())
					}
					return err
				}); err != nil {
					t.Fatal(err)
				}
			case "killed":
				for _, pid := range []int{shadow, monitor} {
					_ = unix.Kill(pid, unix.SIGSTOP) // so that neither replaces the other
				}
				for _, pid := range []int{shadow, monitor} {
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			case "monitor first":
				_ = unix.Kill(shadow, unix.SIGSTOP)
				_ = unix.Kill(monitor, unix.SIGKILL)
				_ = unix.Kill(shadow, unix.SIGKILL)
			}
			m.until("the end of the main process", func() bool { return len(m.ends) == 1 })
			m.poll("both halves are gone", func() bool { s, mon := m.halves(); return len(s)+len(mon) == 0 })
			if code := m.ends[0].code; (code == 0) != (how == "detach") {
				t.Errorf("exit %d", code)
			}
			if n := len(m.programs()); n != 6 {
				t.Fatalf("%d processes of three programs run on", n)
			}
			m.start()
			after := m.running("a", "b", "c")
			same(t, before, after)
			for _, p := range after.GetProcesses() {
				if since := p.GetSince().AsTime(); since.After(process(before, p.GetName()).GetSince().AsTime().Add(5 * time.Second)) {
					t.Errorf("%s is said to run since %v", p.GetName(), since)
				}
			}
			if code := m.stop(); code != 0 {
				t.Errorf("exit %d", code)
			}
			m.order("c b a")
		})
	}
}

// A second SIGTERM leaves no grace: what ignores the first ends at once, and the
// next start runs it again.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	m := newManager(t, "")
	m.write(fmt.Sprintf("processes:\n  deaf:\n    command: [/bin/sh, -c, \"trap '' TERM; echo up >%[1]s/up; while :; do sleep 0.1; done\"]\n    environment: {MARK: %[1]s}\n    ramp-up: 50ms\n    stop: {grace: 1h}\n", m.dir))
	m.start()
	m.ready()
	m.running("deaf")
	m.poll("the program", func() bool { _, err := os.Stat(m.path("up")); return err == nil })
	m.change(func() { m.on = false })
	m.signal(unix.SIGTERM)
	m.picture("the end has begun", func(s *gemelv1.Snapshot) bool { return process(s, "deaf").GetState() == "stopping" })
	m.signal(unix.SIGTERM)
	m.until("the end of the main process", func() bool { return len(m.ends) == 1 })
	m.poll("nothing is left", func() bool {
		shadows, monitors := m.halves()
		return len(shadows)+len(monitors)+len(m.programs()) == 0
	})
	if err := os.Remove(m.path("up")); err != nil {
		t.Fatal(err)
	}
	m.start()
	m.running("deaf")
	m.poll("the program", func() bool { _, err := os.Stat(m.path("up")); return err == nil })
}

// ExecReload= sends SIGHUP: a good file is applied, a bad one is refused and
// shown.
func TestReload(t *testing.T) {
	m := unit(t)
	m.start()
	m.ready()
	before := m.running("a", "b", "c")
	good, err := os.ReadFile(m.path("gemel.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	m.write(string(good) + "  bad: {}\n")
	m.signal(unix.SIGHUP)
	if e := m.event(uint32(ha.ManifestRefused)); !strings.Contains(e.GetDetail(), "gemel.yaml") || !strings.Contains(e.GetDetail(), "bad") {
		t.Errorf("refused: %q", e.GetDetail())
	}
	after := m.picture("the file differs", func(s *gemelv1.Snapshot) bool { return s.GetNode().GetDiffers() })
	same(t, before, after)
	m.write(string(good) + m.sleeper("d"))
	m.signal(unix.SIGHUP)
	after = m.running("a", "b", "c", "d")
	same(t, before, after)
	m.picture("the file is in force", func(s *gemelv1.Snapshot) bool { return !s.GetNode().GetDiffers() })
	m.clean(m.stop())
}

// Events reach journald by its own protocol.
func TestJournald(t *testing.T) {
	m := unit(t)
	m.env = append(m.env, journaldEnv+"="+m.path("journald"))
	sock, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path("journald"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	m.start()
	m.running("a")
	if err := sock.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<16)
	for found := false; !found; {
		n, err := sock.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(buf[:n]), "\n")
		found = slices.Contains(lines, fmt.Sprintf("GEMEL_CODE=%d", ha.ProcessStarted)) &&
			slices.Contains(lines, "GEMEL_SUBJECT=process a") && slices.Contains(lines, "SYSLOG_IDENTIFIER=gemel")
	}
	m.clean(m.stop())
}

// A half that dies by a fault of its own leaves what the runtime wrote, as
// evidence of an event.
func TestCrash(t *testing.T) {
	t.Run("monitor", func(t *testing.T) {
		crash(t, gemelv1.Kind_KIND_MONITOR, func(n *gemelv1.NodeStatus) int32 { return n.GetMonitor() })
	})
	t.Run("shadow", func(t *testing.T) {
		crash(t, gemelv1.Kind_KIND_SHADOW, func(n *gemelv1.NodeStatus) int32 { return n.GetShadow() })
	})
}

func crash(t *testing.T, half gemelv1.Kind, pid func(*gemelv1.NodeStatus) int32) {
	m := unit(t)
	m.start()
	m.ready()
	before := m.running("a", "b", "c")
	old := pid(before.GetNode())
	if err := unix.Kill(int(old), unix.SIGABRT); err != nil {
		t.Fatal(err)
	}
	after := m.picture("another half", func(s *gemelv1.Snapshot) bool {
		now := pid(s.GetNode())
		return now != 0 && now != old && settled(s)
	})
	same(t, before, after)
	e := m.event(uint32(ha.Crashed))
	if !strings.Contains(e.GetDetail(), "SIGABRT") || e.GetEvidence() == "" || e.GetSubject().GetKind() != half {
		t.Errorf("event %v", e)
	}
	if err := m.ask(func(ctx context.Context, c *rpc.Client) error {
		r, err := c.Evidence(ctx, &gemelv1.EvidenceRequest{Ref: e.GetEvidence()})
		if !strings.Contains(string(r.GetData()), "goroutine") {
			t.Errorf("the evidence is %q", r.GetData())
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	if err := m.ask(func(ctx context.Context, c *rpc.Client) error {
		r, err := c.Replay(ctx, &gemelv1.ReplayRequest{})
		if r.GetDifferences() != 0 {
			t.Errorf("replay: %s", r.GetText())
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	m.stop()
}

// A plain user: no rights in the control groups, the XDG directories, and all the
// rest as for root.
func TestPlainUser(t *testing.T) {
	m := unit(t)
	m.plain()
	m.write(strings.ReplaceAll(m.manifest(), m.dir+"/order", m.run()+"-order"))
	m.start()
	m.ready()
	before := m.running("a", "b", "c")
	if cg := before.GetNode().GetCgroup(); m.user != nil && !strings.Contains(cg, "process groups") {
		t.Errorf("programs are held by %q", cg)
	}
	for _, want := range []string{filepath.Join(m.run(), "api.sock"), m.path("state/gemel/journal")} {
		if _, err := os.Stat(want); m.user != nil && err != nil {
			t.Error(err)
		}
	}
	m.signal(unix.SIGKILL)
	after := m.picture("a new shadow", func(s *gemelv1.Snapshot) bool {
		return s.GetNode().GetShadow() != 0 && s.GetNode().GetShadow() != before.GetNode().GetShadow()
	})
	same(t, before, after)
	old := after.GetNode().GetMonitor()
	if err := unix.Kill(int(old), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	after = m.picture("a new monitor", func(s *gemelv1.Snapshot) bool { return s.GetNode().GetMonitor() != old && settled(s) })
	same(t, before, after)
	m.clean(m.stop())
	b, err := os.ReadFile(m.run() + "-order")
	if got := strings.Join(strings.Fields(string(b)), " "); got != "c b a" {
		t.Errorf("they ended in the order %q (%v)", got, err)
	}
}

func (m *manager) manifest() string {
	b, err := os.ReadFile(m.path("gemel.yaml"))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b)
}

// Restarts and applies leave no descriptor behind, in either half.
func TestDescriptors(t *testing.T) {
	t.Parallel()
	m := newManager(t, "")
	text := func(i int) string {
		return fmt.Sprintf("processes:\n  quick: {command: [/bin/sh, -c, \"exit 1\"], environment: {MARK: %s, N: \"%d\"}, restarts: {limit: 10000, delay: 0s}, ready: notify, autostart: false}\n"+
			"  other%d: {command: [/bin/sleep, \"100000\"], environment: {MARK: %s}, ramp-up: 10ms, watchdog: {interval: 1s}}\n", m.dir, i, i%3, m.dir)
	}
	m.write(text(0))
	m.start()
	m.ready()
	s := m.running("other0")
	count := func() (n [2]int) {
		for i, pid := range []int32{s.GetNode().GetShadow(), s.GetNode().GetMonitor()} {
			list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			if err != nil {
				t.Fatal(err)
			}
			n[i] = len(list)
		}
		return n
	}
	order := func(v gemelv1.Verb) {
		if err := m.ask(func(ctx context.Context, c *rpc.Client) error {
			_, err := c.Request(ctx, &gemelv1.RequestRequest{Verb: v, Target: &gemelv1.Subject{Kind: gemelv1.Kind_KIND_PROCESS, Name: "quick"}})
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	round := func(starts uint64, applies int) {
		order(gemelv1.Verb_VERB_START)
		goal := process(m.status(), "quick").GetStarts() + starts
		m.picture("restarts", func(s *gemelv1.Snapshot) bool { return process(s, "quick").GetStarts() >= goal })
		order(gemelv1.Verb_VERB_STOP)
		m.picture("its end", func(s *gemelv1.Snapshot) bool { return process(s, "quick").GetState() == "stopped" })
		for i := range applies + 1 {
			if err := m.ask(func(ctx context.Context, c *rpc.Client) error {
				_, err := c.Apply(ctx, &gemelv1.ApplyRequest{Name: "x", Manifest: []byte(text(applies - i))})
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		m.running("other0")
		m.picture("the others are gone", func(s *gemelv1.Snapshot) bool { return len(s.GetProcesses()) == 2 })
	}
	round(20, 3)
	before := count()
	round(1000, 100)
	m.poll(fmt.Sprintf("descriptors as before (%v)", before), func() bool {
		now := count()
		return now[0] <= before[0]+2 && now[1] <= before[1]+2 // a connection may be on its way
	})
	m.clean(m.stop())
}
