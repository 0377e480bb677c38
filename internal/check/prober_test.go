package check

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// desk is a prober in a bubble, with a command that answers what the test says.
type desk struct {
	*Prober
	mu    sync.Mutex
	reply func(name string) (int, string, error)
	runs  map[string][]time.Duration // since the start
	told  []ha.Verdict
	t0    time.Time
}

func newDesk(t *testing.T) *desk {
	d := &desk{runs: map[string][]time.Duration{}, t0: time.Now(),
		reply: func(string) (int, string, error) { return 0, "well", nil }}
	d.Prober = New(d.run, func(in ha.Input) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.told = append(d.told, in.(ha.Verdict))
	}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *desk) run(ctx context.Context, argv, env []string, user string, timeout time.Duration) (int, string, error) {
	d.mu.Lock()
	d.runs[argv[0]] = append(d.runs[argv[0]], time.Since(d.t0))
	reply := d.reply
	d.mu.Unlock()
	return reply(argv[0])
}

func (d *desk) takeTold() []ha.Verdict {
	d.mu.Lock()
	defer d.mu.Unlock()
	told := d.told
	d.told = nil
	return told
}

func (d *desk) count(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.runs[name])
}

func (d *desk) say(code int, output string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reply = func(string) (int, string, error) { return code, output, err }
}

func command(name string) manifest.Check {
	return manifest.Check{Name: ha.Check(name), Command: []string{name}, Every: 10 * time.Second, Timeout: 2 * time.Second,
		Covers: []ha.Process{"a", "b"}}
}

func TestVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.Set(command("c"))
		time.Sleep(time.Minute)
		if d.count("c") != 0 {
			t.Fatal("it ran before it was switched on")
		}
		d.Judge("c", true)
		time.Sleep(time.Minute)
		if n := d.count("c"); n != 6 {
			t.Errorf("%d runs in a minute", n)
		}
		if told := d.takeTold(); len(told) != 1 || !told[0].OK || told[0].Detail != "well" {
			t.Errorf("told %+v, want the first success alone", told)
		}
		d.say(3, "one\naccuse: b\naccuse: stranger\n two\x1b\n", nil)
		time.Sleep(30 * time.Second)
		told := d.takeTold()
		if len(told) != 3 {
			t.Fatalf("told %+v, want each of three failures", told)
		}
		for _, v := range told {
			if v.OK || v.Detail != "exit 3: one; two?" || fmt.Sprint(v.Accused) != "[b]" {
				t.Errorf("told %+v", v)
			}
		}
		d.say(0, "", nil)
		time.Sleep(30 * time.Second)
		if told := d.takeTold(); len(told) != 1 || !told[0].OK {
			t.Errorf("told %+v, want one success", told)
		}
		d.say(0, "", errors.New("no such file"))
		time.Sleep(10 * time.Second)
		if told := d.takeTold(); len(told) != 1 || told[0].Detail != "could not be run: no such file" {
			t.Errorf("told %+v", told)
		}
		if r := d.Last("c"); !r.On || !r.Known || r.OK || r.Detail == "" || time.Since(r.At) > 10*time.Second {
			t.Errorf("last %+v", r)
		}
		d.Judge("c", false)
		n := d.count("c")
		time.Sleep(time.Minute)
		if d.count("c") != n {
			t.Error("it runs although it is switched off")
		}
		d.say(0, "", nil)
		d.Judge("c", true)
		d.Judge("c", true)
		time.Sleep(10 * time.Second)
		if told := d.takeTold(); len(told) != 1 || !told[0].OK {
			t.Errorf("told %+v after it was switched on again", told)
		}
		d.Set(command("c")) // the same
		time.Sleep(10 * time.Second)
		if told := d.takeTold(); told != nil {
			t.Errorf("told %+v", told)
		}
		changed := command("c")
		changed.Every = 5 * time.Second
		d.Set(changed)
		time.Sleep(30 * time.Second)
		if told := d.takeTold(); len(told) != 1 {
			t.Errorf("told %+v after a change", told)
		}
		d.Remove("c")
		d.Remove("c")
		d.Judge("c", true)
		n = d.count("c")
		time.Sleep(time.Minute)
		if d.count("c") != n || d.Last("c") != (Result{}) {
			t.Error("it runs although it was removed")
		}
	})
}

