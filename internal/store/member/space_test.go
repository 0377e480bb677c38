package member

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gemel/internal/ha"
	"gemel/internal/store"
)

// A store whose file has reached its quota takes no write and gives every read. Tidy makes
// room and has it take writes again; no key is lost, and where nothing is to be done it does nothing.
func TestStoreThatIsFull(t *testing.T) {
	r := newRig(t, how{n: 3})
	r.up("a", "b", "c")
	a := r.client("a")
	kept := mustWrite(t, a, ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey("kept"), Node: member("kept", "i")}}})
	if done, err := a.Tidy(ctxFor(t, 10*time.Second)); done != "" || err != nil {
		t.Errorf("an empty store was tidied: %q, %v", done, err)
	}
	big := member("big", "i")
	big.Boot = strings.Repeat("x", 1200<<10)
	var last ha.Rev
	for i := 0; ; i++ {
		if i > 2*store.Quota>>20 {
			t.Fatalf("%d MiB were taken", i)
		}
		got := a.Write(ctxFor(t, 10*time.Second), ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey("big"), Guard: last, Node: big}}})
		if !got.OK {
			if strings.Contains(got.Error, "space exceeded") {
				// etcd says so of the write that reached the quota as well, which came about: that
				// is no refusal, and nobody may take it for one.
				last = a.Node(ctxFor(t, 10*time.Second), "big").Key
				break
			}
			if got.Refused {
				t.Fatalf("it was refused with %+v", got)
			}
			got.At = a.Node(ctxFor(t, 10*time.Second), "big").Key // its outcome is unknown: a machine that is busy
		}
		last = got.At
	}
	// Small ones as well, and by every member; reads go on, and with them each authority.
	for _, n := range []string{"a", "b", "c"} {
		until(t, "the word of "+n, func() error {
			s, err := r.client(n).Space(ctxFor(t, 5*time.Second))
			if err != nil || !s.Full {
				return fmt.Errorf("%+v, %v", s, err)
			}
			return nil
		})
		if got := r.client(n).Write(ctxFor(t, 5*time.Second), ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey("small"), Node: member("small", "i")}}}); got.OK {
			t.Errorf("%s has taken a write", n)
		}
		if got := r.client(n).Node(ctxFor(t, 5*time.Second), "kept"); got.Error != "" || got.Key != kept {
			t.Errorf("reading at %s: %+v", n, got)
		}
	}
	stirred := make(chan ha.Rev, 100)
	go r.client("b").Watch(ctxFor(t, time.Minute), func(at ha.Rev) {
		select {
		case stirred <- at:
		default:
		}
	})
	for _, n := range []string{"a", "b", "c"} {
		// A member forgets what another one had it forget in its own time.
		until(t, "room at "+n, func() error {
			began := time.Now()
			done, err := r.client(n).Tidy(ctxFor(t, 30*time.Second))
			if done != "" {
				t.Logf("%s: %s, after %v", n, done, time.Since(began))
			}
			if s, err2 := r.client(n).Space(ctxFor(t, 5*time.Second)); err != nil || err2 != nil || s.Size > store.Quota/4 {
				return fmt.Errorf("%+v, %v, %v", s, err, err2)
			}
			return nil
		})
	}
	for _, n := range []string{"a", "b", "c"} {
		if s, err := r.client(n).Space(ctxFor(t, 5*time.Second)); err != nil || s.Full {
			t.Errorf("%s: %+v, %v", n, s, err)
		}
		if done, err := r.client(n).Tidy(ctxFor(t, 5*time.Second)); done != "" || err != nil {
			t.Errorf("%s was tidied again: %q, %v", n, done, err)
		}
	}
	at := mustWrite(t, a, ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey("small"), Node: member("small", "i")}}})
	if got := a.Node(ctxFor(t, 5*time.Second), "kept"); got.Key != kept {
		t.Errorf("what was there: %+v", got)
	}
	if got := a.Node(ctxFor(t, 5*time.Second), "big"); got.Key != last || len(got.Record.Boot) != len(big.Boot) {
		t.Errorf("the last that was taken: key %d, %d bytes", got.Key, len(got.Record.Boot))
	}
	until(t, "word of the write, to one who followed", func() error {
		select {
		case got := <-stirred:
			if got >= at {
				return nil
			}
		default:
		}
		return fmt.Errorf("not yet")
	})
}
