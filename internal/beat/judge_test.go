package beat

import (
	"fmt"
	"math/rand"
	"os"
	"testing"
	"time"

	"gemel/internal/ha"
)

// still is a watcher that does not run: the test is its clock and its loop.
type still struct {
	*bench
	t0 ha.Instant
}

func atRest(t *testing.T) *still {
	b := quiet(t)
	s := &still{b, b.Watcher.now()}
	b.Watcher.now = func() ha.Instant { return s.t0 }
	return s
}

// pass lets time go by in steps of 10 ms, and returns what was told.
func (s *still) pass(d time.Duration) []ha.Missed {
	var all []ha.Missed
	for end := s.t0.Add(d); s.t0 < end; {
		s.t0 = s.t0.Add(10 * time.Millisecond)
		all = append(all, s.look()...)
	}
	return all
}

// look is one turn of the loop.
func (s *still) look() []ha.Missed {
	var all []ha.Missed
	for len(s.due) > 0 && s.due[0].due <= s.t0 {
		s.judge(s.due[0], s.t0)
	}
	for _, in := range s.said {
		if m, ok := in.(ha.Missed); ok {
			all = append(all, m)
		}
	}
	s.said = nil
	return all
}

func (s *still) poke(i int, state, start uint32, count uint64, name string) {
	poke(s.t, PagePath(s.dir, "p"), i, mark{state, start, count, name})
}

// A program that never beats is silent from From on, and told once.
func TestSilentFromTheStart(t *testing.T) {
	s := atRest(t)
	s.open("p", true, true)
	s.Began("p", 7, os.Getpid())
	s.Watch(ha.Watch{Process: "p", Start: 7, From: s.t0.Add(5 * time.Second), Within: 4 * time.Second})
	if got := s.pass(8990 * time.Millisecond); got != nil {
		t.Fatalf("told too early: %+v", got)
	}
	got := s.pass(300 * time.Millisecond)
	if len(got) != 1 || got[0].Process != "p" || got[0].Start != 7 || got[0].Missing != 1 || got[0].Thread != "" {
		t.Fatalf("told %+v", got)
	}
	if got := s.pass(20 * time.Second); got != nil {
		t.Fatalf("told again: %+v", got)
	}
	if s.due.Len() != 0 {
		t.Error("it is still looked at")
	}
	s.Watch(ha.Watch{Process: "p", Start: 7, From: s.t0, Within: 4 * time.Second})
	if got := s.pass(5 * time.Second); len(got) != 1 {
		t.Errorf("a new watch told %+v", got)
	}
	s.Watch(ha.Watch{Process: "p", Start: 7, From: s.t0, Within: 4 * time.Second})
	s.Watch(ha.Watch{Process: "p", Start: 7})
	if got := s.pass(20 * time.Second); got != nil {
		t.Errorf("told without a watch: %+v", got)
	}
}

// One hung thread among those that beat is named. Never before Within, and not
// much after.
func TestHungThread(t *testing.T) {
	for _, within := range []time.Duration{200 * time.Millisecond, 4 * time.Second, time.Minute} {
		t.Run(within.String(), func(t *testing.T) {
			s := atRest(t)
			s.open("p", false, true)
			s.Began("p", 7, os.Getpid())
			s.Watch(ha.Watch{Process: "p", Start: 7, From: s.t0, Within: within})
			beat := func(n uint64, of int) {
				for i := range of {
					s.poke(i, slotLive, 7, n, fmt.Sprint("worker-", i))
				}
			}
			step := ceilDown(within / 10)
			for n := range uint64(30) {
				beat(n, 3)
				if got := s.pass(step); got != nil {
					t.Fatalf("all beat, and told %+v", got)
				}
			}
			beat(30, 3) // the last of worker-2
			last := s.t0
			for n := uint64(31); ; n++ {
				beat(n, 2)
				got := s.pass(step)
				if got == nil {
					continue
				}
				if silent := s.t0.Sub(last); silent < within || silent > within+within/2+100*time.Millisecond {
					t.Errorf("told after %v", silent)
				}
				if got[0].Thread != "worker-2" || got[0].Missing != 1 || got[0].Last < last {
					t.Errorf("told %+v", got[0])
				}
				return
			}
		})
	}
}

func ceilDown(d time.Duration) time.Duration { return d.Truncate(10 * time.Millisecond) }

