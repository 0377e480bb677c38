package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// The layout of a segment, all numbers little-endian:
//
//	header  magic 8, format 4, zero 4, first sequence number 8, CRC of these 4, zero 4
//	record  mark 4, length 4, sequence number 8, CRC of the payload 4,
//	        CRC of the 20 bytes before 4, payload
//
// The header of a record has a sum of its own so that a damaged length is never
// followed.
const (
	segmentMagic = "GEMELJNL"
	format       = 1
	headerSize   = 32
	frameSize    = 24
	maxRecord    = 64 << 20
)

var (
	// frameMark has bytes that UTF-8 never has, and a payload is JSON: so a mark
	// found while looking for the next whole record is hardly ever a false one.
	frameMark  = []byte{0xF5, 'G', 'J', 0xF7}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// errNewer says that a segment has a format that this version does not know.
var errNewer = errors.New("written by a newer version of gemel")

// errHeader says that the header of a segment is not whole.
var errHeader = errors.New("damaged segment header")

func segmentHeader(first uint64) []byte {
	b := make([]byte, headerSize)
	copy(b, segmentMagic)
	binary.LittleEndian.PutUint32(b[8:], format)
	binary.LittleEndian.PutUint64(b[16:], first)
	binary.LittleEndian.PutUint32(b[24:], crc32.Checksum(b[:24], castagnoli))
	return b
}

// checkHeader returns errHeader or errNewer when b does not begin a segment
// that this version reads.
func checkHeader(b []byte) error {
	if len(b) < headerSize || string(b[:8]) != segmentMagic ||
		binary.LittleEndian.Uint32(b[24:]) != crc32.Checksum(b[:24], castagnoli) ||
		binary.LittleEndian.Uint32(b[28:]) != 0 {
		return errHeader
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != format {
		return fmt.Errorf("format %d, this version reads %d: %w", v, format, errNewer)
	}
	return nil
}

func appendFrame(to []byte, seq uint64, payload []byte) []byte {
	at := len(to)
	to = append(to, frameMark...)
	to = binary.LittleEndian.AppendUint32(to, uint32(len(payload)))
	to = binary.LittleEndian.AppendUint64(to, seq)
	to = binary.LittleEndian.AppendUint32(to, crc32.Checksum(payload, castagnoli))
	to = binary.LittleEndian.AppendUint32(to, crc32.Checksum(to[at:at+20], castagnoli))
	return append(to, payload...)
}

// A frame is one whole record as it stands in a segment.
type frame struct {
	seq     uint64
	payload []byte // valid until the next call of next
	skipped int64  // bytes before it that belong to no whole record
	end     int64  // offset of the byte after it
}

// A scanner finds the whole records of a segment. It holds one record at a time.
type scanner struct {
	r       io.Reader
	buf     []byte
	pos     int   // index in buf of the next byte
	off     int64 // its offset in the file
	eof     bool
	err     error // why reading ended, if not at the end of the file
	header  error // what is wrong with the header
	skipped int64 // bytes since the last whole record, after next returned false
}

// newScanner reads the segment's header. A damaged one is not the end: its
// records are looked for all the same.
func newScanner(r io.Reader) *scanner {
	s := &scanner{r: r}
	s.need(headerSize)
	s.header = checkHeader(s.buf[s.pos:])
	if s.header == nil {
		s.advance(headerSize)
	}
	return s
}

// next returns the next whole record; ok is false when there is none.
func (s *scanner) next() (f frame, ok bool) {
	s.skipped = 0
	for s.need(frameSize) {
		b := s.buf[s.pos:]
		if n, sum, sane := saneFrame(b); sane && s.need(frameSize+n) {
			b = s.buf[s.pos:]
			p := b[frameSize : frameSize+n]
			if crc32.Checksum(p, castagnoli) == sum {
				f = frame{seq: binary.LittleEndian.Uint64(b[8:]), payload: p, skipped: s.skipped}
				s.advance(frameSize + n)
				f.end = s.off
				return f, true
			}
		}
		s.resync()
	}
	rest := len(s.buf) - s.pos
	s.skipped += int64(rest)
	s.advance(rest)
	return frame{}, false
}

func saneFrame(b []byte) (length int, sum uint32, ok bool) {
	if !bytes.Equal(b[:4], frameMark) || binary.LittleEndian.Uint32(b[20:]) != crc32.Checksum(b[:20], castagnoli) {
		return 0, 0, false
	}
	n := binary.LittleEndian.Uint32(b[4:])
	return int(n), binary.LittleEndian.Uint32(b[16:]), n <= maxRecord
}

// resync leaves the present position and goes to the next mark in the buffer, or
// to where one could begin at its end.
func (s *scanner) resync() {
	rest := s.buf[s.pos+1:]
	n := 1 + bytes.Index(rest, frameMark)
	if n == 0 {
		n = max(1, len(s.buf)-s.pos-len(frameMark)+1)
	}
	s.skipped += int64(n)
	s.advance(n)
}

func (s *scanner) advance(n int) {
	s.pos += n
	s.off += int64(n)
}

// need sees to it that n bytes are in the buffer; false if the file ends before.
func (s *scanner) need(n int) bool {
	for len(s.buf)-s.pos < n {
		if s.eof {
			return false
		}
		if s.pos > 0 && cap(s.buf)-len(s.buf) < 8<<10 {
			s.buf = s.buf[:copy(s.buf, s.buf[s.pos:])]
			s.pos = 0
		}
		if cap(s.buf)-len(s.buf) < 8<<10 {
			// A sane header may claim much more than there is: grow with what came.
			s.buf = append(make([]byte, 0, max(16<<10, 2*cap(s.buf))), s.buf...)
		}
		m, err := s.r.Read(s.buf[len(s.buf):cap(s.buf)])
		s.buf = s.buf[:len(s.buf)+m]
		if err != nil {
			s.eof = true
			if err != io.EOF {
				s.err = err
			}
		}
	}
	return true
}
