package config

import (
	"encoding/json"
	"fmt"
)

// Schema returns the JSON Schema (2020-12) of a manifest, made from the tables
// that the parser uses. It holds what one key can say; what takes two keys, and
// what is no matter of form, only Parse finds.
func Schema() ([]byte, error) {
	return publish(topObject().describe(), "The manifest of Gemel: gemel.yaml")
}

// NodeSchema returns the JSON Schema of node.yaml, as Schema does that of a manifest.
func NodeSchema() ([]byte, error) {
	return publish(identityObject().describe(), "The identity of a node of Gemel: node.yaml")
}

func publish(s schema, title string) ([]byte, error) {
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = title
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the schema: %w", err)
	}
	return append(b, '\n'), nil
}
