package config

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

const docs = "../../docs/"

// The published schemas are those that the tables make now.
func TestSchemaIsCurrent(t *testing.T) {
	for file, make := range map[string]func() ([]byte, error){"gemel.schema.json": Schema, "node.schema.json": NodeSchema} {
		now, err := make()
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(docs+file, now, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		then, err := os.ReadFile(docs + file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(now, then) {
			t.Errorf("docs/%s is not current: go test ./internal/config -run TestSchemaIsCurrent -update", file)
		}
	}
}

// The schema takes what the parser takes, refuses what has a wrong form, and
// leaves alone what only the parser can judge.
func TestSchema(t *testing.T) {
	s := compiled(t, Schema)
	for _, pattern := range []string{"testdata/good/*.yaml", "../../examples/*.yaml"} {
		for _, file := range glob(t, pattern) {
			if err := s.Validate(generic(t, file)); err != nil {
				t.Errorf("%s is refused: %v", file, err)
			}
		}
	}
	judged(t, s, "testdata/bad/*.yaml")
}

// So does the schema of node.yaml.
func TestNodeSchema(t *testing.T) {
	s := compiled(t, NodeSchema)
	for _, file := range glob(t, "testdata/node/good/*.yaml") {
		if err := s.Validate(generic(t, file)); err != nil {
			t.Errorf("%s is refused: %v", file, err)
		}
	}
	judged(t, s, "testdata/node/bad/*.yaml")
}

func judged(t *testing.T, s *jsonschema.Schema, pattern string) {
	t.Helper()
	for _, file := range glob(t, pattern) {
		name := filepath.Base(file)
		switch err := error(nil); {
		case strings.HasPrefix(name, "form-"):
			if err = s.Validate(generic(t, file)); err == nil {
				t.Errorf("%s is taken", name)
			}
		case strings.HasPrefix(name, "sense-"):
			if err = s.Validate(generic(t, file)); err != nil && !formToo(name) {
				t.Errorf("%s is refused: %v", name, err)
			}
		}
	}
}

// formToo says which of the manifests that make no sense have a wrong form as
// well.
func formToo(name string) bool {
	switch strings.TrimSuffix(strings.TrimPrefix(name, "sense-"), ".yaml") {
	case "everything-at-once", "needs-twice", "group-nodes-twice", "group-address", "size-unit", "check-url":
		return true
	}
	return false
}

func compiled(t *testing.T, make func() ([]byte, error)) *jsonschema.Schema {
	t.Helper()
	b, err := make()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("gemel.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("gemel.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// generic reads YAML as an editor does.
func generic(t *testing.T, file string) any {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var plain any
	if err := yaml.Unmarshal(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")), &plain); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	j, err := json.Marshal(plain)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(j))
	if err != nil {
		t.Fatalf("%s: %v\n%s", file, err, j)
	}
	return v
}
