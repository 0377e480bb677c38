package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"gemel/internal/clock"
	"gemel/internal/ha"
)

// idJump is added to the ids after records may have been lost: what they gave
// out is not given out again. It is far more than a second's worth.
const idJump = 1000

// maxRepairs bounds what is told about a journal full of damage.
const maxRepairs = 20

// Options say where a journal is and how large it may grow.
type Options struct {
	Dir     string // made if it is not there
	Limit   int64  // bytes in all; default 256 MiB
	Segment int64  // bytes of one file beside its base record; default 2 MiB: a new monitor reads one
	Log     *slog.Logger
	// Boot is the present boot id; empty: the kernel's.
	Boot string
	// Now tells the time for records that are given none; nil: the machine's.
	Now func() (ha.Instant, time.Time)
	// Trouble, if set, is told when the journal cannot be written any more, and
	// with nil when it can again. It must not block or call the journal.
	Trouble func(error)

	disk disk
}

func (o *Options) defaults() {
	if o.Limit <= 0 {
		o.Limit = 256 << 20
	}
	if o.Segment <= 0 {
		o.Segment = 2 << 20
	}
	o.Segment = min(o.Segment, o.Limit/4)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = func() (ha.Instant, time.Time) { return clock.Now(), time.Now() }
	}
	if o.disk == nil {
		o.disk = realDisk{}
	}
}

// Open takes the journal of a directory for writing, repairs it and returns what
// it remembers. It fails if another process writes it, if it cannot be read, or
// if a newer version wrote it; a disk that only refuses writes is no reason to
// fail: see Trouble.
func Open(o Options) (*Journal, Past, error) {
	asked := o.Segment
	o.defaults()
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, Past{}, fmt.Errorf("making the journal's directory: %w", err)
	}
	if o.Boot == "" {
		id, err := clock.BootID()
		if err != nil {
			return nil, Past{}, fmt.Errorf("reading the boot id: %w", err)
		}
		o.Boot = id
	}
	l, err := lock(o.Dir)
	if err != nil {
		return nil, Past{}, err
	}
	h, err := recall(o.Dir)
	if err != nil {
		l.Close()
		return nil, Past{}, err
	}
	j := &Journal{o: o, asked: asked, lock: l, wake: make(chan struct{}, 1), mem: h.mem, seq: h.seq}
	if h.jump(o.Boot) {
		j.mem.nextStart += idJump
		j.mem.nextEvent += idJump
	}
	p := j.mem.past()
	p.Seq, p.Empty, p.Repairs = h.seq, h.empty, h.repairs
	for _, r := range h.repairs {
		o.Log.Warn("journal repaired", "what", r)
	}
	j.resume(h)
	return j, p, nil
}

// history is what reading the newest segments gave.
type history struct {
	mem     *memory
	seq     uint64 // highest number seen
	empty   bool
	repairs []string
	last    segment
	good    int64 // of last: bytes that hold whole records; 0: not to be written on
}

// jump reports whether ids may have been given out that no record tells of.
func (h *history) jump(boot string) bool {
	if h.empty {
		return false
	}
	return len(h.repairs) > 0 || h.mem.boot != "" && h.mem.boot != boot && !h.mem.ended
}

func (h *history) repair(format string, args ...any) {
	if len(h.repairs) == maxRepairs {
		h.repairs[maxRepairs-1] = "and more"
		return
	}
	h.repairs = append(h.repairs, fmt.Sprintf(format, args...))
}

// recall reads the newest segment that has its base record, and those after it.
func recall(dir string) (*history, error) {
	h := &history{mem: newMemory()}
	list, odd, err := segments(dir)
	if err != nil {
		return nil, err
	}
	for _, s := range odd {
		h.repair("%s: left alone", s)
	}
	h.empty = len(list) == 0
	from := 0
	for i := len(list) - 1; i >= 0; i-- {
		whole, err := hasBase(list[i])
		if err != nil {
			return nil, err
		}
		if whole {
			from = i
			break
		}
	}
	for i, s := range list[from:] {
		if s.size == 0 && i > 0 && from+i == len(list)-1 {
			// A writer died between making it and writing to it: nothing was in it.
			h.last, h.good, h.seq = s, 0, max(h.seq, s.first)
			continue
		}
		if err := h.read(s); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// hasBase reports whether a segment begins with a whole base record.
func hasBase(s segment) (bool, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return false, fmt.Errorf("reading the journal: %w", err)
	}
	defer f.Close()
	sc := newScanner(f)
	if errors.Is(sc.header, errNewer) {
		return false, fmt.Errorf("%s: %w; use that version, or give this one another --data-dir", s.path, sc.header)
	}
	fr, ok := sc.next()
	return ok && decode(fr.seq, fr.payload).Kind == KindBase, nil
}

func (h *history) read(s segment) error {
	f, err := os.Open(s.path)
	if err != nil {
		return fmt.Errorf("reading the journal: %w", err)
	}
	defer f.Close()
	name := filepath.Base(s.path)
	h.last, h.good = s, headerSize
	h.seq = max(h.seq, s.first)
	sc := newScanner(f)
	damaged := sc.header != nil
	if damaged {
		h.repair("%s: %v", name, sc.header)
	}
	base := uint64(0)
	for {
		fr, ok := sc.next()
		if !ok {
			break
		}
		if fr.skipped > 0 {
			damaged = true
			h.repair("%s: %d damaged bytes before record %d were skipped", name, fr.skipped, fr.seq)
		}
		h.good = fr.end
		h.seq = max(h.seq, fr.seq)
		if fr.seq < base {
			continue // written again after trouble: the base knows it
		}
		isBase, note := h.mem.recall(fr.seq, fr.payload)
		if note != "" {
			h.repair("record %d: %s", fr.seq, note)
		}
		if isBase {
			base = fr.seq
		}
	}
	if sc.skipped > 0 {
		h.repair("%s: %d bytes of a torn record at the end were cut off", name, sc.skipped)
	}
	if sc.err != nil {
		damaged = true
		h.repair("%s: %v", name, sc.err)
	}
	if base == 0 && !damaged && sc.skipped == 0 {
		h.repair("%s: holds no state", name)
	}
	if damaged || base == 0 {
		h.good = 0 // not written on: a segment has to restore the state by itself
	}
	return nil
}

// resume goes on in the last segment, or begins a new one.
func (j *Journal) resume(h *history) {
	list, _, err := segments(j.o.Dir)
	if err != nil {
		j.o.Log.Warn("the size bound of the journal cannot be kept", "error", err)
	}
	j.old = list
	if h.good > 0 && h.good < j.o.Segment && len(list) > 0 {
		f, err := reopen(j.o.disk, h)
		if err == nil {
			j.cur = writing{file: f, path: h.last.path, first: h.last.first, off: h.good, fresh: true}
			j.old = list[:len(list)-1]
			return
		}
		j.o.Log.Warn("the last segment of the journal cannot be written on", "path", h.last.path, "error", err)
	}
	if err := j.begin(j.o.Now()); err != nil {
		at, _ := j.o.Now()
		j.health.bad(&j.o, err, at)
	}
}

func reopen(d disk, h *history) (file, error) {
	f, err := d.Reopen(h.last.path)
	if err != nil {
		return nil, err
	}
	if h.last.size != h.good {
		if err := f.Truncate(h.good); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return f, nil
}
