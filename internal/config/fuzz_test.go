package config

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// Whatever the bytes are: an answer, never a panic; and what is taken is the
// same after it was written and read again.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/bad/*.yaml", "../../examples/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			if len(b) < 16<<10 {
				f.Add(b)
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 64<<10 {
			return
		}
		m, err := Parse("fuzz.yaml", b)
		if err != nil {
			var errs Errors
			if m != nil || !errors.As(err, &errs) || len(errs) == 0 {
				t.Fatalf("got %v beside %v", m, err)
			}
			for _, e := range errs {
				if e.Text == "" || e.Error() == "" {
					t.Fatalf("an empty error: %+v", e)
				}
			}
			return
		}
		roundTrip(t, m)
	})
}
