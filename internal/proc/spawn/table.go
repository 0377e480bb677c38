package spawn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
)

const (
	tableMagic   = "gemeltab"
	tableVersion = 1
	rowSize      = 128
	rowsMax      = 1 << 16 // with the header row; the file is sparse, and only rows in use take memory
	nameMax      = rowSize - 37
)

// row is one row of the file. The child stores pid, and nothing else. The end
// lies where the first version of the table had the end of a name that no name
// reaches; it counts only if ended is the start of the row.
type row struct {
	start uint64
	ticks uint64
	pid   uint32
	name  [nameMax + 1]byte // first byte: length
	ended uint64            // the start that ended with word
	word  uint32            // as wait(2) tells it; bit 31: by the out-of-memory killer
	tag   uint32            // whose right it runs by; see Slot.Belong
}

const wordOOM = 1 << 31

// head is row 0.
type head struct {
	magic   [8]byte
	version uint32
	row     uint32
	high    uint32 // rows that were ever taken, the header included
	boot    [64]byte
	_       [rowSize - 84]byte
}

// Table is a memory-mapped file in the run directory where each start is written
// by the child itself, before its exec. It survives kill -9 of the writer, and is
// how a new shadow or monitor finds what runs. One process at a time claims and
// frees; any may read.
type Table struct {
	mem  []byte
	head *head
	rows *[rowsMax]row

	mu   sync.Mutex
	at   map[ha.StartID]uint32
	free []uint32
}

// Slot is one row of a Table, owned by one start from Claim to Free.
type Slot struct{ row *row }

// Entry is one start as the Table knows it.
type Entry struct {
	Start   ha.StartID
	Process ha.Process
	PID     int    // 0: claimed, but no child wrote itself yet
	Ticks   uint64 // start time of the pid in clock ticks since boot; 0 if not known
	// Ended says that a shadow saw it end, with Status.
	Ended  bool
	Status ha.ExitStatus
	// Member is the number of Slot.Belong; 0: none.
	Member int
}

// Alive reports whether the pid of the entry still is that start, and not another
// process that was given the same number (which takes the kernel longer than the
// hundredth of a second that a tick lasts). A zombie still is its start.
func (e Entry) Alive() bool {
	if e.PID <= 0 {
		return false
	}
	if e.Ticks != 0 {
		return startTicks(e.PID) == e.Ticks
	}
	return Identify(e.PID, e.Start)
}

// Running reports whether the first process of the entry still does something: a
// zombie does not.
func (e Entry) Running() bool {
	if !e.Alive() {
		return false
	}
	s, ok := readStat(e.PID)
	return ok && s.state != 'Z' && s.state != 'X'
}

// OpenTable opens or makes the table at path. Boot is the id of this boot: the
// rows of another boot are discarded, and so is a file that is not a table of this
// version. A file that is discarded is replaced, not truncated: who still maps it
// goes on reading the old rows.
func OpenTable(path, boot string) (*Table, error) {
	for range 10 {
		t, err := openTable(path, boot)
		if errors.Is(err, errStale) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open table of starts %s: %w", path, err)
		}
		return t, nil
	}
	return nil, fmt.Errorf("open table of starts %s: somebody else replaces it again and again", path)
}

var errStale = errors.New("the file was replaced")

func openTable(path, boot string) (*Table, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, err
	}
	defer func() { _ = unix.Flock(int(f.Fd()), unix.LOCK_UN) }() // closing is not enough: the mapping holds the file
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if now, err := os.Stat(path); err != nil || !os.SameFile(st, now) {
		return nil, errStale
	}
	fresh := st.Size() == 0
	if !fresh && (st.Size() != rowSize*rowsMax || !sound(f, boot)) {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
		return nil, errStale
	}
	if err := f.Truncate(rowSize * rowsMax); err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, rowSize*rowsMax, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	t := &Table{mem: mem, head: (*head)(unsafe.Pointer(&mem[0])), rows: (*[rowsMax]row)(unsafe.Pointer(&mem[0])), at: map[ha.StartID]uint32{}}
	if fresh {
		if err := t.populate(0); err != nil {
			return nil, errors.Join(err, unix.Munmap(mem))
		}
		copy(t.head.boot[:], boot)
		t.head.version, t.head.row, t.head.high = tableVersion, rowSize, 1
		copy(t.head.magic[:], tableMagic) // last: the file is sound from here on
	}
	for i := uint32(1); i < t.high(); i++ {
		if id := atomic.LoadUint64(&t.rows[i].start); id != 0 {
			t.at[ha.StartID(id)] = i
		} else {
			t.free = append(t.free, i)
		}
	}
	return t, nil
}

