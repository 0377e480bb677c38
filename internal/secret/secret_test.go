package secret_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"gemel/internal/need"
	"gemel/internal/secret"
)

func TestWriteAndRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if _, err := secret.Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	old := unix.Umask(0)
	err := secret.Write(path, []byte("one"))
	unix.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	// A file that was open to others is replaced by one that is not.
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := secret.Write(path, []byte("two")); err != nil {
		t.Fatal(err)
	}
	if b, err := secret.Read(path); err != nil || string(b) != "two" {
		t.Errorf("%q, %v", b, err)
	}
	for range 2 {
		if err := secret.Remove(path); err != nil {
			t.Error(err)
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	if err := secret.Write(path, []byte("x")); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o602, 0o610, 0o644} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := secret.Read(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("%04o: %v", mode, err)
		}
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := secret.Read(fifo); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a FIFO: %v", err)
	}
	if _, err := secret.Read(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: %v", err)
	}
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, 17<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := secret.Read(large); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("17 MiB: %v", err)
	}
	if err := secret.Write(filepath.Join(dir, "no", "key"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func TestSomebodyElses(t *testing.T) {
	need.Root(t)
	path := filepath.Join(t.TempDir(), "key")
	if err := secret.Write(path, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 1234, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := secret.Read(path); err == nil || !strings.Contains(err.Error(), "belongs to uid 1234") {
		t.Errorf("%v", err)
	}
}

// TestNeverHalf reads while it is written: what is read is one of those that were
// written, whole.
func TestNeverHalf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	write := func(c byte) {
		if err := secret.Write(path, bytes.Repeat([]byte{c}, 100_000)); err != nil {
			t.Error(err)
		}
	}
	write('a')
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			for n := range 20 {
				write(byte('b' + 2*n%20 + i))
			}
		})
	}
	for range 200 {
		b, err := secret.Read(path)
		if err != nil || len(b) != 100_000 || bytes.Count(b, b[:1]) != len(b) {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
	}
	wg.Wait()
}
