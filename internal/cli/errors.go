package cli

import (
	"errors"
	"fmt"
	"strings"

	"gemel/internal/config"
	"gemel/internal/ha"
	"gemel/internal/rpc"
)

// notFound says that a name is unknown, and what to do.
type notFound struct{ text, hint string }

func (e notFound) Error() string { return e.text }

// problem is an error as the tool tells it.
type problem struct {
	status int
	kind   string
	text   string
	hint   string
}

// explain sorts an error by what can be done about it.
func explain(err error) problem {
	var use usageError
	var missing notFound
	var bad config.Errors
	var known *ha.Error
	switch {
	case errors.As(err, &use):
		return problem{ExitUsage, "usage", use.text, use.hint}
	case errors.As(err, &missing):
		return problem{ExitNotFound, "not-found", missing.text, missing.hint}
	case errors.As(err, &bad):
		return problem{ExitInvalid, "invalid", strings.TrimRight(bad.Error(), "\n"), ""}
	case errors.As(rpc.Explain(err), &known):
		p := problem{ExitFailed, known.Kind.String(), known.Error(), known.Hint}
		if s, ok := statuses[known.Kind]; ok {
			p.status = s
		}
		return p
	}
	return problem{ExitFailed, "failed", err.Error(), ""}
}

// statuses are the exit statuses of the kinds of errors.
var statuses = map[ha.ErrorKind]int{
	ha.ErrInvalid: ExitUsage, ha.ErrNotFound: ExitNotFound, ha.ErrDenied: ExitDenied, ha.ErrRefused: ExitRefused,
	ha.ErrUnavailable: ExitUnavailable,
}

// fail tells an error and returns the exit status.
func (t *tool) fail(err error) int {
	p := explain(err)
	if t.json && t.out.err == nil {
		_ = t.printJSON(map[string]any{"error": map[string]any{"kind": p.kind, "text": p.text, "hint": p.hint, "status": p.status}})
		return p.status
	}
	t.say(p.text)
	if p.hint != "" {
		fmt.Fprintln(t.w.Err, "  "+clean(t.command(p.hint)))
	}
	return p.status
}

// say writes a sentence to standard error, where it must be seen whose it is.
func (t *tool) say(text string) {
	text = clean(text)
	if !strings.HasPrefix(text, "gemel ") && !strings.HasPrefix(text, "gemel: ") {
		text = "gemel: " + text
	}
	fmt.Fprintln(t.w.Err, text)
}
