package notify

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
)

// maxPath is the longest path of a unix socket.
const maxPath = 107

// maxSyslog bounds a message to syslog, in bytes; the usual daemons take 8 KiB.
const maxSyslog = 8000

// datagram is a socket that is opened when it is needed, and again after an error.
type datagram struct {
	path string
	conn *net.UnixConn
}

func newDatagram(what, path string) (datagram, error) {
	if path == "" || len(path) > maxPath {
		return datagram{}, fmt.Errorf("%s: %q is no path of a unix socket: 1 to %d bytes are allowed", what, path, maxPath)
	}
	return datagram{path: path}, nil
}

// send writes one message; large, if set, is tried when it is too long for the socket.
func (d *datagram) send(ctx context.Context, b []byte, large func(*net.UnixConn, []byte) error) error {
	if d.conn == nil {
		c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: d.path, Net: "unixgram"})
		if err != nil {
			return err
		}
		d.conn = c
	}
	end, _ := ctx.Deadline() // the zero time means no deadline
	err := d.conn.SetWriteDeadline(end)
	if err == nil {
		_, err = d.conn.Write(b)
	}
	if large != nil && (errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ENOBUFS)) {
		err = large(d.conn, b)
	}
	if err != nil {
		err = errors.Join(err, d.conn.Close())
		d.conn = nil
	}
	return err
}

type journald struct{ datagram }

// Journald sends to journald by its native protocol, so that every part of an
// event is a field that journalctl can be asked for (GEMEL_SUBJECT=...). path is
// its socket; empty: where systemd has it. It need not be there yet.
func Journald(path string) (Sink, error) {
	if path == "" {
		path = "/run/systemd/journal/socket"
	}
	d, err := newDatagram("journald", path)
	if err != nil {
		return nil, err
	}
	return &journald{d}, nil
}

func (*journald) Name() string { return "journald" }

func (j *journald) Send(ctx context.Context, e ha.Event) error {
	return j.send(ctx, fields(e), sendMemfd)
}

func fields(e ha.Event) []byte {
	var b bytes.Buffer
	add := func(name, value string) {
		if value == "" {
			return
		}
		b.WriteString(name)
		if strings.Contains(value, "\n") {
			b.WriteByte('\n')
			b.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(value))))
		} else {
			b.WriteByte('=')
		}
		b.WriteString(value)
		b.WriteByte('\n')
	}
	add("PRIORITY", strconv.Itoa(priority(e)))
	add("SYSLOG_IDENTIFIER", "gemel")
	add("MESSAGE", line(e))
	add("GEMEL_EVENT", strconv.FormatUint(e.ID, 10))
	add("GEMEL_CODE", strconv.Itoa(int(e.Code)))
	add("GEMEL_SUBJECT", e.Subject.String())
	add("GEMEL_CHANGE", e.Change.String())
	add("GEMEL_SEVERITY", e.Severity.String())
	add("GEMEL_REASON", e.Why.Text)
	add("GEMEL_RULE", e.Why.Rule)
	add("GEMEL_EVIDENCE", e.Evidence)
	if e.Start != 0 {
		add("GEMEL_START", e.Start.String())
	}
	return b.Bytes()
}

// sendMemfd passes a message that is too long for a datagram as a sealed memory
// file, as journald wants it.
func sendMemfd(c *net.UnixConn, b []byte) error {
	fd, err := unix.MemfdCreate("gemel-event", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return fmt.Errorf("making a memory file for a long event: %w", err)
	}
	f := os.NewFile(uintptr(fd), "gemel-event")
	defer f.Close()
	if _, err := io.Copy(f, bytes.NewReader(b)); err != nil {
		return fmt.Errorf("writing a long event: %w", err)
	}
	seals := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("sealing a long event: %w", err)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = raw.Write(func(to uintptr) bool {
		serr = unix.Sendmsg(int(to), nil, unix.UnixRights(int(f.Fd())), nil, 0)
		return serr != unix.EAGAIN // else wait until there is room
	})
	return errors.Join(err, serr)
}

type syslogSink struct {
	datagram
	now func() time.Time
}

// Syslog sends to the local syslog daemon, facility daemon, in the form that
// every such daemon reads (RFC 3164 without a host name). path is its socket;
// empty: /dev/log. It need not be there yet.
func Syslog(path string) (Sink, error) {
	if path == "" {
		path = "/dev/log"
	}
	d, err := newDatagram("syslog", path)
	if err != nil {
		return nil, err
	}
	return &syslogSink{d, time.Now}, nil
}

func (*syslogSink) Name() string { return "syslog" }

const facilityDaemon = 3 << 3

func (s *syslogSink) Send(ctx context.Context, e ha.Event) error {
	m := fmt.Sprintf("<%d>%s gemel[%d]: %s [event %d, code %d, %s]", facilityDaemon|priority(e),
		s.now().Format(time.Stamp), os.Getpid(), line(e), e.ID, e.Code, e.Change)
	return s.send(ctx, []byte(oneLine(m, maxSyslog)), nil)
}

// oneLine replaces what would break a line or a terminal, and cuts at limit.
func oneLine(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, s)
	if len(s) > limit {
		s = s[:limit]
		for !utf8.ValidString(s) {
			s = s[:len(s)-1]
		}
	}
	return s
}
