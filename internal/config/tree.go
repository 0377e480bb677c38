package config

// A spot is a place in the file, counted from 1; zero if there is none.
type spot struct{ line, column int }

// treeKind is the sort of a tree.
type treeKind uint8

const (
	treeNull treeKind = iota
	treeScalar
	treeList
	treeMap
)

// A tree is YAML without its surface: aliases and merge keys are resolved. It is
// both what the tables read and what they write.
type tree struct {
	kind  treeKind
	text  string // of a scalar: its value, as written if it is not in quotes
	plain bool   // of a scalar: not in quotes, so that it may mean a number or a truth value
	at    spot
	items []*tree
	pairs []pair
	nodes int // the tree's own size with all aliases written out
}

// A pair is one key of a map.
type pair struct {
	key   string
	at    spot
	value *tree
}

// describe says what was found, in the words of the error.
func (t *tree) describe() string {
	switch t.kind {
	case treeNull:
		return "nothing"
	case treeList:
		if len(t.items) == 0 {
			return "an empty list"
		}
		return "a list"
	case treeMap:
		if len(t.pairs) == 0 {
			return "an empty map"
		}
		return "a map"
	}
	if t.plain {
		return clip(t.text)
	}
	return quoted(t.text)
}

// lookup returns the value of a key, or nil.
func (t *tree) lookup(key string) *tree {
	for i := range t.pairs {
		if t.pairs[i].key == key {
			return t.pairs[i].value
		}
	}
	return nil
}

// count sets and returns the size of a tree whose parts are counted.
func (t *tree) count() int {
	t.nodes = 1
	for _, i := range t.items {
		t.nodes += i.nodes
	}
	for _, p := range t.pairs {
		t.nodes += p.value.nodes
	}
	return t.nodes
}

// The trees that the tables write.

func word(s string) *tree  { return &tree{kind: treeScalar, text: s} }
func plain(s string) *tree { return &tree{kind: treeScalar, text: s, plain: true} }

func listOf[V any](values []V, write func(V) *tree) *tree {
	t := &tree{kind: treeList}
	for _, v := range values {
		t.items = append(t.items, write(v))
	}
	return t
}

func (t *tree) put(key string, value *tree) {
	if value != nil {
		t.pairs = append(t.pairs, pair{key: key, value: value})
	}
}
