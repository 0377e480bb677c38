package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the expected errors")

// Each wrong manifest has exactly the errors that stand beside it.
func TestBad(t *testing.T) {
	bad(t, "testdata/bad/*.yaml", 70, func(b []byte) (bool, error) {
		m, err := Parse("gemel.yaml", b)
		return m != nil, err
	})
}

// So has each wrong node.yaml.
func TestBadNode(t *testing.T) {
	bad(t, "testdata/node/bad/*.yaml", 30, func(b []byte) (bool, error) {
		id, err := ParseNode("node.yaml", b)
		return id != nil, err
	})
}

func bad(t *testing.T, pattern string, least int, parse func([]byte) (bool, error)) {
	files := glob(t, pattern)
	if len(files) < least {
		t.Errorf("only %d wrong files", len(files))
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			something, err := parse(b)
			if err == nil {
				t.Fatal("it is taken")
			}
			if something {
				t.Error("there is something beside the errors")
			}
			var errs Errors
			if !errors.As(err, &errs) {
				t.Fatalf("the error is %T", err)
			}
			got, want := err.Error()+"\n", strings.TrimSuffix(file, ".yaml")+".txt"
			if *update {
				if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			b, err = os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(b) {
				t.Errorf("got\n%s\nwant\n%s", got, b)
			}
		})
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("nothing matches %s", pattern)
	}
	return files
}
