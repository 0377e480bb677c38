package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/contract"
	"gemel/internal/contract/hold"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/proc"
)

// made carries out what concerns the parts of groups that commands of others make: each
// is a program of the shadow's, its holder (gemel part), which belongs to the group as
// the group's other programs do. Nothing of a group is run by the monitor itself.
type made struct {
	m   *member
	dir string // where holders say how they are

	mu   sync.Mutex
	cfg  map[ha.Process]order // of the manifest in force, by the name of the holder
	fits map[ha.Process]fit   // what those said that were asked whether they could run here
	held map[ha.Process]*held
	mine map[ha.Group]bool // groups that may be here
	ask  chan struct{}     // there are parts to be asked
}

// order is what the manifest says of one part.
type order struct {
	group  ha.Group
	part   ha.Part
	script *manifest.Script
	agent  *manifest.Agent
}

// held is one holder, from its order to its end.
type held struct {
	name  ha.Process
	start ha.StartID
	alive bool
	ask   any  // ha.StartPart or ha.StopPart that waits for an answer; nil: none
	lost  bool // that it is not well was told
	alone bool // it only stops
	bound *time.Timer
}

// holderMark begins the names of holders; no process of a manifest has it.
const holderMark = "@"

// holderName names the program of a part: a file is named by it, and so is a row of the
// shadow's table, which has room for 90 bytes.
func holderName(g ha.Group, p ha.Part) ha.Process {
	_, name, _ := strings.Cut(string(p), " ")
	full := holderMark + string(g) + "." + name
	if len(full) > 80 {
		sum := sha256.Sum256([]byte(full))
		full = holderMark + hex.EncodeToString(sum[:16])
	}
	return ha.Process(full)
}

func newMade(m *member) *made {
	return &made{m: m, dir: filepath.Join(m.o.Places.Run, "parts"),
		cfg: map[ha.Process]order{}, fits: map[ha.Process]fit{}, held: map[ha.Process]*held{}, ask: make(chan struct{}, 1)}
}

// want takes a manifest that comes into force, and has each part that is for this node
// asked whether it could run here.
func (x *made) want(man *manifest.Manifest) {
	x.mu.Lock()
	defer x.mu.Unlock()
	all := map[ha.Process]order{}
	for _, g := range man.Groups {
		for i := range g.Scripts {
			o := order{g.Name, ha.Part("script " + g.Scripts[i].Name), &g.Scripts[i], nil}
			all[holderName(o.group, o.part)] = o
		}
		for i := range g.OCF {
			o := order{g.Name, ha.Part("ocf " + g.OCF[i].Name), nil, &g.OCF[i]}
			all[holderName(o.group, o.part)] = o
		}
	}
	for name, f := range x.fits {
		if now, ok := all[name]; !ok || !reflect.DeepEqual(now, x.cfg[name]) {
			delete(x.fits, name)
		} else {
			f.at = time.Time{} // it is asked anew, and what it said counts meanwhile
			x.fits[name] = f
		}
	}
	x.cfg = all
	x.mine = map[ha.Group]bool{}
	for _, g := range man.Groups {
		x.mine[g.Name] = !x.m.o.Identity.Witness && (len(g.Nodes) == 0 || slices.Contains(g.Nodes, x.m.o.Identity.Name))
	}
	select {
	case x.ask <- struct{}{}:
	default:
	}
}

// order makes what a holder is told.
func (x *made) order(cfg order, f ha.Fence, start ha.StartID) (hold.Order, error) {
	name := holderName(cfg.group, cfg.part)
	o := hold.Order{Group: cfg.group, Part: cfg.part, Node: x.m.o.Identity.Name, Fence: f, Start: start, Agent: cfg.agent, File: x.file(name)}
	if cfg.script == nil {
		return o, nil
	}
	s := *cfg.script
	for _, argv := range []*[]string{&s.Start, &s.Stop, &s.Validate} {
		if len(*argv) == 0 {
			continue
		}
		spec, err := x.m.h.resolve(manifest.Process{Name: name, Command: *argv, User: s.User})
		if err != nil {
			return o, err
		}
		*argv = append([]string{spec.Path}, (*argv)[1:]...)
		o.As = hold.As{Set: spec.SetIDs, UID: spec.UID, GID: spec.GID, Groups: spec.Groups}
	}
	o.Script = &s
	return o, nil
}

func (x *made) file(name ha.Process) string { return filepath.Join(x.dir, string(name)) }

