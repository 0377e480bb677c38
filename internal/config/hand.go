package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"gemel/internal/manifest"
)

// Hand writes a manifest for Take of the same build: reading a manifest leaves many
// times its own size behind, and a process that lives for months had better not be
// the one that reads it. What Take would not read back exactly is refused.
func Hand(m *manifest.Manifest) ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("handing the manifest on: %w", err)
	}
	back, err := Take(b)
	if err != nil {
		return nil, err
	}
	if !reflect.DeepEqual(m, back) {
		return nil, errors.New("handing the manifest on: it would not arrive as it is")
	}
	return b, nil
}

// Take reads what Hand wrote.
func Take(b []byte) (*manifest.Manifest, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	m := &manifest.Manifest{}
	if err := d.Decode(m); err != nil {
		return nil, fmt.Errorf("taking the manifest over: %w", err)
	}
	return m, nil
}
