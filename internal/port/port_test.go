package port

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gemel/internal/config"
	"gemel/internal/ha"
	"gemel/internal/manifest"
)

var update = flag.Bool("update", false, "write testdata/*.want anew")

func importers() map[string]func(string, []byte) (Result, error) {
	return map[string]func(string, []byte) (Result, error){"pms": PMS, "supervisord": Supervisord}
}

// TestImport compares the manifest and the notes of each file of testdata with
// what stands beside it, and reads the manifest back.
func TestImport(t *testing.T) {
	for _, path := range slices.Concat(glob(t, "testdata/*.ini"), glob(t, "testdata/*.conf")) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			kind, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)), "-")
			got, err := importers()[kind]("/etc/"+filepath.Base(path), b)
			if err != nil {
				t.Fatal(err)
			}
			yaml := valid(t, got)
			var text strings.Builder
			for _, n := range got.Notes {
				fmt.Fprintf(&text, "%d: %s\n", n.Line, n.Text)
			}
			text.WriteString("---\n")
			text.Write(yaml)
			want := path + ".want"
			if *update {
				if err := os.WriteFile(want, []byte(text.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			expected, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if text.String() != string(expected) {
				t.Errorf("it differs from %s (-update writes it anew):\n%s", want, text.String())
			}
		})
	}
}

func glob(tb testing.TB, pattern string) []string {
	tb.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		tb.Fatalf("no files %s: %v", pattern, err)
	}
	return paths
}

// valid checks that what an import made is a manifest that Gemel takes.
func valid(tb testing.TB, r Result) []byte {
	tb.Helper()
	yaml, err := config.Encode(r.Manifest)
	if err != nil {
		tb.Fatalf("encoding: %v", err)
	}
	if _, err := config.Parse("imported.yaml", yaml); err != nil {
		tb.Fatalf("the manifest is refused: %v\n%s", err, yaml)
	}
	return yaml
}

func process(tb testing.TB, r Result, name string) manifest.Process {
	tb.Helper()
	for _, p := range r.Manifest.Processes {
		if string(p.Name) == name {
			return p
		}
	}
	tb.Fatalf("there is no process %q", name)
	return manifest.Process{}
}

// TestPMSDefaults: the CMM's defaults are not Gemel's (facts: CMM, 6.6).
func TestPMSDefaults(t *testing.T) {
	r, err := PMS("pms.ini", []byte("[PmsProcess151]\nUniqueID = 151\nCommandLine = /bin/x\nStartCommandLine = /bin/x\n"))
	if err != nil {
		t.Fatal(err)
	}
	p := process(t, r, "x")
	if p.Recovery != ha.RecoveryNone || p.Severity != ha.Minor || p.RampUp != time.Minute ||
		p.Restarts.Limit != 5 || p.Restarts.Within != 900*time.Second || p.Restarts.Then != ha.EscalationNone {
		t.Errorf("the defaults are %+v", p)
	}
	if len(r.Notes) != 0 {
		t.Errorf("notes are %v; want none", r.Notes)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct{ kind, text, want string }{
		{"pms", "", "pms: there is no [section] in it"},
		{"pms", "a = b\n", "there is no [section]"},
		{"pms", "[program:x]\ncommand=x\n", "no section of it is one of pms.ini"},
		{"pms", "[PmsGlobal]\x00", "it is not a text file"},
		{"supervisord", "[PmsGlobal]\n", "no section of it is one of supervisord.conf"},
		{"supervisord", strings.Repeat("#", maxFile+1), "at most"},
	} {
		if _, err := importers()[c.kind](c.kind, []byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s of %.30q: error is %v; want one with %q", c.kind, c.text, err, c.want)
		}
	}
}

func TestSplitShell(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
	}{
		{`a b  c`, []string{"a", "b", "c"}},
		{`a 'b c' "d e"`, []string{"a", "b c", "d e"}},
		{`a\ b "c\"d" "e\f" 'g\h'`, []string{"a b", `c"d`, `e\f`, `g\h`}},
		{`a "" ''`, []string{"a", "", ""}},
		{`a"b c"d`, []string{"ab cd"}},
		{"a\n  b", []string{"a", "b"}},
		{`a #b`, []string{"a", "#b"}},
	} {
		got, err := splitShell(c.in)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("splitShell(%q) is %q, %v; want %q", c.in, got, err, c.want)
		}
	}
	for _, bad := range []string{`"a`, `'a`, `a\`} {
		if got, err := splitShell(bad); err == nil {
			t.Errorf("splitShell(%q) is %q; want an error", bad, got)
		}
	}
}

func FuzzPMS(f *testing.F)         { fuzzImport(f, PMS, "testdata/*.ini") }
func FuzzSupervisord(f *testing.F) { fuzzImport(f, Supervisord, "testdata/*.conf") }

// fuzzImport: whatever the file, there is an error or a manifest that Gemel
// takes, and each note is about a line that is there.
func fuzzImport(f *testing.F, read func(string, []byte) (Result, error), seeds string) {
	for _, path := range glob(f, seeds) {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := read("/etc/x", b)
		if err != nil {
			return
		}
		for _, n := range r.Notes {
			if n.Line < 0 || n.Line > strings.Count(string(b), "\n")+1 || n.Text == "" {
				t.Errorf("note %d: %q is about no line of the file", n.Line, n.Text)
			}
		}
		if len(r.Manifest.Processes)+len(r.Manifest.Checks) > 0 {
			valid(t, r)
		}
	})
}
