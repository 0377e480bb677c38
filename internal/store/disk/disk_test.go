package disk

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestClearSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, strings.Repeat("long", 30), "sock")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if len(path) <= sunPath {
		t.Fatal("the path is not long enough for this test")
	}
	if err := Clear(path); err != nil {
		t.Fatal(err)
	}
	at, err := PlaceOf(path)
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	l, err := net.Listen("unix", at.Addr)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := Clear(path); err == nil || !strings.Contains(err.Error(), "already") {
		t.Fatalf("one that somebody serves: %v", err)
	}
	_ = l.Close()
	if err := Clear(path); err != nil {
		t.Fatalf("one that was left: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Clear(path); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Fatalf("a file: %v", err)
	}
	if _, err := PlaceOf(filepath.Join(dir, strings.Repeat("x", 100))); err == nil {
		t.Error("a name that is too long is taken")
	}
}

func TestFsync(t *testing.T) {
	dir := t.TempDir()
	p50, p99, err := Fsync(dir, 100)
	if err != nil || p50 <= 0 || p99 < p50 {
		t.Fatalf("%v %v %v", p50, p99, err)
	}
	t.Logf("fdatasync of 2300 bytes: p50 %v, p99 %v", p50, p99)
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
	if _, _, err := Fsync(dir, 0); err == nil {
		t.Error("no writes are measured")
	}
	if _, _, err := Fsync(filepath.Join(dir, "nowhere"), 1); err == nil {
		t.Error("a disk that is not there is measured")
	}
}

func TestWipe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := os.MkdirAll(filepath.Join(dir, "member"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(MarkPath(dir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	unlock, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := Wipe(dir); err == nil || !strings.Contains(err.Error(), "held by another") {
		t.Errorf("the data of one that runs: %v", err)
	}
	unlock()
	if err := Wipe(dir); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, MarkPath(dir)} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
