package beat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
)

// The layout of a beat page, version 1, little-endian: docs/beat-page.md. The
// program's side of it is in package gemel and in include/gemel.h; tests of this
// package run all three against each other.
const (
	pageMagic   = "GEMELBP\x00"
	pageVersion = 1
	headerSize  = 64
	slotSize    = 64
	maxSlots    = 16384
	pageSize    = headerSize + maxSlots*slotSize // sparse: only what threads touch is memory

	slotLive = 2
	slotDone = 3

	growthEvery = 32 // looks

	fewSlots = 3 // that are read with the header of a page of which nothing is known
)

// page is the reader's side of one beat page. It reads by pread and maps nothing:
// a program that truncates its page would otherwise kill its monitor by SIGBUS,
// and a read of 4 KiB costs half a microsecond.
type page struct {
	f     *os.File
	fd    int // of f
	seen  []seen
	live  int // slots that count now
	looks int // counts for grown
	// oldest is the last instant of the slot that was silent for the longest.
	oldest ha.Instant
	done   ha.Instant // when the last one that counted was given back; zero if none was
}

// seen is what is known of one slot.
type seen struct {
	count uint64
	at    ha.Instant // when count was last seen to change, or the slot first seen
	live  bool
}

// openPage opens or makes the page at path, for a program of user uid. What is
// there and is no file (a link, a device, a pipe) is replaced.
func openPage(path string, uid, gid int) (*page, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err == nil {
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
			p := &page{f: f, fd: int(f.Fd())}
			return p, p.prepare(uid, gid)
		}
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("beat page: %w", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("beat page: %w", err)
	}
	f, err = os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return nil, fmt.Errorf("making beat page: %w", err)
	}
	p := &page{f: f, fd: int(f.Fd())}
	if err := p.prepare(uid, gid); err != nil {
		return nil, errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return nil, errors.Join(fmt.Errorf("making beat page: %w", err), os.Remove(f.Name()), f.Close())
	}
	return p, nil
}

// prepare gives the page its owner, its size and its header. It closes the page
// if it fails.
func (p *page) prepare(uid, gid int) error {
	err := p.f.Chmod(0o600)
	if err == nil && (uid >= 0 || gid >= 0) {
		err = p.f.Chown(uid, gid)
	}
	if err == nil {
		_, err = p.repair()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("preparing beat page: %w", err), p.f.Close())
	}
	return nil
}

// repair makes size and header right again if a program spoilt them, so that its
// next start can beat. It says what it found.
func (p *page) repair() (found string, err error) {
	st, err := p.f.Stat()
	if err != nil {
		return "", err
	}
	if st.Size() != pageSize {
		found = fmt.Sprintf("size %d instead of %d", st.Size(), pageSize)
		if err := p.f.Truncate(pageSize); err != nil {
			return found, err
		}
	}
	var h [headerSize]byte
	if _, err := p.f.ReadAt(h[:], 0); err != nil {
		return found, err
	}
	if goodHeader(h[:]) {
		return found, nil
	}
	if found == "" {
		found = "a spoilt header"
	}
	// used stays: slots that are in use must go on being read.
	copy(h[:], pageMagic)
	binary.LittleEndian.PutUint32(h[8:], pageVersion)
	binary.LittleEndian.PutUint32(h[12:], slotSize)
	binary.LittleEndian.PutUint32(h[16:], maxSlots)
	_, err = p.f.WriteAt(h[:20], 0)
	return found, err
}

func goodHeader(h []byte) bool {
	return len(h) >= headerSize && string(h[:8]) == pageMagic &&
		binary.LittleEndian.Uint32(h[8:]) == pageVersion &&
		binary.LittleEndian.Uint32(h[12:]) == slotSize &&
		binary.LittleEndian.Uint32(h[16:]) == maxSlots
}

// forget begins anew: what was seen was of a former start.
func (p *page) forget() {
	p.seen, p.live, p.done = p.seen[:0], 0, 0
}

// load reads the used part of the page into buf, which it may grow, and returns
// the slots. ok is false if the header is spoilt or the file too short. The first
// read takes as many slots as there were the last time, which are mostly all.
func (p *page) load(buf *[]byte) (slots []byte, ok bool) {
	want := headerSize + max(len(p.seen), fewSlots)*slotSize
	n, ok := p.fill(buf, 0, want)
	if n < headerSize {
		return nil, false
	}
	ok = ok && goodHeader((*buf)[:headerSize])
	used := int(min(binary.LittleEndian.Uint32((*buf)[20:]), maxSlots))
	if more := headerSize + used*slotSize; ok && more > want {
		n, ok = p.fill(buf, want, more)
		n += want
	}
	return (*buf)[headerSize : n-n%slotSize], ok
}

// grown reports, each growthEvery looks, whether the program made its page larger:
// it would take memory of the run directory that is everybody's.
func (p *page) grown() bool {
	if p.looks++; p.looks%growthEvery != 0 {
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(p.fd, &st) == nil && st.Size > pageSize
}

// fill reads the bytes from one offset to another; ok says that all are there.
func (p *page) fill(buf *[]byte, from, to int) (n int, ok bool) {
	grow(buf, to)
	n, err := unix.Pread(p.fd, (*buf)[from:to], int64(from))
	n = max(n, 0)
	return n, err == nil && n == to-from
}

func grow(buf *[]byte, n int) {
	if len(*buf) < n {
		b := make([]byte, max(n, 2*len(*buf)))
		copy(b, *buf)
		*buf = b
	}
}

// scan looks at each slot of slots, which load returned, at instant now. Only
// slots of this start count.
func (p *page) scan(slots []byte, start uint32, now ha.Instant) {
	n := len(slots) / slotSize
	for len(p.seen) < n {
		p.seen = append(p.seen, seen{})
	}
	p.live, p.oldest = 0, now
	for i := range p.seen {
		s := &p.seen[i]
		if i >= n {
			s.live = false // the file was cut
			continue
		}
		b := slots[i*slotSize : (i+1)*slotSize]
		state, of := binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
		if state != slotLive || of != start {
			if s.live {
				s.live, p.done = false, now
			}
			continue
		}
		p.live++
		count := binary.LittleEndian.Uint64(b)
		if !s.live || count != s.count {
			*s = seen{count, now, true}
		}
		p.oldest = min(p.oldest, s.at)
	}
}

// slotName returns what may be shown of a slot's name: its own words may be
// anything.
func slotName(slots []byte, i int) (name string, tid int) {
	if (i+1)*slotSize > len(slots) {
		return fmt.Sprintf("slot %d", i), 0
	}
	b := slots[i*slotSize : (i+1)*slotSize]
	tid = int(int32(binary.LittleEndian.Uint32(b[16:])))
	raw := b[24:56]
	for j, c := range raw {
		if c == 0 {
			raw = raw[:j]
			break
		}
	}
	name = printable(string(raw), len(raw))
	switch {
	case name != "":
	case tid > 0:
		name = fmt.Sprintf("thread %d", tid)
	default:
		name = fmt.Sprintf("slot %d", i)
	}
	return name, max(tid, 0)
}