// has reports whether a group has such parts.
func (x *made) has(g ha.Group) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, o := range x.cfg {
		if o.group == g {
			return true
		}
	}
	return false
}

// take returns what is known of a holder; x.mu is held.
func (x *made) take(name ha.Process) *held {
	h := x.held[name]
	if h == nil {
		h = &held{name: name}
		x.held[name] = h
	}
	return h
}

// start has a part started. What came of it is told.
func (x *made) start(a ha.StartPart) {
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.take(holderName(a.Group, a.Part))
	switch {
	case h.ask != nil:
		x.tell(ha.PartDone{Group: a.Group, Part: a.Part, On: true, Detail: "another order for it is on its way"})
	case h.alive:
		h.ask = a
		if _, bound, err := x.recipe(h, a, false); err == nil {
			x.limit(h, bound)
		}
		x.look(h)
	case a.Again:
		x.tell(ha.PartDone{Group: a.Group, Part: a.Part, On: true, Detail: "nothing holds it any more"})
	default:
		h.ask, h.lost = a, false
		if err := x.launch(h, a, false); err != nil {
			h.ask = nil
			x.tell(ha.PartDone{Group: a.Group, Part: a.Part, On: true, Hard: true, Gone: true, Detail: err.Error()})
		}
	}
}

// stop has a part stopped: by its holder, or, if there is none, by a program that does
// nothing else. That one needs no right: it is run when the group's own has ended as
// well, since a part that is not proved to be stopped keeps this node out of its cluster.
// What a stop leaves behind is killed at its end.
func (x *made) stop(a ha.StopPart) {
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.take(holderName(a.Group, a.Part))
	if a.Cut {
		x.cut(h)
		return
	}
	if h.ask != nil {
		x.tell(ha.PartDone{Group: a.Group, Part: a.Part, Detail: "another order for it is on its way"})
		return
	}
	h.ask = a
	if h.alive {
		if spec, _, err := x.recipe(h, ha.StartPart{Group: a.Group, Part: a.Part, Fence: a.Fence, Start: h.start}, false); err == nil {
			// A shadow that took over from another one does not know how long it may take.
			x.send(proc.Order{Kind: proc.OrderSpec, Process: h.name, Spec: spec})
		}
		x.send(proc.Order{Kind: proc.OrderStop, Process: h.name, Start: h.start})
		return
	}
	x.clear(h, a)
}

// cut has a start end that is under way: its holder stops what it had begun, and that is
// the answer to the start. x.mu is held.
func (x *made) cut(h *held) {
	a, ok := h.ask.(ha.StartPart)
	if !ok || !h.alive {
		return // it was answered, or is about to be
	}
	if _, bound, err := x.recipe(h, ha.StartPart{Group: a.Group, Part: a.Part, Fence: a.Fence, Start: h.start}, true); err == nil {
		x.limit(h, bound)
	}
	x.send(proc.Order{Kind: proc.OrderStop, Process: h.name, Start: h.start})
}

// clear has a part stopped that nothing holds. x.mu is held.
func (x *made) clear(h *held, a ha.StopPart) {
	if err := x.launch(h, ha.StartPart{Group: a.Group, Part: a.Part, Fence: a.Fence, Start: a.Start}, true); err != nil {
		h.ask = nil
		x.tell(ha.PartDone{Group: a.Group, Part: a.Part, Detail: err.Error()})
	}
}

// margin is how long a holder may take beside its commands.
const margin = 10 * time.Second

// recipe is what the shadow is told of a holder, and how long it may take. x.mu is held.
func (x *made) recipe(h *held, a ha.StartPart, alone bool) (*proc.Spec, time.Duration, error) {
	cfg, ok := x.cfg[h.name]
	if !ok {
		return nil, 0, fmt.Errorf("%s is not in the manifest any more, so that nobody knows how it is stopped: put it back, or restart this machine", a.Part)
	}
	o, err := x.order(cfg, a.Fence, a.Start)
	if err != nil {
		return nil, 0, err
	}
	t := manifest.Timeouts{}
	if cfg.script != nil {
		t = cfg.script.Timeouts
	} else {
		t = cfg.agent.Timeouts
	}
	o.OnlyStop, o.Validate = alone, !alone && !x.fits[h.name].ok
	b, err := json.Marshal(o)
	if err != nil {
		return nil, 0, fmt.Errorf("telling how %s is made: %w", a.Part, err)
	}
	exe, err := x.m.o.exe()
	if err != nil {
		return nil, 0, err
	}
	spec, err := x.m.h.resolve(manifest.Process{Name: h.name, Command: []string{exe, "part"}, Directory: "/", Umask: 0o022,
		Stop: manifest.Stop{Signal: int(unix.SIGTERM), Grace: t.Stop + margin}, Output: holderOutput()})
	if err != nil {
		return nil, 0, err
	}
	spec.Env = append(spec.Env, hold.Variable+"="+string(b))
	if !alone || x.m.parts.lives(a.Group, a.Fence) {
		spec.Group = a.Group
	}
	bound := t.Stop + margin
	if !alone {
		bound += t.Start + 3*t.Validate
	}
	return &spec, bound, nil
}

