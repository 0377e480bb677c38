package config

import (
	"errors"
	"fmt"
	"io"
	"strings"

	yamlerr "github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/scanner"
	"github.com/goccy/go-yaml/token"
)

const (
	maxDepth  = 32     // maps and lists inside each other; the deepest manifest has 7
	maxIndent = 200    // columns
	maxCopies = 20_000 // values that aliases may add to those that are written

	// The library's time grows with the square of the keys of one map. These keep
	// it, and the memory, within what a request may cost; 5,000 programs need half.
	maxKeys   = 10_000
	maxTokens = 500_000
)

// grower makes a tree of what the YAML library found.
type grower struct {
	src     *source
	errs    Errors
	anchors map[string]*tree
	copies  int
}

func (g *grower) fail(at spot, text, hint string) {
	if len(g.errs) == maxKept {
		return
	}
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
	tokens := g.tokens()
	if len(g.errs) > 0 {
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
			g.fail(g.node(d.Body).at, "found a second document; allowed: one document in a file",
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

// tokens cuts the text into the words of YAML, and refuses, before anything
// recurses, what is too deep and what no manifest needs.
func (g *grower) tokens() token.Tokens {
	var (
		all token.Tokens
		s   scanner.Scanner
		v   = survey{g: g}
	)
	s.Init(g.src.text)
	for {
		some, err := s.Scan()
		if errors.Is(err, io.EOF) {
			return all
		}
		if all.Add(some...); len(all) > maxTokens {
			g.fail(spotOf(all[len(all)-1]), fmt.Sprintf("the file has more than %d words and signs up to here", maxTokens), "no "+g.src.what+" needs so many")
			return nil
		}
		for _, t := range some {
			if !v.see(t) {
				return nil
			}
		}
		if err != nil { // some holds a token that says where and why
			if len(g.errs) == 0 {
				g.fail(spot{}, "not YAML: "+err.Error(), "")
			}
			return nil
		}
	}
}

// A survey sees the tokens go by.
type survey struct {
	g                    *grower
	depth, entries, line int
	keys                 keyCount
}

// see looks at the next token and reports whether to go on.
func (v *survey) see(t *token.Token) bool {
	at := spotOf(t)
	if at.line != v.line {
		v.line, v.entries = at.line, 0
		if v.depth == 0 && at.column > maxIndent && t.Type != token.CommentType {
			v.g.fail(at, fmt.Sprintf("this line begins at column %d; allowed: up to %d", at.column, maxIndent), "")
			return false
		}
	}
	switch t.Type {
	case token.SequenceStartType, token.MappingStartType:
		v.depth++
	case token.SequenceEndType, token.MappingEndType:
		v.depth = max(v.depth-1, 0)
	case token.SequenceEntryType:
		v.entries++
		v.keys.leave(at.column)
	case token.MappingValueType:
		if v.depth == 0 && t.Prev != nil && !v.keys.add(spotOf(t.Prev).column) {
			v.g.fail(at, fmt.Sprintf("more than %d keys in one map, or nearly so many in several", maxKeys), "no "+v.g.src.what+" needs so many")
			return false
		}
	default:
		v.g.unwanted(t)
	}
	if v.depth > maxDepth || v.entries > maxDepth {
		v.g.fail(at, fmt.Sprintf("lists and maps are more than %d deep", maxDepth), "")
		return false
	}
	return len(v.g.errs) <= maxErrors
}

// unwanted refuses what YAML has and a manifest has not.
func (g *grower) unwanted(t *token.Token) {
	switch at := spotOf(t); t.Type {
	case token.TagType:
		g.fail(at, fmt.Sprintf("found the tag %s; a %s has no tags", clip(t.Value), g.src.what), "remove it")
	case token.MappingKeyType:
		g.fail(at, `found "?"; a key is a plain word followed by a colon`, "")
	case token.DirectiveType:
		g.fail(at, "found a YAML directive; a "+g.src.what+" has none", "remove the line")
	case token.InvalidType:
		g.fail(at, "not YAML: "+t.Error, "")
	}
}

// keyCount counts the keys of block maps while the tokens go by.
type keyCount struct {
	open []struct{ column, keys int } // the maps around the token, outermost first
	cost int                          // sum of the squares
}

// leave closes the maps that are further in than column.
func (k *keyCount) leave(column int) {
	for len(k.open) > 0 && k.open[len(k.open)-1].column > column {
		k.open = k.open[:len(k.open)-1]
	}
}

// add counts a key at column and reports whether that is still bearable.
func (k *keyCount) add(column int) bool {
	k.leave(column)
	if n := len(k.open); n == 0 || k.open[n-1].column < column {
		k.open = append(k.open, struct{ column, keys int }{column, 0})
	}
	top := &k.open[len(k.open)-1]
	top.keys++
	k.cost += 2*top.keys - 1
	return k.cost <= maxKeys*maxKeys
}

// syntax tells an error of the library in our words.
func (g *grower) syntax(err error) {
	var ye yamlerr.Error
	if errors.As(err, &ye) && ye.GetToken() != nil && ye.GetToken().Position != nil {
		g.fail(spotOf(ye.GetToken()), "not YAML: "+ye.GetMessage(), indentation(ye.GetMessage()))
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
	if g.copies > maxCopies {
		return &tree{kind: treeNull, at: at, nodes: 1} // that is told
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
