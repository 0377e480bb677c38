package access

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

const (
	auditSize  = 10 << 20 // bytes of one file
	auditFiles = 5        // files kept, the one being written included
	auditField = 1024     // bytes of one field; what is longer is cut
)

// An Entry of the audit says who asked for what, from where, and what came of it.
type Entry struct {
	Wall   time.Time `json:"at"`
	UID    uint32    `json:"uid"`
	User   string    `json:"user"`
	PID    int32     `json:"pid"` // for showing only
	Role   string    `json:"role"`
	Method string    `json:"method"`
	Target string    `json:"target,omitempty"`
	Result string    `json:"result"` // ok, refused, denied or failed
	Detail string    `json:"detail,omitempty"`
	Prev   string    `json:"prev"` // hex SHA-256 of the line before, without its line end; empty in the first
}

// Audit is the record of changes: JSON lines in one file, each with the hash of
// the line before it, so that a line that was changed or taken out later shows.
// Files are rotated by size and the chain goes on through them. Lines are not
// forced to disk: the journal records every accepted change as well.
type Audit struct {
	path  string
	limit int64

	mu   sync.Mutex
	file *os.File
	size int64
	prev string
}

// OpenAudit opens the record at path, or begins it. A last line that was torn by
// a crash is kept as it is and the chain goes on from it.
func OpenAudit(path string) (*Audit, error) {
	a := &Audit{path: path, limit: auditSize}
	if err := a.open(); err != nil {
		return nil, fmt.Errorf("opening the audit: %w", err)
	}
	return a, nil
}

// open opens the file and finds the hash that the next line continues.
func (a *Audit) open() error {
	f, err := os.OpenFile(a.path, os.O_RDWR|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", a.path)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	a.file, a.size = f, st.Size()
	last, whole, err := lastLine(f, a.size)
	if err == nil && !whole {
		a.size++
		_, err = f.Write([]byte{'\n'})
	}
	if err == nil && last == nil {
		a.prev, err = lastHash(a.path + ".1")
	} else if err == nil {
		a.prev = hash(last)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return nil
}

// lastHash is the hash of the last line of another file; empty if there is none.
func lastHash(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	last, _, err := lastLine(f, st.Size())
	if err != nil || last == nil {
		return "", err
	}
	return hash(last), nil
}

// lastLine returns the last line, and whether it has its line end. It is nil in
// an empty file.
func lastLine(f io.ReaderAt, size int64) (line []byte, whole bool, err error) {
	n := min(size, 64<<10)
	if n == 0 {
		return nil, true, nil
	}
	b := make([]byte, n)
	if _, err := f.ReadAt(b, size-n); err != nil && !errors.Is(err, io.EOF) {
		return nil, false, err
	}
	b, whole = bytes.CutSuffix(b, []byte{'\n'})
	return b[bytes.LastIndexByte(b, '\n')+1:], whole, nil
}

func hash(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// Add appends one line. When it cannot, the change that it tells of has happened
// all the same: the error is for the log.
func (a *Audit) Add(e Entry) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == nil {
		if err := a.open(); err != nil {
			return fmt.Errorf("opening the audit: %w", err)
		}
	}
	e.Prev = a.prev
	line, err := encode(e)
	if err != nil {
		return fmt.Errorf("writing the audit: %w", err)
	}
	if a.size > 0 && a.size+int64(len(line))+1 > a.limit {
		if err := a.rotate(); err != nil {
			return fmt.Errorf("rotating the audit: %w", err)
		}
	}
	n, err := a.file.Write(append(line, '\n'))
	a.size += int64(n)
	if err != nil {
		// A part of the line may be there; opening again finds out.
		err = errors.Join(err, a.file.Close())
		a.file = nil
		return fmt.Errorf("writing the audit: %w", err)
	}
	a.prev = hash(line)
	return nil
}

// rotate moves the files on by one and begins a new one. The chain goes on.
func (a *Audit) rotate() error {
	for i := auditFiles - 1; i > 0; i-- {
		from := a.path
		if i > 1 {
			from += "." + strconv.Itoa(i-1)
		}
		if err := os.Rename(from, a.path+"."+strconv.Itoa(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	err := a.file.Close()
	a.file = nil
	return errors.Join(err, a.open())
}

// Close closes the record.
func (a *Audit) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == nil {
		return nil
	}
	err := a.file.Close()
	a.file = nil
	return err
}

// encode makes the line of an entry: plain ASCII, so that nothing in a name can
// move the cursor of a terminal, hide text or end the line.
func encode(e Entry) ([]byte, error) {
	for _, s := range []*string{&e.User, &e.Role, &e.Method, &e.Target, &e.Result, &e.Detail} {
		*s = cut(*s)
	}
	b, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(b))
	for _, r := range string(b) { // JSON is valid UTF-8
		switch {
		case r < 0x7f:
			out = append(out, byte(r))
		case r > 0xffff:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out, nil
}

func cut(s string) string {
	if len(s) <= auditField {
		return s
	}
	s = s[:auditField]
	for len(s) > 0 && !utf8.ValidString(s[max(0, len(s)-utf8.UTFMax):]) && len(s) > auditField-utf8.UTFMax {
		s = s[:len(s)-1]
	}
	return s + "..."
}

// Verify reads the record at path from its oldest file on and returns how many
// lines it has. The error names the first line that does not continue the one
// before it. That lines were taken away at either end it cannot see.
func Verify(path string) (lines int, err error) {
	prev, first := "", true
	for i := auditFiles - 1; i >= 0; i-- {
		name := path
		if i > 0 {
			name += "." + strconv.Itoa(i)
		}
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return lines, fmt.Errorf("verifying the audit: %w", err)
		}
		n, last, err := verify(f, prev, first)
		lines += n
		err = errors.Join(err, f.Close())
		if err != nil {
			return lines, fmt.Errorf("verifying the audit: %s: %w", name, err)
		}
		prev, first = last, first && n == 0
	}
	return lines, nil
}

// verify checks one file against the hash of the line before it. The very first
// line that is still there may continue one that was rotated away.
func verify(r io.Reader, prev string, first bool) (n int, last string, err error) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line == "" && errors.Is(err, io.EOF) {
			return n, prev, nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return n, prev, err
		}
		n++
		line = strings.TrimSuffix(line, "\n")
		var e Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			// What a crash left of a line; the next one continues it as it is.
			prev, first = hash([]byte(line)), false
			continue
		}
		if !first && e.Prev != prev {
			return n, prev, fmt.Errorf("line %d does not continue the one before it", n)
		}
		prev, first = hash([]byte(line)), false
	}
}
