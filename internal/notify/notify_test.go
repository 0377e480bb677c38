package notify

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func event(id uint64) ha.Event {
	return ha.Event{ID: id, Code: ha.ExistenceRecovering, Subject: ha.OfProcess("nginx"), Change: ha.Assert,
		Severity: ha.Major, Text: ha.ExistenceRecovering.String(), Detail: "exit 3",
		Why: ha.Reason{Rule: "ladder.fault", Text: "it exited"}, Start: 7}
}

func listen(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// receive returns the next message, read from a memory file if one was passed.
func receive(t *testing.T, c *net.UnixConn) []byte {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b, oob := make([]byte, 256<<10), make([]byte, 256)
	n, on, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		t.Fatal(err)
	}
	if on == 0 {
		return b[:n]
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:on])
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "memfd")
	defer f.Close()
	if seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err != nil || seals&unix.F_SEAL_WRITE == 0 {
		t.Fatalf("seals %x, %v", seals, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	b, err = io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// parse reads journald's native protocol.
func parse(t *testing.T, b []byte) map[string]string {
	t.Helper()
	m := map[string]string{}
	for len(b) > 0 {
		head, rest, ok := bytes.Cut(b, []byte("\n"))
		if !ok {
			t.Fatalf("no end of line: %q", b)
		}
		if k, v, ok := strings.Cut(string(head), "="); ok {
			m[k] = v
			b = rest
			continue
		}
		n := binary.LittleEndian.Uint64(rest)
		m[string(head)] = string(rest[8 : 8+n])
		if rest[8+n] != '\n' {
			t.Fatal("no line end after a long value")
		}
		b = rest[8+n+1:]
	}
	return m
}

func TestJournald(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	c := listen(t, path)
	s, err := Journald(path)
	if err != nil {
		t.Fatal(err)
	}
	e := event(12)
	e.Detail = "two\nlines"
	if err := s.Send(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	got := parse(t, receive(t, c))
	for k, want := range map[string]string{
		"PRIORITY": "3", "SYSLOG_IDENTIFIER": "gemel", "GEMEL_EVENT": "12", "GEMEL_CODE": "368",
		"GEMEL_SUBJECT": "process nginx", "GEMEL_CHANGE": "assert", "GEMEL_SEVERITY": "major", "GEMEL_START": "7",
		"MESSAGE": "process nginx: Process existence fault; attempting recovery (two\nlines)",
	} {
		if got[k] != want {
			t.Errorf("%s is %q, want %q", k, got[k], want)
		}
	}
	e.Detail = strings.Repeat("x", 4<<20)
	if err := s.Send(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if got := parse(t, receive(t, c)); !strings.HasSuffix(got["MESSAGE"], "xxx)") || len(got["MESSAGE"]) < 4<<20 {
		t.Errorf("long message: %d bytes", len(got["MESSAGE"]))
	}
	if _, err := Journald(strings.Repeat("x", 200)); err == nil || !strings.Contains(err.Error(), "107") {
		t.Errorf("too long a path: %v", err)
	}
}

func TestSyslog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	c := listen(t, path)
	s, err := Syslog(path)
	if err != nil {
		t.Fatal(err)
	}
	s.(*syslogSink).now = func() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 0, time.Local) }
	e := event(5)
	e.Severity, e.Detail = ha.Critical, "a\nb\x1b[31m\xff"
	if err := s.Send(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("<26>Mar  4 05:06:07 gemel[%d]: process nginx: Process existence fault; attempting recovery (a b [31m ) [event 5, code 368, assert]", os.Getpid())
	if got := string(receive(t, c)); got != want {
		t.Errorf("\n%q, want\n%q", got, want)
	}
	e.Detail = strings.Repeat("é", 9000)
	if err := s.Send(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, c); len(got) > maxSyslog || len(got) < maxSyslog-1 {
		t.Errorf("%d bytes", len(got))
	}
}

func TestAbsentSocketThenReconnect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	s, err := Syslog(path)
	if err != nil {
		t.Fatal(err)
	}
	q := NewQueue(s, quiet())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	q.Offer(event(1))
	c := listen(t, path)
	if got := string(receive(t, c)); !strings.Contains(got, "event 1,") {
		t.Error(got)
	}
	// The daemon restarts: another socket under the same name.
	c.Close()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	c = listen(t, path)
	q.Offer(event(2))
	q.Offer(event(3))
	for _, want := range []string{"event 2,", "event 3,"} {
		if got := string(receive(t, c)); !strings.Contains(got, want) {
			t.Error(got)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestBlockedSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	c := listen(t, path)
	s, err := Syslog(path)
	if err != nil {
		t.Fatal(err)
	}
	// Nobody reads: after a few messages the socket is full.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for err = nil; err == nil; {
		err = s.Send(ctx, event(1))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%v", err)
	}
	receive(t, c)
	if err := s.Send(t.Context(), event(2)); err != nil {
		t.Fatalf("after there is room again: %v", err)
	}
}

// fakeSink fails while down is set.
type fakeSink struct {
	down atomic.Bool
	hang atomic.Bool
	mu   sync.Mutex
	got  []ha.Event
}

func (*fakeSink) Name() string { return "fake" }

func (f *fakeSink) Send(ctx context.Context, e ha.Event) error {
	if f.hang.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	if f.down.Load() {
		return errors.New("down")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got = append(f.got, e)
	return nil
}

func TestQueueKeepsOrderAndCountsDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSink{}
		q := NewQueue(f, quiet())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- q.Run(ctx) }()
		f.hang.Store(true)
		const extra = 300
		for id := uint64(1); id <= queueSize+extra; id++ {
			q.Offer(event(id))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		f.hang.Store(false)
		f.down.Store(true)
		time.Sleep(time.Minute)
		f.down.Store(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		dropped, last := 0, uint64(0)
		for _, e := range f.got {
			if e.ID <= last {
				t.Fatalf("event %d after %d", e.ID, last)
			}
			last = e.ID
			if _, s, ok := strings.Cut(e.Detail, "; "); ok {
				var n int
				if _, err := fmt.Sscan(s, &n); err != nil {
					t.Fatal(err)
				}
				dropped += n
			}
		}
		if len(f.got)+dropped != queueSize+extra || dropped == 0 || last != queueSize+extra {
			t.Fatalf("%d sent, %d said to be dropped, last %d", len(f.got), dropped, last)
		}
		f.hang.Store(true)
		q.Offer(event(9999))
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

func TestQueueSendsTheLastOnes(t *testing.T) {
	f := &fakeSink{}
	q := NewQueue(f, quiet())
	q.Offer(event(1))
	q.Offer(event(2))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := q.Run(ctx); err != nil || len(f.got) != 2 {
		t.Fatalf("%v, %d sent", err, len(f.got))
	}
}

func TestScripts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var order, bad []string
		run := func(ctx context.Context, argv, env []string, bound time.Duration) error {
			all := strings.Join(env, "\n")
			if argv[0] == "hangs" {
				wait(ctx, bound)
				return errors.New("killed after its time-out")
			}
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			order = append(order, argv[1])
			if !strings.Contains(all, "GEMEL_EVENT_CODE=368\n") || !strings.Contains(all, "GEMEL_EVENT_SUBJECT=process ") ||
				!strings.HasSuffix(all, "GEMEL_RUNG=restart") || strings.Contains(all, "\x00") {
				t.Errorf("environment %q", all)
			}
			return nil
		}
		s := NewScripts(run, func(e ha.Event, err error) {
			mu.Lock()
			defer mu.Unlock()
			bad = append(bad, err.Error())
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		e := event(1)
		e.Detail = "a\x00b"
		s.Offer(manifest.Handler{}, "restart", e)
		s.Offer(manifest.Handler{Command: []string{"hangs"}, Timeout: time.Minute}, "restart", e)
		for i := range 3 {
			s.Offer(manifest.Handler{Command: []string{"ok", fmt.Sprint("nginx", i)}}, "restart", e)
		}
		o := e
		o.Subject = ha.OfProcess("other")
		s.Offer(manifest.Handler{Command: []string{"ok", "other"}}, "restart", o)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := strings.Join(order, " "); got != "other nginx0 nginx1 nginx2" {
			t.Errorf("order %s", got)
		}
		if len(bad) != 1 || !strings.Contains(bad[0], "handler hangs: killed") {
			t.Errorf("failed: %q", bad)
		}
		for range handlersWait + 10 {
			s.Offer(manifest.Handler{Command: []string{"hangs"}}, "restart", e)
		}
		if len(bad) < 5 {
			t.Errorf("%d handlers were refused", len(bad)-1)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}
