// Package contract speaks to programs of others by contracts of others: OCF
// resource agents, scripts with start, stop and validate as Serviceguard's
// packages have them, and fence agents. All of them are command lines with exit
// codes; nothing is linked and nothing is copied.
//
// It forks nothing: commands go through a Runner that is given to it. What comes
// of one is a value, an Outcome: a kind, the exit code, the last lines of the
// output, and a reason in one sentence. An agent that cannot be run, hangs or
// prints nonsense is an outcome too, and never a good one.
package contract

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// A Command is one run of a program.
type Command struct {
	Args []string
	In   []byte // what it reads; may hold secrets, so that it is not to be logged
	Env  []string
	// Timeout is when it is killed with all that it started.
	Timeout time.Duration
	// Leave lets live on what it started when it ends in time: the program that an
	// agent starts is no part of the agent. A Runner may then have no output.
	Leave bool
	Most  int // bytes of its output, standard error with it, that are kept
}

// Ended is how a Command ended.
type Ended struct {
	Code    int // -1 if it did not exit by itself
	Signal  int
	Late    bool // it was killed because its time was up
	Output  string
	Clipped bool
}

// A Runner runs a command to its end. An error means that it was not started. It
// ends with ctx and keeps the time-out.
type Runner func(ctx context.Context, c Command) (Ended, error)

// A Part is something of a group that is neither a process nor an address: it is
// started and stopped by a program. Every method is bounded in time, needs no
// other to have been called before, and can be repeated.
type Part interface {
	// Start starts it. Done: it runs.
	Start(ctx context.Context) Outcome
	// Stop stops it. Only Done is a proof that it is stopped; everything else is none,
	// whatever its kind.
	Stop(ctx context.Context) Outcome
	// Check looks at it. Done: it runs. Stopped: it does not, cleanly.
	Check(ctx context.Context) Outcome
	// Validate asks whether it could run on this node. Done: yes.
	Validate(ctx context.Context) Outcome
}

// A Kind says what an outcome means for what may be done next.
type Kind int

// The kinds. The zero value is that nothing is known.
const (
	// Unknown: it was interrupted, or cannot be asked. Nothing follows from it.
	Unknown Kind = iota
	// Done: it is as it was asked to be.
	Done
	// Stopped: of a check or a status: cleanly not running, or off.
	Stopped
	// Soft: it failed; it may be tried again here, or on another node after a stop.
	Soft
	// Hard: it cannot work on this node as it is; another node may try.
	Hard
	// Fatal: no node may try before an operator has looked.
	Fatal
)

// String is the kind in one word.
func (k Kind) String() string {
	switch k {
	case Unknown:
		return "unknown"
	case Done:
		return "done"
	case Stopped:
		return "stopped"
	case Soft:
		return "soft"
	case Hard:
		return "hard"
	case Fatal:
		return "fatal"
	}
	return fmt.Sprintf("kind %d", int(k))
}

// An Outcome is what came of asking a program for something. It has no secrets in
// it that were known as such.
type Outcome struct {
	Kind   Kind
	Code   int    // the exit code; -1: there is none
	Output string // the last lines
	Reason string // one sentence, for people
}

// String is the reason.
func (o Outcome) String() string { return fmt.Sprintf("%s (%v)", o.Reason, o.Kind) }

const (
	maxOutput = 64 << 10
	maxLines  = 10
	maxTail   = 2 << 10
	// slack is how long a command may outlive its time-out while it is killed.
	slack = 2 * time.Second
	// usual is a time-out where nobody gave one: what agents advise most.
	usual = 20 * time.Second
)

// A call is one run and how it is spoken of.
type call struct {
	run    Runner
	what   string // as "ocf:heartbeat:Dummy: start"
	c      Command
	secret []string
}

// do runs it. If ok is false the outcome is complete: nothing was exited with.
func (a call) do(ctx context.Context) (e Ended, o Outcome, ok bool) {
	if a.c.Timeout <= 0 {
		a.c.Timeout = usual
	}
	if a.c.Most == 0 {
		a.c.Most = maxOutput
	}
	bounded, cancel := context.WithTimeout(ctx, a.c.Timeout+slack)
	defer cancel()
	if ctx.Err() != nil {
		return Ended{}, Outcome{Unknown, -1, "", a.what + " was not begun, since the caller gave up"}, false
	}
	e, err := a.run(bounded, a.c)
	e.Output = scrub(e.Output, a.secret)
	o = Outcome{Kind: Soft, Code: -1, Output: tail(e.Output)}
	switch {
	case err != nil && ctx.Err() == nil:
		o.Kind, o.Reason = Hard, fmt.Sprintf("%s could not be run: %s", a.what, scrub(oneLine(err.Error()), a.secret))
	case e.Code >= 0 && err == nil && !e.Late:
		o.Code = e.Code
		return e, o, true
	case ctx.Err() != nil:
		why := "the caller gave up"
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			why = "the caller's time was up"
		}
		o.Kind, o.Reason = Unknown, a.what+" was interrupted: "+why
	case e.Late:
		o.Reason = fmt.Sprintf("%s did not end within %v and was killed", a.what, a.c.Timeout)
	default:
		o.Reason = fmt.Sprintf("%s was killed by signal %d", a.what, e.Signal)
	}
	return e, o, false
}

// tail is the last lines of an output, bounded, of readable characters only.
func tail(s string) string {
	s = strings.TrimRight(printable(s), "\n ")
	lines := strings.Split(s, "\n")
	s = strings.Join(lines[max(0, len(lines)-maxLines):], "\n")
	if len(s) > maxTail {
		s = s[len(s)-maxTail:]
		for len(s) > 0 && !utf8.RuneStart(s[0]) {
			s = s[1:]
		}
	}
	return s
}

// printable replaces what a terminal would obey.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
			return r
		case r == '\r':
			return -1
		case r < ' ', r == utf8.RuneError, r >= 0x7f && r < 0xa0:
			return '?'
		}
		return r
	}, s)
}

// oneLine is a text for use in a sentence.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(printable(s)), " ")
	const most = 300
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

// environment is what every command gets; more replaces nothing of it.
func environment(more ...string) []string {
	return append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}, more...)
}