// A thousand checks do not run together.
func TestSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		for i := range 1000 {
			c := command(fmt.Sprint("check-", i))
			d.Set(c)
			d.Judge(c.Name, true)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		in := map[int]int{}
		for name, at := range d.runs {
			if len(at) != 1 {
				t.Errorf("%s ran %d times", name, len(at))
			}
			in[int(at[0]/(100*time.Millisecond))]++
		}
		for k, n := range in {
			if n > 40 {
				t.Errorf("%d of 1000 in the tenth number %d", n, k)
			}
		}
	})
}

// A check that takes longer than its interval never overlaps itself, and one that
// ignores its end is not run again before it has returned.
func TestNoOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most, all atomic.Int32
		release := make(chan struct{})
		run := func(ctx context.Context, _, _ []string, _ string, timeout time.Duration) (int, string, error) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			if all.Add(1) == 3 {
				<-release
				return 0, "", nil
			}
			time.Sleep(3 * time.Second)
			return 0, "", nil
		}
		p := New(run, func(ha.Input) {}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		c := command("slow")
		c.Every, c.Timeout = time.Second, 5*time.Second
		p.Set(c)
		p.Judge(c.Name, true)
		time.Sleep(20 * time.Second)
		p.Judge(c.Name, false)
		p.Judge(c.Name, true)
		p.Remove(c.Name)
		p.Set(c)
		p.Judge(c.Name, true)
		time.Sleep(20 * time.Second)
		if all.Load() != 3 || most.Load() != 1 {
			t.Errorf("%d runs, %d at once", all.Load(), most.Load())
		}
		close(release)
		time.Sleep(time.Minute)
		if all.Load() < 15 || most.Load() != 1 {
			t.Errorf("%d runs, %d at once", all.Load(), most.Load())
		}
		cancel()
		if err := <-done; err != nil || now.Load() != 0 {
			t.Errorf("%v, %d still run", err, now.Load())
		}
	})
}

// A check whose time-out is its interval, and that hangs, runs each interval: none
// falls out. One that is quick keeps its phase.
func TestOverrun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hangs, quick atomic.Int32
		run := func(ctx context.Context, argv, _ []string, _ string, timeout time.Duration) (int, string, error) {
			if argv[0] == "quick" {
				quick.Add(1)
				return 0, "", nil
			}
			hangs.Add(1)
			time.Sleep(timeout + time.Millisecond) // it is found and killed a little late
			return -1, "", context.DeadlineExceeded
		}
		p := New(run, func(ha.Input) {}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		for _, name := range []string{"hangs", "quick"} {
			c := command(name)
			c.Every, c.Timeout = 10*time.Second, 10*time.Second
			p.Set(c)
			p.Judge(c.Name, true)
		}
		time.Sleep(10 * time.Minute)
		if h, q := hangs.Load(), quick.Load(); h < 58 || h > 61 || q < 59 || q > 61 {
			t.Errorf("in 60 intervals %d runs of what hangs and %d of what is quick", h, q)
		}
		cancel()
		<-done
	})
}

// A run that begins late, as after a stall of this process, does not move the
// phase and is not made up for.
func TestSlot(t *testing.T) {
	due := time.Unix(1000, 0)
	for late, want := range map[time.Duration]time.Duration{
		0: 10 * time.Second, time.Millisecond: 10 * time.Second, 9 * time.Second: 10 * time.Second,
		10 * time.Second: 20 * time.Second, time.Hour + time.Second: time.Hour + 10*time.Second,
	} {
		if got := slot(due, due.Add(late), 10*time.Second).Sub(due); got != want {
			t.Errorf("begun %v late: the next after %v, want %v", late, got, want)
		}
	}
}

