package internal

import (
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/token"
	"go/types"
	"slices"
	"strings"
	"testing"
)

// The budgets. Raising one needs a reason in the commit.
const (
	maxFileLines     = 500
	maxFuncLines     = 80
	maxDispatchLines = 120 // of a function that is one switch
	maxFields        = 15
	maxMethods       = 20
	maxIfaceMethods  = 4
	maxExported      = 15
	maxParams        = 5
)

// manyNames are packages of words: their exported names are not counted.
var manyNames = []string{"internal/ha", "internal/config", "internal/manifest", "internal/status", "internal/proc"}

// fieldsMarker stands on the line above a type that mirrors a file or a message
// and may therefore have as many fields as that has; a reason follows it.
const fieldsMarker = "//budget:fields"

func TestBudgets(t *testing.T) {
	report(t, "budgets (internal/budget_test.go) are exceeded", overdrafts(wholeTree(t)))
}

// overdrafts lists everything that is over its budget.
func overdrafts(t *tree) []string {
	var out []string
	imports := fewImports{from: importer.ForCompiler(token.NewFileSet(), "source", nil)}
	for _, p := range t.pkgs {
		out = append(out, exportedNames(p)...)
		out = append(out, methodCounts(p)...)
		out = append(out, mutableVars(t, p, imports)...)
		for _, f := range p.files {
			if f.generated {
				continue
			}
			if f.lines > maxFileLines && !f.test {
				out = append(out, fmt.Sprintf("%s: %d lines; at most %d: split it by what it is about", f.path, f.lines, maxFileLines))
			}
			for _, d := range f.ast.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok {
					out = append(out, funcBudget(t, f, fn)...)
				}
			}
			out = append(out, typeBudgets(t, f)...)
		}
	}
	return out
}

func funcBudget(t *tree, f *file, fn *ast.FuncDecl) []string {
	var out []string
	limit, note := maxFuncLines, ""
	if isDispatch(t, fn) {
		limit, note = maxDispatchLines, " for a switch"
	}
	if n := t.lineSpan(fn); n > limit && !f.test {
		out = append(out, fmt.Sprintf("%s: func %s has %d lines; at most %d%s", t.at(fn), fn.Name.Name, n, limit, note))
	}
	if n := fn.Type.Params.NumFields(); n > maxParams {
		out = append(out, fmt.Sprintf("%s: func %s has %d parameters; at most %d: make a struct of those that belong together", t.at(fn), fn.Name.Name, n, maxParams))
	}
	if fn.Recv == nil && fn.Name.Name == "init" {
		out = append(out, fmt.Sprintf("%s: there is no init here: what happens is called by somebody", t.at(fn)))
	}
	return out
}

// isDispatch reports whether a function is one switch with little around it.
func isDispatch(t *tree, fn *ast.FuncDecl) bool {
	if fn.Body == nil || len(fn.Body.List) > 5 {
		return false
	}
	for _, s := range fn.Body.List {
		switch s.(type) {
		case *ast.SwitchStmt, *ast.TypeSwitchStmt, *ast.SelectStmt:
			if t.lineSpan(s)*10 >= t.lineSpan(fn)*8 {
				return true
			}
		}
	}
	return false
}

func typeBudgets(t *tree, f *file) []string {
	marked := map[int]bool{} // lines with a marker
	for _, group := range f.ast.Comments {
		for _, c := range group.List {
			if reason, ok := strings.CutPrefix(c.Text, fieldsMarker); ok && strings.TrimSpace(reason) != "" {
				marked[t.fset.Position(group.End()).Line] = true
				marked[t.fset.Position(c.Pos()).Line] = true
			}
		}
	}
	var out []string
	ast.Inspect(f.ast, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		line := t.fset.Position(spec.Pos()).Line
		switch body := spec.Type.(type) {
		case *ast.StructType:
			if n := fieldCount(body.Fields); n > maxFields && !marked[line-1] {
				out = append(out, fmt.Sprintf("%s: struct %s has %d fields; at most %d (a mirror of a file or a message says so by %q)",
					t.at(spec), spec.Name.Name, n, maxFields, fieldsMarker+" REASON"))
			}
		case *ast.InterfaceType:
			if n := fieldCount(body.Methods); n > maxIfaceMethods {
				out = append(out, fmt.Sprintf("%s: interface %s has %d methods; at most %d", t.at(spec), spec.Name.Name, n, maxIfaceMethods))
			}
			for _, m := range body.Methods.List {
				if fn, ok := m.Type.(*ast.FuncType); ok && fn.Params.NumFields() > maxParams {
					out = append(out, fmt.Sprintf("%s: method %s.%s has %d parameters; at most %d", t.at(m), spec.Name.Name, m.Names[0].Name, fn.Params.NumFields(), maxParams))
				}
			}
		}
		return true
	})
	return out
}