// A thread that is done, and slots of other starts, are not missed.
func TestDoneAndForeignSlots(t *testing.T) {
	s := atRest(t)
	s.open("p", false, true)
	s.poke(5, slotLive, 6, 99, "of the start before")
	s.Began("p", 7, os.Getpid())
	s.Watch(ha.Watch{Process: "p", Start: 7, From: s.t0, Within: time.Second})
	s.poke(0, slotLive, 7, 1, "main")
	s.poke(1, slotLive, 7, 1, "brief")
	s.pass(500 * time.Millisecond)
	if n := s.Threads("p"); n != 2 {
		t.Fatalf("%d threads", n)
	}
	s.poke(1, slotDone, 7, 1, "brief")
	for n := range uint64(20) {
		s.poke(0, slotLive, 7, n, "main")
		if got := s.pass(200 * time.Millisecond); got != nil {
			t.Fatalf("told %+v", got)
		}
	}
	if h := s.Heard("p"); len(h) != 1 || h[0].Name != "main" {
		t.Errorf("heard %+v", h)
	}
	// A new start: the same slot with its number counts, the old one does not.
	s.Began("p", 8, os.Getpid())
	if n := s.Threads("p"); n != 0 {
		t.Errorf("%d threads of the new start", n)
	}
	if got := s.pass(5 * time.Second); got != nil {
		t.Errorf("the watch of the old start told %+v", got)
	}
}

// The last thread that is done leaves a program without a sign of life: silent
// since then.
func TestAllDone(t *testing.T) {
	s := atRest(t)
	s.open("p", false, true)
	s.Began("p", 7, os.Getpid())
	s.Watch(ha.Watch{Process: "p", Start: 7, From: s.t0, Within: time.Second})
	s.poke(0, slotLive, 7, 1, "main")
	s.pass(800 * time.Millisecond)
	s.poke(0, slotDone, 7, 1, "main")
	if got := s.pass(900 * time.Millisecond); got != nil {
		t.Fatalf("told too early: %+v", got)
	}
	if got := s.pass(500 * time.Millisecond); len(got) != 1 {
		t.Fatalf("told %+v", got)
	}
}

// A stall of the watcher itself is granted to the watched: what was said in
// between is heard first, and what was not said gets the time again.
func TestOwnStall(t *testing.T) {
	s := atRest(t)
	s.open("p", true, true)
	s.Began("p", 7, os.Getpid())
	s.Watch(ha.Watch{Process: "p", Start: 7, From: s.t0, Within: time.Second})
	s.poke(0, slotLive, 7, 1, "beats")
	s.poke(1, slotLive, 7, 1, "hangs")
	s.pass(300 * time.Millisecond)

	s.poke(0, slotLive, 7, 2, "beats")
	s.t0 = s.t0.Add(time.Hour) // the machine was suspended
	if got := s.look(); got != nil {
		t.Fatalf("told at once after a stall: %+v", got)
	}
	n := uint64(2)
	for range 4 {
		n++
		s.poke(0, slotLive, 7, n, "beats")
		if got := s.pass(100 * time.Millisecond); got != nil {
			t.Fatalf("the hour was not granted: %+v", got)
		}
	}
	var got []ha.Missed
	for range 12 {
		n++
		s.poke(0, slotLive, 7, n, "beats")
		got = append(got, s.pass(100*time.Millisecond)...)
	}
	if len(got) != 1 || got[0].Thread != "hangs" || got[0].Missing != 1 {
		t.Fatalf("told %+v", got)
	}
}

// What waits in the socket is read before a program is called silent.
func TestUnreadNotification(t *testing.T) {
	s := atRest(t)
	s.open("p", true, false)
	s.Began("p", 7, os.Getpid())
	s.Watch(ha.Watch{Process: "p", Start: 7, From: s.t0, Within: time.Second})
	for range 5 {
		s.send("p", "WATCHDOG=1")
		if got := s.pass(900 * time.Millisecond); got != nil {
			t.Fatalf("told %+v", got)
		}
	}
	if got := s.pass(2 * time.Second); len(got) != 1 || got[0].Thread != "" || got[0].Last == 0 {
		t.Fatalf("told %+v", got)
	}
}

func TestTriggerAndExtend(t *testing.T) {
	s := atRest(t)
	s.open("p", true, false)
	s.Began("p", 7, os.Getpid())
	take := func(text string) {
		s.take(s.procs["p"], held{parse([]byte(text)), os.Getpid(), s.t0}, s.t0)
		s.schedule(s.procs["p"], s.t0)
	}
	take("WATCHDOG=trigger") // nobody watches
	s.Watch(ha.Watch{Process: "p", Start: 7, From: s.t0.Add(time.Second), Within: time.Second})
	take("EXTEND_TIMEOUT_USEC=10000000")
	if got := s.pass(10 * time.Second); got != nil {
		t.Fatalf("told although the time was extended: %+v", got)
	}
	take("WATCHDOG=1")
	if got := s.pass(900 * time.Millisecond); got != nil {
		t.Fatalf("told %+v", got)
	}
	take("WATCHDOG=trigger")
	if got := s.look(); len(got) != 1 || got[0].Thread != "WATCHDOG=trigger" {
		t.Fatalf("told %+v", got)
	}
	take("WATCHDOG=trigger")
	if got := s.pass(5 * time.Second); got != nil {
		t.Fatalf("told again: %+v", got)
	}
}

