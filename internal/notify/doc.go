// Package notify tells events to others: journald, syslog, and the commands that
// a manifest names as handlers. Nothing here is ever on the path of a recovery:
// whoever offers an event goes on at once, and a sink that hangs, is full or is
// not there costs events of that sink only, which are counted and told.
package notify

import (
	"context"

	"gemel/internal/ha"
)

// A Sink takes events, one at a time.
type Sink interface {
	// Send returns when e was taken, or with an error if it can be tried again.
	Send(ctx context.Context, e ha.Event) error
	// Name is for logs, as "journald".
	Name() string
}

// line is an event in one line: what it is about, what it is, this case.
func line(e ha.Event) string {
	s := e.Subject.String() + ": " + e.Text
	if e.Detail != "" {
		s += " (" + e.Detail + ")"
	}
	return s
}

// priority is the event's in the numbers of syslog: critical 2, error 3, warning
// 4 for the three severities of an alarm, notice 5 for its end, info 6.
func priority(e ha.Event) int {
	switch {
	case e.Change == ha.Clear:
		return 5
	case e.Change == ha.Info:
		return 6
	case e.Severity == ha.Critical:
		return 2
	case e.Severity == ha.Major:
		return 3
	}
	return 4
}
