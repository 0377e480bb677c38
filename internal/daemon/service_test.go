package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gemel/internal/places"
)

// TestServed: only the unit itself counts, not what another service starts, nor a container.
func TestServed(t *testing.T) {
	for _, c := range []struct {
		cgroup string
		files  []string
		want   bool
	}{
		{"0::/system.slice/gemel.service\n", []string{"run/systemd/system"}, true},
		{"12:pids:/system.slice/gemel.service\n1:name=systemd:/system.slice/gemel.service/gemel\n", []string{"run/systemd/system"}, true},
		{"0::/system.slice/system-gemel.slice/gemel@two.service\n", []string{"run/systemd/system"}, true},
		{"0::/system.slice/gemel.service\n", nil, false},
		{"0::/system.slice/gemel.service\n", []string{"run/systemd/system", "run/systemd/container"}, false},
		{"0::/system.slice/actions-runner.service\n", []string{"run/systemd/system"}, false},
		{"0::/system.slice/not-gemel.service\n", []string{"run/systemd/system"}, false},
		{"0::/user.slice/user-0.slice/session-1.scope\n", []string{"run/systemd/system"}, false},
		{"", []string{"run/systemd/system"}, false},
	} {
		root := t.TempDir()
		for _, f := range append(c.files, "proc/self") {
			if err := os.MkdirAll(filepath.Join(root, f), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(root, "proc/self/cgroup"), []byte(c.cgroup), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := served(root); got != c.want {
			t.Errorf("%q with %v: %v", c.cgroup, c.files, got)
		}
	}
	if served("/") {
		t.Error("a test takes itself for the service")
	}
}

// TestEnable: the service is enabled only where it is one, and what systemctl says of a
// failure is told.
func TestEnable(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	said := filepath.Join(bin, "said")
	fake := func(end string) {
		if err := os.WriteFile(filepath.Join(bin, "systemctl"), []byte("#!/bin/sh\necho \"$@\" >"+said+"\n"+end+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	its := places.Places{Data: "/var/lib/gemel", Run: "/run/gemel"}
	all := []string{"run/systemd/system", "usr/lib/systemd/system/gemel.service", "etc/gemel/gemel.yaml"}
	for _, c := range []struct {
		what  string
		files []string
		p     places.Places
		want  bool
	}{
		{"no systemd", all[1:], its, false},
		{"no unit", []string{all[0], all[2]}, its, false},
		{"no manifest", all[:2], its, false},
		{"other places", all, places.Places{Data: "/data", Run: "/run/gemel"}, false},
		{"a service", all, its, true},
		{"a unit of the operator", []string{all[0], "etc/systemd/system/gemel.service", all[2]}, its, true},
	} {
		fake("exit 0")
		_ = os.Remove(said)
		root := t.TempDir()
		for _, f := range c.files {
			if err := os.MkdirAll(filepath.Join(root, f), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		got, err := Enable(t.Context(), c.p, root)
		b, _ := os.ReadFile(said)
		if err != nil || got != c.want || c.want != (string(b) == "enable --now gemel.service\n") {
			t.Errorf("%s: %v, %v; systemctl was told %q", c.what, got, err, b)
		}
		if !c.want {
			continue
		}
		fake("echo no such thing >&2; exit 3")
		if got, err := Enable(t.Context(), c.p, root); got || err == nil || !strings.Contains(err.Error(), "no such thing") || !strings.Contains(err.Error(), "journalctl") {
			t.Errorf("%s, when systemctl fails: %v, %v", c.what, got, err)
		}
	}
}
