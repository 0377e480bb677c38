package rpc

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Whoever connects while one monitor takes the place of another waits for the new one.
func TestHandedOn(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	old, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	h, err := Hand(old)
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	between, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("between the two: %v", err)
	}
	defer between.Close()
	l, err := Take(path, h)
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

// A socket that was put there by another one meanwhile is not taken for ours.
func TestHandedOnButTakenAway(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	old, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	h, err := Hand(old)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(old.Close(), os.Remove(path)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".2", nil, 0o600); err != nil { // not the same inode again
		t.Fatal(err)
	}
	if err := os.Rename(path+".2", path); err != nil {
		t.Fatal(err)
	}
	h.Ino ^= 1 << 60 // a file system may give the number of a removed file out again
	if _, err := Take(path, h); err == nil || !strings.Contains(err.Error(), "another one is there now") {
		t.Fatalf("taken: %v", err)
	}
	if _, err := unix.FcntlInt(uintptr(h.FD), unix.F_GETFD, 0); !errors.Is(err, unix.EBADF) {
		t.Errorf("the descriptor is left: %v", err)
	}
}
