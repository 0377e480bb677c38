package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"gemel/internal/manifest"
)

// Encode writes a manifest in its canonical form: the keys in the order of the
// tables, without those that have their default. Parse reads it back to an equal
// manifest, apart from the digest. It fails only for a manifest that Parse would
// refuse, and then with Parse's own error.
func Encode(m *manifest.Manifest) ([]byte, error) {
	o := topObject()
	t := o.tree(m)
	var b strings.Builder
	if len(t.pairs) == 0 {
		b.WriteString("processes: {}\n")
	}
	emitMap(&b, t, 0)
	out := []byte(b.String())
	if _, err := Parse("", out); err != nil {
		return out, errors.Join(errors.New("the manifest cannot be written in a form that is valid"), err)
	}
	return out, nil
}

// emitMap writes a map in lines.
func emitMap(b *strings.Builder, t *tree, indent int) {
	for i, p := range t.pairs {
		if i > 0 && indent == 0 {
			b.WriteByte('\n')
		}
		b.WriteString(strings.Repeat("  ", indent) + scalarText(p.key, false) + ":")
		if p.value.kind == treeMap && len(p.value.pairs) > 0 && (indent < 2 || !small(p.value)) {
			b.WriteByte('\n')
			emitMap(b, p.value, indent+1)
			continue
		}
		b.WriteString(" " + flow(p.value) + "\n")
	}
}

// small reports whether a map is told best in one line.
func small(t *tree) bool { return len(flow(t)) <= 72 }

// flow writes a tree in one line.
func flow(t *tree) string {
	if t == nil {
		return "null"
	}
	var parts []string
	switch t.kind {
	case treeList:
		for _, i := range t.items {
			parts = append(parts, flow(i))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case treeMap:
		for _, p := range t.pairs {
			parts = append(parts, scalarText(p.key, false)+": "+flow(p.value))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case treeScalar:
		return scalarText(t.text, t.plain)
	}
	return "null"
}

// scalarText writes one word, in quotes unless it can be taken for nothing else.
func scalarText(s string, asIs bool) string {
	if asIs || plainWord(s) {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < ' ' || r >= 0x7f && r < 0xa0:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r == 0x2028 || r == 0x2029 || r == 0xfeff || r == 0xfffd:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// plainWord reports whether s needs no quotes and is no number, truth value or
// null of any YAML.
func plainWord(s string) bool {
	if s == "" || len(s) > 200 {
		return false
	}
	for i, c := range s {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '/' || c == '_'
		if i == 0 && !letter && (c < '0' || c > '9') {
			return false
		}
		if !letter && (c < '0' || c > '9') && !strings.ContainsRune("-.+@", c) {
			return false
		}
	}
	switch strings.ToLower(s) {
	case "true", "false", "yes", "no", "on", "off", "y", "n", "null", "inf", "nan":
		return s == "on" // the only key among them; a key is never a truth value here
	}
	if s[0] >= '0' && s[0] <= '9' {
		_, _, duration := parseDuration(s)
		_, err := strconv.ParseFloat(s, 64)
		unit := s[len(s)-1]
		return err != nil && (duration || unit == 'B') && !strings.HasPrefix(s, "0x")
	}
	return true
}
