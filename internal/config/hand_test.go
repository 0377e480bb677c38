package config

import (
	"os"
	"path/filepath"
	"testing"

	"gemel/internal/manifest"
)

// TestHand: every manifest that can be read can be handed on.
func TestHand(t *testing.T) {
	var files []string
	for _, pattern := range []string{"testdata/*.yaml", "testdata/*/*.yaml", "../../examples/*.yaml"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, more...)
	}
	good := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Parse(f, b)
		if err != nil {
			continue
		}
		good++
		if _, err := Hand(m); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
	if good < 3 {
		t.Errorf("%d of %d files are manifests: nothing was tried", good, len(files))
	}
}

// TestHandRefuses: what JSON cannot carry is not handed on changed.
func TestHandRefuses(t *testing.T) {
	m := &manifest.Manifest{Processes: []manifest.Process{{Name: "a", Command: []string{"/bin/\xff"}}}}
	if b, err := Hand(m); err == nil {
		t.Errorf("handed on as %s", b)
	}
}
