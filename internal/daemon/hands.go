package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/attach"
	"gemel/internal/beat"
	"gemel/internal/check"
	"gemel/internal/clock"
	"gemel/internal/engine"
	"gemel/internal/evidence"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/notify"
	"gemel/internal/proc"
	"gemel/internal/proc/output"
	"gemel/internal/proc/spawn"
)

// hands are the edges of one life of the monitor, wired to the engine.
//
//budget:fields it is wiring: one field for each edge
type hands struct {
	o       Options
	file    source
	group   *group
	link    *proc.Link
	engine  *engine.Engine // set before anything runs
	tree    *spawn.Tree
	world   proc.World
	beats   *beat.Watcher
	checks  *check.Prober
	proofs  *evidence.Keeper
	outputs *output.Reader
	attach  *attach.Holder
	sinks   []*notify.Queue
	scripts *notify.Scripts
	waits   *waits
	pairing *pairing
	member  *member               // nil: this machine is of no cluster
	api     net.Listener          // set with the server
	admit   func(manifest.Access) // set with the server
}

func newHands(o Options, g *group, link *proc.Link, m *manifest.Manifest) (*hands, error) {
	h := &hands{o: o, file: source{path: o.File}, group: g, link: link, world: proc.ThisMachine(), waits: newWaits(), pairing: newPairing(o)}
	h.pairing.h, h.pairing.cut = h, g.cancel
	tree, err := spawn.Open(instance(o.Places))
	if err != nil {
		return nil, err
	}
	h.tree = tree
	tell := func(in ha.Input) { h.engine.Tell(in) }
	h.beats = beat.New(o.Places.Run, clock.Now, tell, o.Log)
	h.beats.Member = spawn.Identify
	h.checks = check.New(h.probe, tell, o.Log)
	h.proofs = evidence.New(filepath.Join(o.Places.Data, "evidence"))
	h.attach = attach.New(attach.Ways{Tell: tell, Now: clock.Now, Exit: exitOf, Run: h.found, Log: o.Log})
	h.outputs, err = output.New(output.Config{
		RunDir: o.Places.Run, LogDir: filepath.Join(o.Places.Data, "log"), Log: o.Log,
		Dropped: func(p ha.Process, lines, bytes int64) {
			h.engine.Note(ha.OutputDropped, ha.OfProcess(p), fmt.Sprintf("%d lines, %d bytes", lines, bytes))
		},
	})
	if err != nil {
		return nil, err
	}
	h.scripts = notify.NewScripts(script, func(e ha.Event, err error) {
		h.engine.Note(ha.HandlerFailed, e.Subject, err.Error())
	})
	h.sinks = sinks(o, m)
	return h, nil
}

// exitOf reads how a held program that is gone ended.
func exitOf(pidfd int) (ha.ExitStatus, bool) {
	st, ok, err := spawn.ExitStatus(pidfd, false)
	return st, ok && err == nil && !st.Unknown
}

// sinks are where events are told besides the API.
func sinks(o Options, m *manifest.Manifest) []*notify.Queue {
	var out []*notify.Queue
	add := func(on bool, path string, open func(string) (notify.Sink, error)) {
		if !on {
			return
		}
		s, err := open(path)
		if err != nil {
			o.Log.Warn("events are not told there", "error", err)
			return
		}
		out = append(out, notify.NewQueue(s, o.Log))
	}
	// "Where it is": systemd makes its directory at boot, long before anything
	// that could be ours. A machine without one has nothing to be warned of.
	_, err := os.Stat("/run/systemd/journal")
	add(m.Node.Journald && (err == nil || o.Journald != ""), o.Journald, notify.Journald)
	add(m.Node.Syslog, o.Syslog, notify.Syslog)
	return out
}

// resolve looks up what a start needs.
func (h *hands) resolve(p manifest.Process) (proc.Spec, error) { return proc.Resolve(p, h.world) }

// run runs the loops of the edges.
func (h *hands) run(ctx context.Context) error {
	g := newGroup(ctx)
	g.start(h.beats.Run)
	g.start(h.checks.Run)
	g.start(h.outputs.Run)
	g.start(h.scripts.Run)
	for _, s := range h.sinks {
		g.start(s.Run)
	}
	return g.wait()
}

func (h *hands) close() {
	h.waits.close()
	h.attach.Close()
}

