package daemon_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"gemel/internal/config"
	"gemel/internal/daemon"
)

// TestReadApart: a manifest that another process read is the same one.
func TestReadApart(t *testing.T) {
	t.Setenv(playEnv, "1")
	var b bytes.Buffer
	b.WriteString("processes:\n")
	for i := range 500 {
		fmt.Fprintf(&b, "  p%d:\n    command: [/bin/true, %q]\n    environment: {A: \"%d\"}\n", i, strings.Repeat("x", i), i)
	}
	o := daemon.Options{Log: slog.New(slog.DiscardHandler)}
	got, err := daemon.Apart(o, t.Context(), "-x.yaml", b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	want, err := config.Parse("-x.yaml", b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Error("it is another one")
	}
	if m, err := daemon.Apart(o, t.Context(), "x.yaml", []byte("processes: {a: {}}")); err == nil {
		t.Errorf("a manifest with an error was read as %v", m)
	}
}
