package part

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/need"
)

// The test binary is who carries. What is carried is the shell.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "outer" {
		os.Exit(outer())
	}
	os.Exit(m.Run())
}

// script says what it was run from, and as what, and ends when nobody holds its input
// any more.
const script = `echo "running $(readlink /proc/$$/exe) $(tr '\0' ' ' </proc/$$/cmdline | cut -c1-8) $1"; cat >/dev/null; echo still here`

func outer() int {
	packed, err := os.ReadFile(os.Args[2])
	if err != nil {
		fmt.Println(err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fmt.Println("begun")
	p := Part{Name: "inner", Packed: string(packed), Sum: os.Args[3]}
	fmt.Println(p.Exec(ctx, os.Args[4], []string{"shown", "-c", script, "inner", "word"}, slog.New(slog.NewTextHandler(os.Stdout, nil))))
	return 1
}

// A carried is what is carried in these tests: the shell, and some bytes that tell one
// version from another.
type carried struct {
	t    *testing.T
	file string // packed
	sum  string
}

func carry(t *testing.T, version string) carried {
	t.Helper()
	b, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, version...)
	sum := sha256.Sum256(b)
	var packed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	c := carried{t, filepath.Join(t.TempDir(), "packed"), hex.EncodeToString(sum[:])}
	if err := os.WriteFile(c.file, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c carried) name() string { return "inner-" + c.sum[:16] }

func (c carried) command(dir string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", "outer", c.file, c.sum, dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// run runs it to its end and returns what both halves have said.
func (c carried) run(dir string) string {
	c.t.Helper()
	out, _ := c.command(dir).CombinedOutput()
	return string(out)
}

// fromFile complains unless it was run from its file, and alone is there.
func (c carried) fromFile(dir, said string) {
	c.t.Helper()
	path := filepath.Join(dir, c.name())
	if !strings.Contains(said, "running "+path+" shown -c word\n") || strings.Contains(said, "from memory") {
		c.t.Errorf("it was not run from %s: %s", path, said)
	}
	st, err := os.Lstat(path)
	if err != nil || st.Mode() != 0o700 {
		c.t.Errorf("%v, %v", st, err)
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
		c.t.Errorf("%v, %v", all, err)
	}
}

func (c carried) fromMemory(said, why string) {
	c.t.Helper()
	if !strings.Contains(said, "running /memfd:inner (deleted) shown -c word\n") || !strings.Contains(said, "runs from memory") || !strings.Contains(said, why) {
		c.t.Errorf("want it from memory, because of %q: %s", why, said)
	}
}

func TestUnpacked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "parts")
	one := carry(t, "1")
	one.fromFile(dir, one.run(dir))
	path := filepath.Join(dir, one.name())
	was, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	one.fromFile(dir, one.run(dir))
	if is, err := os.Stat(path); err != nil || !os.SameFile(was, is) {
		t.Errorf("it was unpacked again: %v", err)
	}
	for name, spoil := range map[string]func() error{
		"is not":      func() error { return os.WriteFile(path, []byte("#!/bin/false"), 0o700) },
		"and not -rw": func() error { return os.Chmod(path, 0o755) },
		"-rwx------":  func() error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"symbolic":    func() error { return errors.Join(os.RemoveAll(path), os.Symlink("/bin/true", path)) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		said := one.run(dir)
		one.fromFile(dir, said)
		if !strings.Contains(said, "is not what it was") || !strings.Contains(said, name) {
			t.Errorf("%s: %s", name, said)
		}
	}
	// What a start that was cut off has left.
	if err := os.WriteFile(path+".new", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	one.fromFile(dir, one.run(dir))
	// A copy of Gemel that is damaged runs nothing at all.
	bad := one
	bad.sum = strings.Repeat("0", 64)
	if said := bad.run(dir); strings.Contains(said, "running /") || !strings.Contains(said, "this file of Gemel is damaged") {
		t.Error(said)
	}
	one.fromFile(dir, one.run(dir))
}

// TestVersions lets an old one run on while a new one comes, and goes back.
func TestVersions(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "parts")
	one, two := carry(t, "1"), carry(t, "2")
	cmd := one.command(dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	upTo(t, out, "running ")
	two.fromFile(dir, two.run(dir))
	one.fromFile(dir, one.run(dir))
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	upTo(t, out, "still here\n")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// upTo reads until a text has come.
func upTo(t *testing.T, from io.Reader, text string) {
	t.Helper()
	var all []byte
	b := make([]byte, 1)
	for !bytes.HasSuffix(all, []byte(text)) {
		if _, err := from.Read(b); err != nil {
			t.Fatalf("%v after %q", err, all)
		}
		all = append(all, b...)
	}
}

func TestAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "parts")
	one := carry(t, "1")
	said := make([]string, 6)
	var all sync.WaitGroup
	for i := range said {
		all.Go(func() { said[i] = one.run(dir) })
	}
	all.Wait()
	for _, s := range said {
		one.fromFile(dir, s)
	}
}

// TestEnded sends the signal that ends a process while it waits for its turn.
func TestEnded(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	one := carry(t, "1")
	lock, err := own(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }()
	cmd := one.command(dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	upTo(t, out, "begun\n")
	began := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(out)
	err = cmd.Wait()
	if err == nil || strings.Contains(string(rest), "running") {
		t.Errorf("it runs although it was ended: %v: %s", err, rest)
	}
	if took := time.Since(began); took > lockTime/2 {
		t.Errorf("it ended after %v", took)
	}
}

// small mounts a file system over a directory for one test.
func small(t *testing.T, flags uintptr, size int) string {
	t.Helper()
	need.Root(t)
	dir := t.TempDir()
	need.Done(t, unix.Mount("part", dir, "tmpfs", flags, fmt.Sprintf("mode=0700,size=%d", size)), "mounting a tmpfs")
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return filepath.Join(dir, "parts")
}

func TestNoExec(t *testing.T) {
	one := carry(t, "1")
	one.fromMemory(one.run(small(t, unix.MS_NOEXEC, 100<<20)), "permission denied")
}

func TestReadOnly(t *testing.T) {
	one := carry(t, "1")
	one.fromMemory(one.run(small(t, unix.MS_RDONLY, 100<<20)), "read-only file system")
}

func TestFullDisk(t *testing.T) {
	st, err := os.Stat("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	one, two := carry(t, "1"), carry(t, "2")
	dir := small(t, 0, int(st.Size())/2)
	one.fromMemory(one.run(dir), "no space left")
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("it left %v", left)
	}
	// What another version has left makes room.
	dir = small(t, 0, int(st.Size())*3/2)
	one.fromFile(dir, one.run(dir))
	two.fromFile(dir, two.run(dir))
}

func TestOthersDirectory(t *testing.T) {
	need.Root(t)
	one := carry(t, "1")
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	one.fromMemory(one.run(dir), "may be written by others")
	if err := errors.Join(os.Chmod(dir, 0o700), os.Chown(dir, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	one.fromMemory(one.run(dir), "belongs to user 65534")
	// The program of another user in a directory of our own is not run.
	dir = filepath.Join(t.TempDir(), "parts")
	one.fromFile(dir, one.run(dir))
	if err := os.Chown(filepath.Join(dir, one.name()), 65534, 65534); err != nil {
		t.Fatal(err)
	}
	one.fromFile(dir, one.run(dir))
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, one.name()), &st); err != nil || st.Uid != 0 {
		t.Errorf("%v: it belongs to %d", err, st.Uid)
	}
}