// What a program asks for is told at once; what it asks for again and again is told
// a few times a second, and nothing of it is lost.
func TestPleas(t *testing.T) {
	s := atRest(t)
	s.open("p", true, false)
	s.Began("p", 7, os.Getpid())
	take := func(text string) {
		s.take(s.procs["p"], held{parse([]byte(text)), os.Getpid(), s.t0}, s.t0)
		s.schedule(s.procs["p"], s.t0)
	}
	told := func() []ha.Input {
		in := s.said
		s.said = nil
		return in
	}
	want := func(in []ha.Input, d ...time.Duration) {
		t.Helper()
		if len(in) != len(d) {
			t.Fatalf("told %+v, want %v", in, d)
		}
		for i := range d {
			if in[i] != (ha.Busy{Process: "p", Start: 7, For: d[i]}) {
				t.Fatalf("told %+v, want %v", in, d)
			}
		}
	}
	for _, text := range []string{"EXTEND_TIMEOUT_USEC=0", "EXTEND_TIMEOUT_USEC=x", "EXTEND_TIMEOUT_USEC=-1", "X_GEMEL_START=6\nEXTEND_TIMEOUT_USEC=9000000"} {
		take(text)
		want(told())
	}
	take("EXTEND_TIMEOUT_USEC=30000000")
	want(told(), 30*time.Second)
	s.pass(pleaRest - 20*time.Millisecond)
	take("EXTEND_TIMEOUT_USEC=20000000")
	take("EXTEND_TIMEOUT_USEC=10000000")
	want(told())
	for s.t0 < s.procs["p"].due { // what waits is told without another datagram
		s.t0 = s.t0.Add(10 * time.Millisecond)
	}
	s.judge(s.procs["p"], s.t0)
	want(told(), 20*time.Second-20*time.Millisecond)
	if s.due.Len() != 0 {
		t.Error("nothing waits, and it is still looked at")
	}
	s.t0 = s.t0.Add(time.Minute)
	take("EXTEND_TIMEOUT_USEC=18446744073709551615")
	want(told(), time.Hour)
	s.t0 = s.t0.Add(time.Minute)
	n := 0
	for end := s.t0.Add(10 * time.Second); s.t0 < end; s.t0 = s.t0.Add(time.Millisecond) {
		take("EXTEND_TIMEOUT_USEC=1")
		for _, in := range told() {
			if n++; in.(ha.Busy).For != leastExtend {
				t.Fatalf("told %+v", in)
			}
		}
	}
	if n != 40 {
		t.Errorf("told %d times in 10 s, want 40", n)
	}
	s.Began("p", 8, os.Getpid())
	if s.procs["p"].plea.until != 0 {
		t.Error("a new start asks for what the one before did")
	}
}

// A watchdog command's success is a beat.
func TestPulse(t *testing.T) {
	s := atRest(t)
	s.Began("p", 7, os.Getpid())
	s.Watch(ha.Watch{Process: "p", Start: 7, From: s.t0, Within: time.Second})
	for range 5 {
		s.Pulse("p")
		if got := s.pass(900 * time.Millisecond); got != nil {
			t.Fatalf("told %+v", got)
		}
	}
	if got := s.pass(2 * time.Second); len(got) != 1 {
		t.Fatalf("told %+v", got)
	}
}