// fieldCount counts names, and an embedded field as one.
func fieldCount(l *ast.FieldList) int { return l.NumFields() }

func exportedNames(p *pkg) []string {
	if slices.Contains(manyNames, p.dir) {
		return nil
	}
	var names []string
	add := func(id *ast.Ident) {
		if id.IsExported() {
			names = append(names, id.Name)
		}
	}
	for _, f := range p.files {
		if f.test || f.generated {
			continue
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					add(d.Name)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						add(s.Name)
					case *ast.ValueSpec:
						for _, id := range s.Names {
							add(id)
						}
					}
				}
			}
		}
	}
	if len(names) > maxExported {
		return []string{fmt.Sprintf("%s: %d exported names; at most %d: %s", p.dir, len(names), maxExported, strings.Join(names, " "))}
	}
	return nil
}

func methodCounts(p *pkg) []string {
	count := map[string]int{}
	for _, f := range p.files {
		if f.generated || f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv != nil {
				count[receiverType(fn)]++
			}
		}
	}
	var out []string
	for name, n := range count {
		if n > maxMethods {
			out = append(out, fmt.Sprintf("%s: type %s has %d methods; at most %d", p.dir, name, n, maxMethods))
		}
	}
	slices.Sort(out)
	return out
}

func receiverType(fn *ast.FuncDecl) string {
	x := fn.Recv.List[0].Type
	for {
		switch y := x.(type) {
		case *ast.StarExpr:
			x = y.X
		case *ast.IndexExpr:
			x = y.X
		case *ast.IndexListExpr:
			x = y.X
		case *ast.Ident:
			return y.Name
		default:
			return ""
		}
	}
}

// mutableVars lists the places where a package variable is changed, or could be
// through a pointer, after the package was initialised. Types are resolved
// without the imported packages, which is enough to know what a name means.
func mutableVars(t *tree, p *pkg, imports types.Importer) []string {
	byName := map[string][]*file{} // a directory may hold a package and its external tests
	for _, f := range p.files {
		if !f.generated {
			byName[f.ast.Name.Name] = append(byName[f.ast.Name.Name], f)
		}
	}
	var out []string
	for _, files := range byName {
		m := &mutations{tree: t, linked: map[string]bool{}, info: &types.Info{
			Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}, Selections: map[*ast.SelectorExpr]*types.Selection{},
		}}
		var asts []*ast.File
		for _, f := range files {
			asts = append(asts, f.ast)
			linkedVars(f, m.linked)
		}
		conf := types.Config{Importer: imports, Error: func(error) {}}
		m.pkg, _ = conf.Check(p.dir, t.fset, asts, m.info) // errors are expected: nothing is imported
		m.findMutators(asts)
		for _, f := range asts {
			ast.Inspect(f, m.visit)
		}
		out = append(out, m.found...)
	}
	slices.Sort(out)
	return out
}

// fewImports knows the packages whose methods change their receiver. Every other
// import fails: its name is known as a package, and all of it is of unknown type.
type fewImports struct{ from types.Importer }

// Import implements types.Importer.
func (f fewImports) Import(path string) (*types.Package, error) {
	if path == "sync" || path == "sync/atomic" {
		return f.from.Import(path)
	}
	return nil, errors.New("not imported here")
}

type mutations struct {
	linked   map[string]bool // variables that are another package's, by go:linkname
	tree     *tree
	info     *types.Info
	pkg      *types.Package
	mutators map[types.Object]bool // methods that change what their pointer receiver points to
	found    []string
}

// root returns the variable that an expression is a part of.
func (m *mutations) root(x ast.Expr) *types.Var {
	for {
		switch y := x.(type) {
		case *ast.ParenExpr:
			x = y.X
		case *ast.SelectorExpr:
			x = y.X
		case *ast.IndexExpr:
			x = y.X
		case *ast.SliceExpr:
			x = y.X
		case *ast.StarExpr:
			x = y.X
		case *ast.Ident:
			v, _ := m.info.Uses[y].(*types.Var)
			return v
		default:
			return nil
		}
	}
}

