package engine

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"

	"gemel/internal/ha"
)

// A loop that panics ends the whole process, so that the other half starts it
// anew: nothing lives on half.
func TestPanic(t *testing.T) {
	const env = "GEMEL_TEST_PANIC"
	if os.Getenv(env) != "" {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, one, func(s *Setup) { s.Edges.Runs = func(ha.Process, ha.StartID, int) { panic("on purpose") } })
			r.settle()
			r.reports <- started("p", 1, 100)
			synctest.Wait()
			os.Exit(0) // it lived on
		})
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestPanic$")
	cmd.Env = append(os.Environ(), env+"=1")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "panic: on purpose") {
		t.Errorf("%v\n%s", err, out)
	}
}
