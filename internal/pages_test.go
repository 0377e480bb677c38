package internal

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gemel/internal/config"
	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// update writes the generated parts of the manual anew:
// go test ./internal -run Page -update.
var update = flag.Bool("update", false, "write the generated parts of docs/*.md anew")

// generated is a part of a page between two comments; the rest is by hand.
var generated = regexp.MustCompile(`(?s)(<!-- generated: ([a-z. -]+) -->\n).*?(<!-- end -->)`)

// samePage compares the generated parts of a page with what they should be.
func samePage(t *testing.T, page string, part func(name string) string) {
	t.Helper()
	path := filepath.Join("..", "docs", page)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	want := generated.ReplaceAllStringFunc(string(b), func(s string) string {
		found++
		m := generated.FindStringSubmatch(s)
		return m[1] + "\n" + part(m[2]) + "\n" + m[3]
	})
	switch {
	case found == 0:
		t.Errorf("%s has no generated part", path)
	case want == string(b):
	case *update:
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is not what the program says: go test ./internal -run Page -update", path)
	}
}

// cell makes a text fit for a cell of a table.
func cell(s string) string { return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(s) }

// TestEventsPage: docs/events.md is the catalogue.
func TestEventsPage(t *testing.T) {
	samePage(t, "events.md", func(string) string {
		var out strings.Builder
		for _, e := range ha.Catalogue() {
			fmt.Fprintf(&out, "#### %d %s\n\n", e.Code, e.Word)
			kind := map[ha.Change]string{ha.Assert: "raises the alarm", ha.Clear: "clears the alarm", ha.Info: "informs"}[e.Change]
			if e.Classic {
				kind += fmt.Sprintf("; the CMM's 0x%04X", uint16(e.Code))
			}
			fmt.Fprintf(&out, "**%s** (%s)\n\n%s %s *To do:* %s\n\n", cell(e.Text), kind, cell(e.Means), cell(e.Effect), cell(e.Do))
		}
		return out.String()
	})
}

// node is a part of the JSON Schema, as far as the page needs it.
type node struct {
	Description string
	Default     any
	Properties  map[string]*node
	Additional  json.RawMessage `json:"additionalProperties"`
	Items       json.RawMessage
	OneOf       []*node `json:"oneOf"`
	Required    []string
}

// below finds the object that holds the keys of a place in the manifest.
func (n *node) below() *node {
	for _, raw := range []json.RawMessage{n.Additional, n.Items} {
		var inner node
		if json.Unmarshal(raw, &inner) == nil && len(inner.Properties) > 0 {
			return &inner
		}
	}
	for _, o := range n.OneOf {
		if len(o.Properties) > 0 {
			return o
		}
	}
	return n
}

// allowed asks the parser itself what a key may be, by giving it what nothing is.
func allowed(t *testing.T, parse func([]byte) error, at []string, key string) string {
	t.Helper()
	var text strings.Builder
	keys := append(slices.Clone(at), key)
	for i, k := range keys {
		text.WriteString(strings.Repeat("  ", i))
		if k == "[]" {
			text.WriteString("-")
		} else {
			text.WriteString(k + ":")
		}
		if i == len(keys)-1 {
			text.WriteString(" [[]]")
		}
		text.WriteString("\n")
	}
	path := strings.ReplaceAll(strings.Join(keys, "."), ".[]", "[0]")
	var errs config.Errors
	if err := parse([]byte(text.String())); !errors.As(err, &errs) {
		t.Fatalf("a list in a list is taken for %s: %v", path, err)
	}
	for _, e := range errs {
		if e.Allowed == "" {
			continue
		}
		what, _, _ := strings.Cut(e.Allowed, ", such as ")
		switch e.Path {
		case path:
			if strings.HasPrefix(what, "a map with ") {
				what = "a map, see below"
			}
			return what
		case path + "[0]":
			if strings.HasPrefix(what, "a map with ") {
				return "a list of maps, see below"
			}
			return "a list; each " + what
		}
	}
	t.Fatalf("the parser does not say what is allowed for %s:\n%s\n%v", path, text.String(), errs)
	return ""
}

