package output

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
)

// keepMost bounds the search for older files.
const keepMost = 1000

// Tail returns the last lines of the log of a process, older files included,
// oldest first. A line longer than 64 KiB is told in pieces.
func Tail(logDir string, p ha.Process, lines int) ([]string, error) {
	t, err := openTail(logDir, p, lines)
	if err != nil {
		return nil, err
	}
	var out []string
	err = t.walk(func(line string) error {
		out = append(out, line)
		return nil
	})
	t.close()
	if err != nil {
		return nil, err
	}
	return out[max(0, len(out)-lines):], nil
}

// Follow calls tell with the last lines of the log of a process, or those after a
// place, and then with each new one as it comes, over rotations, until ctx ends or
// tell fails. With each line the place after it is told: who goes on from there is
// told nothing twice and misses nothing but what was rotated away meanwhile. A
// process that has printed nothing yet is waited for.
func Follow(ctx context.Context, logDir string, p ha.Process, from Place, tell func(line, place string) error) error {
	notes, err := watchDir(logDir)
	if err != nil {
		return err
	}
	defer notes.Close()
	stop := context.AfterFunc(ctx, func() { notes.Close() })
	defer stop()
	var t *tail
	if from.After != "" {
		t, err = openAfter(logDir, p, from.After)
	} else {
		t, err = openTail(logDir, p, from.Lines)
	}
	if err != nil {
		return err
	}
	defer t.close()
	buf := make([]byte, 4096)
	for ctx.Err() == nil {
		if err := t.walk(func(line string) error { return tell(line, t.place()) }); err != nil {
			return err
		}
		// Whatever changes in the directory is a reason to look again.
		if _, err := notes.Read(buf); err != nil {
			if ctx.Err() != nil || errors.Is(err, os.ErrClosed) {
				break
			}
			return fmt.Errorf("following the log of %s: %w", p, err)
		}
	}
	return nil
}

// Place is where the reading of a log begins.
type Place struct {
	Lines int    // so many of the end
	After string // as told before; Lines does not count then
}

func watchDir(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watching %s: %w", dir, err)
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ONLYDIR); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watching %s: %w", dir, err)
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// tail is a place in the row of log files of one process.
type tail struct {
	path string
	file *os.File // nil: nothing was written yet
	part []byte   // of a line that has no end yet
	pos  int64    // in the file, after the last line that was told
	read *bufio.Reader
}

// openAfter finds a place that was told before. A file that is not kept any more
// had nothing younger than the oldest that is.
func openAfter(logDir string, p ha.Process, place string) (*tail, error) {
	if err := plain(p); err != nil {
		return nil, err
	}
	var inode uint64
	var pos int64
	if n, err := fmt.Sscanf(place, "%d:%d", &inode, &pos); n != 2 || err != nil || pos < 0 {
		return nil, fmt.Errorf("reading the log of %s: %.60q is no place in it", p, place)
	}
	t := &tail{path: LogPath(logDir, p)}
	err := t.find(func(f *os.File) (bool, error) {
		size, mine := inodeOf(f)
		if mine != inode || pos > size {
			return false, nil
		}
		_, err := f.Seek(pos, io.SeekStart)
		return true, err
	})
	if err != nil {
		t.close()
		return nil, fmt.Errorf("reading the log of %s: %w", p, err)
	}
	return t, nil
}

// find goes from the newest file to older ones until the one that is wanted, or the
// oldest. It begins again when a rotation comes in between.
func (t *tail) find(wanted func(*os.File) (bool, error)) error {
	return steady(t.path, func(files *row) error {
		t.close()
		for {
			f, err := files.older()
			if f == nil {
				return err
			}
			found, err := wanted(f)
			t.close()
			t.use(f)
			if found || err != nil {
				return err
			}
		}
	})
}

// errShifting says that a rotation is under way.
var errShifting = errors.New("the files are shifted")

// steady has the files of a log looked at until no rotation comes in between. What
// still looks like one after many times is how somebody left the files, and the last
// look takes it so.
func steady(path string, look func(*row) error) error {
	for range keepMost {
		if err := look(&row{path: path}); !errors.Is(err, errShifting) {
			return err
		}
	}
	return look(&row{path: path, last: true})
}

// row is the files of a log, from the newest to the oldest.
type row struct {
	path  string
	last  bool // no rotation is seen in what is there
	i     int
	first int    // number and inode of the newest
	inode uint64 // zero: none was found yet
	prev  uint64 // inode of the one before
}

