package proc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
)

func pairOf(t testing.TB) (a, b int) {
	t.Helper()
	sv, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(sv[0]); unix.Close(sv[1]) })
	return sv[0], sv[1]
}

func TestMessages(t *testing.T) {
	a, b := pairOf(t)
	out, in := NewSender(a), NewReceiver()
	// Every length around that of a handover, and some of several packets.
	for _, n := range []int{0, 1, 2, 3, 4, 5, 6, 7, 8, packetSize - 30, packetSize, 3 * packetSize, 40 * packetSize} {
		want := Order{Kind: OrderBeat, Name: strings.Repeat("x", n)}
		if n < 9 {
			want = Order{Kind: OrderKind(strings.Repeat("k", n))}
		}
		if err := out.Put(want, nil); err != nil {
			t.Fatal(err)
		}
		for {
			m, err := in.Take(b)
			if errors.Is(err, unix.EAGAIN) {
				if _, err := out.Flush(); err != nil {
					t.Fatal(err)
				}
				continue
			}
			var got Order
			if err != nil || m.Child != nil || json.Unmarshal(m.JSON, &got) != nil || got.Name != want.Name || got.Kind != want.Kind {
				t.Fatalf("length %d: %v, %v", n, err, got.Kind)
			}
			break
		}
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fds, err := duplicate([]int{int(f.Fd()), int(f.Fd())})
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Put(Order{Kind: OrderKeep}, fds); err != nil {
		t.Fatal(err)
	}
	m, err := in.Take(b)
	if err != nil || len(m.FDs) != 2 {
		t.Fatalf("%d descriptors, %v", len(m.FDs), err)
	}
	closeAll(m.FDs)
	if err := out.Put(Order{}, make([]int, packetFDs+1)); err == nil {
		t.Error("too many descriptors were taken")
	}
	unix.Close(a)
	if _, err := in.Take(b); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// A peer that does not read costs memory up to a bound, and then an error.
func TestFull(t *testing.T) {
	a, _ := pairOf(t)
	out := NewSender(a)
	big := Order{Name: strings.Repeat("x", 1<<20)}
	for range outboxBytes>>20 + 2 {
		if err := out.Put(big, nil); errors.Is(err, ErrFull) {
			out.Drop()
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Error("there is no bound")
}

func FuzzReceiver(f *testing.F) {
	f.Add([]byte("J{}"))
	f.Add([]byte("Mabc"))
	f.Add(make([]byte, handoverSize))
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) == 0 || len(body) > 2*packetSize {
			return
		}
		a, b := pairOf(t)
		if err := unix.Send(a, body, unix.MSG_DONTWAIT); err != nil {
			return
		}
		unix.Close(a)
		in, book := NewReceiver(), newBook()
		for {
			m, err := in.Take(b)
			if err != nil {
				return
			}
			var r Report
			switch {
			case m.Child != nil:
				book.child(m.Child, m.FDs)
			case json.Unmarshal(m.JSON, &r) == nil:
				closeAll(book.told(&r, m.FDs))
			}
		}
	})
}

// What a link knows of the death of a shadow that had just carried out a standing
// order is told as one exit with its successor.
func TestBookAfterDeath(t *testing.T) {
	b := newBook()
	b.ordered(Order{Kind: OrderStart, Process: "p", Start: 1}, nil)
	b.told(&Report{Kind: ReportStarted, Process: "p", Start: 1, PID: 1 << 30}, nil)
	b.ordered(Order{Kind: OrderArm, Process: "p", Start: 1, Next: 2}, nil)
	b.hold(2, b.names[2], os.Getpid(), nil) // its child announced itself
	b.ordered(Order{Kind: OrderStart, Process: "q", Start: 3}, nil)
	got := b.exits()
	if len(got) != 1 || got[0].Start != 1 || got[0].Next != 2 || got[0].PID != os.Getpid() || !got[0].Status.Unknown {
		t.Fatalf("%+v", got)
	}
	given := func() string {
		s := ""
		for _, p := range b.state() {
			s += fmt.Sprintf("%s %d ended=%v\n", p.order.Kind, p.order.Start, p.order.Status != nil)
			p.drop()
		}
		return s
	}
	if got, want := given(), "hold 2 ended=false\nhold 1 ended=true\nstart 3 ended=false\n"; got != want {
		t.Errorf("a new shadow is given\n%s", got)
	}
	b.ordered(Order{Kind: OrderAck, Process: "p", Start: 1}, nil)
	if got, want := given(), "hold 2 ended=false\nstart 3 ended=false\n"; got != want {
		t.Errorf("after the acknowledgement a new shadow is given\n%s", got)
	}
	if h := b.living()[ha.StartID(2)]; h.Process != "p" {
		t.Errorf("%+v", h)
	}
}