// TestManifestPage: docs/manifest.md has every key, with what the parser allows
// and what the schema says of it.
func TestManifestPage(t *testing.T) {
	keysPage(t, "manifest.md", config.Schema, func(b []byte) error {
		_, err := config.Parse("page", b)
		return err
	})
}

// TestNodePage: so has docs/node.md those of node.yaml.
func TestNodePage(t *testing.T) {
	keysPage(t, "node.md", config.NodeSchema, func(b []byte) error {
		_, err := config.ParseNode("page", b)
		return err
	})
}

// profiles are their figures as a table.
func profiles(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	out.WriteString("| | heartbeat | silence | life | stop | settle | election | tick | drift | takeover begins after |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, name := range []string{"normal", "fast", "guarded"} {
		p, ok := manifest.Profile(name)
		if !ok {
			t.Fatalf("there is no profile %s", name)
		}
		fmt.Fprintf(&out, "| `%s` | %v | %v | %v | %v | %v | %v | %v | %v | %.2g s |\n",
			name, p.Heartbeat, p.Silence, p.Life, p.Stop, p.Settle, p.Election, p.Tick, p.Drift, (p.Silence + p.Wait()).Seconds())
	}
	return out.String()
}

// keysPage compares the tables of a page with the schema and the parser. The table
// named "all" is that of the keys at the top.
func keysPage(t *testing.T, page string, schema func() ([]byte, error), parse func([]byte) error) {
	t.Helper()
	b, err := schema()
	if err != nil {
		t.Fatal(err)
	}
	var top node
	if err := json.Unmarshal(b, &top); err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	samePage(t, page, func(name string) string {
		told[name] = true
		if name == "profiles" {
			return profiles(t)
		}
		n, at := &top, []string{}
		for _, k := range strings.Split(name, ".") {
			if k == "all" {
				break
			}
			n, at = n.Properties[k], append(at, k)
			if n == nil {
				t.Fatalf("there is no key %s for %s", name, page)
			}
			switch k {
			case "processes", "checks", "groups", "files":
				at = append(at, "x")
			case "exits", "scripts", "ocf", "networks", "peers":
				at = append(at, "[]")
			}
			n = n.below()
		}
		var out strings.Builder
		out.WriteString("| key | may be | default | meaning |\n|---|---|---|---|\n")
		var keys []string
		for k := range n.Properties {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			p, def := n.Properties[k], ""
			if p.Default != nil {
				def = fmt.Sprintf("`%v`", p.Default)
			}
			if slices.Contains(n.Required, k) {
				def = "must be there"
			}
			fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", k, cell(allowed(t, parse, at, k)), cell(def), cell(p.Description))
		}
		return out.String()
	})
	var walk func(path string, n *node)
	walk = func(path string, n *node) {
		n = n.below()
		if path != "processes.limits" && len(n.Properties) > 0 && !told[path] && !strings.HasPrefix(path, "processes.handlers.") {
			t.Errorf("docs/%s has no table of the keys of %s", page, path)
		}
		for k, p := range n.Properties {
			walk(strings.TrimPrefix(path+"."+k, "."), p)
		}
	}
	for k, p := range top.Properties {
		walk(k, p)
	}
}

// TestPageExamples: each manifest, each node.yaml and each file of an etcd that the manual
// shows is one.
func TestPageExamples(t *testing.T) {
	block := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```")
	for _, path := range tracked(t) {
		if filepath.Ext(path) != ".md" {
			continue
		}
		b, err := os.ReadFile(filepath.Join("..", path))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range block.FindAllStringSubmatch(string(b), -1) {
			name := fmt.Sprintf("%s, example %d", path, i+1)
			_, err := config.Parse(name, []byte(m[1]))
			if strings.HasPrefix(m[1], "# node.yaml") {
				_, err = config.ParseNode(name, []byte(m[1]))
			}
			if strings.HasPrefix(m[1], "# etcd.yaml") {
				_, err = config.ParseStore(name, []byte(m[1]))
			}
			if err != nil {
				t.Error(err)
			}
		}
	}
}
