package config

import (
	"errors"
	"fmt"
	"strings"

	yamlerr "github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	maxDepth  = 32     // maps and lists inside each other; the deepest manifest has 7
	maxIndent = 200    // columns
	maxCopies = 20_000 // values that aliases may add to those that are written
)

// grower makes a tree of what the YAML library found.
type grower struct {
	src     *source
	errs    Errors
	anchors map[string]*tree
	copies  int
}

func (g *grower) fail(at spot, text, hint string) {
	g.errs = append(g.errs, Error{
		File: g.src.file, Line: at.line, Column: at.column,
		Text: text, Hint: hint, Source: g.src.line(at.line),
	})
}

// grow reads the text as one YAML document. It returns nil for an empty one.
func grow(src *source) (t *tree, errs Errors) {
	g := &grower{src: src, anchors: map[string]*tree{}}
	// The library is fed with whatever is in the file; a defect of it must be an
	// error of this file, and not the end of the monitor.
	defer func() {
		if p := recover(); p != nil {
			t, errs = nil, Errors{{File: src.file, Text: fmt.Sprintf("cannot be read as YAML: %v", p),
				Hint: "leave parts out until it can be read; the part that was left out last is the cause"}}
		}
	}()
	tokens := lexer.Tokenize(src.text)
	if g.survey(tokens); len(g.errs) > 0 {
		return nil, g.errs
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		g.syntax(err)
		return nil, g.errs
	}
	var body ast.Node
	for _, d := range file.Docs {
		if d.Body == nil {
			continue
		}
		if body != nil {
			g.fail(spotOf(d.Body.GetToken()), "found a second document; allowed: one document in a file",
				"join the documents, and remove the line that holds only ---")
			return nil, g.errs
		}
		body = d.Body
	}
	if body == nil {
		return nil, nil
	}
	return g.node(body), g.errs
}

// survey refuses, before anything recurses, what is too deep and what no
// manifest needs.
func (g *grower) survey(tokens token.Tokens) {
	depth, entries, line := 0, 0, 0
	for _, t := range tokens {
		at := spotOf(t)
		if at.line != line {
			line, entries = at.line, 0
			if depth == 0 && at.column > maxIndent && t.Type != token.CommentType {
				g.fail(at, fmt.Sprintf("this line begins at column %d; allowed: up to %d", at.column, maxIndent), "")
				return
			}
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth = max(depth-1, 0)
		case token.SequenceEntryType:
			entries++
		case token.TagType:
			g.fail(at, fmt.Sprintf("found the tag %s; a manifest has no tags", clip(t.Value)), "remove it")
		case token.MappingKeyType:
			g.fail(at, `found "?"; a key is a plain word followed by a colon`, "")
		case token.DirectiveType:
			g.fail(at, "found a YAML directive; a manifest has none", "remove the line")
		case token.InvalidType:
			g.fail(at, "not YAML: "+t.Error, "")
		}
		if depth > maxDepth || entries > maxDepth {
			g.fail(at, fmt.Sprintf("lists and maps are more than %d deep", maxDepth), "")
			return
		}
		if len(g.errs) > maxErrors {
			return
		}
	}
}

// syntax tells an error of the library in our words.
func (g *grower) syntax(err error) {
	var ye yamlerr.Error
	if errors.As(err, &ye) && ye.GetToken() != nil && ye.GetToken().Position != nil {
		g.fail(spotOf(ye.GetToken()), "not YAML: "+ye.GetMessage(), "")
		return
	}
	g.fail(spot{}, "not YAML: "+err.Error(), "")
}

func spotOf(t *token.Token) spot {
	if t == nil || t.Position == nil {
		return spot{}
	}
	return spot{t.Position.Line, t.Position.Column}
}