func (m *mutations) isPackageVar(v *types.Var) bool {
	return v != nil && m.pkg != nil && v.Parent() == m.pkg.Scope() && !m.linked[v.Name()]
}

// linkedVars notes the variables of a file that are those of another module: who
// sets one sets what has no other setting.
func linkedVars(f *file, linked map[string]bool) {
	for _, group := range f.ast.Comments {
		for _, c := range group.List {
			if w := strings.Fields(c.Text); len(w) == 3 && w[0] == "//go:linkname" && strings.Contains(w[2], "/") && !strings.HasPrefix(w[2], modulePath+"/") {
				linked[w[1]] = true
			}
		}
	}
}

// changed calls f with each expression that a node writes to.
func (m *mutations) changed(n ast.Node, f func(x ast.Expr, how string)) {
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			for _, l := range n.Lhs {
				f(l, "assigned to")
			}
		}
	case *ast.IncDecStmt:
		f(n.X, "assigned to")
	case *ast.RangeStmt:
		if n.Tok == token.ASSIGN {
			f(n.Key, "assigned to")
			if n.Value != nil {
				f(n.Value, "assigned to")
			}
		}
	case *ast.SendStmt:
		f(n.Chan, "sent to")
	case *ast.UnaryExpr:
		if n.Op == token.AND {
			f(n.X, "its address is taken")
		}
	case *ast.CallExpr:
		if id, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 0 && slices.Contains([]string{"delete", "clear", "copy", "close"}, id.Name) {
			f(n.Args[0], "changed by "+id.Name)
		}
		if sel, ok := n.Fun.(*ast.SelectorExpr); ok && m.mutates(sel) {
			f(sel.X, "changed by its method "+sel.Sel.Name)
		}
	}
}

// mutates reports whether a method changes its receiver: those of sync and
// sync/atomic, and the ones of this package that write through it.
func (m *mutations) mutates(sel *ast.SelectorExpr) bool {
	s := m.info.Selections[sel]
	if s == nil || s.Kind() != types.MethodVal {
		return false
	}
	if of := s.Obj().Pkg(); of != nil && (of.Path() == "sync" || of.Path() == "sync/atomic") {
		return true
	}
	return m.mutators[s.Obj()]
}

// findMutators looks for methods with a pointer receiver that write through it,
// until there are no more that do so by calling one.
func (m *mutations) findMutators(files []*ast.File) {
	m.mutators = map[types.Object]bool{}
	for again := true; again; {
		again = false
		for _, f := range files {
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok || fn.Recv == nil || fn.Body == nil || len(fn.Recv.List[0].Names) == 0 || m.mutators[m.info.Defs[fn.Name]] {
					continue
				}
				if _, ok := fn.Recv.List[0].Type.(*ast.StarExpr); !ok {
					continue
				}
				self := m.info.Defs[fn.Recv.List[0].Names[0]]
				ast.Inspect(fn.Body, func(n ast.Node) bool {
					m.changed(n, func(x ast.Expr, _ string) {
						if _, whole := x.(*ast.Ident); whole {
							if _, ok := n.(*ast.CallExpr); !ok {
								return // the pointer itself
							}
						}
						if v := m.root(x); v != nil && v == self && !m.mutators[m.info.Defs[fn.Name]] {
							m.mutators[m.info.Defs[fn.Name]] = true
							again = true
						}
					})
					return true
				})
			}
		}
	}
}

func (m *mutations) visit(n ast.Node) bool {
	m.changed(n, func(x ast.Expr, how string) {
		if v := m.root(x); m.isPackageVar(v) {
			m.found = append(m.found, fmt.Sprintf("%s: package variable %s: %s; give it an owner instead", m.tree.at(n), v.Name(), how))
		}
	})
	return true
}

