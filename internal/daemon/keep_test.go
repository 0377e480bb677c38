package daemon

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTakeBack: the manifest before an apply is kept for its user alone, and not
// without a bound.
func TestTakeBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b")
	keep := takeBack(dir, slog.New(slog.DiscardHandler))
	last := ""
	for i := range keepManifests + 5 {
		last = keep(fmt.Appendf(nil, "# %d\n", i))
	}
	path, quoted := strings.CutPrefix(strings.TrimSuffix(last, "'"), "gemel apply '")
	if !quoted {
		t.Fatalf("the command is %q", last)
	}
	b, err := os.ReadFile(path)
	if err != nil || string(b) != fmt.Sprintf("# %d\n", keepManifests+4) {
		t.Errorf("%s holds %q, %v", path, b, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != keepManifests {
		t.Errorf("%d files, %v", len(files), err)
	}
	if got := takeBack("/proc/nowhere", slog.New(slog.DiscardHandler))([]byte("x")); got != "" {
		t.Errorf("what cannot be kept is taken back by %q", got)
	}
}
