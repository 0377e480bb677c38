package gemel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// newPage makes a page as Gemel makes it.
func newPage(t testing.TB) string {
	t.Helper()
	b := make([]byte, pageSize)
	copy(b, pageMagic)
	binary.LittleEndian.PutUint32(b[8:], pageVersion)
	binary.LittleEndian.PutUint32(b[12:], slotSize)
	binary.LittleEndian.PutUint32(b[16:], maxSlots)
	path := filepath.Join(t.TempDir(), "page")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func mapped(t testing.TB, path string, start uint32) *page {
	t.Helper()
	p, err := openPage(path, start)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The layout is a promise to programs in other languages.
func TestLayout(t *testing.T) {
	var h header
	var s slot
	for what, got := range map[string][2]uintptr{
		"header":    {unsafe.Sizeof(h), 64},
		"version":   {unsafe.Offsetof(h.version), 8},
		"slot size": {unsafe.Offsetof(h.slotSize), 12},
		"slots":     {unsafe.Offsetof(h.slots), 16},
		"used":      {unsafe.Offsetof(h.used), 20},
		"slot":      {unsafe.Sizeof(s), 64},
		"counter":   {unsafe.Offsetof(s.counter), 0},
		"owner":     {unsafe.Offsetof(s.owner), 8},
		"tid":       {unsafe.Offsetof(s.tid), 16},
		"name":      {unsafe.Offsetof(s.name), 24},
	} {
		if got[0] != got[1] {
			t.Errorf("%s at %d, want %d", what, got[0], got[1])
		}
	}
}

func TestClaim(t *testing.T) {
	path := newPage(t)
	p := mapped(t, path, 7)
	a, b := p.thread("a"), p.thread(strings.Repeat("ä", 20))
	a.Beat()
	a.Beat()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := binary.LittleEndian.Uint32(raw[20:]); n != 2 {
		t.Errorf("used %d", n)
	}
	s := raw[headerSize:]
	if n := binary.LittleEndian.Uint64(s); n != 3 {
		t.Errorf("counter %d after a claim and two beats", n)
	}
	if st, of := binary.LittleEndian.Uint32(s[8:]), binary.LittleEndian.Uint32(s[12:]); st != slotLive || of != 7 {
		t.Errorf("state %d of start %d", st, of)
	}
	if name := string(s[slotSize+24 : slotSize+56]); name != strings.Repeat("ä", 16) {
		t.Errorf("name %q", name)
	}
	if !a.Watched() || !b.Watched() {
		t.Error("not watched")
	}
	a.Done()
	a.Done()
	a.Beat()
	if a.Watched() {
		t.Error("watched after Done")
	}
	if c := p.thread("c"); c.slot.Load() != &p.slots[0] {
		t.Error("the place was not used again")
	}
}

// What a former start left behind is used again, and no slot is given twice.
func TestClaimAll(t *testing.T) {
	path := newPage(t)
	old := mapped(t, path, 7)
	for range maxSlots {
		if !old.thread("old").Watched() {
			t.Fatal("no place")
		}
	}
	if old.thread("one too many").Watched() {
		t.Error("a full page gave a place")
	}
	one, two := mapped(t, path, 8), mapped(t, path, 8) // a program and its child
	var mu sync.Mutex
	var all sync.WaitGroup
	places := map[uintptr]bool{}
	for _, p := range []*page{one, two} {
		base := uintptr(unsafe.Pointer(&p.slots[0]))
		for range 8 {
			all.Go(func() {
				for range maxSlots / 16 {
					b := p.thread("new")
					at := uintptr(unsafe.Pointer(b.slot.Load())) - base
					mu.Lock()
					if places[at] {
						t.Errorf("the place at %d was given twice", at)
					}
					places[at] = true
					mu.Unlock()
				}
			})
		}
	}
	all.Wait()
	if len(places) != maxSlots {
		t.Errorf("%d places", len(places))
	}
}

// Without Gemel everything is quiet.
func TestNotUnderGemel(t *testing.T) {
	for _, b := range []*Beat{nil, {}, (*page)(nil).thread("x")} {
		b.Beat()
		if b.Watched() {
			t.Error("watched")
		}
		b.Done()
	}
	t.Setenv("NOTIFY_SOCKET", "")
	for _, err := range []error{Ready(), Stopping(), Status("x")} {
		if err != nil {
			t.Error(err)
		}
	}
	t.Setenv("GEMEL_START", "nonsense")
	t.Setenv("WATCHDOG_USEC", "-5")
	if Start() != 0 || Silence() != 0 {
		t.Errorf("start %d, silence %v", Start(), Silence())
	}
	t.Setenv("WATCHDOG_USEC", "1500000")
	if Silence() != 1500*time.Millisecond {
		t.Errorf("silence %v", Silence())
	}
}

func TestBadPages(t *testing.T) {
	dir := t.TempDir()
	short := filepath.Join(dir, "short")
	if err := os.WriteFile(short, []byte(pageMagic), 0o600); err != nil {
		t.Fatal(err)
	}
	zero := filepath.Join(dir, "zero")
	if err := os.WriteFile(zero, make([]byte, pageSize), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		short: "not a file of", zero: "not of version", dir: "directory", dir + "/none": "no such file", "/dev/null": "not a file of",
	} {
		if _, err := openPage(path, 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

func TestNotify(t *testing.T) {
	for name, addr := range map[string]string{
		"path":     filepath.Join(t.TempDir(), "s"),
		"abstract": fmt.Sprintf("@gemel-test-%d", os.Getpid()),
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: addr, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			t.Setenv("NOTIFY_SOCKET", addr)
			t.Setenv("GEMEL_START", "7")
			if err := Status("two\nlines " + strings.Repeat("x", 5000)); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 8192)
			n, err := c.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(b[:n]); !strings.HasPrefix(got, "STATUS=two lines xx") ||
				!strings.HasSuffix(got, "x\nX_GEMEL_START=7") || len(got) > 600 {
				t.Errorf("sent %q", got)
			}
		})
	}
	t.Run("nobody", func(t *testing.T) {
		t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "s"))
		if err := Ready(); !errors.Is(err, syscall.ENOENT) {
			t.Error(err)
		}
	})
	t.Run("vsock", func(t *testing.T) {
		t.Setenv("NOTIFY_SOCKET", "vsock:2:1234")
		if err := Ready(); err == nil || !strings.Contains(err.Error(), "abstract") {
			t.Error(err)
		}
	})
}

func BenchmarkBeat(b *testing.B) {
	beat := mapped(b, newPage(b), 7).thread("bench")
	for b.Loop() {
		beat.Beat()
	}
}

func BenchmarkBeatAllCores(b *testing.B) {
	p := mapped(b, newPage(b), 7)
	b.RunParallel(func(pb *testing.PB) {
		beat := p.thread("bench")
		for pb.Next() {
			beat.Beat()
		}
	})
}
