package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"gemel/internal/ha"
)

// Read gives f the records from number from on, in order, until f returns
// false. It may be used while the journal is being written, and by another
// process: then it ends with the last whole record. Damage is told as a gap
// record, and is no error. A base record says what the records before it say;
// it is given so that a reader that missed some of them can go on, also when its
// number is below from. If only is given, steps whose JSON holds none of its
// strings are passed over, which is much quicker than to decode them.
func Read(dir string, from uint64, f func(Record) bool, only ...string) error {
	list, _, err := segments(dir)
	if err != nil {
		return err
	}
	for len(list) > 1 && list[1].first <= from {
		list = list[1:]
	}
	return readAll(list, reading{from: from, f: f, only: only})
}

// Events gives g the events with an id above after that were told at since or
// later, in order, until g returns false. Zero values leave nothing out. After a
// backward step of the wall clock only ids are to be trusted.
func Events(dir string, after uint64, since time.Time, g func(ha.Event) bool) error {
	list, _, err := segments(dir)
	if err != nil {
		return err
	}
	list, err = tail(list, after, since)
	if err != nil {
		return err
	}
	last := after
	return readAll(list, reading{f: func(r Record) bool {
		for _, a := range r.Actions {
			e, ok := a.(ha.Emit)
			if !ok || e.Event.ID <= last && e.Event.ID != 0 || e.Event.Wall.Before(since) {
				continue
			}
			last = max(last, e.Event.ID)
			if !g(e.Event) {
				return false
			}
		}
		return true
	}})
}

// tail leaves out the segments at the head whose events are all too old.
func tail(list []segment, after uint64, since time.Time) ([]segment, error) {
	for i := len(list) - 1; i > 0; i-- {
		b, ok, err := firstBase(list[i])
		if err != nil {
			return nil, err
		}
		if ok && (after > 0 && b.Base.NextEvent <= after+1 || !since.IsZero() && b.Wall.Before(since)) {
			return list[i:], nil
		}
	}
	return list, nil
}

func firstBase(s segment) (Record, bool, error) {
	f, err := os.Open(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return Record{}, false, nil
	}
	if err != nil {
		return Record{}, false, fmt.Errorf("reading the journal: %w", err)
	}
	defer f.Close()
	sc := newScanner(f)
	fr, ok := sc.next()
	if !ok {
		return Record{}, false, nil
	}
	r := decode(fr.seq, fr.payload)
	return r, r.Base != nil, nil
}

// maxBases bounds how many segments in a row may hold nothing but a base record
// before a gap is suspected where there is none.
const maxBases = 64

// A reading is one pass over segments.
type reading struct {
	from  uint64
	f     func(Record) bool
	only  []string
	last  uint64   // highest record seen that is no base
	bases []uint64 // base records above it
	boot  string
	stop  bool
}

func readAll(list []segment, rd reading) error {
	for i, s := range list {
		err := rd.segment(s, i == len(list)-1)
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted for the size bound; the jump of the numbers is told
		}
		if err != nil {
			return fmt.Errorf("reading the journal: %w", err)
		}
		if rd.stop {
			return nil
		}
	}
	return nil
}

func (rd *reading) segment(s segment, newest bool) error {
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	sc := newScanner(f)
	name := filepath.Base(s.path)
	if s.first > rd.last {
		rd.base(s.first) // its number is given out also if its writer died before it wrote it
	}
	if errors.Is(sc.header, errNewer) {
		rd.give(Record{Seq: s.first, Kind: KindGap, Note: fmt.Sprintf("%s: %v", name, sc.header)})
		return nil
	}
	for !rd.stop {
		fr, ok := sc.next()
		if !ok {
			break
		}
		if fr.skipped > 0 {
			rd.give(Record{Seq: fr.seq, Kind: KindGap, Note: fmt.Sprintf("%s: %d damaged bytes before record %d", name, fr.skipped, fr.seq)})
		}
		rd.frame(fr)
	}
	if sc.err != nil {
		rd.give(Record{Seq: rd.last, Kind: KindGap, Note: fmt.Sprintf("%s: %v", name, sc.err)})
	} else if sc.skipped > 0 && !newest {
		rd.give(Record{Seq: rd.last, Kind: KindGap, Note: fmt.Sprintf("%s: torn at its end", name)})
	}
	return nil
}

func (rd *reading) frame(fr frame) {
	if fr.seq <= rd.last {
		return // written again after trouble
	}
	if rd.passes(fr.payload) {
		rd.missing(fr.seq)
		rd.last, rd.bases = fr.seq, rd.later(fr.seq)
		return
	}
	r := decode(fr.seq, fr.payload)
	if r.Base != nil {
		rd.boot = r.Base.Boot
		rd.base(fr.seq)
	} else {
		rd.missing(fr.seq)
		rd.last, rd.bases = fr.seq, rd.later(fr.seq)
	}
	if r.Life != nil {
		rd.boot = r.Life.Boot
	}
	r.Boot = rd.boot
	rd.give(r)
}

// base notes a number that is a base record's.
func (rd *reading) base(seq uint64) {
	if len(rd.bases) < maxBases && !slices.Contains(rd.bases, seq) {
		rd.bases = append(rd.bases, seq)
	}
}

var stepHead = []byte(`{"k":"` + KindStep + `"`)

// passes reports whether a record is passed over unread.
func (rd *reading) passes(payload []byte) bool {
	if len(rd.only) == 0 || !bytes.HasPrefix(payload, stepHead) {
		return false
	}
	for _, s := range rd.only {
		if bytes.Contains(payload, []byte(s)) {
			return false
		}
	}
	return true
}

// missing tells of numbers that were left out before seq.
func (rd *reading) missing(seq uint64) {
	if rd.last == 0 {
		return
	}
	next := rd.last + 1
	for slices.Contains(rd.bases, next) {
		next++
	}
	if seq > next {
		rd.give(Record{Seq: next, Kind: KindGap, Lost: seq - next, Note: fmt.Sprintf("records %d to %d are missing", next, seq-1)})
	}
}

func (rd *reading) later(seq uint64) []uint64 {
	return slices.DeleteFunc(rd.bases, func(b uint64) bool { return b < seq })
}

func (rd *reading) give(r Record) {
	if !rd.stop && (r.Seq >= rd.from || r.Base != nil) && !rd.f(r) {
		rd.stop = true
	}
}