// older opens the next older file; nil if there is none.
func (r *row) older() (*os.File, error) {
	for ; r.i < keepMost; r.i++ {
		f, err := os.Open(numbered(r.path, r.i))
		if errors.Is(err, os.ErrNotExist) {
			if r.i == 0 {
				continue // nothing was written since the last rotation
			}
			if !r.last && !r.still() {
				return nil, errShifting
			}
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		_, inode := inodeOf(f)
		if inode == r.prev && !r.last {
			f.Close() // it was moved on meanwhile
			return nil, errShifting
		}
		if r.inode == 0 {
			r.first, r.inode = r.i, inode
		}
		r.prev = inode
		r.i++
		return f, nil
	}
	return nil, nil
}

// still reports that the number that is missing is the end, and not the one that a
// rotation leaves out for an instant, with the file already at the next number. The
// newest shows whether a rotation was completed since it was opened.
func (r *row) still() bool {
	if _, err := os.Lstat(numbered(r.path, r.i+1)); err == nil {
		return false
	}
	var st unix.Stat_t
	err := unix.Lstat(numbered(r.path, r.first), &st)
	if r.inode == 0 {
		return err != nil
	}
	return err == nil && st.Ino == r.inode
}

// inodeOf tells the size and the number of a file; zeros if that cannot be had.
func inodeOf(f *os.File) (size int64, inode uint64) {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return 0, 0
	}
	return st.Size, st.Ino
}

// place is that after the last line that was told.
func (t *tail) place() string {
	_, inode := inodeOf(t.file)
	return fmt.Sprintf("%d:%d", inode, t.pos)
}

// openTail finds the place with at most that many lines after it.
func openTail(logDir string, p ha.Process, lines int) (*tail, error) {
	if err := plain(p); err != nil {
		return nil, err
	}
	t := &tail{path: LogPath(logDir, p)}
	want := 0
	err := t.find(func(f *os.File) (bool, error) {
		if t.file == nil {
			want = lines // the first, or the first again
		}
		found, err := lastLines(f, want)
		want -= found
		return want <= 0, err
	})
	if err != nil {
		t.close()
		return nil, fmt.Errorf("reading the log of %s: %w", p, err)
	}
	return t, nil
}

func (t *tail) use(f *os.File) {
	t.file = f
	t.pos, _ = f.Seek(0, io.SeekCurrent) // a place in a file that cannot be asked for is its beginning
	t.read = bufio.NewReaderSize(f, lineMost)
}

func (t *tail) close() {
	if t.file != nil {
		t.file.Close()
		t.file = nil
	}
}

// lastLines puts f at the beginning of its last lines, and tells how many there
// are, want at most.
func lastLines(f *os.File, want int) (found int, err error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || want <= 0 {
		return 0, err
	}
	buf := make([]byte, 32<<10)
	last := end // a newline at the very end ends a line and begins none
	for pos := end; pos > 0; {
		n := min(pos, int64(len(buf)))
		pos -= n
		if _, err := f.ReadAt(buf[:n], pos); err != nil {
			return 0, err
		}
		for i := n - 1; i >= 0; i-- {
			if buf[i] != '\n' || pos+i == last-1 {
				continue
			}
			if found++; found == want {
				_, err := f.Seek(pos+i+1, io.SeekStart)
				return found, err
			}
		}
	}
	if end > 0 {
		found++
	}
	_, err = f.Seek(0, io.SeekStart)
	return found, err
}

// walk tells every whole line that there is, up to the end of the newest file. A
// last line without an end is told when the file is known to grow no more.
func (t *tail) walk(tell func(string) error) error {
	for {
		if t.file == nil {
			// Nothing was written yet, so that all there is now is new: from the oldest on.
			err := t.find(func(*os.File) (bool, error) { return false, nil })
			if err != nil {
				return fmt.Errorf("reading a log: %w", err)
			}
			if t.file == nil {
				return nil
			}
		}
		// Asked before the reading: what is written until a rotation is read then.
		next, rotated, err := t.next()
		if err != nil {
			return err
		}
		if err := t.lines(tell); err != nil {
			if next != nil {
				next.Close()
			}
			return err
		}
		if !rotated {
			return nil
		}
		if len(t.part) > 0 {
			t.pos += int64(len(t.part))
			if err := tell(string(t.part)); err != nil {
				next.Close()
				return err
			}
			t.part = nil
		}
		t.close()
		t.use(next)
	}
}

func (t *tail) lines(tell func(string) error) error {
	for {
		b, err := t.read.ReadSlice('\n')
		t.part = append(t.part, b...)
		if len(t.part) > 0 && (err == nil || len(t.part) >= lineMost) {
			line := string(bytes.TrimSuffix(t.part, []byte{'\n'}))
			t.pos += int64(len(t.part))
			t.part = t.part[:0]
			if err := tell(line); err != nil {
				return err
			}
		}
		switch {
		case err == nil, errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return nil
		default:
			return fmt.Errorf("reading a log: %w", err)
		}
	}
}

// next finds the file that follows the present one, if that was rotated.
func (t *tail) next() (next *os.File, rotated bool, err error) {
	drop := func() {
		if next != nil {
			next.Close()
		}
		next = nil
	}
	_, mine := inodeOf(t.file)
	err = steady(t.path, func(files *row) error {
		drop()
		for {
			f, err := files.older()
			if f == nil {
				return err // the present one is not among them any more: the oldest goes on
			}
			if _, its := inodeOf(f); its == mine {
				f.Close()
				return nil
			}
			drop()
			next = f
		}
	})
	if err != nil {
		drop()
		return nil, false, fmt.Errorf("reading a log: %w", err)
	}
	return next, next != nil, nil
}
