package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// Parse reads a manifest. The file is only a name for the errors. If anything is
// wrong there is no manifest, and the error is an Errors with everything that is.
func Parse(file string, b []byte) (*manifest.Manifest, error) {
	m, _, err := Read(file, b, "")
	return m, err
}

// Read is Parse, and tells what is not wrong with a manifest but does not come
// about on the node of that name as long as there is no cluster.
func Read(file string, b []byte, node ha.Node) (*manifest.Manifest, Errors, error) {
	m, r, err := parse(file, b)
	if err != nil {
		return nil, nil, err
	}
	(&judge{reader: r, m: m}).remark(node)
	return m, r.errs.sorted(), nil
}

func parse(file string, b []byte) (*manifest.Manifest, *reader, error) {
	o := topObject()
	t, r, err := begin(file, b, Error{Text: "the manifest is empty; allowed: a map with " + anyOf(o.keys()),
		Hint: "begin with a line processes:, and below it the name of a program and its command"}, "manifest")
	if err != nil {
		return nil, nil, err
	}
	m := o.fresh()
	o.fill(r, "", t, &m)
	settleAll(r, &m)
	(&judge{reader: r, m: &m}).run()
	if len(r.errs) > 0 {
		return nil, nil, r.errs.sorted()
	}
	sum := sha256.Sum256(b)
	m.Digest = hex.EncodeToString(sum[:])
	return &m, r, nil
}

// begin makes a tree of a file, and a reader for it. What says that the file is
// empty is given, and what the file should be.
func begin(file string, b []byte, empty Error, what string) (*tree, *reader, error) {
	src, errs := newSource(file, what, b)
	if len(errs) > 0 {
		return nil, nil, errs.sorted()
	}
	t, errs := grow(src)
	if len(errs) > 0 {
		return nil, nil, errs.sorted()
	}
	if t == nil {
		empty.File = file
		return nil, nil, Errors{empty}
	}
	return t, &reader{src: src, spots: map[string]spot{}, notMap: map[string]bool{}}, nil
}

// topObject is the table of the manifest as a whole.
func topObject() object[manifest.Manifest] {
	type M = manifest.Manifest
	process := named(processObject(), "process", func(p *manifest.Process, n string) { p.Name = ha.Process(n) })
	process.write = writeNamed(processObject(), func(p *manifest.Process) string { return string(p.Name) })
	check := named(checkObject(), "check", func(c *manifest.Check, n string) { c.Name = ha.Check(n) })
	check.write = writeNamed(checkObject(), func(c *manifest.Check) string { return string(c.Name) })
	group := named(groupObject(), "group", func(g *manifest.Group, n string) { g.Name = ha.Group(n) })
	group.write = writeNamed(groupObject(), func(g *manifest.Group) string { return string(g.Name) })
	files := named(filesObject(), "file set", func(f *manifest.FileSet, n string) { f.Name = n })
	files.write = writeNamed(filesObject(), func(f *manifest.FileSet) string { return f.Name })
	return object[M]{
		fresh: func() M { return M{Node: freshNode()} },
		fields: []field[M]{
			at("processes", process, func(m *M) *[]manifest.Process { return &m.Processes }, "The programs that are started and watched, or only watched."),
			at("checks", check, func(m *M) *[]manifest.Check { return &m.Checks }, "Probes of function."),
			at("groups", group, func(m *M) *[]manifest.Group { return &m.Groups }, "What is active together on one node of a cluster."),
			at("files", files, func(m *M) *[]manifest.FileSet { return &m.Files }, "Paths that are replicated from the active node to the standbys."),
			at("node", nodeObject().kind(), func(m *M) *manifest.Node { return &m.Node }, "What concerns the node as a whole."),
		},
	}
}

// writeNamed writes the map that named reads.
func writeNamed[T any](o object[T], name func(*T) string) func([]T) *tree {
	return func(all []T) *tree {
		if len(all) == 0 {
			return nil
		}
		t := &tree{kind: treeMap}
		for i := range all {
			t.put(name(&all[i]), o.tree(&all[i]))
		}
		return t
	}
}

// sortAll brings the parts of a manifest into the order that it promises.
func sortAll(m *manifest.Manifest) {
	slices.SortFunc(m.Processes, func(a, b manifest.Process) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(m.Checks, func(a, b manifest.Check) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(m.Groups, func(a, b manifest.Group) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(m.Files, func(a, b manifest.FileSet) int { return cmp.Compare(a.Name, b.Name) })
}
