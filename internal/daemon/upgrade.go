package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
	"gemel/internal/proc"
	"gemel/internal/rpc"
)

// upgradeEnv tells a monitor that was put in the place of another one by exec
// which binary the shadow is to become as well.
const upgradeEnv = "GEMEL_UPGRADE"

// backEnv tells a monitor that it was put there to be what the shadow is.
const backEnv = "GEMEL_FOLLOW"

// underway is an upgrade that is under way. It lies in the run directory until the
// halves run one version, so that whoever is left after a death knows of it.
type underway struct {
	From string `json:"from"` // versions
	To   string `json:"to"`
	Path string `json:"path"` // of the wanted binary
	Old  string `json:"old"`  // of the one before
	Why  string `json:"why,omitempty"`
}

func markPath(o Options) string { return filepath.Join(o.Places.Run, "upgrade") }

// readMark returns nil when no upgrade is under way.
func readMark(o Options) *underway {
	b, err := os.ReadFile(markPath(o))
	if err != nil {
		return nil
	}
	m := &underway{}
	if err := json.Unmarshal(b, m); err != nil {
		o.Log.Warn("the note of an upgrade cannot be read", "path", markPath(o), "error", err)
		return nil
	}
	return m
}

func (m *underway) write(o Options) error {
	b, err := json.Marshal(m)
	if err == nil {
		path := markPath(o)
		err = errors.Join(os.WriteFile(path+".new", b, 0o600), os.Rename(path+".new", path))
	}
	if err != nil {
		return fmt.Errorf("noting the upgrade: %w", err)
	}
	return nil
}

// longUpgrade is how long none can be under way: whoever hangs in one is killed and
// replaced long before.
const longUpgrade = 2 * time.Minute

// mostOrders bounds how often one life of the monitor has a shadow follow it. A
// binary that makes shadows die is not tried for ever.
const mostOrders = 3

// pairing makes the two halves one version, whatever died in the middle of an
// upgrade. The shadow follows the monitor; if that fails, the monitor follows the
// shadow. Everything here is called by the engine's loop.
type pairing struct {
	h       *hands
	path    string // this life began by an upgrade to that
	back    bool   // this life began by following the shadow
	mark    *underway
	orders  int
	waiting bool // an order to follow was given, and no word of it yet
	cut     context.CancelCauseFunc
}

// newPairing reads what the life before left to this one, and takes it out of the
// environment: neither a new shadow nor a program may inherit it.
func newPairing(o Options) *pairing {
	u := &pairing{path: os.Getenv(upgradeEnv), back: os.Getenv(backEnv) != "", mark: readMark(o)}
	_ = os.Unsetenv(upgradeEnv)
	_ = os.Unsetenv(backEnv)
	_ = os.Unsetenv(againEnv)
	return u
}

// synced is called once, when the shadow has told everything.
func (u *pairing) synced() {
	if u.path != "" {
		u.h.engine.Note(ha.Upgraded, ha.Subject{Kind: ha.KindMonitor}, "the monitor is version "+u.h.o.Version)
	}
	if pid := u.h.link.Shadow(); pid != 0 {
		u.meet(pid, u.path != "")
	} // else the next one is met when it comes
}

// half hears what concerns the halves.
func (u *pairing) half(r proc.Report) {
	switch r.Kind {
	case proc.ReportMonitor:
		if u.mark != nil && u.path == "" && u.mark.Why == "" {
			u.mark.Why = "the monitor that was to take over ended: " + r.Status.String()
		}
	case proc.ReportShadowBack:
		u.meet(r.PID, false)
	case proc.ReportUpgraded:
		u.waiting = false
		if r.Error != "" {
			u.follow(u.h.link.Shadow(), "the shadow could not become it: "+r.Error)
			return
		}
		u.settle()
	}
}

// meet compares the shadow with this monitor; must: it is to be replaced even if it
// runs the same file.
func (u *pairing) meet(pid int, must bool) {
	same, ok := proc.Runs(pid, "/proc/self/exe")
	switch {
	case !ok && !must: // it is gone again: the next one is met
	case same && !must:
		u.waiting = false
		u.settle()
	case u.back:
		// What was to be followed is gone: this one decides again.
		u.back = false
		u.order(pid)
	case u.waiting || u.orders >= mostOrders:
		u.follow(pid, "the shadow that was to take over ended")
	default:
		u.order(pid)
	}
}

// order has the shadow become what this monitor is.
func (u *pairing) order(pid int) {
	path := u.path
	if path == "" {
		path = proc.ImageOf(os.Getpid())
	}
	u.orders++
	u.waiting = true
	u.h.o.Log.Info("the shadow runs another binary than the monitor; it follows", "shadow", pid, "path", path)
	if err := u.h.link.Send(proc.Order{Kind: proc.OrderExec, Path: path}); err != nil {
		u.h.o.Log.Error("the shadow was not told to upgrade", "error", err)
	}
}

// follow makes this monitor what the shadow is.
func (u *pairing) follow(pid int, why string) {
	if pid == 0 {
		return // it died: the next one is met
	}
	if u.mark != nil {
		u.mark.Why = why
		if err := u.mark.write(u.h.o); err != nil {
			u.h.o.Log.Error("why the upgrade failed is not kept", "error", err)
		}
	}
	u.h.o.Log.Warn("the monitor becomes what the shadow is", "why", why)
	if err := replace(u.h, u.cut, proc.ImageOf(pid), backEnv); err != nil {
		u.h.o.Log.Error("the monitor goes on as it is", "error", err)
	}
}

