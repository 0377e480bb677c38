package proc

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"log/slog"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
)

// A child that showed itself to the monitor before this one has no name here: its end is
// told by the next shadow, which knows whose it is, and not twice.
func TestEndWithoutAName(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "exit 35")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	raw := binary.NativeEndian.AppendUint64(nil, 1057)
	raw = binary.NativeEndian.AppendUint64(raw, uint64(cmd.Process.Pid))
	b := newBook()
	b.child(raw, []int{fd})
	for _, r := range b.exits() {
		t.Errorf("told: %+v", r)
	}
	o, ok := b.ends[1057]
	if !ok || o.Kind != OrderHold || o.Status == nil {
		t.Fatalf("the next shadow is not given the end: %+v", b.ends)
	}
	if !o.Status.Unknown && o.Status.Code != 35 { // unknown: a kernel without the record
		t.Errorf("the end is %v", o.Status)
	}
	if len(b.living()) != 0 {
		t.Error("it is still held")
	}
}

// The answer to the hello of the monitor before, which this one reads first, is none to
// its own.
func TestAnswerToAnotherHello(t *testing.T) {
	sv, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sv[1])
	out := NewSender(sv[1])
	say := func(r Report) {
		if err := out.Put(r, nil); err != nil {
			t.Fatal(err)
		}
	}
	say(Report{Kind: ReportHello, Name: "the one before", PID: 1})
	say(Report{Kind: ReportSynced})
	dir := t.TempDir()
	l, err := NewLink(LinkConfig{DataDir: dir, RunDir: dir, PairFD: sv[0], Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- l.Run(t.Context()) }()
	in := NewReceiver()
	var o Order
	for o.Kind != OrderHello {
		p := []unix.PollFd{{Fd: int32(sv[1]), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, 30_000); n == 0 || err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatalf("no hello: %v", err)
		}
		m, err := in.Take(sv[1])
		if err != nil {
			t.Fatal(err)
		}
		o = Order{}
		if err := json.Unmarshal(m.JSON, &o); err != nil {
			t.Fatal(err)
		}
	}
	if o.Name == "" {
		t.Fatal("the hello has no name")
	}
	say(Report{Kind: ReportStarted, Process: "a", Start: 7, PID: 1})
	say(Report{Kind: ReportHello, Name: o.Name, PID: 2})
	say(Report{Kind: ReportSynced})
	var got []Report
	for len(got) < 2 {
		select {
		case r := <-l.Reports():
			got = append(got, r)
		case <-time.After(30 * time.Second):
			t.Fatalf("only %+v came", got)
		}
	}
	if got[0].Kind != ReportHello || got[0].PID != 2 || got[1].Kind != ReportSynced {
		t.Errorf("told: %+v", got)
	}
	if err := l.Send(Order{Kind: OrderDetach}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// The next shadow is given a stop as the last one had it: with the time that the
// program was given, and without grace if there was none any more.
func TestStopForTheNextShadow(t *testing.T) {
	b := newBook()
	b.told(&Report{Kind: ReportStarted, Process: "p", Start: 1, PID: 7}, nil)
	want := func(what string, kill bool, at ha.Instant) {
		t.Helper()
		all := b.state()
		o := all[len(all)-1].order
		if o.Kind != OrderStop || o.Start != 1 || o.Kill != kill || o.At != at {
			t.Errorf("%s: the next shadow is given %+v", what, o)
		}
	}
	b.ordered(Order{Kind: OrderStop, Process: "p", Start: 1}, nil)
	want("a stop", false, 0)
	b.ordered(Order{Kind: OrderStop, Process: "p", Start: 1, At: 20}, nil)
	want("more time", false, 20)
	b.ordered(Order{Kind: OrderStop, Process: "p", Start: 1, At: 10}, nil)
	want("less time", false, 20)
	b.ordered(Order{Kind: OrderStop, Process: "p", Start: 1, Kill: true}, nil)
	b.ordered(Order{Kind: OrderStop, Process: "p", Start: 1, At: 30}, nil)
	want("no grace", true, 30)
}
