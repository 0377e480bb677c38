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

// Follow calls tell with the last lines of the log of a process, and then with
// each new one as it comes, over rotations, until ctx ends or tell fails. A
// process that has printed nothing yet is waited for.
func Follow(ctx context.Context, logDir string, p ha.Process, lines int, tell func(line string) error) error {
	notes, err := watchDir(logDir)
	if err != nil {
		return err
	}
	defer notes.Close()
	stop := context.AfterFunc(ctx, func() { notes.Close() })
	defer stop()
	t, err := openTail(logDir, p, lines)
	if err != nil {
		return err
	}
	defer t.close()
	buf := make([]byte, 4096)
	for ctx.Err() == nil {
		if err := t.walk(tell); err != nil {
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
	read *bufio.Reader
}

// openTail finds the place with at most that many lines after it.
func openTail(logDir string, p ha.Process, lines int) (*tail, error) {
	if err := plain(p); err != nil {
		return nil, err
	}
	t := &tail{path: LogPath(logDir, p)}
	for i, want := 0, lines; i < keepMost; i++ {
		f, err := os.Open(numbered(t.path, i))
		if errors.Is(err, os.ErrNotExist) {
			return t, nil
		}
		if err != nil {
			t.close()
			return nil, fmt.Errorf("reading the log of %s: %w", p, err)
		}
		t.close()
		t.use(f)
		found, err := lastLines(f, want)
		if err != nil {
			t.close()
			return nil, fmt.Errorf("reading the log of %s: %w", p, err)
		}
		if want -= found; want <= 0 {
			return t, nil
		}
	}
	return t, nil
}

func (t *tail) use(f *os.File) {
	t.file = f
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
			f, err := os.Open(t.path)
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("reading a log: %w", err)
			}
			t.use(f)
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
func (t *tail) next() (f *os.File, rotated bool, err error) {
	mine, err := t.file.Stat()
	if err != nil {
		return nil, false, fmt.Errorf("reading a log: %w", err)
	}
	newest, err := os.Open(t.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, false, nil // between the rename and the first line after it
	}
	if err != nil {
		return nil, false, fmt.Errorf("reading a log: %w", err)
	}
	for i := 1; ; i++ {
		st, err := newest.Stat()
		if err != nil {
			newest.Close()
			return nil, false, fmt.Errorf("reading a log: %w", err)
		}
		if os.SameFile(mine, st) {
			newest.Close()
			return f, f != nil, nil
		}
		older, err := os.Open(numbered(t.path, i))
		if err != nil || i >= keepMost {
			// The present one is not among them any more: the oldest goes on.
			if older != nil {
				older.Close()
			}
			if f != nil {
				f.Close()
			}
			return newest, true, nil
		}
		if f != nil {
			f.Close()
		}
		f, newest = newest, older
	}
}
