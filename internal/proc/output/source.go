package output

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// lineMost is how far over its size a log may grow to end with a whole line.
const lineMost = 64 << 10

// source is one process as the Reader sees it.
type source struct {
	process ha.Process
	path    string
	fd      int32 // the pipe
	log     int   // the present file; -1 if it is not open
	bounds  manifest.Output

	size    int64
	midline bool      // the last byte written was no newline
	skip    bool      // the rest of a line is dropped
	tokens  int64     // bytes that may be written now
	filled  time.Time // when tokens were reckoned
	retry   time.Time // when a file that could not be opened is tried again

	burst
}

// burst is output that is being dropped.
type burst struct {
	lost, lines int64 // bytes and line ends so far; zero: nothing is dropped
	first, last time.Time
	why         string
}

// write takes over what was read. It never waits for anything but the disk.
func (s *source) write(b []byte, now time.Time) {
	if s.skip {
		i := bytes.IndexByte(b, '\n')
		if i < 0 || !s.may(min(s.bounds.Rate/4, int64(len(b))), now) {
			s.dropped(b, s.why, now)
			return
		}
		s.dropped(b[:i+1], s.why, now)
		s.skip = false
		b = b[i+1:]
	}
	if s.bounds.Rate > 0 && !s.may(int64(len(b)), now) {
		keep := bytes.LastIndexByte(b[:max(0, min(int64(len(b)), s.tokens))], '\n') + 1
		s.skip = true
		s.dropped(b[keep:], "more than "+strconv.FormatInt(s.bounds.Rate, 10)+" bytes a second", now)
		b = b[:keep]
	}
	s.tokens -= int64(len(b))
	s.put(b, now)
}

// may reports whether n bytes may be written at this instant.
func (s *source) may(n int64, now time.Time) bool {
	if s.bounds.Rate <= 0 {
		return true
	}
	if s.filled.IsZero() {
		s.tokens = s.bounds.Rate
	} else {
		// A minute of quiet fills any bucket; more would only overflow.
		d := min(now.Sub(s.filled), time.Minute)
		s.tokens = min(s.bounds.Rate, s.tokens+int64(d.Seconds()*float64(s.bounds.Rate)))
	}
	s.filled = now
	return s.tokens >= n
}

func (s *source) dropped(b []byte, why string, now time.Time) {
	if len(b) == 0 {
		return
	}
	if s.lost == 0 {
		s.first = now
	}
	s.lost += int64(len(b))
	s.lines += int64(bytes.Count(b, []byte{'\n'}))
	s.last, s.why = now, why
}

// put writes to the log, over as many files as it takes.
func (s *source) put(b []byte, now time.Time) {
	for fresh := false; len(b) > 0; {
		if !s.open(now) {
			s.dropped(b, s.why, now)
			return
		}
		part := b
		if room := s.bounds.Size - s.size; int64(len(b)) > room {
			part = b[:s.cut(b, max(room, 0))]
		}
		if len(part) == 0 && fresh {
			part = b // the files cannot be renamed: better a long one than none
		}
		if len(part) > 0 && !s.append(part, now) {
			s.dropped(b[len(part):], s.why, now)
			return
		}
		b = b[len(part):]
		if len(b) > 0 {
			s.rotate()
		}
		fresh = len(part) == 0
	}
}

// cut is how much of b still goes into a file with that room: whole lines, and a
// line that was begun to its end, unless it is too long.
func (s *source) cut(b []byte, room int64) int {
	if i := bytes.LastIndexByte(b[:room], '\n'); i >= 0 {
		return i + 1
	}
	if !s.midline {
		return int(min(int64(len(b)), lineMost)) * boolInt(s.size == 0)
	}
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return i + 1
	}
	if s.size+int64(len(b)) <= s.bounds.Size+lineMost {
		return len(b)
	}
	return int(room)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// append writes to the present file; what the disk refuses is dropped.
func (s *source) append(b []byte, now time.Time) bool {
	for len(b) > 0 {
		n, err := unix.Write(s.log, b)
		if n > 0 {
			s.size += int64(n)
			s.midline = b[n-1] != '\n'
			b = b[n:]
		}
		if err != nil && err != unix.EINTR {
			s.dropped(b, "writing the log: "+err.Error(), now)
			return false
		}
	}
	return true
}

// note writes into the log that something is missing, and ends the burst.
func (s *source) note(now time.Time) {
	text := fmt.Sprintf("gemel: %d bytes of output dropped: %s\n", s.lost, s.why)
	s.lost, s.lines, s.why = 0, 0, ""
	if !s.open(now) {
		s.lost, s.lines, s.why = 0, 0, ""
		return
	}
	if s.midline {
		text = "\n" + text
	}
	// On a full disk the event is what remains.
	n, err := unix.Write(s.log, []byte(text))
	if n > 0 {
		s.size += int64(n)
		s.midline = err != nil || n < len(text)
	}
}

// open makes sure that the present file is open.
func (s *source) open(now time.Time) bool {
	if s.log >= 0 {
		return true
	}
	if now.Before(s.retry) {
		return false
	}
	fd, err := unix.Open(s.path, unix.O_RDWR|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		s.retry, s.why = now.Add(time.Second), "opening the log: "+err.Error()
		return false
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		s.retry, s.why = now.Add(time.Second), s.path+" is not a file"
		return false
	}
	s.log, s.size = fd, st.Size
	last := []byte{'\n'}
	if st.Size > 0 {
		_, _ = unix.Pread(fd, last, st.Size-1) // as if it ended well
	}
	s.midline = last[0] != '\n'
	return true
}

// rotate gives the present file the number 1, and each older one the next. The
// oldest is lost.
func (s *source) rotate() {
	s.closeLog()
	for i := s.bounds.Keep - 1; i >= 1; i-- {
		// A number that is not there yet is no error; a name that cannot be changed
		// leaves the file to grow, and the next rotation tries again.
		_ = os.Rename(numbered(s.path, i-1), numbered(s.path, i))
	}
	if s.bounds.Keep == 1 {
		_ = os.Remove(s.path)
	}
	// Bounds may have been narrowed.
	for i := s.bounds.Keep; os.Remove(numbered(s.path, i)) == nil; i++ {
	}
}

func numbered(path string, i int) string {
	if i == 0 {
		return path
	}
	return path + "." + strconv.Itoa(i)
}

func (s *source) closeLog() {
	if s.log >= 0 {
		unix.Close(s.log)
		s.log = -1
	}
}
