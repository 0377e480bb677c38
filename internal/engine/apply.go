package engine

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sort"
	"sync"

	"gemel/internal/config"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/proc"
)

// force is the manifest in force, as it was given. Only the loop changes it.
type force struct {
	manifest *manifest.Manifest // the loop's alone
	given    uint64             // the highest version number that was used, for good or in vain

	mu      sync.Mutex // guards what follows against readers outside of the loop
	name    string
	bytes   []byte
	version uint64
}

func (f *force) put(m *manifest.Manifest, name string, b []byte) {
	f.manifest = m
	f.mu.Lock()
	defer f.mu.Unlock()
	f.name, f.bytes, f.version = name, b, f.given
}

// Current returns the manifest in force as it was given.
func (e *Engine) Current() (name string, b []byte, version uint64) {
	f := &e.loop.force
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.name, f.bytes, f.version
}

// Apply puts a manifest into force. Everything that can fail is done before
// anything changes: a manifest with an error changes nothing. It returns what
// changes; with dry set nothing does.
func (e *Engine) Apply(ctx context.Context, name string, b []byte, dry bool) ([]config.Change, error) {
	m, err := e.parse(ctx, name, b)
	if err != nil {
		return nil, err
	}
	specs, err := resolved(m, e.loop.s)
	if err != nil {
		return nil, err
	}
	type outcome struct {
		changes []config.Change
		err     error
	}
	done := make(chan outcome, 1)
	err = e.visit(ctx, func() {
		if ctx.Err() != nil {
			done <- outcome{err: ctx.Err()} // nobody waits for it any more
			return
		}
		o := outcome{changes: config.Diff(e.loop.force.manifest, m, e.loop.s.Booted.Node)}
		if !dry {
			o.err = e.loop.swap(name, b, m, specs)
		}
		done <- o
	})
	if err != nil {
		return nil, fmt.Errorf("applying %s: %w", name, err)
	}
	o := <-done
	if o.err != nil {
		return nil, o.err
	}
	return o.changes, nil
}

// swap makes m the manifest in force and tells the core so.
func (l *loop) swap(name string, b []byte, m *manifest.Manifest, specs map[ha.Process]*proc.Spec) error {
	if err := l.record(name, b); err != nil {
		return err
	}
	old, was := l.force.manifest, l.programs.specs
	l.programs.specs = specs
	for _, p := range m.Processes {
		if !p.For(l.s.Booted.Node) {
			continue
		}
		changed := !reflect.DeepEqual(was[p.Name], specs[p.Name])
		if before, ok := l.ours(old, p.Name); !ok || changed || before.Output != p.Output {
			l.programs.open(p)
		}
		if changed {
			l.programs.teach(p.Name)
		}
	}
	for _, c := range old.Checks {
		if _, ok := m.Check(c.Name); !ok {
			l.s.Edges.Uncheck(c.Name)
		}
	}
	for _, c := range m.Checks {
		if before, ok := old.Check(c.Name); !ok || !reflect.DeepEqual(before, c) {
			l.s.Edges.Check(c)
		}
	}
	l.force.put(m, name, b)
	l.s.Journal.Bound(m.Node.JournalLimit)
	l.s.Edges.Admit(m.Node.Access)
	l.machine.Want(m)
	l.s.Edges.Want(m)
	l.emit(ha.ManifestApplied, ha.OfNode(), fmt.Sprintf("version %d, from %s", l.force.version, name))
	l.step(ha.Applied{Version: l.force.version, Digest: m.Digest})
	l.abandon(old)
	return nil
}

// record writes a manifest to the journal. One that is not written is not in
// force: the journal, which remembers it all the same for when the disk takes
// writes again, is told anew which one is.
func (l *loop) record(name string, b []byte) error {
	f := &l.force
	f.given++
	err := l.s.Journal.Manifest(f.given, name, b)
	if err == nil {
		return nil
	}
	again := l.s.Journal.Manifest(f.version, f.name, f.bytes)
	l.wrote(again)
	return &ha.Error{Kind: ha.ErrRefused, Reason: "not-on-disk", Hint: "make room under the data directory and apply it again; nothing was changed",
		Err: fmt.Errorf("the manifest cannot be written to the journal: %w", err)}
}

func (e *Engine) parse(ctx context.Context, name string, b []byte) (*manifest.Manifest, error) {
	if parse := e.loop.s.Parse; parse != nil {
		return parse(ctx, name, b)
	}
	return config.Parse(name, b)
}

// abandon gives back what belongs to processes that are in the manifest, or for
// this node, no more.
// Those that run are forgotten when the core has stopped them; a program that was
// found and not started is let go.
func (l *loop) abandon(old *manifest.Manifest) {
	for _, p := range old.Processes {
		if _, ok := l.ours(l.force.manifest, p.Name); ok || !p.For(l.s.Booted.Node) {
			continue
		}
		_, foreign := l.programs.foreign[p.Name]
		if _, runs := l.programs.live[p.Name]; !runs || foreign {
			l.programs.forget(p.Name)
		}
	}
}

// resolved is Resolve for the node of s. In a cluster, what a group has active is
// started by a right of the group alone.
func resolved(m *manifest.Manifest, s Setup) (map[ha.Process]*proc.Spec, error) {
	specs, err := Resolve(m, s.Booted.Node, s.Resolve)
	if err != nil || !s.Booted.Cluster {
		return specs, err
	}
	for _, g := range m.Groups {
		for _, name := range g.Run {
			if spec := specs[name]; spec != nil {
				spec.Group, spec.Role = g.Name, g.Name
			}
		}
		for _, name := range g.Standby {
			if spec := specs[name]; spec != nil && spec.Role == "" {
				spec.Role = g.Name
			}
		}
	}
	return specs, nil
}

// Resolve makes a spec of every process that is for the node, or tells everything
// that is wrong.
func Resolve(m *manifest.Manifest, node ha.Node, resolve func(manifest.Process) (proc.Spec, error)) (map[ha.Process]*proc.Spec, error) {
	specs := make(map[ha.Process]*proc.Spec, len(m.Processes))
	var wrong []error
	for _, p := range m.Processes {
		if !p.For(node) {
			continue
		}
		s, err := resolve(p)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		specs[p.Name] = &s
	}
	if len(wrong) > 0 {
		sort.Slice(wrong, func(i, j int) bool { return wrong[i].Error() < wrong[j].Error() })
		return nil, &ha.Error{Kind: ha.ErrRefused, Reason: "cannot-start", Hint: "nothing was changed",
			Err: fmt.Errorf("%d of %d processes cannot be started as they are: %w", len(wrong), len(m.Processes), errors.Join(wrong...))}
	}
	return specs, nil
}
