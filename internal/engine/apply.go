package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"

	"gemel/internal/config"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/proc"
)

func join(errs []error) error { return errors.Join(errs...) }

// Apply puts a manifest into force. Everything that can fail is done before
// anything changes: a manifest with an error changes nothing. It returns what
// changes; with dry set nothing does.
func (e *Engine) Apply(ctx context.Context, name string, b []byte, dry bool) ([]config.Change, error) {
	m, err := config.Parse(name, b)
	if err != nil {
		return nil, err
	}
	specs, err := Resolve(m, e.s.Resolve)
	if err != nil {
		return nil, err
	}
	type result struct {
		changes []config.Change
		err     error
	}
	done := make(chan result, 1)
	e.inbox.put(item{do: func() ha.Input {
		changes := config.Diff(e.manifest, m)
		if dry {
			done <- result{changes, nil}
			return nil
		}
		in, err := e.swap(name, b, m, specs)
		done <- result{changes, err}
		return in
	}})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-done:
		return r.changes, r.err
	}
}

// swap makes m the manifest in force and returns the fact that says so.
func (e *Engine) swap(name string, b []byte, m *manifest.Manifest, specs map[ha.Process]proc.Spec) (ha.Input, error) {
	version := e.source.version + 1
	if err := e.s.Journal.Manifest(version, name, b); err != nil {
		return nil, fmt.Errorf("the manifest cannot be written to the journal, nothing was changed: %w", err)
	}
	old := e.manifest
	for _, p := range m.Processes {
		if err := e.s.Edges.Open(p, specs[p.Name]); err != nil {
			e.s.Log.Error("a process has no names in the file system", "process", p.Name, "error", err)
		}
		if spec := specs[p.Name]; spec.Path != "" && !reflect.DeepEqual(e.specs[p.Name], spec) {
			e.order(proc.Order{Kind: proc.OrderSpec, Process: p.Name, Spec: &spec})
		}
	}
	for _, c := range old.Checks {
		if _, ok := m.Check(c.Name); !ok {
			e.s.Edges.Uncheck(c.Name)
		}
	}
	for _, c := range m.Checks {
		if was, ok := old.Check(c.Name); !ok || !reflect.DeepEqual(was, c) {
			e.s.Edges.Check(c)
		}
	}
	e.manifest = m
	gone := maps.Clone(e.specs)
	e.specs = specs
	for p, s := range gone {
		if _, ok := specs[p]; ok {
			continue
		}
		if e.picture.running[p].pid != 0 {
			e.specs[p] = s // it runs until the core has stopped it
			continue
		}
		e.forget(p)
	}
	e.s.Edges.Admit(m.Node.Access)
	e.source = force{name, b, version}
	e.mu.Lock()
	e.current = e.source
	e.mu.Unlock()
	e.machine.Want(m)
	return ha.Applied{Version: version, Digest: m.Digest}, nil
}

// Current returns the manifest in force as it was given.
func (e *Engine) Current() (name string, b []byte, version uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.current.name, e.current.bytes, e.current.version
}
