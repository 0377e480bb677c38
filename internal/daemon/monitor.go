package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/engine"
	"gemel/internal/ha"
	"gemel/internal/journal"
	"gemel/internal/manifest"
	"gemel/internal/proc"
	"gemel/internal/status"
)

// errStopped ends a life of the monitor in which every program was stopped, or
// which left the programs on purpose.
var errStopped = errors.New("stopped")

// Monitor runs one life of the deciding half. It returns nil when Gemel ends,
// a *Replace when another binary is to take over in the same pid, and any other
// error when the life failed: the shadow then begins the next.
func Monitor(ctx context.Context, o Options) error {
	o.handed = handedAPI()
	if err := o.Places.Make(); err != nil {
		return err
	}
	proc.Name()
	o.hurry()
	exe, err := o.exe()
	if err != nil {
		return err
	}
	var first inForce
	if fresh(o) {
		if first, err = firstManifest(ctx, o); err != nil {
			return err
		}
	}
	link, err := proc.NewLink(proc.LinkConfig{
		DataDir: o.Places.Data, RunDir: o.Places.Run, PairFD: pairFD(), Version: o.Version,
		Shadow: append([]string{exe, "run"}, o.args()...), Else: elseShadow(o), Patience: patience(), Log: o.Log,
	})
	if err != nil {
		return fmt.Errorf("starting the monitor: %w", err)
	}
	var decides atomic.Pointer[engine.Engine]
	j, past, err := journal.Open(journal.Options{Dir: filepath.Join(o.Places.Data, "journal"), Log: o.Log,
		Trouble: func(err error) {
			if e := decides.Load(); e != nil { // before, its first step finds out
				e.Trouble(err)
			}
		}})
	if err != nil {
		return err
	}
	if first.m == nil {
		if first, err = begin(ctx, o, past); err != nil {
			return errors.Join(err, j.Close())
		}
	}
	sayCrash(o, ha.KindMonitor)
	j.Bound(first.m.Node.JournalLimit)
	if err := record(o, j, past, first); err != nil {
		o.Log.Error("the journal cannot be written", "error", err) // told as an event by the engine
	}
	err = live(ctx, o, link, books{j, past, crashes(o), decides.Store}, first)
	return errors.Join(err, j.Close())
}

// inForce is the manifest that a life begins with.
type inForce struct {
	name    string
	bytes   []byte
	version uint64
	m       *manifest.Manifest
}

// begin chooses the manifest: the one that was last applied, else the file. What
// was applied is the truth; a file that says otherwise is told in the status.
func begin(ctx context.Context, o Options, past journal.Past) (inForce, error) {
	if past.Manifest != nil {
		m, err := o.parse(ctx, past.ManifestName, past.Manifest)
		if err == nil {
			return inForce{past.ManifestName, past.Manifest, past.ManifestVersion, m}, nil
		}
		// Written by a newer version, or damaged: the file may still be good.
		o.Log.Error("the manifest in force cannot be read any more", "error", err)
	}
	if o.File == "" {
		return inForce{}, errors.New("nothing to run: no manifest was applied here before, so name one: gemel run FILE")
	}
	b, err := os.ReadFile(o.File)
	if err != nil {
		return inForce{}, fmt.Errorf("reading the manifest: %w", err)
	}
	m, err := o.parse(ctx, o.File, b)
	if err != nil {
		return inForce{}, err
	}
	return inForce{o.File, b, past.ManifestVersion + 1, m}, nil
}

// record opens the life in the journal.
func record(o Options, j *journal.Journal, past journal.Past, f inForce) error {
	if err := j.Boot(journal.Life{Version: o.Version, PID: os.Getpid()}); err != nil {
		return err
	}
	if f.version != past.ManifestVersion {
		return j.Manifest(f.version, f.name, f.bytes)
	}
	return nil
}

// books are the journal, what is known of the lives before, and how the journal gets
// to know whom to tell of its troubles.
type books struct {
	journal *journal.Journal
	past    journal.Past
	crash   []ha.Event
	tell    func(*engine.Engine)
}

// live wires one life together and runs it.
func live(ctx context.Context, o Options, link *proc.Link, b books, f inForce) error {
	j, past := b.journal, b.past
	boot, err := clock.BootID()
	if err != nil {
		return fmt.Errorf("reading the boot id: %w", err)
	}
	g := newGroup(ctx)
	h, err := newHands(o, g, link, f.m)
	if err != nil {
		return err
	}
	defer h.close()
	if h.member, err = newMember(o, boot, past); err != nil {
		return err
	}
	own, err := o.own()
	if err != nil {
		return err
	}
	board, feed := &status.Board{}, status.NewFeed(past.NextEvent-1)
	e, err := engine.New(engine.Setup{
		Clock: clock.Machine(), Log: o.Log, Journal: j, Past: past, Edges: h.edges(), Board: board, Feed: feed,
		Manifest: f.m, Source: f.name, Bytes: f.bytes, Version: f.version, Resolve: h.resolve, Parse: o.parse,
		Node: status.NodeStatus{Name: o.node(), Version: o.Version, Monitor: os.Getpid(), Since: clock.Now(),
			Differs: h.file.differs(f.m.Digest)},
		Booted: ha.Booted{Boot: boot, NewBoot: past.Boot != "" && past.Boot != boot, Version: o.Version,
			First: past.Empty, Gap: gap(past, boot, clockSet()), Node: ha.Node(o.node()), Cluster: o.Identity != nil, Alone: o.alone(), Own: own},
		Stopped: func(ha.Reason) { h.quit() }, Before: b.crash,
	})
	if err != nil {
		return err
	}
	h.engine = e
	b.tell(e)
	if h.member != nil {
		g.start(roles{o, board}.run)
		h.member.h, h.member.facts.board, h.member.shared.engine = h, board, e
		h.member.decide(e, orders{h.member}.rights)
		g.start(h.member.run)
	}
	server, err := newServer(o, h, board, feed, f.m)
	if err != nil {
		return err
	}
	g.start(giveBack)
	g.start(link.Run)
	g.start(j.Run)
	g.start(e.Run)
	g.start(h.run)
	g.start(server)
	g.start(func(ctx context.Context) error { return beats(ctx, e, link) })
	err = g.wait()
	if errors.Is(err, errStopped) {
		return nil
	}
	return err
}

// gap is the least time that is sure to have passed between the last record of
// another boot and the beginning of this one; set says that the wall clock is known
// to be right. Without that nothing is sure: a hardware clock that is hours ahead
// until the network corrects it would age the budget of reboots at each boot, and a
// machine that reboots in a circle would never be stopped.
func gap(past journal.Past, boot string, set bool) time.Duration {
	if past.Boot == boot || past.LastWall.IsZero() || !set {
		return 0
	}
	booted := time.Now().Add(-time.Duration(clock.Now()))
	return max(booted.Sub(past.LastWall), 0)
}

// clockSet reports whether the kernel has been told that the wall clock is right,
// as ntpd, chrony and systemd-timesyncd do.
func clockSet() bool {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return err == nil && state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
}

// beats tells the shadow that the engine turns: each beat goes through its inbox.
func beats(ctx context.Context, e *engine.Engine, link *proc.Link) error {
	every, _ := pace(watchdog())
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		if err := e.Turn(ctx); err != nil {
			return nil // ctx ended
		}
		_ = link.Send(proc.Order{Kind: proc.OrderBeat}) // ErrGone: the link says so itself
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}
