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

const published = "../../docs/gemel.schema.json"

// The published schema is the one that the tables make now.
func TestSchemaIsCurrent(t *testing.T) {
	now, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(published, now, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	then, err := os.ReadFile(published)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(now, then) {
		t.Error("docs/gemel.schema.json is not current: go test ./internal/config -run TestSchemaIsCurrent -update")
	}
}

// The schema takes what the parser takes, refuses what has a wrong form, and
// leaves alone what only the parser can judge.
func TestSchema(t *testing.T) {
	s := compiled(t)
	for _, pattern := range []string{"testdata/good/*.yaml", "../../examples/*.yaml"} {
		for _, file := range glob(t, pattern) {
			if err := s.Validate(generic(t, file)); err != nil {
				t.Errorf("%s is refused: %v", file, err)
			}
		}
	}
	for _, file := range glob(t, "testdata/bad/*.yaml") {
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

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	b, err := Schema()
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