// sound reports whether the file is a table of this version and boot.
func sound(f *os.File, boot string) bool {
	var b [rowSize]byte
	if n, err := f.ReadAt(b[:], 0); err != nil || n != len(b) {
		return false
	}
	var want [64]byte
	copy(want[:], boot)
	high := binary.NativeEndian.Uint32(b[16:])
	return string(b[:8]) == tableMagic && binary.NativeEndian.Uint32(b[8:]) == tableVersion &&
		binary.NativeEndian.Uint32(b[12:]) == rowSize && high >= 1 && high <= rowsMax && string(b[20:84]) == string(want[:])
}

func (t *Table) high() uint32 { return min(atomic.LoadUint32(&t.head.high), rowsMax) }

// Claim takes a free row for a start. A row in which no child of that start ever
// wrote itself is taken again; one that shows a child is refused, because no
// start runs twice.
func (t *Table) Claim(id ha.StartID, p ha.Process) (*Slot, error) {
	if id == 0 || len(p) > nameMax {
		return nil, fmt.Errorf("claim a row for start %s of %q: the id must not be 0, the name not longer than %d bytes", id, p, nameMax)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i, taken := t.at[id]; taken {
		if pid := atomic.LoadUint32(&t.rows[i].pid); pid != 0 {
			return nil, fmt.Errorf("claim a row for start %s of %s: it ran already, as pid %d", id, p, pid)
		}
		return &Slot{&t.rows[i]}, nil
	}
	i := t.high()
	if n := len(t.free); n > 0 {
		i, t.free = t.free[n-1], t.free[:n-1]
	} else if i == rowsMax {
		return nil, fmt.Errorf("claim a row for start %s of %s: all %d rows are taken", id, p, rowsMax-1)
	}
	if i == t.high() {
		if err := t.populate(i); err != nil {
			return nil, fmt.Errorf("claim a row for start %s of %s: %w", id, p, err)
		}
	}
	r := &t.rows[i]
	atomic.StoreUint64(&r.start, 0)
	atomic.StoreUint32(&r.pid, 0)
	atomic.StoreUint64(&r.ticks, 0)
	atomic.StoreUint64(&r.ended, 0)
	atomic.StoreUint32(&r.tag, 0)
	r.name[0] = byte(copy(r.name[1:], p))
	atomic.StoreUint64(&r.start, uint64(id))
	if i == t.high() {
		atomic.StoreUint32(&t.head.high, i+1)
	}
	t.at[id] = i
	return &Slot{r}, nil
}

// populate makes sure that there is memory behind a new row: on a full file system
// the first write into it would be a SIGBUS. Kernels before 5.14 cannot be asked.
func (t *Table) populate(i uint32) error {
	at, page := int(i)*rowSize, os.Getpagesize()
	if at%page != 0 {
		return nil
	}
	switch err := unix.Madvise(t.mem[at:at+page], unix.MADV_POPULATE_WRITE); {
	case err == nil, errors.Is(err, unix.EINVAL):
		return nil
	case errors.Is(err, unix.EFAULT):
		return errors.New("the file system of the run directory is full")
	default:
		return fmt.Errorf("memory for a row: %w", err)
	}
}

// Free gives the row of a start back; an unknown start is ignored.
func (t *Table) Free(id ha.StartID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.at[id]
	if !ok {
		return
	}
	atomic.StoreUint64(&t.rows[i].start, 0)
	delete(t.at, id)
	t.free = append(t.free, i)
}

// Entries lists the rows that are taken.
func (t *Table) Entries() []Entry {
	var out []Entry
	for i := uint32(1); i < t.high(); i++ {
		if e, ok := t.entry(i); ok {
			out = append(out, e)
		}
	}
	return out
}

// Members lists the rows that belong to a number.
func (t *Table) Members(number int) []Entry {
	var out []Entry
	for i := uint32(1); i < t.high(); i++ {
		if atomic.LoadUint32(&t.rows[i].tag)>>tagStart != uint32(number) {
			continue
		}
		if e, ok := t.entry(i); ok && e.Member == number {
			out = append(out, e)
		}
	}
	return out
}

// Member is the number that a start belongs to; 0: none, or no such start.
func (t *Table) Member(id ha.StartID) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i, ok := t.at[id]; ok {
		return number(atomic.LoadUint32(&t.rows[i].tag), id)
	}
	return 0
}

