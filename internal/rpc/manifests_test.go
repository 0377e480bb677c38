package rpc

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/config"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/status"
)

const inForce = "processes:\n  web:\n    command: [/bin/web]\n  old:\n    command: [/bin/old]\n"

func (w *world) Apply(_ context.Context, name string, b []byte, dry bool) ([]config.Change, uint64, error) {
	m, err := config.Parse(name, b)
	if err != nil {
		return nil, 0, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	was := inForce
	if w.applied != nil {
		was = string(w.applied)
	}
	before, err := config.Parse("before", []byte(was))
	if err != nil {
		return nil, 0, err
	}
	version := uint64(3)
	if !dry {
		w.applied, version = b, 4
	}
	return config.Diff(before, m, ""), version, nil
}

func (w *world) Current() (string, []byte, uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.applied != nil {
		return "applied", w.applied, 4
	}
	return "gemel.yaml", []byte(inForce), 3
}

func TestManifest(t *testing.T) {
	w := serve(t, manifest.Access{})
	now := picture(2, "web")
	now.Processes[0].Overlay = true
	now.Processes[0].Recovery = ha.RecoveryFailoverReboot
	now.Processes[0].Escalation = ha.EscalationNone
	at := time.Date(2026, 1, 31, 10, 0, 0, 0, time.UTC)
	now.Processes[0].RecoveryBy = status.Lock{Since: at, By: "anna (uid 7)"}
	w.board.Publish(now)
	c := dial(t, w)
	m, err := c.Manifest(t.Context(), &gemelv1.ManifestRequest{})
	if err != nil || string(m.Manifest) != inForce || m.Version != 3 || len(m.Overlays) != 1 || m.Overlays[0].Value != "failover-reboot" || m.Overlays[0].ManifestValue != "restart" {
		t.Errorf("got %v, %v", m, err)
	}
	if o := m.Overlays[0]; o.By != "anna (uid 7)" || !o.At.AsTime().Equal(at) {
		t.Errorf("the overlay is of %v", o)
	}

	bad, err := c.Apply(t.Context(), &gemelv1.ApplyRequest{Name: "f.yaml", Manifest: []byte("processes:\n  web:\n    comand: [/bin/web]\n")})
	if err != nil || bad.Applied || len(bad.Problems) == 0 || bad.Problems[0].File != "f.yaml" || bad.Problems[len(bad.Problems)-1].Line != 3 || bad.Version != 3 {
		t.Errorf("got %v, %v", bad, err)
	}

	next := []byte("processes:\n  web:\n    command: [/bin/web, -v]\n  new:\n    command: [/bin/new]\n")
	for _, dry := range []bool{true, false} {
		res, err := c.Apply(t.Context(), &gemelv1.ApplyRequest{Name: "f.yaml", Manifest: next, DryRun: dry})
		if err != nil || res.Applied == dry || len(res.Changes) != 3 || res.Digest != digest(next) {
			t.Fatalf("got %v, %v", res, err)
		}
		for i, want := range []gemelv1.Effect{gemelv1.Effect_EFFECT_ADD, gemelv1.Effect_EFFECT_REMOVE, gemelv1.Effect_EFFECT_RESTART} {
			if res.Changes[i].Effect != want || res.Changes[i].Subject.Kind != gemelv1.Kind_KIND_PROCESS {
				t.Errorf("change %d: %v; want %v", i, res.Changes[i], want)
			}
		}
		if v := res.Changes[2].Values; len(v) != 1 || v[0].Path != "command" || !strings.Contains(v[0].New, "-v") {
			t.Errorf("values %v", v)
		}
		if want := uint64(map[bool]int{true: 3, false: 4}[dry]); res.Version != want {
			t.Errorf("version %d; want %d", res.Version, want)
		}
	}
	again, err := c.Apply(t.Context(), &gemelv1.ApplyRequest{Name: "f.yaml", Manifest: next})
	if err != nil || again.Applied || len(again.Changes) != 0 || again.Version != 4 {
		t.Errorf("the same again: %v, %v", again, err)
	}

	d, err := c.Diff(t.Context(), &gemelv1.DiffRequest{Name: "g.yaml", Manifest: []byte(inForce)})
	if err != nil || d.Same || len(d.Changes) != 3 || !strings.Contains(d.Text, "+    command: [/bin/old]\n") || len(d.Overlays) != 1 {
		t.Errorf("got %v, %v", d, err)
	}
	if d, err = c.Diff(t.Context(), &gemelv1.DiffRequest{Name: "g.yaml", Manifest: []byte("]")}); err != nil || len(d.Problems) == 0 {
		t.Errorf("got %v, %v", d, err)
	}
	if d, err = c.Diff(t.Context(), &gemelv1.DiffRequest{}); err != nil || len(d.Changes) != 0 || len(d.Overlays) != 1 {
		t.Errorf("got %v, %v", d, err)
	}
	if _, err := c.Apply(t.Context(), &gemelv1.ApplyRequest{Manifest: make([]byte, 5<<20)}); err == nil {
		t.Error("five mebibytes were accepted")
	}
	if _, err := c.Apply(t.Context(), &gemelv1.ApplyRequest{Manifest: bytes.Repeat([]byte("# x\n"), 1<<20)}); err != nil {
		t.Errorf("four mebibytes were not read: %v", err)
	}
}

// TestUnified lets patch(1) judge the differences, where it is.
func TestUnified(t *testing.T) {
	var long strings.Builder
	for i := range 40 {
		long.WriteString(strings.Repeat("x", i) + "\n")
	}
	texts := []string{"", "a\n", "a\nb\nc\n", "b\nc\nd\na\n", long.String(), strings.Replace(long.String(), "xxx\n", "new\n", 20), "z\n" + long.String() + "y\n"}
	patch, err := exec.LookPath("patch")
	for _, a := range texts {
		for _, b := range texts {
			d := unified(a, b)
			if (d == "") != (a == b) {
				t.Errorf("%q to %q: %q", a, b, d)
			}
			if err != nil || d == "" {
				continue
			}
			file := filepath.Join(t.TempDir(), "f")
			if err := os.WriteFile(file, []byte(a), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(patch, "-s", "--no-backup-if-mismatch", file)
			cmd.Stdin = strings.NewReader(d)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s\n%s", err, out, d)
			}
			if got, err := os.ReadFile(file); err != nil && b != "" || string(got) != b {
				t.Errorf("patched to %q; want %q by\n%s", got, b, d)
			}
		}
	}
}