// node makes a tree of one node of the library.
func (g *grower) node(n ast.Node) *tree {
	switch n := n.(type) {
	case *ast.MappingNode:
		return g.mapping(spotOf(n.Start), n.Values)
	case *ast.MappingValueNode:
		return g.mapping(spotOf(n.Start), []*ast.MappingValueNode{n})
	case *ast.SequenceNode:
		t := &tree{kind: treeList, at: spotOf(n.Start)}
		for _, v := range n.Values {
			t.items = append(t.items, g.node(v))
		}
		t.count()
		return t
	case *ast.AnchorNode:
		t := g.node(n.Value)
		g.anchors[nameOf(n.Name)] = t
		return t
	case *ast.AliasNode:
		return g.alias(n)
	case *ast.LiteralNode:
		return &tree{kind: treeScalar, text: n.Value.Value, at: spotOf(n.Start), nodes: 1}
	case *ast.NullNode:
		return &tree{kind: treeNull, at: spotOf(n.Token), nodes: 1}
	case nil:
		return &tree{kind: treeNull, nodes: 1}
	}
	return g.scalar(n)
}

func (g *grower) scalar(n ast.Node) *tree {
	tk := n.GetToken()
	t := &tree{kind: treeScalar, at: spotOf(tk), nodes: 1}
	if s, ok := n.(*ast.StringNode); ok {
		t.text = s.Value
		t.plain = tk.Type != token.SingleQuoteType && tk.Type != token.DoubleQuoteType
		return t
	}
	t.text, t.plain = strings.TrimSpace(tk.Value), true
	return t
}

func (g *grower) alias(n *ast.AliasNode) *tree {
	at, name := spotOf(n.Start), nameOf(n.Value)
	target, ok := g.anchors[name]
	if !ok {
		g.fail(at, fmt.Sprintf("*%s stands for nothing: no &%s comes before it", clip(name), clip(name)), "")
		return &tree{kind: treeNull, at: at, nodes: 1}
	}
	if g.copies += target.nodes; g.copies > maxCopies {
		g.fail(at, fmt.Sprintf("the aliases up to here stand for more than %d values", maxCopies),
			"write the values out, or use fewer aliases inside aliases")
		return &tree{kind: treeNull, at: at, nodes: 1}
	}
	// Errors are told at the place where the value is used.
	c := *target
	c.at = at
	return &c
}

func (g *grower) mapping(at spot, values []*ast.MappingValueNode) *tree {
	t := &tree{kind: treeMap, at: at}
	seen := map[string]spot{}
	var merged []*tree
	for _, v := range values {
		if _, ok := v.Key.(*ast.MergeKeyNode); ok {
			merged = append(merged, g.node(v.Value))
			continue
		}
		keyAt := spotOf(v.Key.GetToken())
		if len(t.pairs) == 0 {
			t.at = keyAt
		}
		key, ok := keyText(v.Key)
		if !ok {
			g.fail(keyAt, "found a key that is not a plain word", "")
			continue
		}
		if first, twice := seen[key]; twice {
			g.fail(keyAt, fmt.Sprintf("the key %s is there twice; the first is in line %d", quoted(key), first.line),
				"join the two, or remove one")
			continue
		}
		seen[key] = keyAt
		t.pairs = append(t.pairs, pair{key: key, at: keyAt, value: g.node(v.Value)})
	}
	for _, m := range merged {
		g.merge(t, m, seen)
	}
	t.count()
	return t
}

// merge adds what <<: brings to the keys that are written.
func (g *grower) merge(t, from *tree, seen map[string]spot) {
	switch from.kind {
	case treeMap:
		for _, p := range from.pairs {
			if _, own := seen[p.key]; !own {
				seen[p.key] = p.at
				t.pairs = append(t.pairs, p)
			}
		}
	case treeList:
		for _, i := range from.items {
			if i.kind != treeMap {
				g.fail(i.at, "found "+i.describe()+"; allowed after <<: maps", "")
				continue
			}
			g.merge(t, i, seen)
		}
	default:
		g.fail(from.at, "found "+from.describe()+"; allowed after <<: a map", "write <<: *NAME, with &NAME before a map")
	}
}

// keyText returns a key as text; a key such as 1 or true is its own spelling.
func keyText(n ast.MapKeyNode) (string, bool) {
	switch k := n.(type) {
	case *ast.StringNode:
		return k.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		return strings.TrimSpace(k.GetToken().Value), true
	}
	return "", false
}

func nameOf(n ast.Node) string {
	if n == nil || n.GetToken() == nil {
		return ""
	}
	return strings.TrimSpace(n.GetToken().Value)
}
