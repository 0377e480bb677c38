// Package port reads the configuration of other systems and makes a manifest of
// it: pms.ini of Intel's CMM, and supervisord.conf. What it does not understand,
// and what it had to replace, it says line by line: nothing is dropped silently.
package port

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"gemel/internal/config"
	"gemel/internal/manifest"
)

// A Result is what an import gives: the manifest, and everything about it that
// somebody should know before using it.
type Result struct {
	Manifest *manifest.Manifest
	Notes    []Note // in the order of the lines
}

// A Note says what became of a line that was not taken as it is. Line counts
// from 1; 0 is the file as a whole.
type Note struct {
	Line int
	Text string
}

// notes collects the notes of one import.
type notes struct{ list []Note }

func (n *notes) add(line int, format string, args ...any) {
	n.list = append(n.list, Note{line, fmt.Sprintf(format, args...)})
}

// sorted returns the notes by line, each once.
func (n *notes) sorted() []Note {
	slices.SortStableFunc(n.list, func(a, b Note) int { return cmp.Compare(a.Line, b.Line) })
	return slices.Compact(n.list)
}

// A blank is a manifest in which nothing is written but what must be: its parts
// hold every default.
type blank struct {
	node    manifest.Node
	process manifest.Process
	check   manifest.Check
}

func newBlank() (blank, error) {
	m, err := config.Parse("", []byte("processes: {p: {command: [p]}}\nchecks: {c: {command: [c], covers: []}}\n"))
	if err != nil {
		return blank{}, fmt.Errorf("reading the defaults: %w", err)
	}
	b := blank{node: m.Node, process: m.Processes[0], check: m.Checks[0]}
	b.process.Name, b.process.Command = "", nil
	b.check.Name, b.check.Command = "", nil
	return b, nil
}

// goodName makes a name that a manifest allows out of any text: letters, digits,
// point, hyphen and underscore, at most 64 bytes.
func goodName(s string) string {
	var b strings.Builder
	for _, c := range s {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-', c == '.':
			b.WriteRune(c)
		default:
			b.WriteByte('-')
		}
	}
	name := b.String()
	for strings.Contains(name, "..") {
		name = strings.ReplaceAll(name, "..", ".")
	}
	name = strings.TrimLeft(name, ".-")
	if len(name) > 56 { // room for a suffix that makes it the only one
		name = name[:56]
	}
	name = strings.TrimRight(name, ".")
	switch name {
	case "":
		return "program"
	case "shadow", "monitor", "node": // Gemel's own
		return name + "-program"
	}
	return name
}

// program turns the first word of a command into one that does not depend on
// where somebody stood: an absolute path, or a name to be looked up in PATH.
func (n *notes) program(line int, argv []string, dir string) []string {
	if len(argv) == 0 || path.IsAbs(argv[0]) || !strings.Contains(argv[0], "/") {
		return argv
	}
	out := slices.Clone(argv)
	if dir != "" {
		out[0] = path.Join(dir, argv[0])
		n.add(line, "the relative path %s is taken from the directory: %s", argv[0], out[0])
	} else {
		out[0] = path.Base(argv[0])
		n.add(line, "the relative path %s does not say where the program is; it is written as %s, to be found in PATH: write its absolute path", argv[0], out[0])
	}
	return out
}
