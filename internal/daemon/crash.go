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
	"gemel/internal/proc"
)

// maxCrash bounds what is kept of one crash.
const maxCrash = 256 << 10

// sayCrash has the runtime write to a file when this half ends by a fault of its
// own (a panic in any goroutine, a deadly signal). What the one before it wrote is
// put aside: the monitor makes evidence of it and tells it, see crashes.
func sayCrash(o Options, half ha.Kind) {
	path := crashFile(o, half)
	var f *os.File
	err := setAside(path)
	if err == nil {
		if f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err == nil {
			err = errors.Join(debug.SetCrashOutput(f, debug.CrashOptions{}), f.Close()) // it has a copy
		}
	}
	if err != nil {
		o.Log.Warn("what a crash writes is not kept", "half", half, "error", err)
	}
}

func crashFile(o Options, half ha.Kind) string {
	return filepath.Join(o.Places.Data, "crash-"+string(half)+".txt")
}

// setAside moves what a crash wrote out of the way of the next one.
func setAside(path string) error {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && st.Size() == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Rename(path, path+".old")
}

// crashes are the events of halves that ended by a fault of their own and were not
// told yet. Their records are kept as evidence.
func crashes(o Options) []ha.Event {
	var told []ha.Event
	for _, half := range []ha.Kind{ha.KindShadow, ha.KindMonitor} {
		path := crashFile(o, half) + ".old"
		e, err := lastCrash(o, half, path)
		told = append(told, e...)
		if err == nil && len(e) > 0 {
			err = os.Remove(path)
		}
		if err != nil {
			o.Log.Warn("what a crash wrote is not kept", "half", half, "error", err)
		}
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

// half takes what is told of the halves. Another shadow has put aside what the one
// before it wrote at its end.
func (h *hands) half(r proc.Report) {
	h.pairing.half(r)
	if r.Kind != proc.ReportHello && r.Kind != proc.ReportShadowBack {
		return
	}
	h.group.wg.Go(func() {
		for _, e := range crashes(h.o) {
			h.engine.Recall(e)
		}
	})
}