// edges gives the engine its hands.
func (h *hands) edges() engine.Edges {
	tell := func(in ha.Input) { h.engine.Tell(in) }
	return engine.Edges{
		Shadow: h.link,
		Open:   h.open, Close: h.forget,
		Check: h.checks.Set, Uncheck: h.checks.Remove,
		Watch: h.watch, Await: h.await, Judge: func(j ha.Judge) { h.checks.Judge(j.Check, j.On) },
		Seek: h.attach.Seek, Launch: h.attach.Launch, Halt: h.attach.Stop,
		Examine: h.examine, Handle: h.handle,
		Failover: escape{h.member}.failover(tell), StartPart: orders{h.member}.startPart, StopPart: orders{h.member}.stopPart, Account: orders{h.member}.account, Lapsed: orders{h.member}.lapsed, Want: orders{h.member}.applied, Made: orders{h.member}.made, Cluster: h.member.view, Depart: orders{h.member}.depart,
		Reboot: h.reboot, Notify: h.notify,
		Kept: h.kept, Synced: h.pairing.synced, Half: h.half, Reload: h.reload, Admit: func(a manifest.Access) { h.admit(a) },
		Runs: h.beats.Began, Gone: func(p ha.Process, s ha.StartID) { h.waits.end(p, s, forReady, forBeats) },
		Beating: func(p ha.Process) (int, string) { return h.beats.Threads(p), h.beats.Status(p) },
	}
}

// open makes the names of a process: its output, its notify socket, its beat page.
func (h *hands) open(p manifest.Process, s proc.Spec) error {
	if s.Output == "capture" {
		if err := h.outputs.Open(p.Name, p.Output); err != nil {
			return err
		}
	}
	uid, gid := -1, -1
	if s.SetIDs {
		uid, gid = s.UID, s.GID
	}
	files, err := h.beats.Open(p.Name, uid, gid, s.Notify, s.Beats)
	if err != nil {
		return err
	}
	for _, f := range files {
		// The shadow keeps the socket, so that what a program says while there is
		// no monitor waits for the next one.
		err = errors.Join(err, h.link.Send(proc.Order{Kind: proc.OrderKeep, Name: keepNotify + string(p.Name)}, int(f.Fd())), f.Close())
	}
	return err
}

// keepNotify begins the names under which the shadow keeps notify sockets.
const keepNotify = "notify/"

func (h *hands) kept(name string, fds []int) {
	p, ok := strings.CutPrefix(name, keepNotify)
	for i, fd := range fds {
		if ok && i == 0 {
			h.beats.Adopt(ha.Process(p), os.NewFile(uintptr(fd), "notify"))
			continue
		}
		_ = unix.Close(fd)
	}
}

func (h *hands) forget(p ha.Process) {
	h.attach.Release(p)
	h.beats.Close(p)
	h.outputs.Close(p)
	_ = h.link.Send(proc.Order{Kind: proc.OrderDrop, Name: keepNotify + string(p)})
}

func (h *hands) notify(e ha.Event, node manifest.Handler) {
	for _, s := range h.sinks {
		s.Offer(e)
	}
	if e.Subject.Kind == ha.KindNode {
		h.scripts.Offer(node, "", e)
	}
}

func (h *hands) handle(a ha.Handle, hd manifest.Handler, e ha.Event) {
	h.scripts.Offer(hd, a.Rung, e)
}

// quit ends both halves after every program has stopped: the shadow goes when
// the monitor is gone.
func (h *hands) quit() {
	if err := h.link.Send(proc.Order{Kind: proc.OrderQuit}); err != nil {
		h.o.Log.Error("the shadow was not told to end", "error", err)
	}
	h.group.cancel(errStopped)
}

// reload applies the file again that this instance was started with.
func (h *hands) reload() {
	if h.o.File == "" {
		h.engine.Note(ha.ManifestRefused, ha.OfNode(), "there is no file to read again: gemel run was given none")
		return
	}
	h.group.wg.Go(func() {
		b, err := os.ReadFile(h.o.File)
		if err == nil {
			ctx, cancel := context.WithTimeout(h.group.ctx, time.Minute)
			defer cancel()
			_, _, err = core{h.engine, h.member}.Apply(ctx, h.o.File, b, false)
		}
		if err != nil {
			h.engine.Note(ha.ManifestRefused, ha.OfNode(), err.Error())
		}
	})
}