// settle is called when both halves run one binary: what was under way is over.
func (u *pairing) settle() {
	u.waiting = false
	m := u.mark
	u.mark = nil
	if m == nil {
		return
	}
	wanted := u.path != ""
	if !wanted {
		wanted, _ = proc.Runs(os.Getpid(), m.Path)
	}
	switch {
	case wanted:
		u.h.engine.Note(ha.Upgraded, ha.OfNode(), fmt.Sprintf("from %s to %s: monitor and shadow", m.From, u.h.o.Version))
	case m.Why == "":
		m.Why = "Gemel ended in the middle of it"
		fallthrough
	default:
		u.h.engine.Note(ha.UpgradeFailed, ha.OfNode(), fmt.Sprintf("to %s (%s): %s; both halves are version %s", m.To, m.Path, m.Why, u.h.o.Version))
	}
	if err := os.Remove(markPath(u.h.o)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		u.h.o.Log.Warn("the note of an upgrade is still there", "error", err)
	}
}

// elseShadow is the command of a shadow of the version before an upgrade.
func elseShadow(o Options) []string {
	if m := readMark(o); m != nil && m.Old != "" {
		return append([]string{m.Old, "run"}, o.args()...)
	}
	return nil
}

// replace ends this life of the monitor for another binary.
func replace(h *hands, cut context.CancelCauseFunc, path, env string) error {
	fd, err := h.link.Dup()
	if err != nil {
		return err
	}
	if fd < 0 {
		// The exec lets go of the programs for a moment: one of the halves holds them.
		return errors.New("there is no shadow at the moment; try again")
	}
	r := &Replace{Path: path, Env: env, Args: append([]string{os.Args[0], "monitor"}, h.o.monitorArgs()...), FD: fd}
	if api, err := rpc.Hand(h.api); err != nil {
		h.o.Log.Warn("the API is away for a moment", "error", err)
	} else {
		r.API = &api
	}
	cut(r)
	return nil
}

// Upgrade tries the binary, and then lets it take the place of the monitor; the
// new monitor has the shadow follow.
func (l life) Upgrade(ctx context.Context, binary string) (from, to string, err error) {
	o := l.h.o
	defer func() {
		if err != nil {
			l.h.engine.Note(ha.UpgradeFailed, ha.OfNode(), fmt.Sprintf("not begun: %v; both halves are version %s", err, o.Version))
		}
	}()
	if st, err := os.Stat(markPath(o)); err == nil && time.Since(st.ModTime()) < longUpgrade {
		return "", "", &ha.Error{Kind: ha.ErrRefused, Reason: "upgrading", Hint: "wait for its end: gemel events -f --code 2045,2052",
			Err: errors.New("upgrading: another upgrade is under way")}
	}
	if binary == "" {
		if binary, err = o.exe(); err != nil {
			return "", "", err
		}
	}
	if binary, to, err = candidate(ctx, binary); err != nil {
		return "", "", err
	}
	m := &underway{From: o.Version, To: to, Path: binary, Old: proc.ImageOf(os.Getpid())}
	if strings.HasPrefix(m.Old, "/proc/") {
		m.Old = "" // gone with this monitor
	}
	if err := m.write(o); err != nil {
		return "", "", err
	}
	l.later(func() {
		if err := replace(l.h, l.cut, binary, upgradeEnv); err != nil {
			l.h.engine.Note(ha.UpgradeFailed, ha.OfNode(), fmt.Sprintf("to %s (%s): %v; both halves are version %s", to, binary, err, o.Version))
			_ = os.Remove(markPath(o))
		}
	})
	return o.Version, to, nil
}

// versionLine begins what gemel --version prints.
const versionLine = "gemel version "

// candidate looks whether path is a gemel that runs here, and which.
func candidate(ctx context.Context, path string) (binary, version string, err error) {
	const hint = "nothing was changed; name the path of a gemel binary that is built for this machine: gemel upgrade /path/of/gemel"
	no := func(reason, format string, args ...any) error {
		return &ha.Error{Kind: ha.ErrRefused, Reason: reason, Hint: hint, Err: fmt.Errorf("upgrading: "+format, args...)}
	}
	binary, err = filepath.EvalSymlinks(path)
	if err != nil {
		return "", "", no("no-binary", "%w", err)
	}
	switch st, err := os.Stat(binary); {
	case err != nil:
		return "", "", no("no-binary", "%w", err)
	case !st.Mode().IsRegular():
		return "", "", no("no-binary", "%s is a %s and not a file", binary, kindOf(st.Mode()))
	case unix.Access(binary, unix.X_OK) != nil:
		return "", "", no("no-binary", "%s may not be executed (mode %v); chmod +x it", binary, st.Mode().Perm())
	}
	e, err := proc.Run(ctx, proc.Command{Args: []string{binary, "--version"}, Timeout: 10 * time.Second})
	text := strings.TrimSpace(e.Output)
	switch {
	case errors.Is(err, unix.ENOEXEC):
		return "", "", no("no-gemel", "%s is no program of this machine (text, damaged, or of another architecture): %w", binary, err)
	case err != nil:
		return "", "", no("no-gemel", "%s does not start: %w", binary, err)
	case e.Late:
		return "", "", no("no-gemel", "%s --version has not ended within 10 s", binary)
	case e.Signal != 0:
		return "", "", no("no-gemel", "%s --version was killed by signal %d (%s)", binary, e.Signal, unix.SignalName(unix.Signal(e.Signal)))
	case e.Code != 0:
		return "", "", no("no-gemel", "%s --version ended with exit %d and said %.200q", binary, e.Code, text)
	case !strings.HasPrefix(text, versionLine):
		return "", "", no("no-gemel", "%s is a program, but no gemel: its --version says %.200q", binary, text)
	}
	return binary, strings.TrimPrefix(text, versionLine), nil
}

func kindOf(m os.FileMode) string {
	if m.IsDir() {
		return "directory"
	}
	return "special file"
}
