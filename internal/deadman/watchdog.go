package deadman

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Dog is a watchdog that is armed: it resets the machine when Time is over since it was
// opened or petted last.
type Dog interface {
	Time() time.Duration
	Pet() error
	// Disarm ends the watch, for good order. A device that cannot be stopped gets as much
	// time as it takes, and the error says so.
	Disarm() error
	// Leave closes the device, which goes on to count.
	Leave() error
}

// What a driver says that it can do (linux/watchdog.h).
const (
	canSetTime    = 0x0080
	canMagicClose = 0x0100
)

// longest is asked for by one who ends where the device cannot be stopped, in s.
var longest = [...]int{600, 300, 120, 60}

// kernel is what is asked of the device, for tests.
type kernel interface {
	io.WriteCloser
	Support() (options uint32, name string, err error)
	// Ask makes a request of linux/watchdog.h with a number, and returns the answer's.
	Ask(request uint, n int) (int, error)
}

func ask(k kernel, request uint, n int) error {
	_, err := k.Ask(request, n)
	return err
}

type watchdog struct {
	path  string
	k     kernel
	time  time.Duration
	stays bool // nowayout: once begun it is never stopped
}

// Open arms the watchdog at a path. Opening is petting: who has no right to that must not
// call it. Want is rounded down to what the device can do, which counts whole seconds;
// Time of the Dog says what it does. Nothing is written to what is no watchdog.
func Open(path string, want time.Duration) (Dog, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("watchdog %s is not there: load the driver of the machine's watchdog", path)
	case err != nil:
		return nil, fmt.Errorf("watchdog: %w", err)
	case info.Mode()&os.ModeCharDevice == 0:
		return nil, fmt.Errorf("%s is no watchdog: it is no character device", path)
	}
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("watchdog %s is busy: another program has it, as systemd with RuntimeWatchdogSec, or watchdogd", path)
	}
	if err != nil {
		return nil, fmt.Errorf("watchdog %s: %w", path, err)
	}
	var st unix.Stat_t
	_ = unix.Fstat(fd, &st) // of nothing but where nowayout is looked for
	return begin(path, &device{fd}, want, nowayout("/sys", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))))
}

// begin makes a Dog of what was opened, or gives it back.
func begin(path string, k kernel, want time.Duration, stays bool) (Dog, error) {
	options, name, err := k.Support()
	if err != nil {
		// Not a word to it: who knows what it is.
		return nil, errors.Join(fmt.Errorf("%s is no watchdog: %w", path, err), k.Close())
	}
	w := &watchdog{path: path, k: k, stays: stays}
	fail := func(format string, args ...any) (Dog, error) {
		return nil, errors.Join(fmt.Errorf(format, args...), w.Disarm())
	}
	if options&canMagicClose == 0 && !stays {
		return fail("watchdog %s (%s) ends its watch whenever it is closed, also by the death of Gemel: use another one, or load its driver with nowayout", path, name)
	}
	seconds := max(int(want/time.Second), 1)
	if options&canSetTime != 0 {
		if err := ask(k, unix.WDIOC_SETTIMEOUT, seconds); err != nil {
			return fail("watchdog %s (%s) does not take a time of %d s: %w", path, name, seconds, err)
		}
	}
	is, err := k.Ask(unix.WDIOC_GETTIMEOUT, 0)
	if err != nil || is <= 0 {
		return fail("watchdog %s (%s) does not say its time (%d s): %w", path, name, is, err)
	}
	w.time = time.Duration(is) * time.Second
	return w, nil
}

// Time is after how long it resets the machine.
func (w *watchdog) Time() time.Duration { return w.time }

// Pet begins its time anew.
func (w *watchdog) Pet() error {
	if err := ask(w.k, unix.WDIOC_KEEPALIVE, 0); err != nil {
		return fmt.Errorf("petting watchdog %s: %w", w.path, err)
	}
	return nil
}

// Disarm is that of Dog.
func (w *watchdog) Disarm() error {
	var err error
	if w.stays {
		err = fmt.Errorf("watchdog %s cannot be stopped (nowayout): the machine is reset if nobody opens it in time", w.path)
		for _, s := range longest {
			if ask(w.k, unix.WDIOC_SETTIMEOUT, s) == nil {
				err = fmt.Errorf("watchdog %s cannot be stopped (nowayout): the machine is reset in %d s if nobody opens it before", w.path, s)
				break
			}
		}
		err = errors.Join(err, ask(w.k, unix.WDIOC_KEEPALIVE, 0))
	} else if _, werr := w.k.Write([]byte("V")); werr != nil {
		err = fmt.Errorf("ending the watch of %s: %w", w.path, werr)
	}
	return errors.Join(err, w.k.Close())
}

// Leave is that of Dog.
func (w *watchdog) Leave() error { return w.k.Close() }

// nowayout reports whether a device is one that is never stopped once it was begun. Below
// sys it is known by its numbers; the old name /dev/watchdog is the first one's.
func nowayout(sys string, major, minor uint32) bool {
	at := filepath.Join(sys, "dev/char", fmt.Sprintf("%d:%d", major, minor))
	if major == 10 && minor == 130 {
		at = filepath.Join(sys, "class/watchdog/watchdog0")
	}
	b, _ := os.ReadFile(filepath.Join(at, "nowayout")) // a kernel that does not tell: see begin
	return strings.TrimSpace(string(b)) == "1"
}

// device is the kernel's own.
type device struct{ fd int }

// Support asks what the driver can do. Who is no watchdog does not know the question.
func (d *device) Support() (uint32, string, error) {
	i, err := unix.IoctlGetWatchdogInfo(d.fd)
	if err != nil {
		return 0, "", err
	}
	return i.Options, unix.ByteSliceToString(i.Identity[:]), nil
}

// Ask makes a request.
func (d *device) Ask(request uint, n int) (int, error) {
	switch request {
	case unix.WDIOC_GETTIMEOUT:
		return unix.IoctlGetInt(d.fd, request)
	case unix.WDIOC_KEEPALIVE:
		return 0, unix.IoctlWatchdogKeepalive(d.fd)
	}
	return 0, unix.IoctlSetPointerInt(d.fd, request, n)
}

// Write writes to it: one V is the word for its end.
func (d *device) Write(b []byte) (int, error) { return unix.Write(d.fd, b) }

// Close closes it.
func (d *device) Close() error { return unix.Close(d.fd) }
