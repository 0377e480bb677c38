package gemel

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestRole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web")
	if got := Role(); got != (Standing{}) {
		t.Errorf("of no group: %+v", got)
	}
	t.Setenv("GEMEL_ROLE_FILE", path)
	t.Setenv("GEMEL_GROUP", "web")
	t.Setenv("GEMEL_ROLE", "active")
	t.Setenv("GEMEL_FENCE", "1.7")
	started := Standing{Group: "web", Active: true, Fence: Fence{1, 7}}
	if got := Role(); got != started {
		t.Errorf("before there is a file: %+v", got)
	}
	for text, want := range map[string]Standing{
		"group=web\nrole=standby\nfence=1.6\nnode=alpha\n": started, // of the turn before
		"group=web\nrole=standby\nfence=1.8\nnode=beta\n":  {"web", false, Fence{1, 8}, "beta"},
		"group=web\nrole=active\nfence=2.1\nnode=alpha\n":  {"web", true, Fence{2, 1}, "alpha"},
		"":                               started, // nothing is said
		"group=web\nro":                  started, // torn
		"role=active\nfence=9.9\nnode=a": started, // of no group
	} {
		put(t, path, text)
		if got := Role(); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}

func TestWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web")
	t.Setenv("GEMEL_ROLE_FILE", path)
	put(t, path, "group=web\nrole=standby\nfence=\nnode=\n")
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	var seen []Standing
	err := Watch(ctx, func(s Standing) {
		seen = append(seen, s)
		switch len(seen) {
		case 1:
			put(t, path, "group=web\nrole=active\nfence=1.1\nnode=alpha\n")
		case 2:
			put(t, path, "group=web\nrole=standby\nfence=1.2\nnode=beta\n")
		case 3:
			cancel(enough)
		}
	})
	want := []Standing{{Group: "web"}, {"web", true, Fence{1, 1}, "alpha"}, {"web", false, Fence{1, 2}, "beta"}}
	if err != enough || len(seen) != 3 || seen[0] != want[0] || seen[1] != want[1] || seen[2] != want[2] {
		t.Errorf("%v: %+v", err, seen)
	}
}

func TestFence(t *testing.T) {
	if f, err := parseFence("3.12"); err != nil || f != (Fence{3, 12}) || f.String() != "3.12" {
		t.Errorf("%v %v", f, err)
	}
	for _, s := range []string{"", "3", "3.", ".3", "a.1", "1.-1", "1.2.3"} {
		if f, err := parseFence(s); err == nil {
			t.Errorf("%q is %v", s, f)
		}
	}
	if !(Fence{1, 9}).Less(Fence{2, 1}) || (Fence{2, 1}).Less(Fence{1, 9}) || !(Fence{1, 1}).Less(Fence{1, 2}) || (Fence{1, 1}).Less(Fence{1, 1}) {
		t.Error("the order of fences is wrong")
	}
}
