package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/need"
)

type rig struct {
	t       *testing.T
	r       *Reader
	dir     string
	logs    string
	mu      sync.Mutex
	dropped int64
	told    int
}

func newRig(t *testing.T, logs string) *rig {
	t.Helper()
	g := &rig{t: t, dir: t.TempDir(), logs: logs}
	if logs == "" {
		g.logs = filepath.Join(g.dir, "log")
	}
	r, err := New(Config{
		RunDir: g.dir, LogDir: g.logs, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Dropped: func(_ ha.Process, _, n int64) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.dropped += n
			g.told++
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	g.r = r
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return g
}

// writer is the program's end.
func (g *rig) writer(p ha.Process) *os.File {
	g.t.Helper()
	fd, err := OpenPipe(g.dir, p, -1)
	if err != nil {
		g.t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), string(p))
	g.t.Cleanup(func() { f.Close() })
	return f
}

func (g *rig) until(what string, ok func() bool) {
	g.t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			g.t.Fatalf("waited in vain: %s", what)
		}
	}
}

func (g *rig) text(p ha.Process) string {
	b, err := os.ReadFile(LogPath(g.logs, p))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		g.t.Fatal(err)
	}
	return string(b)
}

func TestCapture(t *testing.T) {
	g := newRig(t, "")
	f := g.writer("p")
	fmt.Fprintln(f, "before the reader")
	if err := g.r.Open("p", manifest.Output{}); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, "no end")
	g.until("the text", func() bool { return g.text("p") == "before the reader\nno end" })
	st, err := os.Stat(g.r.Path("p"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	g.r.Close("p")
	g.until("the pipe is removed", func() bool {
		_, err := os.Stat(filepath.Join(g.dir, "out", "p"))
		return errors.Is(err, os.ErrNotExist)
	})
	for _, bad := range []ha.Process{"", "../x", "a/b", ".x"} {
		if err := g.r.Open(bad, manifest.Output{}); err == nil {
			t.Errorf("%q was taken for a name", bad)
		}
	}
}

func TestRotation(t *testing.T) {
	g := newRig(t, "")
	if err := g.r.Open("p", manifest.Output{Size: 1000, Keep: 3}); err != nil {
		t.Fatal(err)
	}
	f := g.writer("p")
	for i := range 500 {
		fmt.Fprintf(f, "line %04d\n", i)
	}
	g.until("the last line", func() bool { return strings.Contains(g.text("p"), "line 0499\n") })
	list, err := os.ReadDir(g.logs)
	if err != nil || len(list) != 3 {
		t.Errorf("files: %v, %v", list, err)
	}
	for _, e := range list {
		b, err := os.ReadFile(filepath.Join(g.logs, e.Name()))
		if err != nil || len(b) > 1000 || !bytes.HasPrefix(b, []byte("line ")) || !bytes.HasSuffix(b, []byte("\n")) {
			t.Errorf("%s: %d bytes, %v: lines must be whole", e.Name(), len(b), err)
		}
	}
	got, err := Tail(g.logs, "p", 150)
	if err != nil || len(got) != 150 || got[0] != "line 0350" || got[149] != "line 0499" {
		t.Errorf("tail: %d lines, %v", len(got), err)
	}
	if got, err = Tail(g.logs, "nobody", 5); err != nil || len(got) != 0 {
		t.Errorf("tail of nothing: %v, %v", got, err)
	}
}

func TestLineWithoutEnd(t *testing.T) {
	g := newRig(t, "")
	if err := g.r.Open("p", manifest.Output{Size: 10_000, Keep: 2}); err != nil {
		t.Fatal(err)
	}
	f := g.writer("p")
	if _, err := f.Write(bytes.Repeat([]byte{0}, 3<<20)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, "END")
	g.until("the end", func() bool { return strings.HasSuffix(g.text("p"), "END") })
	list, err := os.ReadDir(g.logs)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if st, err := e.Info(); err != nil || st.Size() > 10_000+2*lineMost {
			t.Errorf("%s: %v, %v", e.Name(), st, err)
		}
	}
}

