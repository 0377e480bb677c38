// Package internal holds no code: its tests read the whole tree and say whether
// it keeps the rules of the house.
package internal

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const modulePath = "gemel"

// A tree is the parsed source of the module.
type tree struct {
	fset *token.FileSet
	pkgs []*pkg // sorted by dir
}

// A pkg is one directory with Go files; its tests are in it too.
type pkg struct {
	dir   string // slash separated, from the module's root; "." is the root
	files []*file
}

type file struct {
	path      string
	ast       *ast.File
	lines     int
	test      bool
	generated bool
}

// parseTree parses sources: path to text.
func parseTree(sources map[string][]byte) (*tree, error) {
	t := &tree{fset: token.NewFileSet()}
	byDir := map[string]*pkg{}
	for path, src := range sources {
		f, err := parser.ParseFile(t.fset, path, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		p := byDir[dir]
		if p == nil {
			p = &pkg{dir: dir}
			byDir[dir] = p
			t.pkgs = append(t.pkgs, p)
		}
		p.files = append(p.files, &file{
			path:      path,
			ast:       f,
			lines:     bytes.Count(src, []byte("\n")),
			test:      strings.HasSuffix(path, "_test.go"),
			generated: ast.IsGenerated(f),
		})
	}
	slices.SortFunc(t.pkgs, func(a, b *pkg) int { return strings.Compare(a.dir, b.dir) })
	for _, p := range t.pkgs {
		slices.SortFunc(p.files, func(a, b *file) int { return strings.Compare(a.path, b.path) })
	}
	return t, nil
}

// planted makes a tree of one file for each "path: source" pair.
func planted(tb testing.TB, pairs ...string) *tree {
	tb.Helper()
	sources := map[string][]byte{}
	for i := 0; i < len(pairs); i += 2 {
		sources[pairs[i]] = []byte(pairs[i+1])
	}
	t, err := parseTree(sources)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// wholeTree reads the module that this directory is in. Directories with a
// module of their own, testdata and hidden ones are left out.
func wholeTree(tb testing.TB) *tree {
	tb.Helper()
	root := ".."
	sources := map[string][]byte{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path == root {
				return nil
			}
			if name == "testdata" || name == "node_modules" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		sources[filepath.ToSlash(rel)] = src
		return err
	})
	if err != nil {
		tb.Fatalf("reading the tree: %v", err)
	}
	t, err := parseTree(sources)
	if err != nil {
		tb.Fatalf("parsing the tree: %v", err)
	}
	return t
}

func (t *tree) at(n ast.Node) string {
	p := t.fset.Position(n.Pos())
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}

func (t *tree) lineSpan(n ast.Node) int {
	return t.fset.Position(n.End()).Line - t.fset.Position(n.Pos()).Line + 1
}

// report fails the test with every complaint on a line of its own.
func report(tb testing.TB, what string, complaints []string) {
	tb.Helper()
	if len(complaints) > 0 {
		tb.Errorf("%s:\n  %s", what, strings.Join(complaints, "\n  "))
	}
}

// wantComplaint fails unless exactly one complaint is there and contains part.
func wantComplaint(tb testing.TB, complaints []string, part string) {
	tb.Helper()
	if len(complaints) != 1 || !strings.Contains(complaints[0], part) {
		tb.Errorf("complaints are %q; want one with %q", complaints, part)
	}
}
