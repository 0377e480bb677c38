package places

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	t.Setenv("GEMEL_DATA_DIR", "")
	t.Setenv("GEMEL_RUN_DIR", "/r")
	t.Setenv("GEMEL_SOCKET", "")
	p, err := Find(Places{Data: "/d"})
	if err != nil {
		t.Fatal(err)
	}
	if want := (Places{"/d", "/r", "/r/api.sock"}); p != want {
		t.Errorf("Find = %+v, want %+v", p, want)
	}
	if _, err := Find(Places{Run: "/" + strings.Repeat("x", 120)}); err == nil || !strings.Contains(err.Error(), "107") {
		t.Errorf("a socket path that is too long: %v", err)
	}
}

func TestMake(t *testing.T) {
	dir := t.TempDir()
	p := Places{Data: filepath.Join(dir, "data"), Run: filepath.Join(dir, "run")}
	for range 2 {
		if err := p.Make(); err != nil {
			t.Fatal(err)
		}
	}
	if st, _ := os.Stat(p.Data); st.Mode().Perm() != 0o700 {
		t.Errorf("data directory has mode %v", st.Mode())
	}
	bad := filepath.Join(dir, "bad")
	if err := os.Mkdir(bad, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(bad, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := (Places{Data: bad, Run: p.Run}).Make(); err == nil || !strings.Contains(err.Error(), "written by others") {
		t.Errorf("a directory that others can write to: %v", err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(p.Data, link); err != nil {
		t.Fatal(err)
	}
	if err := (Places{Data: link, Run: p.Run}).Make(); err == nil {
		t.Error("a symbolic link was accepted as data directory")
	}
}