func holderOutput() manifest.Output {
	return manifest.Output{Mode: "capture", Size: 10 << 20, Keep: 5, Rate: 8 << 20, Merge: true}
}

// launch has the shadow start a holder. x.mu is held.
func (x *made) launch(h *held, a ha.StartPart, alone bool) error {
	spec, bound, err := x.recipe(h, a, alone)
	if err != nil {
		return err
	}
	if err := x.m.h.outputs.Open(h.name, holderOutput()); err != nil {
		return err
	}
	h.start, h.alive, h.alone = a.Start, true, alone
	x.limit(h, bound)
	x.send(proc.Order{Kind: proc.OrderSpec, Process: h.name, Spec: spec})
	x.send(proc.Order{Kind: proc.OrderStart, Process: h.name, Start: a.Start})
	return nil
}

// limit has a holder killed that does not answer in time. x.mu is held.
func (x *made) limit(h *held, bound time.Duration) {
	if h.bound != nil {
		h.bound.Stop()
	}
	name, start := h.name, h.start
	h.bound = time.AfterFunc(bound, func() { x.send(proc.Order{Kind: proc.OrderStop, Process: name, Start: start, Kill: true}) })
}

func (x *made) send(o proc.Order) {
	if err := x.m.h.link.Send(o); err != nil {
		x.m.o.Log.Error("the shadow did not take an order", "order", o.Kind, "process", o.Process, "error", err)
	}
}

func (x *made) tell(in ha.Input) { x.m.h.engine.Tell(in) }

// answer tells what came of the order that waits. x.mu is held.
func (x *made) answer(h *held, d ha.PartDone) {
	if h.bound != nil {
		h.bound.Stop()
	}
	switch a := h.ask.(type) {
	case ha.StartPart:
		d.Group, d.Part, d.On = a.Group, a.Part, true
	case ha.StopPart:
		d.Group, d.Part = a.Group, a.Part
	default:
		return
	}
	h.ask = nil
	x.tell(d)
}

