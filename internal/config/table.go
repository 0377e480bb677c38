package config

import (
	"reflect"
	"slices"
	"strconv"
)

// schema is a piece of a JSON Schema.
type schema map[string]any

// A kind says what a value may be: how it is read, how it is written, and what
// an editor is told about it. What read returns counts only with true; else the
// reader holds the error.
type kind[V any] struct {
	read   func(r *reader, path string, n *tree) (V, bool)
	write  func(V) *tree
	schema schema
}

// A field is one key of an object.
type field[T any] struct {
	key, doc string
	required bool
	implied  func(*T) bool // nil: the default is a value of its own
	read     func(r *reader, path string, n *tree, to *T)
	write    func(from *T) *tree
	same     func(a, b *T) bool
	schema   schema
}

// must says that the key cannot be left out.
func (f field[T]) must() field[T] { f.required = true; return f }

// unless says when the value is the default, where that depends on other keys.
func (f field[T]) unless(isDefault func(*T) bool) field[T] {
	f.implied = isDefault
	return f
}

// at is the field for a value that has its own place in T.
func at[T, V any](key string, k kind[V], of func(*T) *V, doc string) field[T] {
	return field[T]{
		key: key, doc: doc, schema: k.schema,
		read: func(r *reader, path string, n *tree, to *T) {
			if v, ok := k.read(r, path, n); ok {
				*of(to) = v
			}
		},
		write: func(from *T) *tree { return k.write(*of(from)) },
		same:  func(a, b *T) bool { return reflect.DeepEqual(*of(a), *of(b)) },
	}
}

// An object is a map with known keys.
type object[T any] struct {
	fresh  func() T // with every default
	fields []field[T]
}

// keys returns the names of the keys.
func (o object[T]) keys() []string {
	out := make([]string, len(o.fields))
	for i := range o.fields {
		out[i] = o.fields[i].key
	}
	return out
}

// fill reads a map into to, which holds the defaults.
func (o object[T]) fill(r *reader, path string, n *tree, to *T) bool {
	if n.kind != treeMap {
		r.notMap[path] = true
		r.wrong(path, n, "a map with "+anyOf(o.keys()), o.wrap(r, n))
		return false
	}
	before := len(r.errs)
	for _, p := range n.pairs {
		if !o.fillKey(r, path, p, to) && len(r.errs) < maxKept {
			r.add(p.at, Error{Path: path, Text: "unknown key " + quoted(p.key), Found: p.key, Allowed: anyOf(o.keys()), Hint: o.otherKey(p.key)})
		}
	}
	for i := range o.fields {
		if f := &o.fields[i]; f.required && n.lookup(f.key) == nil {
			r.add(n.at, Error{Path: path, Text: f.key + " is missing", Hint: f.key + ": " + f.doc})
		}
	}
	return len(r.errs) == before
}

// fillKey reads one key and reports whether it is known.
func (o object[T]) fillKey(r *reader, path string, p pair, to *T) bool {
	for i := range o.fields {
		if o.fields[i].key == p.key {
			below := sub(path, p.key)
			r.spots[below] = p.value.at
			if p.value.at.line == 0 {
				r.spots[below] = p.at
			}
			o.fields[i].read(r, below, p.value, to)
			return true
		}
	}
	return false
}

// tree writes what differs from the defaults.
func (o object[T]) tree(from *T) *tree {
	t, fresh := &tree{kind: treeMap}, o.fresh()
	for i := range o.fields {
		f := &o.fields[i]
		if f.implied != nil && f.implied(from) || f.implied == nil && f.same(from, &fresh) {
			continue
		}
		if v := f.write(from); v != nil {
			t.put(f.key, v)
		}
	}
	return t
}

// kind is the object as the value of a key.
func (o object[T]) kind() kind[T] {
	return kind[T]{
		read: func(r *reader, path string, n *tree) (T, bool) {
			v := o.fresh()
			ok := o.fill(r, path, n, &v)
			return v, ok
		},
		write:  func(v T) *tree { return o.tree(&v) },
		schema: o.describe(),
	}
}

// describe makes the schema.
func (o object[T]) describe() schema {
	properties, required := schema{}, []string{}
	fresh := o.fresh()
	for i := range o.fields {
		f := &o.fields[i]
		s := schema{}
		for k, v := range f.schema {
			s[k] = v
		}
		s["description"] = f.doc
		if d, ok := jsonDefault(f.write(&fresh)); ok {
			s["default"] = d
		}
		properties[f.key] = s
		if f.required {
			required = append(required, f.key)
		}
	}
	s := schema{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

// jsonDefault returns a default that is worth telling.
func jsonDefault(t *tree) (any, bool) {
	if t == nil || t.kind != treeScalar || t.text == "" || t.text == "0s" || t.text == "0" && t.plain {
		return nil, false
	}
	if t.plain {
		if t.text == "true" || t.text == "false" {
			return t.text == "true", true
		}
		if n, err := strconv.ParseInt(t.text, 10, 64); err == nil && t.text[0] != '0' {
			return n, true
		}
	}
	return t.text, true
}

// named reads a map from names to objects, in the order of the file.
func named[T any](o object[T], what string, name func(*T, string)) kind[[]T] {
	return kind[[]T]{
		read: func(r *reader, path string, n *tree) ([]T, bool) {
			if n.kind != treeMap {
				hint := "write each as a key, as NAME: {...}"
				if n.kind == treeNull {
					hint = "leave the key out, or write {} for none"
				}
				r.wrong(path, n, "a map from the name of each "+what+" to its keys", hint)
				return nil, false
			}
			out := slices.Grow([]T(nil), len(n.pairs)) // a manifest's processes stay in memory: no spare room
			for _, p := range n.pairs {
				below := sub(path, p.key)
				r.spots[below] = p.at
				if text, hint, ok := goodName(p.key, what); !ok {
					r.add(p.at, Error{Path: path, Found: p.key, Text: text, Hint: hint})
				}
				v := o.fresh()
				if p.value.kind == treeNull {
					p.value.at = p.at
				}
				o.fill(r, below, p.value, &v)
				name(&v, p.key)
				out = append(out, v)
			}
			return out, true
		},
		schema: schema{
			"type":                 "object",
			"propertyNames":        schema{"pattern": namePattern},
			"additionalProperties": o.describe(),
		},
	}
}
