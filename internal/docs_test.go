package internal

import (
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestComments(t *testing.T) {
	report(t, "comments are missing", uncommented(wholeTree(t)))
}

// plainMethods do what their name says everywhere.
var plainMethods = []string{
	"String", "Error", "Unwrap", "Is", "MarshalText", "UnmarshalText", "MarshalJSON", "UnmarshalJSON",
	"Len", "Less", "Swap", "ServeHTTP",
}

// uncommented lists packages and exported names without a comment. The comment
// of a group holds for all of it; so does that of the first of several one-line
// functions without a blank line between them.
func uncommented(t *tree) []string {
	var out []string
	for _, p := range t.pkgs {
		documented, unwritten := false, true // unwritten: all of it is a test or generated
		for _, f := range p.files {
			documented = documented || f.ast.Doc != nil
			unwritten = unwritten && (f.test || f.generated)
			if !f.test && !f.generated {
				out = append(out, uncommentedIn(t, f)...)
			}
		}
		if !documented && !unwritten {
			out = append(out, p.dir+": the package has no comment")
		}
	}
	return out
}

func uncommentedIn(t *tree, f *file) []string {
	var out []string
	complain := func(n ast.Node, name string) {
		out = append(out, fmt.Sprintf("%s: %s has no comment", t.at(n), name))
	}
	covered, last := false, 0 // whether the declaration that ended on line last had a comment
	for _, d := range f.ast.Decls {
		start := t.fset.Position(d.Pos()).Line
		inherits := covered && start == last+1
		last = t.fset.Position(d.End()).Line
		switch d := d.(type) {
		case *ast.FuncDecl:
			covered = d.Doc != nil || inherits
			open := d.Recv == nil || ast.IsExported(receiverType(d)) && !slices.Contains(plainMethods, d.Name.Name)
			if d.Name.IsExported() && open && !covered {
				complain(d, "func "+d.Name.Name)
			}
		case *ast.GenDecl:
			covered = d.Doc != nil
			if d.Tok == token.IMPORT {
				continue
			}
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					if s.Name.IsExported() && s.Doc == nil && s.Comment == nil && (d.Doc == nil || d.Lparen.IsValid()) {
						complain(s, "type "+s.Name.Name)
					}
				case *ast.ValueSpec:
					for _, id := range s.Names {
						if id.IsExported() && s.Doc == nil && s.Comment == nil && d.Doc == nil {
							complain(s, id.Name)
						}
					}
				}
			}
		}
	}
	return out
}

func TestCommentsCatch(t *testing.T) {
	for _, c := range []struct{ name, src, want string }{
		{"package", "package x", "the package has no comment"},
		{"func", "// Package x.\npackage x\nfunc F() {}", "func F"},
		{"method", "// Package x.\npackage x\n// T is.\ntype T int\n\nfunc (T) M() {}", "func M"},
		{"type in a group", "// Package x.\npackage x\n// All.\ntype (\nT int\n)", "type T"},
		{"var", "// Package x.\npackage x\nvar V int", "V has no"},
	} {
		t.Run(c.name, func(t *testing.T) { wantComplaint(t, uncommented(planted(t, "internal/x/x.go", c.src)), c.want) })
	}
	report(t, "complaints about what is commented", uncommented(planted(t, "internal/x/x.go",
		"// Package x.\npackage x\n// T is.\ntype T int\n\n// A and B do.\nfunc (T) A() {}\nfunc (T) B() {}\n\nfunc (T) String() string { return \"\" }\n\n// These.\nconst (\nC = 1\nD = 2\n)\n",
		"internal/y/y_test.go", "package y\nfunc F() {}")))
}

// tracked lists the files that git knows or would know, or all if there is no
// git: a release is built from an archive too.
func tracked(tb testing.TB) []string {
	tb.Helper()
	cmd := exec.Command("git", "ls-files", "-co", "--exclude-standard")
	cmd.Dir = ".."
	if out, err := cmd.Output(); err == nil {
		return strings.Fields(string(out))
	}
	var all []string
	err := filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasPrefix(path, "../bin/") {
			all = append(all, strings.TrimPrefix(path, "../"))
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return all
}

// TestText looks for what no file of the tree may hold: a path of the machine
// that it was written on, and work that was put off.
func TestText(t *testing.T) {
	private := regexp.MustCompile(`/home/` + `(user|ubuntu|debian)/`)
	later := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|HA` + `CK)\b`)
	var out []string
	for _, path := range tracked(t) {
		switch filepath.Ext(path) {
		case ".go", ".md", ".sh", ".yaml", ".yml", ".mod", ".service", ".txt", ".txtar", ".proto", ".h", ".c", ".py", "", ".ini", ".conf":
		default:
			continue
		}
		b, err := os.ReadFile(filepath.Join("..", path))
		if os.IsNotExist(err) {
			continue // removed, and not told to git yet
		}
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(b), "\n") {
			if m := private.FindString(line); m != "" {
				out = append(out, fmt.Sprintf("%s:%d: a path of one machine: %s", path, i+1, m))
			}
			if m := later.FindString(line); m != "" {
				out = append(out, fmt.Sprintf("%s:%d: %s: do it, or say in the manual that it is not there", path, i+1, m))
			}
		}
	}
	report(t, "text that does not belong here", out)
}

// TestLinks follows the relative links of all pages.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	fence := regexp.MustCompile("(?ms)^```.*?^```")
	var out []string
	for _, path := range tracked(t) {
		if filepath.Ext(path) != ".md" {
			continue
		}
		b, err := os.ReadFile(filepath.Join("..", path))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(string(b), ""), -1) {
			to, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			target := filepath.Join("..", path)
			if to != "" {
				target = filepath.Join("..", filepath.Dir(path), to)
			}
			page, err := os.ReadFile(target)
			if info, serr := os.Stat(target); serr == nil && info.IsDir() {
				continue
			}
			if err != nil {
				out = append(out, fmt.Sprintf("%s: %s leads nowhere", path, m[1]))
			} else if anchor != "" && filepath.Ext(target) == ".md" && !slices.Contains(anchors(string(page)), anchor) {
				out = append(out, fmt.Sprintf("%s: %s: there is no such heading", path, m[1]))
			}
		}
	}
	report(t, "broken links", out)
}

// anchors lists the ids that the headings of a page get.
func anchors(page string) []string {
	drop := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	var out []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		out = append(out, strings.ReplaceAll(drop.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return out
}

// TestPages: what a visitor of the tree looks for first is there.
func TestPages(t *testing.T) {
	for _, page := range []string{"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "LICENSE", "docs/dependencies.md"} {
		info, err := os.Stat(filepath.Join("..", page))
		if err != nil || info.Size() == 0 {
			t.Errorf("%s is missing or empty", page)
		}
	}
}

// TestDependencies: each module that is linked has a line that says why.
func TestDependencies(t *testing.T) {
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^(?:require )?\s*([a-z0-9.-]+\.[a-z]+/\S+) (v\S+)( // indirect)?$`)
	for _, m := range line.FindAllStringSubmatch(string(mod), -1) {
		row := regexp.MustCompile(`(?m)^\|[^|\n]*` + regexp.QuoteMeta(m[1]) + "`? *\\| *`?" + regexp.QuoteMeta(m[2]) + "`? *\\|")
		if m[3] == "" && !row.Match(page) {
			t.Errorf("docs/dependencies.md has no line for %s %s, which go.mod requires", m[1], m[2])
		}
	}
}