func TestBudgetsCatch(t *testing.T) {
	long := "package x\n" + strings.Repeat("\n", maxFileLines)
	body := func(n int) string { return strings.Repeat("\t_ = 1\n", n) }
	for _, c := range []struct{ name, src, want string }{
		{"file", long, "501 lines"},
		{"function", "package x\nfunc f() {\n" + body(79) + "}", "81 lines; at most 80"},
		{"switch", "package x\nfunc f(i int) {\nswitch i {\ncase 1:\n" + body(120) + "}\n}", "at most 120 for a switch"},
		{"parameters", "package x\nfunc f(a, b, c int, d, e, g string) {}", "6 parameters"},
		{"init", "package x\nfunc init() {}", "no init"},
		{"struct", "package x\ntype t struct { a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p int }", "16 fields"},
		{"marker without reason", "package x\n" + fieldsMarker + "\ntype t struct { a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p int }", "16 fields"},
		{"interface", "package x\ntype t interface { a(); b(); c(); d(); e() }", "5 methods"},
		{"interface parameters", "package x\ntype t interface { a(b, c, d, e, f, g int) }", "6 parameters"},
		{"methods", "package x\ntype t int\n" + methods(21), "21 methods"},
		{"exported", "package x\nconst (\nA=1\nB=1\nC=1\nD=1\nE=1\nF=1\nG=1\nH=1\nI=1\nJ=1\nK=1\nL=1\nM=1\nN=1\nO=1\nP=1)", "16 exported names"},

		{"assigned", "package x\nvar v int\nfunc f() { v = 1 }", "variable v: assigned"},
		{"counted", "package x\nvar v int\nfunc f() { v++ }", "variable v: assigned"},
		{"field", "package x\nvar v struct{a int}\nfunc f() { v.a = 1 }", "variable v: assigned"},
		{"element", "package x\nvar v = map[string]int{}\nfunc f() { v[\"a\"] = 1 }", "variable v: assigned"},
		{"deleted", "package x\nvar v = map[string]int{}\nfunc f() { delete(v, \"a\") }", "variable v: changed by delete"},
		{"through a pointer", "package x\nvar v = new(int)\nfunc f() { *v = 1 }", "variable v: assigned"},
		{"address", "package x\nvar v int\nfunc f() *int { return &v }", "variable v: its address is taken"},
		{"range", "package x\nvar v int\nfunc f() { for v = range 3 {} }", "variable v: assigned"},
		{"mutex", "package x\nimport \"sync\"\nvar v sync.Mutex\nfunc f() { v.Lock() }", "variable v: changed by its method Lock"},
		{"embedded mutex", "package x\nimport \"sync\"\nvar v struct{ sync.Mutex }\nfunc f() { v.Lock() }", "variable v: changed by its method Lock"},
		{"atomic", "package x\nimport \"sync/atomic\"\nvar v atomic.Int64\nfunc f() { v.Add(1) }", "variable v: changed by its method Add"},
		{"own method", "package x\ntype t struct{ a int }\nfunc (x *t) set() { x.a = 1 }\nfunc (x *t) both() { x.set() }\nvar v t\nfunc f() { v.both() }", "variable v: changed by its method both"},
		{"own by another name", "package x\nimport _ \"unsafe\"\n//go:linkname v " + modulePath + "/internal/y.v\nvar v int\nfunc f() { v = 1 }", "variable v: assigned"},
		{"sent", "package x\nvar v = make(chan int)\nfunc f() { v <- 1 }", "variable v: sent to"},
	} {
		t.Run(c.name, func(t *testing.T) { wantComplaint(t, overdrafts(planted(t, "internal/x/x.go", c.src)), c.want) })
	}
	t.Run("what is right passes", func(t *testing.T) {
		report(t, "complaints about code within its budgets", overdrafts(planted(t,
			"internal/x/x.go", "package x\nimport \"errors\"\nvar v, w = 1, map[string]int{}\nvar errX = errors.New(\"x\")\ntype t struct{ a int }\nfunc (x *t) get() int { return x.a }\nvar y t\nfunc f() int { v := 2; v = w[\"a\"]; return v + y.get() }",
			"internal/x/marked.go", "package x\n// big mirrors a file.\n//\n"+fieldsMarker+" one for each key of the file\ntype big struct { a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p int }",
			"internal/x/linked.go", "package x\nimport _ \"unsafe\"\n//go:linkname theirs go.etcd.io/x/y.v\nvar theirs int\nfunc set() { theirs = 1 }",
			"internal/x/gen.go", "// Code generated by hand. DO NOT EDIT.\n\npackage x\nfunc init() { v2 = 2 }\nvar v2 int\n",
			"internal/x/x_test.go", "package x\nfunc long() {\n"+body(200)+"}"+strings.Repeat("\n", 600),
		)))
	})
}

func methods(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "func (t) m%d() {}\n", i)
	}
	return b.String()
}
