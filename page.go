package gemel

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"unicode/utf8"
	"unsafe"
)

// The layout of a beat page, version 1. docs/beat-page.md describes it byte by
// byte; include/gemel.h and internal/beat hold the same numbers.
const (
	pageMagic   = "GEMELBP\x00"
	pageVersion = 1
	headerSize  = 64
	slotSize    = 64
	maxSlots    = 16384
	pageSize    = headerSize + maxSlots*slotSize

	slotFree     = 0
	slotClaiming = 1 // its owner is writing name and tid
	slotLive     = 2
	slotDone     = 3
)

// header opens the page. Gemel writes it; the program only raises used.
type header struct {
	magic    [8]byte
	version  uint32
	slotSize uint32
	slots    uint32
	used     uint32 // no slot from here on was ever claimed
	_        [40]byte
}

// slot is one place. owner is state in its low half and the low 32 bits of the
// start in its high half, so that one compare-and-swap claims a free place, a
// done one, and one that a former start of the program left behind.
type slot struct {
	counter uint64
	owner   uint64
	tid     uint32 // kernel's thread id; 0: not bound to one, as a goroutine
	_       uint32
	name    [32]byte
	_       [8]byte
}

// page is a mapped beat page.
type page struct {
	start uint32 // low half of this program's start
	head  *header
	slots []slot

	mu   sync.Mutex
	next int // no slot below it is free, as far as this program knows
}

// beats maps the page of this program at the first call. A nil page is one that
// nobody reads.
var beats = sync.OnceValue(func() *page {
	path := os.Getenv("GEMEL_BEAT_PAGE")
	if path == "" {
		return nil
	}
	// A page that cannot be used is no reason to fail: Gemel notices the silence
	// and tells it with the cause, and the program may still do its work.
	p, err := openPage(path, uint32(Start()))
	if err != nil {
		return nil
	}
	return p
})

// openPage maps the page at path for start.
func openPage(path string, start uint32) (*page, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() < pageSize {
		return nil, fmt.Errorf("beat page %s: not a file of %d bytes", path, pageSize)
	}
	mem, err := syscall.Mmap(int(f.Fd()), 0, pageSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping beat page %s: %w", path, err)
	}
	p := &page{
		start: start,
		head:  (*header)(unsafe.Pointer(&mem[0])),
		slots: unsafe.Slice((*slot)(unsafe.Pointer(&mem[headerSize])), maxSlots),
	}
	if string(p.head.magic[:]) != pageMagic || p.head.version != pageVersion || p.head.slotSize != slotSize {
		return nil, errors.Join(fmt.Errorf("beat page %s: not of version %d", path, pageVersion), syscall.Munmap(mem))
	}
	return p, nil
}

// thread claims a slot. A full or missing page gives a Beat that nobody hears.
func (p *page) thread(name string) *Beat {
	b := &Beat{page: p}
	if p == nil {
		return b
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(int(atomic.LoadUint32(&p.head.slots)), len(p.slots))
	// The second round finds what other programs of the same start gave back.
	for _, from := range [...]int{p.next, 0} {
		for i := from; i < n; i++ {
			if p.claim(&p.slots[i], name) {
				p.next = i + 1
				p.raise(uint32(i + 1))
				b.slot.Store(&p.slots[i])
				return b
			}
		}
	}
	p.next = n
	return b
}

// claim takes s if it is free, done, or of a former start. Children of the
// program may share the page, so the lock of p is not enough.
func (p *page) claim(s *slot, name string) bool {
	old := atomic.LoadUint64(&s.owner)
	if uint32(old>>32) == p.start && uint32(old) != slotFree && uint32(old) != slotDone {
		return false
	}
	if !atomic.CompareAndSwapUint64(&s.owner, old, p.word(slotClaiming)) {
		return false
	}
	s.tid = 0
	s.name = [32]byte{}
	copy(s.name[:], cut(name, len(s.name)))
	s.counter++
	atomic.StoreUint64(&s.owner, p.word(slotLive))
	return true
}

// release gives s back.
func (p *page) release(s *slot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	atomic.CompareAndSwapUint64(&s.owner, p.word(slotLive), p.word(slotDone))
	i := int((uintptr(unsafe.Pointer(s)) - uintptr(unsafe.Pointer(&p.slots[0]))) / slotSize)
	p.next = min(p.next, i)
}

// raise lets the reader scan up to n.
func (p *page) raise(n uint32) {
	for {
		old := atomic.LoadUint32(&p.head.used)
		if old >= n || atomic.CompareAndSwapUint32(&p.head.used, old, n) {
			return
		}
	}
}

func (p *page) word(state uint32) uint64 { return uint64(p.start)<<32 | uint64(state) }

// cut shortens s to n bytes without halving a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// oneLine replaces what would end a line of a notification.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