// report takes what the shadow tells of a holder, and nothing else. It is called by the
// engine's loop and never waits.
func (x *made) report(r proc.Report) bool {
	if !strings.HasPrefix(string(r.Process), holderMark) {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.take(r.Process)
	switch r.Kind {
	case proc.ReportRunning, proc.ReportStarted:
		if r.Start >= h.start {
			h.start, h.alive = r.Start, true
		}
	case proc.ReportFailed:
		if r.Start == h.start {
			h.alive = false
			_, starts := h.ask.(ha.StartPart)
			x.answer(h, ha.PartDone{Gone: starts, Detail: r.Error})
		}
	case proc.ReportExited:
		x.send(proc.Order{Kind: proc.OrderAck, Process: r.Process, Start: r.Start})
		if r.Start == h.start && h.alive {
			x.ended(h, r.Status)
		}
	case proc.ReportStuck:
		x.m.o.Log.Error("the program of a part cannot be killed", "process", r.Process, "error", r.Error)
	}
	return true
}

// ended takes the end of a holder, with all that was in its control group. x.mu is held.
func (x *made) ended(h *held, how ha.ExitStatus) {
	h.alive = false
	s, known := hold.Read(x.file(h.name))
	known = known && s.Start == h.start
	reason := "its holder ended by itself: " + how.String()
	if known && s.Reason != "" && (s.Phase == hold.Failed || s.Phase == hold.Stuck || s.Phase == hold.Lost) {
		reason = s.Reason
	}
	switch a := h.ask.(type) {
	case ha.StartPart:
		d := ha.PartDone{Detail: reason}
		if known && s.Phase == hold.Failed {
			d.Gone, d.Hard, d.Fatal = s.Gone, s.Hard, s.Fatal
		}
		x.answer(h, d)
	case ha.StopPart:
		proved := !how.Unknown && how.Signal == 0 && how.Code == hold.Proved
		if !proved && !h.alone && (!known || s.Phase != hold.Stuck) {
			x.clear(h, a) // it was killed, as at the deadline: its stop was never run to its end
			return
		}
		x.answer(h, ha.PartDone{OK: proved, Detail: reason})
	default:
		if cfg, ok := x.cfg[h.name]; ok && !h.lost && !h.alone {
			h.lost = true
			x.tell(ha.PartLost{Group: cfg.group, Part: cfg.part, Detail: reason})
		}
	}
}

// look reads what a holder says. x.mu is held.
func (x *made) look(h *held) {
	s, ok := hold.Read(x.file(h.name))
	if !ok || s.Start != h.start || !h.alive || h.alone {
		return
	}
	a, starts := h.ask.(ha.StartPart)
	switch {
	case starts && s.Phase == hold.Running && s.Fence == a.Fence:
		h.lost = false
		x.fits[h.name] = fit{ok: true, at: time.Now()} // the facts are looked at again soon
		x.answer(h, ha.PartDone{OK: true})
	case starts && (s.Phase == hold.Running || s.Phase == hold.Lost || s.Phase == hold.Stopping || s.Phase == hold.Stuck):
		// One of a life before, that is to go first.
		x.answer(h, ha.PartDone{Detail: "what runs of it is not what is to run: " + string(s.Phase) + " " + s.Reason})
	case h.ask == nil && s.Phase == hold.Lost && !h.lost:
		h.lost = true
		if cfg, ok := x.cfg[h.name]; ok {
			x.tell(ha.PartLost{Group: cfg.group, Part: cfg.part, Detail: s.Reason})
		}
	}
}

// run listens to what holders say until ctx ends.
func (x *made) run(ctx context.Context) error {
	if err := os.MkdirAll(x.dir, 0o700); err != nil {
		return fmt.Errorf("making the directory of parts: %w", err)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watching %s: %w", x.dir, err)
	}
	notes := os.NewFile(uintptr(fd), x.dir)
	defer notes.Close()
	if _, err := unix.InotifyAddWatch(fd, x.dir, unix.IN_MOVED_TO|unix.IN_ONLYDIR); err != nil {
		return fmt.Errorf("watching %s: %w", x.dir, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = notes.Close() })
	defer stop()
	buf := make([]byte, 4096)
	for {
		x.mu.Lock()
		for _, h := range x.held {
			x.look(h)
		}
		x.mu.Unlock()
		// Whatever changes in the directory is a reason to look again.
		if _, err := notes.Read(buf); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("listening to the parts of groups: %w", err)
		}
	}
}

// RunPart runs the commands of a part, as somebody.
func RunPart(as hold.As, out *os.File) contract.Runner {
	return func(ctx context.Context, c contract.Command) (contract.Ended, error) {
		e, err := proc.Run(ctx, proc.Command{Args: c.Args, In: c.In, Env: c.Env, Timeout: c.Timeout, Leave: c.Leave, Most: c.Most, Out: out,
			SetIDs: as.Set, UID: as.UID, GID: as.GID, Groups: as.Groups})
		return contract.Ended{Code: e.Code, Signal: e.Signal, Late: e.Late, Output: e.Output, Clipped: e.Clipped}, err
	}
}

// Part runs the program of one part of a group; see package hold.
func Part(ctx context.Context, o Options) (int, error) {
	var order hold.Order
	if err := json.Unmarshal([]byte(os.Getenv(hold.Variable)), &order); err != nil {
		return 1, fmt.Errorf("reading which part of a group this is for: %w", err)
	}
	role := "standby"
	for _, kv := range os.Environ() {
		key, value, _ := strings.Cut(kv, "=")
		switch {
		case key == "GEMEL_ROLE":
			role = value
		case strings.HasPrefix(key, "GEMEL_") && key != hold.Variable && key != "GEMEL_FENCE" && key != "GEMEL_GROUP":
			order.Env = append(order.Env, kv)
		}
	}
	order.Env = append(order.Env, "GEMEL_ROLE="+role, "GEMEL_FENCE="+order.Fence.String())
	if order.Agent != nil {
		order.Env = append(order.Env, "GEMEL_GROUP="+string(order.Group), "GEMEL_NODE="+string(order.Node))
	}
	return hold.Run(ctx, order, RunPart(order.As, os.Stdout))
}
