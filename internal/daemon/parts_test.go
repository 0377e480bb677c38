package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gemel/internal/ha"
)

// A loop ends with its own start and no other; a newer one of its kind takes its
// place.
func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWaits()
		var mu sync.Mutex
		live := make(map[int]bool)
		begin := func(id int, kind string, start ha.StartID) {
			w.begin(t.Context(), wait{"p", kind}, start, func(ctx context.Context) {
				<-ctx.Done()
				mu.Lock()
				delete(live, id)
				mu.Unlock()
			})
			mu.Lock()
			live[id] = true
			mu.Unlock()
			synctest.Wait()
		}
		want := func(what string, ids ...int) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			for id := range 6 {
				if live[id] != slices.Contains(ids, id) {
					t.Errorf("%s: loops that run: %v, want %v", what, live, ids)
				}
			}
		}
		begin(1, forReady, 7)
		begin(2, forBeats, 7)
		w.end("p", 6, forReady, forBeats) // the end of an older start, told late
		want("an older start ended", 1, 2)
		begin(3, forBeats, 7)
		want("a watch was renewed", 1, 3)
		w.end("p", 7, forBeats)
		want("a watch ended", 1)
		// The order of a death with a successor: gone, then what the new start needs.
		w.end("p", 7, forReady, forBeats)
		begin(4, forReady, 8)
		w.end("p", 7, forReady, forBeats)
		want("a successor", 4)
		w.begin(t.Context(), wait{"p", forBeats}, 8, func(context.Context) {})
		synctest.Wait()
		if len(w.runs) != 1 {
			t.Errorf("%d loops are remembered, 1 runs", len(w.runs))
		}
		w.close()
		want("the end")
		w.begin(t.Context(), wait{"p", forReady}, 9, func(context.Context) { t.Error("a loop began after the end") })
	})
}

func TestPace(t *testing.T) {
	for usec, want := range map[string][3]time.Duration{
		"": {0, time.Second, 10 * time.Second}, "x": {0, time.Second, 10 * time.Second}, "-1": {0, time.Second, 10 * time.Second},
		"30000000": {30 * time.Second, time.Second, 10 * time.Second}, "20000000": {20 * time.Second, time.Second, 20 * time.Second / 3},
		"4000000": {4 * time.Second, 500 * time.Millisecond, 5 * time.Second}, "99999999999999": {0, time.Second, 10 * time.Second},
	} {
		t.Setenv("WATCHDOG_USEC", usec)
		w := watchdog()
		beat, silence := pace(w)
		if got := [3]time.Duration{w, beat, silence}; got != want {
			t.Errorf("WATCHDOG_USEC=%s: %v, want %v", usec, got, want)
		}
		if w > 0 && beat > w/2 {
			t.Errorf("WATCHDOG_USEC=%s: a beat every %v is too rare", usec, beat)
		}
	}
}

func TestRebootCommand(t *testing.T) {
	if c := rebootCommand(t.TempDir()); !slices.Equal(c, []string{"systemctl", "reboot"}) {
		t.Errorf("with systemd: %q", c)
	}
	if c := rebootCommand(filepath.Join(t.TempDir(), "none")); !slices.Equal(c, []string{"reboot"}) {
		t.Errorf("without systemd: %q", c)
	}
}

// A machine of no cluster answers each failover at once.
func TestAlone(t *testing.T) {
	var told []ha.Input
	alone(func(in ha.Input) { told = append(told, in) })(ha.Failover{Process: "p"})
	f, ok := told[0].(ha.FailedOver)
	if !ok || len(told) != 1 || f.Process != "p" || f.Outcome != ha.Refused || !f.StillActive || f.Detail == "" {
		t.Errorf("told %+v", told)
	}
}

// A reboot command that fails is told; none of these reboots anything.
func TestReboot(t *testing.T) {
	for _, c := range []struct {
		command []string
		want    string
	}{
		{[]string{"/bin/sh", "-c", "echo no; exit 3"}, "/bin/sh -c echo no; exit 3 ended with exit 3: no"},
		{[]string{"/bin/false"}, "/bin/false ended with exit 1"},
		{[]string{"/bin/sh", "-c", "kill -9 $$"}, "/bin/sh -c kill -9 $$ ended by signal 9 (SIGKILL)"},
		{[]string{"/nonexistent"}, ""},
	} {
		var told []ha.Input
		reboot(t.Context(), func(in ha.Input) { told = append(told, in) }, ha.Reboot{Process: "p"}, c.command)
		f, ok := told[0].(ha.RebootFailed)
		if !ok || len(told) != 1 || f.Process != "p" || f.Detail == "" || c.want != "" && f.Detail != c.want {
			t.Errorf("%q: told %+v", c.command, told)
		}
	}
	// One that ends well is given time: the machine goes down after it.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		reboot(ctx, func(in ha.Input) { t.Errorf("told %+v", in) }, ha.Reboot{}, []string{"/bin/true"})
	}()
	cancel()
	<-done
}

// A machine that still runs after a command which ended well is told once the
// bound is over: the process is not rebooting for ever.
func TestRebootThatDoesNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		got := remains(t.Context(), []string{"/usr/bin/logger", "would reboot"})
		if want := "/usr/bin/logger would reboot ended well 5m ago and the machine still runs"; got != want || time.Since(begun) != rebootBound {
			t.Errorf("after %v: %q", time.Since(begun), got)
		}
	})
}

// The file is compared with what is in force, and read only when it changed.
func TestSource(t *testing.T) {
	digest := func(s string) string {
		sum := sha256.Sum256([]byte(s))
		return hex.EncodeToString(sum[:])
	}
	s := source{path: filepath.Join(t.TempDir(), "gemel.yaml")}
	if s.differs(digest("a")) {
		t.Error("a file that is not there differs")
	}
	put := func(text string, age time.Duration) {
		t.Helper()
		if err := os.WriteFile(s.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(s.path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	put("a", time.Hour)
	if s.differs(digest("a")) || !s.differs(digest("b")) {
		t.Error("the file holds a")
	}
	put("b", 30*time.Minute)
	if !s.differs(digest("a")) || s.differs(digest("b")) {
		t.Error("the file holds b")
	}
	// Two changes within the grain of the file system's clock.
	put("c", 0)
	if !s.differs(digest("a")) {
		t.Error("the file holds c")
	}
	put("a", 0)
	if s.differs(digest("a")) {
		t.Error("the file holds a again")
	}
	if (&source{}).differs("x") {
		t.Error("no file differs")
	}
}

// The first loop that ends ends the others.
func TestGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t.Context())
		g.start(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		g.start(func(context.Context) error { return os.ErrClosed })
		if err := g.wait(); err != os.ErrClosed {
			t.Errorf("%v", err)
		}
		g = newGroup(t.Context())
		g.start(func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) })
		g.cancel(errStopped)
		if err := g.wait(); err != errStopped {
			t.Errorf("%v", err)
		}
		g = newGroup(t.Context())
		g.start(func(context.Context) error { return nil })
		if err := g.wait(); err != nil {
			t.Errorf("%v", err)
		}
	})
}