// A command that does not end is a failure, and the prober goes on.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var verdicts atomic.Int32
		var last atomic.Value
		run := func(ctx context.Context, _, _ []string, _ string, timeout time.Duration) (int, string, error) {
			select {
			case <-time.After(timeout):
				return -1, "half a line", context.DeadlineExceeded
			case <-ctx.Done():
				return -1, "", ctx.Err()
			}
		}
		p := New(run, func(in ha.Input) { verdicts.Add(1); last.Store(in.(ha.Verdict).Detail) }, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		p.Set(command("hangs"))
		p.Judge("hangs", true)
		time.Sleep(40 * time.Second)
		if n := verdicts.Load(); n < 3 || n > 4 {
			t.Errorf("%d verdicts in 40 s", n)
		}
		if got := last.Load(); got != "no answer within 2s; half a line" {
			t.Errorf("detail %q", got)
		}
		cancel()
		<-done
	})
}

// A time-out that came much too late is this process's own stall. But not for ever.
func TestOwnStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.mu.Lock()
		d.reply = func(string) (int, string, error) {
			time.Sleep(time.Hour) // as if this process had slept, and its timers with it
			return -1, "", context.DeadlineExceeded
		}
		d.mu.Unlock()
		d.Set(command("c"))
		d.Judge("c", true)
		time.Sleep(3*time.Hour + time.Minute)
		if told := d.takeTold(); told != nil {
			t.Errorf("told %+v", told)
		}
		time.Sleep(time.Hour)
		if told := d.takeTold(); len(told) != 1 {
			t.Errorf("told %+v", told)
		}
	})
}

// A command that takes its whole time to be killed is not this process's stall.
func TestHardToKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.mu.Lock()
		d.reply = func(string) (int, string, error) {
			time.Sleep(2*time.Second + runnerSlack)
			return -1, "", context.DeadlineExceeded
		}
		d.mu.Unlock()
		d.Set(command("c"))
		d.Judge("c", true)
		time.Sleep(time.Minute)
		if told := d.takeTold(); len(told) < 2 {
			t.Errorf("told %+v", told)
		}
	})
}

func TestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		c := command("once")
		c.Once, c.Every = true, 0
		d.Set(c)
		d.Judge("once", true)
		time.Sleep(time.Hour)
		if d.count("once") != 1 || len(d.takeTold()) != 1 {
			t.Errorf("%d runs of a check that runs once", d.count("once"))
		}
	})
}

func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.Set(command("c"))
		d.say(1, "not yet", nil)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		err := Await(ctx, manifest.Ready{Kind: manifest.ReadyCheck, Check: "c"}, d.Prober)
		if err == nil || !strings.Contains(err.Error(), "readiness by check: exit 1: not yet") {
			t.Errorf("Await: %v", err)
		}
		if n := d.count("c"); n < 10 || n > 25 {
			t.Errorf("%d attempts in 5 s", n)
		}
		d.say(0, "", nil)
		if err := Await(t.Context(), manifest.Ready{Kind: manifest.ReadyCheck, Check: "c"}, d.Prober); err != nil {
			t.Error(err)
		}
		if err := Await(t.Context(), manifest.Ready{Kind: manifest.ReadyNotify}, nil); err != nil {
			t.Error(err)
		}
		if err := d.Try(t.Context(), "none"); err == nil {
			t.Error("a check that does not exist is well")
		}
		if told := d.takeTold(); told != nil {
			t.Errorf("readiness told %+v", told)
		}
		file := filepath.Join(t.TempDir(), "ready")
		time.AfterFunc(3*time.Second, func() {
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Error(err)
			}
		})
		began := time.Now()
		if err := Await(t.Context(), manifest.Ready{Kind: manifest.ReadyFile, File: file}, nil); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("the file was seen after %v", took)
		}
	})
}