func (t *Table) entry(i uint32) (Entry, bool) {
	r := &t.rows[i]
	id := atomic.LoadUint64(&r.start)
	if id == 0 {
		return Entry{}, false
	}
	e := Entry{
		Start:   ha.StartID(id),
		Process: ha.Process(r.name[1 : 1+min(int(r.name[0]), nameMax)]),
		PID:     int(atomic.LoadUint32(&r.pid)),
		Ticks:   atomic.LoadUint64(&r.ticks),
		Member:  number(atomic.LoadUint32(&r.tag), ha.StartID(id)),
	}
	if e.Ended = atomic.LoadUint64(&r.ended) == id; e.Ended {
		word := atomic.LoadUint32(&r.word)
		e.Status = decode(int(word &^ wordOOM))
		e.Status.OOM = word&wordOOM != 0
	}
	return e, atomic.LoadUint64(&r.start) == id
}

// Close unmaps the table. Slots must not be used after it.
func (t *Table) Close() error {
	t.head, t.rows = nil, nil
	if err := unix.Munmap(t.mem); err != nil {
		return fmt.Errorf("unmap table of starts: %w", err)
	}
	return nil
}

// End writes down how a start ended, so that it is known after the death of the
// shadow that saw it. An unknown start is ignored, and so is an unknown end.
func (t *Table) End(id ha.StartID, st ha.ExitStatus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.at[id]
	if !ok || st.Unknown {
		return
	}
	word := uint32(st.Code&0xff) << 8
	if st.Signal != 0 {
		word = uint32(st.Signal & 0x7f)
	}
	if st.Core {
		word |= 0x80
	}
	if st.OOM {
		word |= wordOOM
	}
	atomic.StoreUint32(&t.rows[i].word, word)
	atomic.StoreUint64(&t.rows[i].ended, uint64(id))
}

// tagStart is how much of a tag is of the start: a version that does not know tags
// leaves that of the start before in a row that it takes again.
const tagStart = 20

// Belong writes down, before the child is made, that the start runs by the right
// with this number, 1 to 4,095. Who finds the row then knows by what it may live.
func (s *Slot) Belong(number int) {
	id := uint32(atomic.LoadUint64(&s.row.start))
	atomic.StoreUint32(&s.row.tag, uint32(number)<<tagStart|id&(1<<tagStart-1))
}

// Belong is Slot.Belong for a start that runs already; false if there is no row of it.
func (t *Table) Belong(id ha.StartID, number int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.at[id]
	if ok {
		(&Slot{&t.rows[i]}).Belong(number)
	}
	return ok
}

func number(tag uint32, id ha.StartID) int {
	if tag&(1<<tagStart-1) != uint32(id)&(1<<tagStart-1) {
		return 0
	}
	return int(tag >> tagStart)
}

// Settle completes the row that the child began, or that of a program that was
// found.
func (s *Slot) Settle(pid int) { s.settle(pid) }

func (s *Slot) settle(pid int) {
	atomic.StoreUint32(&s.row.pid, uint32(pid))
	atomic.StoreUint64(&s.row.ticks, startTicks(pid))
}
