package need

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMissingIsNoted(t *testing.T) {
	t.Setenv("CI", "")
	t.Setenv("GEMEL_REQUIRE", "")
	list := filepath.Join(t.TempDir(), "left-out")
	t.Setenv("GEMEL_LEFT_OUT", list)
	t.Run("sub", func(t *testing.T) {
		Command(t, "sh", "no-such-program-at-all")
		t.Error("it went on without a program that is not there")
	})
	got, err := os.ReadFile(list)
	if want := "TestMissingIsNoted/sub needs the program no-such-program-at-all\n"; err != nil || string(got) != want {
		t.Errorf("the list holds %q (%v); want %q", got, err, want)
	}
}

// failing stands in for a test that may leave nothing out.
type failing struct {
	testing.TB
	failed bool
}

func (f *failing) Helper()               {}
func (f *failing) Fatalf(string, ...any) { f.failed = true; panic(f) }

func TestMissingFails(t *testing.T) {
	t.Setenv("GEMEL_REQUIRE", "all")
	for what, ask := range map[string]func(testing.TB){
		"program":     func(tb testing.TB) { Command(tb, "no-such-program-at-all") },
		"preparation": func(tb testing.TB) { Done(tb, os.ErrPermission, "mounting a tmpfs") },
	} {
		f := &failing{TB: t}
		func() {
			defer func() {
				if r := recover(); r != nil && r != any(f) {
					panic(r)
				}
			}()
			ask(f)
		}()
		if !f.failed {
			t.Errorf("a missing %s was no failure with GEMEL_REQUIRE=all", what)
		}
	}
}

func TestPresent(t *testing.T) {
	if path := Command(t, "sh", "ls"); filepath.Base(path) != "sh" {
		t.Errorf("Command is %q; want the path of sh", path)
	}
	Kernel(t, 3, 0)
	That(t, true, "nothing")
	Done(t, nil, "nothing")
}
