package daemon_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
)

// tool runs the tool as a user does.
func (m *manager) tool(args ...string) (out string, code int) {
	m.t.Helper()
	c := m.command(args...)
	tool, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	var b bytes.Buffer
	c.Path, c.Stdout, c.Stderr, c.WaitDelay = tool, &b, &b, time.Second
	over := time.AfterFunc(2*patience, func() { _ = c.Process.Kill() })
	defer over.Stop()
	_ = c.Run()
	return b.String(), c.ProcessState.ExitCode()
}

// file writes something to be upgraded to.
func (m *manager) file(name string, mode os.FileMode, body []byte) string {
	m.t.Helper()
	path := m.path(name)
	if err := os.WriteFile(path+".new", body, mode); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// image is the binary that a process runs.
func image(pid int32) string {
	path, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return path
}

// lastEvent is the newest event with a code about the node.
func (m *manager) lastEvent(code ha.Code) string {
	list := m.events(uint32(code))
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].GetSubject().GetKind() == gemelv1.Kind_KIND_NODE {
			return list[i].GetDetail()
		}
	}
	return ""
}

// What is no gemel, or does not run here, is refused before anything is done: it is
// said what, where and what to do, an event tells of it, and the same pair goes on.
func TestUpgradeToNoGemel(t *testing.T) {
	m := unit(t)
	m.start()
	m.ready()
	before := m.running("a", "b", "c")
	exe, err := os.ReadFile(m.exe)
	if err != nil {
		t.Fatal(err)
	}
	strange := bytes.Clone(exe[:1<<20])
	binary.LittleEndian.PutUint16(strange[18:], 0xbeef) // e_machine
	for _, c := range []struct{ name, path, want string }{
		{"missing", m.path("nothing"), "no such file"},
		{"a directory", m.dir, "is a directory"},
		{"no right to execute", m.file("plain", 0o644, exe[:4096]), "may not be executed"},
		{"text", m.file("text", 0o755, []byte("only words\n")), "no program of this machine"},
		{"another program", "/bin/true", "but no gemel"},
		{"one that fails", "/bin/false", "ended with exit 1"},
		{"cut off", m.file("cut", 0o755, exe[:4096]), "cut"},
		{"another architecture", m.file("strange", 0o755, strange), "no program of this machine"},
	} {
		out, code := m.tool("upgrade", c.path)
		if real, err := filepath.EvalSymlinks(c.path); err == nil && !strings.Contains(out, real) || !strings.Contains(out, filepath.Base(c.path)) && c.path[:5] != "/bin/" {
			t.Errorf("%s: the tool does not name the path: %q", c.name, out)
		}
		if code == 0 || !strings.Contains(out, c.want) || !strings.Contains(out, "nothing was changed") || !strings.Contains(out, "gemel upgrade /path/of/gemel") {
			t.Errorf("%s: exit %d, said %q, want %q and what to do", c.name, code, out, c.want)
		}
		if got := m.lastEvent(ha.UpgradeFailed); !strings.Contains(got, c.want) || !strings.Contains(got, "both halves are version 0.0.1") {
			t.Errorf("%s: the event says %q", c.name, got)
		}
	}
	after := m.running("a", "b", "c")
	same(t, before, after)
	if b, a := before.GetNode(), after.GetNode(); b.GetMonitor() != a.GetMonitor() || b.GetShadow() != a.GetShadow() {
		t.Errorf("the pair was %d and %d, is %d and %d", b.GetShadow(), b.GetMonitor(), a.GetShadow(), a.GetMonitor())
	}
	m.clean(m.stop())
}

// One that says that it is gemel and dies before it is ready: the version before goes on,
// also when its file is not there any more, and the tool says what happened.
func TestUpgradeToOneThatDies(t *testing.T) {
	m := unit(t)
	exe, err := os.ReadFile(m.exe)
	if err != nil {
		t.Fatal(err)
	}
	m.exe = m.file("gemel", 0o755, exe)
	dies := []byte("#!/bin/sh\ntest \"$1\" = --version && echo gemel version 9.9.9 && exit\nexit 3\n")
	m.start()
	m.ready()
	before := m.running("a", "b", "c")
	check := func(args ...string) {
		t.Helper()
		out, code := m.tool(append([]string{"upgrade"}, args...)...)
		const why = "the monitor that was to take over ended: exit 3; both halves are version 0.0.1"
		if code == 0 || !strings.Contains(out, "9.9.9") || !strings.Contains(out, why) || !strings.Contains(out, "gemel why") {
			t.Errorf("exit %d, said %q, want %q", code, out, why)
		}
		if got := m.lastEvent(ha.UpgradeFailed); !strings.Contains(got, why) {
			t.Errorf("the event says %q", got)
		}
		after := m.running("a", "b", "c")
		same(t, before, after)
		if after.GetNode().GetShadow() != before.GetNode().GetShadow() {
			t.Error("the shadow was replaced")
		}
		if s, n := image(after.GetNode().GetShadow()), image(after.GetNode().GetMonitor()); s != n {
			t.Errorf("the shadow runs %s and the monitor %s", s, n)
		}
	}
	check(m.file("dies", 0o755, dies))
	m.file("gemel", 0o755, dies) // in place, as a package does it
	check()
	m.clean(m.stop())
}

// After an upgrade to another path the service manager still starts the old one: the
// halves become one version again, the one that was upgraded to.
func TestUpgradeThenShadowKilled(t *testing.T) {
	m := unit(t)
	exe, err := os.ReadFile(m.exe)
	if err != nil {
		t.Fatal(err)
	}
	m.exe = m.file("gemel", 0o755, exe)
	if err := os.Mkdir(m.path("next"), 0o755); err != nil {
		t.Fatal(err)
	}
	next := m.file("next/gemel", 0o755, exe)
	m.start()
	m.ready()
	before := m.running("a", "b", "c")
	out, code := m.tool("upgrade", next)
	if code != 0 || !strings.Contains(out, "from 0.0.1 to 0.0.1: monitor and shadow") {
		t.Fatalf("exit %d, said %q", code, out)
	}
	after := m.running("a", "b", "c")
	same(t, before, after)
	b, a := before.GetNode(), after.GetNode()
	if b.GetMonitor() != a.GetMonitor() || b.GetShadow() != a.GetShadow() || image(a.GetShadow()) != next || image(a.GetMonitor()) != next {
		t.Errorf("shadow %d runs %s, monitor %d runs %s", a.GetShadow(), image(a.GetShadow()), a.GetMonitor(), image(a.GetMonitor()))
	}
	for range 2 {
		old := m.mainPID()
		m.signal(unix.SIGKILL)
		m.until("another main process", func() bool { return m.main != 0 && m.main != old })
		after = m.picture("a shadow of the version that was upgraded to", func(s *gemelv1.Snapshot) bool {
			n := s.GetNode()
			return int(n.GetShadow()) != old && image(n.GetShadow()) == next && image(n.GetMonitor()) == next && settled(s)
		})
		same(t, before, after)
	}
	m.clean(m.stop())
}
