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
	files := glob(t, "testdata/bad/*.yaml")
	if len(files) < 70 {
		t.Errorf("only %d wrong manifests", len(files))
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			m, err := Parse("gemel.yaml", b)
			if err == nil {
				t.Fatal("it is taken")
			}
			if m != nil {
				t.Error("there is a manifest beside the errors")
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
