package daemon

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"gemel/internal/clock"
	"gemel/internal/evidence"
	"gemel/internal/ha"
)

// maxCrash bounds what is kept of one crash.
const maxCrash = 256 << 10

// sayCrash has the runtime write to a file when this half ends by a fault of its
// own (a panic in any goroutine, a deadly signal), and returns the event of the
// one before that did, whose record is kept as evidence.
func sayCrash(o Options, half ha.Kind) []ha.Event {
	path := filepath.Join(o.Places.Data, "crash-"+string(half)+".txt")
	told, err := lastCrash(o, half, path)
	if err == nil {
		var f *os.File
		if f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err == nil {
			err = errors.Join(debug.SetCrashOutput(f, debug.CrashOptions{}), f.Close()) // it has a copy
		}
	}
	if err != nil {
		o.Log.Warn("what a crash writes is not kept", "error", err)
	}
	return told
}

// lastCrash makes evidence of what the half before this one wrote at its end.
func lastCrash(o Options, half ha.Kind, path string) ([]ha.Event, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	text := string(b[:min(len(b), maxCrash)])
	cause, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	e := ha.Event{Code: ha.Crashed, Subject: ha.Subject{Kind: half}, Detail: cause}
	e.Evidence, err = evidence.New(filepath.Join(o.Places.Data, "evidence")).Put(
		evidence.Case{Process: ha.Process(half), At: clock.Now()}, text)
	o.Log.Error("gemel ended by a fault of its own", "half", half, "cause", cause, "evidence", e.Evidence)
	return []ha.Event{e}, err
}