func TestFlood(t *testing.T) {
	g := newRig(t, "")
	if err := g.r.Open("p", manifest.Output{Rate: 20_000, Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	f := g.writer("p")
	line := strings.Repeat("x", 99) + "\n"
	for range 20_000 { // 2 MB; a reader that waited would hang here
		if _, err := f.WriteString(line); err != nil {
			t.Fatal(err)
		}
	}
	g.until("the note", func() bool { return strings.Contains(g.text("p"), "bytes of output dropped: more than 20000") })
	g.mu.Lock()
	if g.dropped < 1_000_000 || g.told > 3 {
		t.Errorf("%d bytes dropped, told %d times", g.dropped, g.told)
	}
	g.mu.Unlock()
	for l := range strings.Lines(g.text("p")) {
		if l != line && !strings.HasPrefix(l, "gemel: ") {
			t.Errorf("a torn line: %q", l)
			break
		}
	}
	g.until("output after the flood", func() bool {
		fmt.Fprintln(f, "calm")
		return strings.Contains(g.text("p"), "calm")
	})
}

func TestFullDisk(t *testing.T) {
	logs := t.TempDir()
	need.Done(t, unix.Mount("tmpfs", logs, "tmpfs", 0, "size=64k"), "mounting a tmpfs")
	t.Cleanup(func() { _ = unix.Unmount(logs, 0) })
	g := newRig(t, logs)
	if err := g.r.Open("p", manifest.Output{}); err != nil {
		t.Fatal(err)
	}
	f := g.writer("p")
	line := strings.Repeat("y", 999) + "\n"
	for range 1000 {
		if _, err := f.WriteString(line); err != nil {
			t.Fatal(err)
		}
	}
	g.until("the loss is told", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.dropped > 500_000
	})
	if err := os.Truncate(LogPath(logs, "p"), 0); err != nil {
		t.Fatal(err)
	}
	g.until("output after room was made", func() bool {
		fmt.Fprintln(f, "room")
		return strings.Contains(g.text("p"), "room")
	})
}

func TestFollow(t *testing.T) {
	g := newRig(t, "")
	if err := g.r.Open("p", manifest.Output{Size: 2000, Keep: 50}); err != nil {
		t.Fatal(err)
	}
	f := g.writer("p")
	for i := range 10 {
		fmt.Fprintf(f, "old %d\n", i)
	}
	g.until("the old lines", func() bool { return strings.Contains(g.text("p"), "old 9\n") })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	lines := make(chan string, 4096)
	done := make(chan error, 1)
	go func() {
		done <- Follow(ctx, g.logs, "p", Place{Lines: 2}, func(l, _ string) error {
			lines <- l
			return nil
		})
	}()
	next := func(want string) {
		t.Helper()
		select {
		case l := <-lines:
			if l != want {
				t.Fatalf("%q and not %q", l, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%q did not come", want)
		}
	}
	next("old 8")
	next("old 9")
	for i := range 1000 { // over about ten rotations
		fmt.Fprintf(f, "new line %d\n", i)
	}
	for i := range 1000 {
		next(fmt.Sprintf("new line %d", i))
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	wrong := errors.New("enough")
	if err := Follow(context.Background(), g.logs, "p", Place{Lines: 1}, func(string, string) error { return wrong }); !errors.Is(err, wrong) {
		t.Errorf("a reader that has enough: %v", err)
	}
}

// Who goes on after the place that was told last is told each line once, however
// often it begins anew, over rotations.
func TestFollowAfter(t *testing.T) {
	g := newRig(t, "")
	if err := g.r.Open("p", manifest.Output{Size: 2000, Keep: 200}); err != nil {
		t.Fatal(err)
	}
	f := g.writer("p")
	go func() {
		for i := range 1000 {
			fmt.Fprintf(f, "line %d\n", i)
		}
	}()
	enough := errors.New("enough")
	place, told := "", 0
	for round := 1; told < 1000; round++ {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		took := 0
		err := Follow(ctx, g.logs, "p", Place{Lines: 5000, After: place}, func(line, at string) error {
			if want := fmt.Sprintf("line %d", told); line != want {
				t.Fatalf("round %d: %q and not %q, after %s", round, line, want, place)
			}
			place = at
			if told, took = told+1, took+1; took > round%7*3 || told == 1000 {
				return enough
			}
			return nil
		})
		cancel()
		if !errors.Is(err, enough) {
			t.Fatalf("round %d ended at line %d: %v", round, told, err)
		}
	}
	err := Follow(context.Background(), g.logs, "p", Place{After: "here"}, func(string, string) error { return enough })
	if err == nil || !strings.Contains(err.Error(), `"here" is no place in it`) {
		t.Error(err)
	}
	// A file that is gone: the oldest that is there goes on.
	err = Follow(context.Background(), g.logs, "p", Place{After: "1:0"}, func(line, _ string) error {
		if line != "line 0" {
			t.Errorf("began with %q", line)
		}
		return enough
	})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
}

// Whatever instant of a rotation the files are looked at, none is overlooked; and a
// file that somebody removed from the middle hides only what is older.
func TestRotationUnderWay(t *testing.T) {
	dir := t.TempDir()
	path := LogPath(dir, "p")
	name := func(i int) string { return numbered(path, i) }
	write := func(n int) error { return os.WriteFile(name(0), fmt.Appendf(nil, "line %d\n", n), 0o600) }
	if err := write(1); err != nil {
		t.Fatal(err)
	}
	const rotations = 60
	looks, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for n := 1; n <= rotations; n++ {
			<-looks // and at the same time the files are shifted
			for i := n - 1; i >= 0; i-- {
				if err := os.Rename(name(i), name(i+1)); err != nil {
					ended <- err
					return
				}
			}
			if err := write(n + 1); err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	for n := 1; n <= rotations; n++ {
		select {
		case looks <- struct{}{}:
		case err := <-ended:
			t.Fatal(err)
		}
		got, err := Tail(dir, "p", 1000)
		if err != nil || len(got) < n-1 { // the newest may be in the making
			t.Fatalf("after %d: %q, %v", n, got, err)
		}
		for i, line := range got {
			if line != fmt.Sprintf("line %d", i+1) {
				t.Fatalf("after %d, %d: %q", n, i, got)
			}
		}
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(name(0)), os.Remove(name(3))); err != nil {
		t.Fatal(err)
	}
	got, err := Tail(dir, "p", 1000)
	if want := []string{"line 59", "line 60"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

// No death of a reader is a SIGPIPE or an error to a program.
func TestReaderDies(t *testing.T) {
	g := newRig(t, "")
	if err := g.r.Open("p", manifest.Output{}); err != nil {
		t.Fatal(err)
	}
	f := g.writer("p")
	r2, err := New(Config{RunDir: g.dir, LogDir: g.logs, Log: slog.Default()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r2.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if err := r2.Open("p", manifest.Output{}); err == nil {
		t.Error("an ended reader took a pipe")
	}
	if _, err := f.WriteString("still\n"); err != nil {
		t.Error(err)
	}
	g.until("the text", func() bool { return g.text("p") == "still\n" })
}

// TestCloseDuringFlood: a program that was left behind and writes all the time
// does not keep the reader with it.
func TestCloseDuringFlood(t *testing.T) {
	g := newRig(t, "")
	for _, p := range []ha.Process{"flood", "p"} {
		if err := g.r.Open(p, manifest.Output{Size: 1 << 20, Keep: 1}); err != nil {
			t.Fatal(err)
		}
	}
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for range 4 {
		f := g.writer("flood")
		if err := unix.SetNonblock(int(f.Fd()), true); err != nil {
			t.Fatal(err)
		}
		fd := int(f.Fd())
		line := bytes.Repeat([]byte("x"), 4096)
		writers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = unix.Write(fd, line)
				}
			}
		})
	}
	defer writers.Wait()
	defer close(stop)
	f := g.writer("p")
	g.r.Close("flood")
	fmt.Fprintln(f, "heard")
	g.until("the others are heard", func() bool { return strings.Contains(g.text("p"), "heard") })
}
