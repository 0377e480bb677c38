package contract

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gemel/internal/proc"
)

// run is the Runner of the tests: the one that the daemon will give.
func run(ctx context.Context, c Command) (Ended, error) {
	e, err := proc.Run(ctx, proc.Command{Args: c.Args, In: c.In, Env: c.Env, Timeout: c.Timeout, Leave: c.Leave, Most: c.Most})
	return Ended{e.Code, e.Signal, e.Late, e.Output, e.Clipped}, err
}

func testdata(t testing.TB, name string) string {
	t.Helper()
	p, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func read(t testing.TB, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t testing.TB, text string, path ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(path...), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// is what an outcome should be.
type is struct {
	kind Kind
	code int
}

// want compares an outcome with its kind, its code and words of its reason.
func want(t testing.TB, what string, o Outcome, is is, words ...string) {
	t.Helper()
	if o.Kind != is.kind || o.Code != is.code {
		t.Errorf("%s: %+v; want %v with code %d", what, o, is.kind, is.code)
	}
	for _, w := range words {
		if !strings.Contains(o.Reason, w) {
			t.Errorf("%s: the reason %q is without %q", what, o.Reason, w)
		}
	}
	if o.Reason == "" || strings.Contains(o.Reason, "\n") {
		t.Errorf("%s: the reason is %q", what, o.Reason)
	}
}
