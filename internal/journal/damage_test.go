package journal

import (
	"bytes"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"gemel/internal/ha"
)

// small writes a journal of one segment with n steps and returns its bytes and
// what is in it.
func small(t testing.TB, n int) (name string, b []byte, steps []Record) {
	t.Helper()
	dir := t.TempDir()
	j, _ := open(t, Options{Dir: dir})
	for i := 1; i <= n; i++ {
		if err := j.Step(step(i)); err != nil {
			t.Fatal(err)
		}
	}
	steps, _ = readSteps(t, dir, 0)
	list, _, err := segments(dir)
	if err != nil || len(list) != 1 || len(steps) != n {
		t.Fatalf("%v, %d segments, %d steps", err, len(list), len(steps))
	}
	b, err = os.ReadFile(list[0].path)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Base(list[0].path), b, steps
}

// subset reports whether all of got are in want, in order and unchanged.
func subset(got, want []Record) bool {
	for _, g := range got {
		for len(want) > 0 && want[0].Seq < g.Seq {
			want = want[1:]
		}
		if len(want) == 0 {
			return false
		}
		w := want[0]
		g.Boot, w.Boot = "", ""
		if !reflect.DeepEqual(g, w) {
			return false
		}
	}
	return true
}

func TestTornAtEveryByte(t *testing.T) {
	name, b, steps := small(t, 3)
	ends := map[int]bool{len(b): true}
	sc := newScanner(bytes.NewReader(b))
	for f, ok := sc.next(); ok; f, ok = sc.next() {
		ends[int(f.end)] = true
	}
	stride := 1
	if testing.Short() {
		stride = 3
	}
	dir := t.TempDir()
	for cut := 0; cut < len(b); cut += stride {
		clearDir(t, dir)
		if err := os.WriteFile(filepath.Join(dir, name), b[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		got, _ := readSteps(t, dir, 0)
		if !subset(got, steps) {
			t.Fatalf("cut at %d: read %+v", cut, got)
		}
		j, p, err := Open(Options{Dir: dir, Boot: "boot-1", disk: &badDisk{lazy: true}})
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if !ends[cut] && len(p.Repairs) == 0 {
			t.Fatalf("cut at %d: not told", cut)
		}
		if len(got) > 0 && p.Kept["process/p"] == "" || int(p.NextStart) <= len(got) {
			t.Fatalf("cut at %d: %+v", cut, p)
		}
		if err := j.Step(step(77)); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		after, _ := readSteps(t, dir, 0)
		if len(after) != len(got)+1 || after[len(got)].Input.(ha.Exited).Start != 77 {
			t.Fatalf("cut at %d: %d steps, then %d", cut, len(got), len(after))
		}
	}
}

func clearDir(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEachBitFlipped(t *testing.T) {
	name, b, steps := small(t, 2)
	stride := 1
	if testing.Short() {
		stride = 11
	}
	dir := t.TempDir()
	path := filepath.Join(dir, name)
	for bit := 0; bit < len(b)*8; bit += stride {
		c := bytes.Clone(b)
		c[bit/8] ^= 1 << (bit % 8)
		if err := os.WriteFile(path, c, 0o600); err != nil {
			t.Fatal(err)
		}
		got, _ := readSteps(t, dir, 0)
		if !subset(got, steps) {
			t.Fatalf("bit %d: read %+v", bit, got)
		}
		h, err := recall(dir)
		if err != nil {
			t.Fatalf("bit %d: %v", bit, err)
		}
		if len(h.repairs) == 0 {
			t.Fatalf("bit %d: not told", bit)
		}
	}
}

func TestDamagedMiddleIsSkippedAndANewSegmentBegun(t *testing.T) {
	name, b, steps := small(t, 5)
	dir := t.TempDir()
	at := bytes.Index(b, []byte(`{"n":2}`))
	if at < 0 {
		at = bytes.Index(b, []byte(`\"n\":2`))
	}
	b[at] ^= 0x40
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
	j, p := open(t, Options{Dir: dir})
	if len(p.Repairs) != 1 || !strings.Contains(p.Repairs[0], "damaged bytes before record 4") || p.Kept["process/p"] != `{"n":5}` {
		t.Fatalf("%+v", p)
	}
	if p.NextStart < 6+idJump {
		t.Fatalf("start ids may be given out twice: next is %d", p.NextStart)
	}
	if err := j.Step(step(6)); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	got, gaps := readSteps(t, dir, 0)
	if len(got) != 5 || !subset(got[:4], steps) || len(gaps) != 2 {
		t.Fatalf("%d steps, gaps %q", len(got), gaps)
	}
	if _, p := open(t, Options{Dir: dir}); len(p.Repairs) != 0 {
		t.Fatalf("told again: %q", p.Repairs)
	}
}

func TestStrangeFiles(t *testing.T) {
	name, whole, _ := small(t, 2)
	newer := bytes.Clone(whole)
	copy(newer, segmentHeader(1))
	newer[8] = 9
	resum(newer)
	for _, c := range []struct {
		what string
		make func(dir string) error
		want string // in an error, or with + in front in the repairs
	}{
		{"zero-filled", func(d string) error { return os.WriteFile(filepath.Join(d, name), make([]byte, 8192), 0o600) }, "+damaged segment header"},
		{"empty file", func(d string) error { return os.WriteFile(filepath.Join(d, name), nil, 0o600) }, "+damaged segment header"},
		{"directory in place of a file", func(d string) error { return os.Mkdir(filepath.Join(d, name), 0o700) }, "+not a regular file"},
		{"zeros after the end", func(d string) error {
			return os.WriteFile(filepath.Join(d, name), append(bytes.Clone(whole), make([]byte, 5000)...), 0o600)
		}, "+5000 bytes of a torn record"},
		{"newer version", func(d string) error { return os.WriteFile(filepath.Join(d, name), newer, 0o600) }, "newer version"},
		{"foreign file", func(d string) error { return os.WriteFile(filepath.Join(d, "README"), []byte("x"), 0o600) }, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := t.TempDir()
			if err := c.make(dir); err != nil {
				t.Fatal(err)
			}
			j, p, err := Open(Options{Dir: dir, Boot: "boot-1"})
			if want, repair := strings.CutPrefix(c.want, "+"); repair {
				if err != nil || len(p.Repairs) == 0 || !strings.Contains(strings.Join(p.Repairs, "\n"), want) {
					t.Fatalf("%v, repairs %q", err, p.Repairs)
				}
			} else if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("error %v", err)
				}
				return
			} else if err != nil || len(p.Repairs) > 0 {
				t.Fatalf("%v, repairs %q", err, p.Repairs)
			}
			if err := j.Step(step(9)); err != nil {
				t.Fatal(err)
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			if steps, _ := readSteps(t, dir, 0); len(steps) == 0 {
				t.Fatal("nothing was written")
			}
		})
	}
}

// resum makes the sum of a segment's header right again.
func resum(b []byte) {
	copy(b[24:28], crcOf(b[:24]))
}

func TestNewerRecordsAreSkippedWithANote(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, Options{Dir: dir})
	j.mu.Lock()
	for _, p := range []string{
		`{"k":"step","t":1,"i":{"n":"from-the-future","b":{"x":1}},"a":[{"n":"keep","b":{"key":"a","value":"1","why":{"rule":"r","text":"t"}}},{"n":"fly"}]}`,
		`{"k":"prophecy","t":2}`, `[]`,
	} {
		if err := j.put([]byte(p), 1, time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	j.mu.Unlock()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	_, p := open(t, Options{Dir: dir})
	if p.Kept["a"] != "1" || len(p.Repairs) != 3 {
		t.Fatalf("%+v", p)
	}
	var notes []string
	if err := Read(dir, 0, func(r Record) bool {
		if r.Note != "" {
			notes = append(notes, r.Note)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	all := strings.Join(notes, "\n")
	for _, want := range []string{`unknown input "from-the-future"`, `unknown action "fly"`, `"prophecy"`, "cannot be read"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %s in %s", want, all)
		}
	}
}

func TestOneWriter(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, Options{Dir: dir})
	if _, _, err := Open(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another gemel") {
		t.Fatalf("second writer: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.Step(step(1)); err == nil {
		t.Fatal("written after Close")
	}
	j2, _ := open(t, Options{Dir: dir})
	if j2.Trouble() != nil {
		t.Fatal(j2.Trouble())
	}
}

func TestBootCrossing(t *testing.T) {
	dir := t.TempDir()
	life := func(boot string, clean bool) Past {
		j, p, err := Open(Options{Dir: dir, Boot: boot})
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Boot(Life{At: 1, Wall: time.Unix(1, 0), Boot: boot, First: p.NextStart}); err != nil {
			t.Fatal(err)
		}
		if clean {
			err = j.Close()
		} else {
			err = errors.Join(j.cur.Close(), j.lock.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	life("a", false)
	if p := life("a", false); p.NextStart != 1 || p.Boot != "a" {
		t.Fatalf("same boot, the page cache is there: next %d", p.NextStart)
	}
	if p := life("b", true); p.NextStart != 1+idJump || p.Boot != "a" {
		t.Fatalf("new boot after a crash: next %d", p.NextStart)
	}
	if p := life("c", false); p.NextStart != 1+idJump || p.Boot != "b" {
		t.Fatalf("new boot after an orderly end: next %d", p.NextStart)
	}
	var boots []string
	if err := Read(dir, 0, func(r Record) bool {
		if r.Kind == KindBoot {
			boots = append(boots, r.Boot)
		}
		return true
	}); err != nil || strings.Join(boots, "") != "aabc" {
		t.Fatalf("%v, %q", err, boots)
	}
}

func FuzzRead(f *testing.F) {
	name, b, _ := small(f, 3)
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add(segmentHeader(1))
	f.Add([]byte{})
	f.Add(append(bytes.Clone(b[:100]), b...))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
		last := uint64(0)
		if err := Read(dir, 0, func(r Record) bool {
			if r.Kind == KindStep && r.Seq <= last {
				t.Fatalf("record %d after %d", r.Seq, last)
			}
			if r.Kind == KindStep {
				last = r.Seq
			}
			return true
		}); err != nil {
			t.Fatal(err)
		}
		j, _, err := Open(Options{Dir: dir, Boot: "b", disk: &badDisk{lazy: true}})
		if errors.Is(err, errNewer) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Step(step(1)); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzPayload feeds the decoder with payloads whose sums are right: no record
// that a newer or a damaged writer made may bring a reader down.
func FuzzPayload(f *testing.F) {
	p, err := encodeStep(step(1), []ha.Instant{1, 2})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p)
	f.Add([]byte(`{"k":"base","b":{"kept":{"a":"b"},"alarms":[{"id":1}]}}`))
	f.Add([]byte(`{"k":"boot","l":{"boot":"x"}}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		m := newMemory()
		r := decode(1, p)
		if r.Base != nil {
			m.fromPast(r)
		}
		m.record(r)
		m.past()
	})
}

func crcOf(b []byte) []byte {
	s := crc32.Checksum(b, castagnoli)
	return []byte{byte(s), byte(s >> 8), byte(s >> 16), byte(s >> 24)}
}

// A writer that is killed between making a segment and writing to it has lost
// nothing: no gap is told, and no ids are left out.
func TestSegmentMadeAndNotWritten(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, Options{Dir: dir})
	for n := 1; n <= 3; n++ {
		if err := j.Step(step(n)); err != nil {
			t.Fatal(err)
		}
	}
	next := j.seq + 1
	if err := j.lock.Close(); err != nil { // as a kill does
		t.Fatal(err)
	}
	if err := os.WriteFile(segmentPath(dir, next), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	j, p := open(t, Options{Dir: dir, Boot: j.o.Boot})
	if len(p.Repairs) != 0 || p.NextStart != 5 {
		t.Fatalf("repairs %q, next start %d", p.Repairs, p.NextStart)
	}
	for n := 4; n <= 6; n++ {
		if err := j.Step(step(n)); err != nil {
			t.Fatal(err)
		}
	}
	steps, gaps := readSteps(t, dir, 0)
	if len(gaps) != 0 || !slices.Equal(numbers(steps), []int{1, 2, 3, 4, 5, 6}) {
		t.Fatalf("%v, gaps %q", numbers(steps), gaps)
	}
}
