package cli

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"gemel/internal/places"
	"gemel/internal/roll"
)

// TestStartsService: join starts the service where there is one, says so, and a service
// that does not start is an error that says what is done already.
func TestStartsService(t *testing.T) {
	dir := t.TempDir()
	run := func(served bool, fails error, more ...string) (string, int) {
		var out, bad bytes.Buffer
		code := Main(World{Args: append([]string{"join", "10.0.0.1", "gj1x", "--data-dir", dir, "--run-dir", dir}, more...), Out: &out, Err: &bad, In: strings.NewReader(""),
			Membership: Membership{
				Join: func(context.Context, roll.Setup, []string, string) (roll.Begun, error) {
					return roll.Begun{Node: "b", Name: "c", Cluster: "id", File: "/etc/gemel/gemel.yaml"}, nil
				},
				Serve: func(_ context.Context, p places.Places) (bool, error) {
					if p.Data != dir {
						t.Errorf("asked for %+v", p)
					}
					return served, fails
				}}})
		return out.String() + bad.String(), code
	}
	if out, code := run(true, nil); code != 0 || !strings.Contains(out, "as the service gemel") || strings.Contains(out, "start it") {
		t.Errorf("a service: %d\n%s", code, out)
	}
	if out, code := run(false, nil); code != 0 || !strings.Contains(out, "start it") {
		t.Errorf("no service: %d\n%s", code, out)
	}
	if out, code := run(true, nil, "--no-start"); code != 0 || !strings.Contains(out, "start it") {
		t.Errorf("not to be started: %d\n%s", code, out)
	}
	if out, code := run(false, errors.New("no such unit")); code == 0 || !strings.Contains(out, "no such unit") || !strings.Contains(out, "everything is written") {
		t.Errorf("a service that does not start: %d\n%s", code, out)
	}
}
