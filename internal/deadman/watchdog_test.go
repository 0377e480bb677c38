package deadman

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fake is a driver that writes down what it is asked.
type fake struct {
	options uint32
	no      error // to the first question
	grain   int   // its times are multiples of this, in s
	most    int
	is      int
	did     []string
}

func (f *fake) note(format string, args ...any) { f.did = append(f.did, fmt.Sprintf(format, args...)) }

func (f *fake) Support() (uint32, string, error) { return f.options, "fake", f.no }

func (f *fake) Ask(request uint, s int) (int, error) {
	switch request {
	case unix.WDIOC_KEEPALIVE:
		f.note("pet")
	case unix.WDIOC_SETTIMEOUT:
		f.note("time %d", s)
		if s > f.most {
			return 0, unix.EINVAL
		}
		f.is = (s + f.grain - 1) / f.grain * f.grain
	}
	return f.is, nil
}

func (f *fake) Write(b []byte) (int, error) { f.note("write %s", b); return len(b), nil }
func (f *fake) Close() error                { f.note("close"); return nil }

func TestBegin(t *testing.T) {
	const both = canSetTime | canMagicClose
	for _, c := range []struct {
		what  string
		dev   fake
		want  time.Duration
		stays bool
		time  time.Duration
		err   string
		did   []string // in begin, and in Disarm after it
	}{
		{"usual", fake{options: both, grain: 1, most: 60}, 2 * time.Second, false, 2 * time.Second, "", []string{"time 2", "pet", "write V", "close"}},
		{"rounded down to a second", fake{options: both, grain: 1, most: 60}, 2900 * time.Millisecond, false, 2 * time.Second, "", []string{"time 2", "pet", "write V", "close"}},
		{"rounded up by the device", fake{options: both, grain: 5, most: 60}, 2 * time.Second, false, 5 * time.Second, "", []string{"time 2", "pet", "write V", "close"}},
		{"with a time of its own", fake{options: canMagicClose, is: 30}, 2 * time.Second, false, 30 * time.Second, "", []string{"pet", "write V", "close"}},
		{"never stopped", fake{options: both, grain: 1, most: 299}, 2 * time.Second, true, 2 * time.Second, "", []string{"time 2", "pet", "time 600", "time 300", "time 120", "pet", "close"}},
		{"no watchdog", fake{no: unix.ENOTTY}, 2 * time.Second, false, 0, "is no watchdog", []string{"close"}},
		{"ends with its file", fake{options: canSetTime, grain: 1, most: 60}, 2 * time.Second, false, 0, "also by the death of Gemel", []string{"write V", "close"}},
		{"ends with its file, and never", fake{options: canSetTime, grain: 1, most: 60}, 2 * time.Second, true, 2 * time.Second, "", []string{"time 2", "pet", "time 600", "time 300", "time 120", "time 60", "pet", "close"}},
		{"takes no such time", fake{options: both, grain: 1, most: 1}, 2 * time.Second, false, 0, "does not take a time of 2 s", []string{"time 2", "write V", "close"}},
		{"says no time", fake{options: canMagicClose}, 2 * time.Second, false, 0, "does not say its time", []string{"write V", "close"}},
	} {
		dog, err := begin("/dev/fake", &c.dev, c.want, c.stays)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", c.what, err)
			}
		} else {
			if err != nil || dog.Time() != c.time {
				t.Fatalf("%s: %v, %v", c.what, dog, err)
			}
			if err := dog.Pet(); err != nil {
				t.Errorf("%s: %v", c.what, err)
			}
			if err := dog.Disarm(); (err != nil) != c.stays {
				t.Errorf("%s: its end: %v", c.what, err)
			}
		}
		if !slices.Equal(c.dev.did, c.did) {
			t.Errorf("%s: %q, want %q", c.what, c.dev.did, c.did)
		}
	}
}

// TestLeave: who leaves says nothing, so that the device goes on to count.
func TestLeave(t *testing.T) {
	f := fake{options: canMagicClose, is: 2}
	dog, err := begin("/dev/fake", &f, time.Second, false)
	if err != nil || dog.Leave() != nil || !slices.Equal(f.did, []string{"close"}) {
		t.Errorf("%v, %q", err, f.did)
	}
}

// TestOpenWhatIsNone: what is no watchdog is not written to, and the error says what it is.
func TestOpenWhatIsNone(t *testing.T) {
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.WriteFile(file, []byte("x"), 0o600), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "is not there", file: "no character device", fifo: "no character device", dir: "no character device", "/dev/null": "is no watchdog",
	} {
		if dog, err := Open(path, time.Second); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", path, dog, err)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "x" {
		t.Errorf("the file was changed: %q, %v", b, err)
	}
}

func TestNowayout(t *testing.T) {
	sys := t.TempDir()
	put := func(dir, text string) {
		t.Helper()
		at := filepath.Join(sys, dir)
		if err := errors.Join(os.MkdirAll(at, 0o700), os.WriteFile(filepath.Join(at, "nowayout"), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	put("class/watchdog/watchdog0", "1\n")
	put("dev/char/248:1", "0\n")
	if !nowayout(sys, 10, 130) || nowayout(sys, 248, 1) || nowayout(sys, 248, 2) {
		t.Error("of the first, the second and one that does not tell")
	}
}
