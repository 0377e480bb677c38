package hold

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gemel/internal/contract"
	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// acts is a Runner that plays commands: by the last word of each, how it ends.
type acts struct {
	mu    sync.Mutex
	ends  map[string]func(ctx context.Context) (contract.Ended, error)
	calls []string
}

func (a *acts) run(ctx context.Context, c contract.Command) (contract.Ended, error) {
	name := c.Args[len(c.Args)-1]
	a.mu.Lock()
	a.calls = append(a.calls, name)
	f := a.ends[name]
	a.mu.Unlock()
	if f == nil {
		return contract.Ended{}, nil
	}
	return f(ctx)
}

func code(n int) func(context.Context) (contract.Ended, error) {
	return func(context.Context) (contract.Ended, error) {
		return contract.Ended{Code: n, Output: "said"}, nil
	}
}

// hangs ends when it is told to, as if killed.
func hangs(ctx context.Context) (contract.Ended, error) {
	<-ctx.Done()
	return contract.Ended{Code: -1, Signal: 9}, nil
}

func script(t *testing.T) Order {
	cmd := func(s string) []string { return []string{"/x", s} }
	return Order{Group: "web", Part: "script db", Node: "a", Start: 7, Fence: ha.Fence{Era: 1, Counter: 2}, File: filepath.Join(t.TempDir(), "sub", "db"),
		Script: &manifest.Script{Name: "db", Start: cmd("start"), Stop: cmd("stop"), Validate: cmd("validate"),
			Timeouts: manifest.Timeouts{Start: time.Second, Stop: time.Second, Validate: time.Second}}}
}

func TestStarts(t *testing.T) {
	missing := func(context.Context) (contract.Ended, error) { return contract.Ended{}, errors.New("no such file") }
	for name, c := range map[string]struct {
		ends  map[string]func(context.Context) (contract.Ended, error)
		want  State
		calls string
	}{
		"elsewhere":      {map[string]func(context.Context) (contract.Ended, error){"start": code(2)}, State{Gone: true, Hard: true}, "start stop"},
		"nowhere":        {map[string]func(context.Context) (contract.Ended, error){"start": code(1)}, State{Gone: true, Fatal: true}, "start stop"},
		"out of range":   {map[string]func(context.Context) (contract.Ended, error){"start": code(250)}, State{Gone: true, Fatal: true}, "start stop"},
		"not there":      {map[string]func(context.Context) (contract.Ended, error){"start": missing}, State{Gone: true, Hard: true}, "start stop"},
		"stop not known": {map[string]func(context.Context) (contract.Ended, error){"start": code(2), "stop": code(3)}, State{Hard: true}, "start stop"},
		"validate":       {map[string]func(context.Context) (contract.Ended, error){"validate": code(1)}, State{Gone: true, Hard: true}, "validate"},
	} {
		t.Run(name, func(t *testing.T) {
			o, a := script(t), &acts{ends: c.ends}
			o.Validate = name == "validate"
			got, err := Run(t.Context(), o, a.run)
			if got == Proved || err != nil {
				t.Errorf("exit %d, %v", got, err)
			}
			s, ok := Read(o.File)
			if !ok || s.Phase != Failed || s.Reason == "" || s.Start != 7 || s.Fence != o.Fence || s.Gone != c.want.Gone || s.Hard != c.want.Hard || s.Fatal != c.want.Fatal {
				t.Errorf("told %+v", s)
			}
			if calls := strings.Join(a.calls, " "); calls != c.calls {
				t.Errorf("run: %s", calls)
			}
		})
	}
}

// An end that is asked for while start runs ends it, and stop follows.
func TestStopDuringStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, a := script(t), &acts{ends: map[string]func(context.Context) (contract.Ended, error){"start": hangs}}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		if got, _ := Run(ctx, o, a.run); got == Proved {
			t.Error("a start that failed exits like a proved stop")
		}
		if s, _ := Read(o.File); s.Phase != Failed || !s.Gone {
			t.Errorf("told %+v", s)
		}
	})
}

// Only a stop that exits with 0 is a proof.
func TestStops(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(context.Context) (contract.Ended, error)
		want int
	}{"done": {code(0), Proved}, "fails": {code(1), failed}, "7": {code(7), failed}, "42": {code(42), failed}, "killed": {hangs, failed}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, alone := range []bool{false, true} {
					o, a := script(t), &acts{ends: map[string]func(context.Context) (contract.Ended, error){"stop": c.end}}
					o.OnlyStop = alone
					ctx, cancel := context.WithCancel(t.Context())
					if !alone {
						time.AfterFunc(time.Second, cancel)
					}
					got, _ := Run(ctx, o, a.run)
					cancel()
					s, _ := Read(o.File)
					if got != c.want || (s.Phase == Stopped) != (c.want == Proved) {
						t.Errorf("alone %v: exit %d, told %+v", alone, got, s)
					}
					if alone && a.calls[0] != "stop" {
						t.Errorf("run: %v", a.calls)
					}
				}
			})
		})
	}
}

// A full disk does not make a stop unproved, and nothing is left of what was not told.
func TestNothingCanBeTold(t *testing.T) {
	o, a := script(t), &acts{}
	o.OnlyStop, o.File = true, "/proc/none/db"
	if got, _ := Run(t.Context(), o, a.run); got != Proved {
		t.Errorf("exit %d", got)
	}
}

// A monitor that finds the part gone, or not well, says so once and waits for its end:
// what was started after it has to go first.
func TestMonitor(t *testing.T) {
	for n, word := range map[int]string{7: "existence: ", 1: "integrity: ", 6: "integrity: "} {
		synctest.Test(t, func(t *testing.T) {
			o := script(t)
			o.Script, o.Agent = nil, &manifest.Agent{Name: "d", Provider: "heartbeat", Type: "Dummy", Every: 10 * time.Second,
				Timeouts: manifest.Timeouts{Start: time.Second, Stop: time.Second, Monitor: time.Second}}
			begun, lost := time.Now(), false
			a := &acts{}
			a.ends = map[string]func(context.Context) (contract.Ended, error){"monitor": func(context.Context) (contract.Ended, error) {
				if s, _ := Read(o.File); s.Phase != Running {
					t.Errorf("before it was lost: %+v", s)
				}
				if time.Since(begun) < 25*time.Second {
					return contract.Ended{}, nil
				}
				if lost {
					t.Error("it is monitored after its loss")
				}
				lost = true
				return contract.Ended{Code: n}, nil
			}}
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
			defer cancel()
			said := make(chan State, 1)
			time.AfterFunc(90*time.Second, func() {
				s, _ := Read(o.File)
				said <- s
			})
			if got, _ := Run(ctx, o, a.run); got != Proved {
				t.Errorf("exit %d", got)
			}
			if s := <-said; !lost || s.Phase != Lost || !strings.HasPrefix(s.Reason, word) {
				t.Errorf("told %+v", s)
			}
		})
	}
}

func TestAnOrderForNothing(t *testing.T) {
	if _, err := Run(t.Context(), Order{}, nil); err == nil {
		t.Error("it was held")
	}
	if _, ok := Read(filepath.Join(t.TempDir(), "none")); ok {
		t.Error("nothing said something")
	}
	path := filepath.Join(t.TempDir(), "torn")
	if err := os.WriteFile(path, []byte(`{"start":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := Read(path); ok {
		t.Error("half a word was taken")
	}
}
