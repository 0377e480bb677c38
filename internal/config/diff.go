package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// Effect is what an apply does about a change.
type Effect string

// The effects.
const (
	EffectStart   Effect = "start"    // it is new and is started, or from now on run
	EffectStop    Effect = "stop"     // it is no more in the manifest, or not for this node: it is stopped
	EffectRestart Effect = "restart"  // what it was started with changed
	EffectInPlace Effect = "in place" // what runs goes on
)

// Change is one thing that differs between two manifests.
type Change struct {
	Kind   string // process, check, group, files or node
	Name   string // empty for the node
	Fields []FieldChange
	Effect Effect
}

// FieldChange is one key with its value before and after, as YAML in one line.
// The empty text is the absence of the key, and so its default.
type FieldChange struct{ Path, Old, New string }

// String prints the change for people: one line, and one more for each key.
func (c Change) String() string {
	var b strings.Builder
	b.WriteString(strings.TrimSpace(c.Kind+" "+c.Name) + ": " + string(c.Effect))
	for _, f := range c.Fields {
		fmt.Fprintf(&b, "\n  %s: %s -> %s", f.Path, orDefault(f.Old), orDefault(f.New))
	}
	return b.String()
}

func orDefault(s string) string {
	if s == "" {
		return "(default)"
	}
	return s
}

// Diff returns what changes from one manifest to another, in the order of the
// tables and of the names, and what that does on a node. A manifest that is nil is
// one without anything.
func Diff(before, after *manifest.Manifest, node ha.Node) []Change {
	none := topObject().fresh()
	if before == nil {
		before = &none
	}
	if after == nil {
		after = &none
	}
	var out []Change
	out = append(out, diffNamed("process", processObject(), before.Processes, after.Processes,
		func(p *manifest.Process) string { return string(p.Name) })...)
	for i := range out {
		p, had := before.Process(ha.Process(out[i].Name))
		q, kept := after.Process(ha.Process(out[i].Name))
		was, is := had && p.For(node), kept && q.For(node)
		switch {
		case was && is:
			out[i].Effect = processEffect(p, q)
		case was || !kept:
			out[i].Effect = EffectStop
		case is && q.AutoStart:
			out[i].Effect = EffectStart
		default:
			out[i].Effect = EffectInPlace
		}
	}
	out = append(out, diffNamed("check", checkObject(), before.Checks, after.Checks,
		func(c *manifest.Check) string { return string(c.Name) })...)
	out = append(out, diffNamed("group", groupObject(), before.Groups, after.Groups,
		func(g *manifest.Group) string { return string(g.Name) })...)
	out = append(out, diffNamed("files", filesObject(), before.Files, after.Files,
		func(f *manifest.FileSet) string { return f.Name })...)
	o := nodeObject()
	if fields := diffTrees("", o.tree(&before.Node), o.tree(&after.Node)); len(fields) > 0 {
		out = append(out, Change{Kind: "node", Fields: fields, Effect: EffectInPlace})
	}
	return out
}

// processEffect tells the effect on a process that is in both manifests.
func processEffect(p, q manifest.Process) Effect {
	switch {
	case p.Replaces(q):
		return EffectRestart
	case q.AutoStart && !p.AutoStart:
		return EffectStart
	}
	return EffectInPlace
}

// diffNamed compares two lists that are sorted by name.
func diffNamed[T any](kind string, o object[T], before, after []T, name func(*T) string) []Change {
	var out []Change
	for i, j := 0, 0; i < len(before) || j < len(after); {
		switch {
		case j == len(after) || i < len(before) && name(&before[i]) < name(&after[j]):
			out = append(out, Change{Kind: kind, Name: name(&before[i]), Effect: EffectStop})
			i++
		case i == len(before) || name(&before[i]) > name(&after[j]):
			out = append(out, Change{Kind: kind, Name: name(&after[j]), Effect: EffectStart})
			j++
		default:
			if !reflect.DeepEqual(before[i], after[j]) {
				if fields := diffTrees("", o.tree(&before[i]), o.tree(&after[j])); len(fields) > 0 {
					out = append(out, Change{Kind: kind, Name: name(&after[j]), Fields: fields, Effect: EffectInPlace})
				}
			}
			i, j = i+1, j+1
		}
	}
	return out
}

// diffTrees compares what two maps write, key by key.
func diffTrees(path string, before, after *tree) []FieldChange {
	var out []FieldChange
	one := func(key string, a, b *tree) {
		below := sub(path, key)
		if a != nil && b != nil && a.kind == treeMap && b.kind == treeMap {
			out = append(out, diffTrees(below, a, b)...)
			return
		}
		if x, y := byName(a), byName(b); x != nil && y != nil {
			out = append(out, diffTrees(below, x, y)...)
			if !sameOrder(x, y) {
				out = append(out, FieldChange{Path: below, Old: line(namesOf(x)), New: line(namesOf(y))})
			}
			return
		}
		if before, after := line(a), line(b); before != after {
			out = append(out, FieldChange{Path: below, Old: before, New: after})
		}
	}
	for _, p := range before.pairs {
		one(p.key, p.value, after.lookup(p.key))
	}
	for _, p := range after.pairs {
		if before.lookup(p.key) == nil {
			one(p.key, nil, p.value)
		}
	}
	return out
}

// byName makes a map of a list of maps that have a name each, or nil: a change of
// one script is told as that, and not as one of the whole list.
func byName(t *tree) *tree {
	if t == nil || t.kind != treeList {
		return nil
	}
	out := &tree{kind: treeMap}
	for _, i := range t.items {
		name := i.lookup("name")
		if name == nil || name.kind != treeScalar || out.lookup(name.text) != nil {
			return nil
		}
		out.put(name.text, i)
	}
	return out
}

// sameOrder reports whether the names that are in both are in the same order.
func sameOrder(a, b *tree) bool {
	next := 0
	for _, p := range a.pairs {
		at := slices.IndexFunc(b.pairs, func(q pair) bool { return q.key == p.key })
		if at >= 0 && at < next {
			return false
		}
		next = max(next, at)
	}
	return true
}

func namesOf(t *tree) *tree {
	return listOf(t.pairs, func(p pair) *tree { return word(p.key) })
}

func line(t *tree) string {
	if t == nil {
		return ""
	}
	return flow(t)
}