// Whatever a program writes into its page, the reader stays well, and the next
// start finds a page that it can use.
func TestSpoiltPage(t *testing.T) {
	for name, spoil := range map[string]func(f *os.File) error{
		"empty":  func(f *os.File) error { return f.Truncate(0) },
		"short":  func(f *os.File) error { return f.Truncate(100) },
		"long":   func(f *os.File) error { return f.Truncate(1 << 40) },
		"zeroed": func(f *os.File) error { _, err := f.WriteAt(make([]byte, 8192), 0); return err },
		"counts": func(f *os.File) error {
			_, err := f.WriteAt([]byte("\xff\xff\xff\xff\xff\xff\xff\xff"), 16)
			return err
		},
		"version": func(f *os.File) error { _, err := f.WriteAt([]byte{9}, 8); return err },
	} {
		t.Run(name, func(t *testing.T) {
			s := atRest(t)
			s.open("p", false, true)
			s.Began("p", 7, os.Getpid())
			s.Watch(ha.Watch{Process: "p", Start: 7, From: s.t0, Within: time.Second})
			s.poke(80, slotLive, 7, 1, "one")
			s.pass(500 * time.Millisecond)
			f, err := os.OpenFile(PagePath(s.dir, "p"), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := spoil(f); err != nil {
				t.Fatal(err)
			}
			if got := s.pass(3 * time.Second); len(got) != 1 {
				t.Errorf("told %+v, want one silence", got)
			}
			s.Began("p", 8, os.Getpid())
			for range growthEvery {
				s.Heard("p")
			}
			var h [headerSize]byte
			if _, err := f.ReadAt(h[:], 0); err != nil || !goodHeader(h[:]) {
				t.Errorf("header %x, %v", h, err)
			}
			if st, err := f.Stat(); err != nil || st.Size() != pageSize {
				t.Errorf("size %d, %v", st.Size(), err)
			}
		})
	}
}

// What is at the path and is no page is not followed.
func TestPathIsALink(t *testing.T) {
	b := quiet(t)
	if err := os.MkdirAll(b.dir+"/beats", 0o700); err != nil {
		t.Fatal(err)
	}
	precious := b.dir + "/precious"
	if err := os.WriteFile(precious, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(precious, PagePath(b.dir, "p")); err != nil {
		t.Fatal(err)
	}
	b.open("p", false, true)
	if st, err := os.Stat(precious); err != nil || st.Size() != 1 {
		t.Errorf("the target of the link: %v, %v", st, err)
	}
	if st, err := os.Lstat(PagePath(b.dir, "p")); err != nil || !st.Mode().IsRegular() {
		t.Errorf("the page: %v, %v", st, err)
	}
}

func FuzzPage(f *testing.F) {
	f.Add([]byte{}, uint32(7))
	f.Add([]byte(pageMagic), uint32(0))
	f.Add(make([]byte, 5000), uint32(1))
	f.Fuzz(func(t *testing.T, data []byte, start uint32) {
		file, err := os.CreateTemp(t.TempDir(), "page")
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.WriteAt(data, 0); err != nil {
			t.Fatal(err)
		}
		p := &page{f: file, fd: int(file.Fd())}
		var buf []byte
		for now := ha.Instant(1); now < 4; now++ {
			slots, ok := p.load(&buf)
			p.scan(slots, start, now)
			if p.live > maxSlots || len(p.seen) > maxSlots {
				t.Fatalf("%d live of %d", p.live, len(p.seen))
			}
			for i := range p.seen {
				name, tid := slotName(slots, i)
				if name == "" || len(name) > 48 || tid < 0 {
					t.Fatalf("name %q, tid %d", name, tid)
				}
			}
			if !ok {
				if _, err := p.repair(); err != nil {
					t.Fatal(err)
				}
				if _, ok := p.load(&buf); !ok {
					t.Fatal("not repaired")
				}
			}
		}
	})
}

func FuzzNotify(f *testing.F) {
	f.Add([]byte("READY=1\nSTATUS=well\nWATCHDOG=1\nMAINPID=1\nEXTEND_TIMEOUT_USEC=5\nX_GEMEL_START=3"))
	f.Add([]byte("WATCHDOG=trigger\n\n=\n\x00\xff"))
	f.Add([]byte("STATUS=\xff\xfe\x1b[2J"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := parse(b)
		if len(m.status) > maxStatus || m.main < 0 || m.extend < 0 || m.extend > maxExtend {
			t.Fatalf("%+v", m)
		}
		for _, r := range m.status {
			if r < ' ' || r == 0x7f {
				t.Fatalf("status %q", m.status)
			}
		}
	})
}

// BenchmarkScan is one look at the pages of 10,000 threads in 10 programs.
func BenchmarkScan(b *testing.B) { benchScan(b, 10, 1000) }

// BenchmarkScanMany is one look at the pages of 1,000 programs of one thread.
func BenchmarkScanMany(b *testing.B) { benchScan(b, 1000, 1) }

func benchScan(b *testing.B, programs, threads int) {
	dir := b.TempDir()
	var pages []*page
	for i := range programs {
		p, err := openPage(fmt.Sprintf("%s/%d", dir, i), -1, -1)
		if err != nil {
			b.Fatal(err)
		}
		raw := make([]byte, 64+threads*slotSize)
		for j := range threads {
			s := raw[64+j*slotSize:]
			s[0], s[8], s[12] = byte(rand.Int()), slotLive, 7
		}
		if _, err := p.f.WriteAt(raw[64:], 64); err != nil {
			b.Fatal(err)
		}
		if _, err := p.f.WriteAt([]byte{byte(threads), byte(threads >> 8)}, 20); err != nil {
			b.Fatal(err)
		}
		pages = append(pages, p)
	}
	var buf []byte
	for i := 0; b.Loop(); i++ {
		for _, p := range pages {
			slots, ok := p.load(&buf)
			if !ok {
				b.Fatal("page not good")
			}
			p.scan(slots, 7, ha.Instant(i))
			if p.live != threads {
				b.Fatalf("%d threads of %d", p.live, threads)
			}
		}
	}
}
