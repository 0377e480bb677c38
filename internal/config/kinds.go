package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// scalarKind is the kind of a value that is one word. parse returns what is
// allowed and a hint if it refuses.
func scalarKind[V any](allowed string, parse func(*tree) (V, string, bool), write func(V) *tree, s schema) kind[V] {
	return kind[V]{
		read: func(r *reader, path string, n *tree) (V, bool) {
			var zero V
			if n.kind != treeScalar {
				r.wrong(path, n, allowed, "")
				return zero, false
			}
			v, hint, ok := parse(n)
			if !ok {
				r.wrong(path, n, allowed, hint)
				return zero, false
			}
			return v, true
		},
		write:  write,
		schema: s,
	}
}

// boolKind is true or false.
func boolKind() kind[bool] {
	return scalarKind("true or false", func(t *tree) (bool, string, bool) {
		if t.plain && (t.text == "true" || t.text == "false") {
			return t.text == "true", "", true
		}
		switch strings.ToLower(t.text) {
		case "yes", "on", "true", "1":
			return false, "write true", false
		case "no", "off", "false", "0":
			return false, "write false", false
		}
		return false, "", false
	}, func(v bool) *tree { return plain(strconv.FormatBool(v)) }, schema{"type": "boolean"})
}

// intKind is a whole number in a range.
func intKind(least, most int) kind[int] {
	return scalarKind(fmt.Sprintf("a whole number from %d to %d", least, most),
		func(t *tree) (int, string, bool) {
			n, err := strconv.Atoi(t.text)
			switch {
			case err == nil && !t.plain:
				return 0, "write it without quotes", false
			case err != nil && strings.HasSuffix(t.text, ".0"):
				return 0, "write it without a point", false
			case err != nil, n < least, n > most, len(t.text) > 1 && (t.text[0] == '0' || t.text[0] == '+'):
				return 0, "", false
			}
			return n, "", true
		},
		func(n int) *tree { return plain(strconv.Itoa(n)) },
		schema{"type": "integer", "minimum": least, "maximum": most})
}

// floatKind is a number in a range.
func floatKind(least, most float64) kind[float64] {
	return scalarKind(fmt.Sprintf("a number from %g to %g", least, most),
		func(t *tree) (float64, string, bool) {
			for _, c := range t.text {
				if !strings.ContainsRune("0123456789.", c) {
					return 0, "", false
				}
			}
			f, err := strconv.ParseFloat(t.text, 64)
			if err != nil || !t.plain || !(f >= least && f <= most) {
				return 0, "", false
			}
			return f, "", true
		},
		func(f float64) *tree { return plain(strconv.FormatFloat(f, 'f', -1, 64)) },
		schema{"type": "number", "minimum": least, "maximum": most})
}

// choiceKind is one of a few words. The values are what the words stand for.
func choiceKind[V comparable](words []string, values []V) kind[V] {
	return scalarKind(anyOf(words), func(t *tree) (V, string, bool) {
		i := slices.Index(words, t.text)
		if i < 0 {
			var zero V
			return zero, didYouMean(t.text, words), false
		}
		return values[i], "", true
	}, func(v V) *tree {
		i := slices.Index(values, v)
		if i < 0 {
			return nil
		}
		return word(words[i])
	}, schema{"enum": words})
}

// A rule looks at a text and says what is wrong with it; the empty hint is a
// refusal without one.
type rule func(s string) (hint string, ok bool)

// textKind is a text. Numbers and truth values are taken as they are written:
// [sleep, 10] and PORT: 8080 mean what they look like.
func textKind[V ~string](allowed string, s schema, rules ...rule) kind[V] {
	return scalarKind(allowed, func(t *tree) (V, string, bool) {
		if hint, ok := noNUL(t.text); !ok {
			return "", hint, false
		}
		for _, ok := range rules {
			if hint, ok := ok(t.text); !ok {
				return "", hint, false
			}
		}
		return V(t.text), "", true
	}, func(v V) *tree { return word(string(v)) }, s)
}

func noNUL(s string) (string, bool) {
	return "no program can be given a text with a NUL in it", !strings.ContainsRune(s, 0)
}

// looseText is the schema of a text that may look like a number.
func looseText() schema { return schema{"type": []string{"string", "number", "boolean"}} }

// listing bounds a list.
type listing struct {
	least  int
	unique bool
	single bool // one value may stand without the brackets
}

// listKind is a list of values of one kind.
func listKind[V comparable](what string, k kind[V], l listing) kind[[]V] {
	s := schema{"type": "array", "items": k.schema}
	if l.least > 0 {
		s["minItems"] = l.least
	}
	if l.unique {
		s["uniqueItems"] = true
	}
	if l.single {
		s = schema{"oneOf": []schema{s, k.schema}}
	}
	allowed := "a list of " + what + ", as [a, b]"
	return kind[[]V]{
		read: func(r *reader, path string, n *tree) ([]V, bool) {
			items := n.items
			if l.single && n.kind == treeScalar {
				items = []*tree{n}
			} else if n.kind != treeList {
				hint := ""
				if n.kind == treeScalar {
					hint = "put it in brackets: [" + clip(n.text) + "]"
				}
				r.wrong(path, n, allowed, hint)
				return nil, false
			}
			if len(items) < l.least {
				r.wrong(path, n, allowed+", that is not empty", "")
				return nil, false
			}
			return readItems(r, path, items, itemRule[V]{k, l.unique})
		},
		write:  func(v []V) *tree { return listOf(v, k.write) },
		schema: s,
	}
}

type itemRule[V comparable] struct {
	kind   kind[V]
	unique bool
}

func readItems[V comparable](r *reader, path string, items []*tree, rule itemRule[V]) ([]V, bool) {
	out, good := make([]V, 0, len(items)), true
	seen := map[V]bool{}
	for i, t := range items {
		below := item(path, i)
		r.spots[below] = t.at
		v, ok := rule.kind.read(r, below, t)
		if ok && rule.unique && seen[v] {
			r.add(t.at, Error{Path: below, Found: t.describe(), Text: t.describe() + " is there twice", Hint: "remove one"})
			ok = false
		}
		good = good && ok
		seen[v] = true
		out = append(out, v)
	}
	return out, good
}

// pairsKind is a map from any names to texts, as environments and headers are.
func pairsKind(what string, key rule) kind[map[string]string] {
	value := textKind[string]("a text", looseText())
	return kind[map[string]string]{
		read: func(r *reader, path string, n *tree) (map[string]string, bool) {
			if n.kind != treeMap {
				r.wrong(path, n, "a map from "+what+" to texts", asPairs(n))
				return nil, false
			}
			out, good := map[string]string{}, true
			for _, p := range n.pairs {
				below := sub(path, p.key)
				r.spots[below] = p.at
				if hint, ok := key(p.key); !ok {
					r.add(p.at, Error{Path: path, Found: p.key, Allowed: what, Text: fmt.Sprintf("found %s; allowed: %s", quoted(p.key), what), Hint: hint})
					good = false
				}
				if p.value.kind == treeNull {
					r.add(p.at, Error{Path: below, Found: "nothing", Allowed: "a text", Text: "found nothing; allowed: a text", Hint: `write "" for an empty text`})
					good = false
					continue
				}
				v, ok := value.read(r, below, p.value)
				good = good && ok
				out[p.key] = v
			}
			return out, good
		},
		write: func(m map[string]string) *tree {
			t := &tree{kind: treeMap}
			for _, k := range sortedKeys(m) {
				t.put(k, word(m[k]))
			}
			return t
		},
		schema: schema{"type": "object", "additionalProperties": value.schema},
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
