package lapse

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/proc"
)

// File is the name of the page in the run directory.
const File = "deadlines"

const (
	slotSize = 4096
	slots    = 4096 // the first is the head; as many as a tag of the table of starts can name
	bodyMost = slotSize - 8
)

// page is the file of deadlines. A slot is the length of its body, a sum
// over both, and the body. One process writes: the shadow. Nothing is synchronised
// with a disk: a page of another boot is worth nothing.
type page struct {
	fd  int
	mem []byte // nil: it is only read
}

// head is the body of the first slot.
type head struct {
	Format int             `json:"format"`
	Tree   json.RawMessage `json:"tree"` // where control groups are: spawn.Tree
}

// state is what became of a right.
type state string

const (
	held   state = "held"   // its deadline is to be kept
	lapsed state = "lapsed" // its deadline came, and all was seen gone
	ended  state = "ended"  // its deadline came when nothing of it was there
)

// row is the body of a slot: one group.
type row struct {
	Boot  string     `json:"boot"`
	State state      `json:"state"`
	Named bool       `json:"named,omitempty"` // it was in the set that was given last
	Right proc.Right `json:"right"`
}

// errTorn says that a slot was not written to its end.
var errTorn = errors.New("it was not written to its end")

// openPage opens the page of a run directory; with write it is made if it is not
// there, and mapped. Without, it is nil if there is none, and read call by call: a
// file that somebody cuts off must not end the one who keeps the deadlines.
func openPage(run string, write bool) (*page, error) {
	path := filepath.Join(run, File)
	flags := unix.O_RDONLY
	if write {
		flags = unix.O_RDWR | unix.O_CREAT
	}
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrNotExist) && !write {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	p := &page{fd: fd}
	if !write {
		return p, nil
	}
	// All that it may become is mapped. Only what it has is touched: that is written
	// from the first slot on, without holes.
	if p.mem, err = unix.Mmap(fd, 0, slotSize*slots, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("mapping %s: %w", path, err)
	}
	return p, nil
}

// count is how many slots there are, the head among them.
func (p *page) count() int {
	var st unix.Stat_t
	if unix.Fstat(p.fd, &st) != nil {
		return 0
	}
	return min(int(st.Size/slotSize), slots)
}

func (p *page) close() {
	if p.mem != nil {
		_ = unix.Munmap(p.mem) // nothing of it is used any more
	}
	unix.Close(p.fd)
}

func (p *page) slot(i int) []byte { return p.mem[i*slotSize : (i+1)*slotSize] }

// take makes sure that there is memory behind a slot and all before it: on a full
// file system the first store into one without would be a SIGBUS.
func (p *page) take(i int) error {
	from := p.count()
	if i < from {
		return nil
	}
	at, size := int64(from)*slotSize, int64(i+1-from)*slotSize
	err := unix.Fallocate(p.fd, 0, at, size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		_, err = unix.Pwrite(p.fd, make([]byte, size), at)
	}
	if err != nil {
		return fmt.Errorf("memory for one more group in %s: %w", File, err)
	}
	return nil
}

// put writes a body by plain stores.
func (p *page) put(i int, body []byte) error {
	if len(body) > bodyMost {
		return fmt.Errorf("it takes %d bytes in %s; %d are the most: are there fewer words to withdraw?", len(body), File, bodyMost)
	}
	s := p.slot(i)
	copy(s[8:], body)
	binary.NativeEndian.PutUint32(s[4:], uint32(len(body)))
	binary.NativeEndian.PutUint32(s, sum(s[4:8+len(body)]))
	return nil
}

func (p *page) clear(i int) { clear(p.slot(i)[:8]) }

// body reads a slot; nil: it is free. Who reads while another process writes looks
// again before it calls a slot torn.
func (p *page) body(i int) ([]byte, error) {
	s := make([]byte, slotSize)
	for try := 0; ; try++ {
		if n, err := unix.Pread(p.fd, s, int64(i)*slotSize); err == nil && n == slotSize {
			want, n := binary.NativeEndian.Uint32(s), binary.NativeEndian.Uint32(s[4:])
			if want == 0 && n == 0 {
				return nil, nil
			}
			if n <= bodyMost && sum(s[4:8+n]) == want {
				return s[8 : 8+n], nil
			}
		}
		if try == 5 {
			return nil, errTorn
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// sum is never that of a free slot.
func sum(b []byte) uint32 { return max(crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)), 1) }

func (p *page) putRow(i int, r row) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("writing down a right: %w", err)
	}
	return p.put(i, b)
}

// row reads the row of a slot; ok is false if it is free.
func (p *page) row(i int) (r row, ok bool, err error) {
	b, err := p.body(i)
	if err != nil || b == nil {
		return r, false, err
	}
	if json.Unmarshal(b, &r) != nil {
		return r, false, errTorn
	}
	return r, true, nil
}

// head reads the head; it is empty if there is none.
func (p *page) head() (h head) {
	if p.count() == 0 {
		return h
	}
	if b, err := p.body(0); err == nil && b != nil {
		_ = json.Unmarshal(b, &h) // what cannot be read names no tree
	}
	return h
}

// there reports whether a run directory has a page.
func there(run string) bool {
	_, err := os.Lstat(filepath.Join(run, File))
	return err == nil
}

// Allowed reports whether a group may be started here under a fence at this instant, by
// the page of a run directory: its deadline is kept, and its kill has not begun. It is for
// what the monitor starts itself, as the shadow asks its own copy before each program.
func Allowed(run string, name ha.Group, f ha.Fence) (bool, error) {
	boot, err := clock.BootID()
	if err != nil {
		return false, fmt.Errorf("reading the boot id: %w", err)
	}
	p, err := openPage(run, false)
	if err != nil || p == nil {
		return false, err
	}
	defer p.close()
	for i := 1; i < p.count(); i++ {
		// A row that cannot be read allows nothing, and says nothing of the others.
		if r, ok, err := p.row(i); err == nil && ok && r.Right.Group == name {
			g := group{right: r.Right, state: r.State, named: r.Named}
			return r.Boot == boot && r.Right.Fence == f && g.mayStart(clock.Now()), nil
		}
	}
	return false, nil
}
