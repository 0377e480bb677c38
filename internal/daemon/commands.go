package daemon

import (
	"cmp"
	"context"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"gemel/internal/beat"
	"gemel/internal/clock"
	"gemel/internal/evidence"
	"gemel/internal/ha"
	"gemel/internal/proc"
)

// probe runs the command of a check. Only proc forks, so that the prober is
// given this.
func (h *hands) probe(ctx context.Context, argv, env []string, who string, timeout time.Duration) (int, string, error) {
	c := proc.Command{Args: argv, Env: append(h.surroundings(), env...), Timeout: timeout}
	if who != "" {
		u, err := user.Lookup(who)
		if err != nil {
			return -1, "", fmt.Errorf("running a check as %s: %w", who, err)
		}
		c.SetIDs = true
		if c.UID, err = strconv.Atoi(u.Uid); err != nil {
			return -1, "", fmt.Errorf("user %s: %w", who, err)
		}
		if c.GID, err = strconv.Atoi(u.Gid); err != nil {
			return -1, "", fmt.Errorf("user %s: %w", who, err)
		}
	}
	e, err := proc.Run(ctx, c)
	if e.Late {
		return -1, strings.TrimSpace(fmt.Sprintf("no answer within %s\n%s", ha.Span(timeout), e.Output)), err
	}
	return e.Code, e.Output, err
}

// surroundings are what checks and watchdog commands find in their environment:
// besides the path the name of this instance, as its programs have it, so that
// what the two share is not that of another Gemel on this machine.
func (h *hands) surroundings() []string {
	return []string{"PATH=" + proc.DefaultPath, "GEMEL_TREE=" + instance(h.o.Places)}
}

// script runs a handler.
func script(ctx context.Context, argv, env []string, timeout time.Duration) error {
	return short(ctx, proc.Command{Args: argv, Env: env, Timeout: timeout})
}

// short runs a command that is expected to end well.
func short(ctx context.Context, c proc.Command) error {
	c.Env = append([]string{"PATH=" + proc.DefaultPath}, c.Env...)
	e, err := proc.Run(ctx, c)
	if err != nil {
		return err
	}
	return failure(c.Args[0], e, c.Timeout)
}

// failure says how a command ended that should have ended well; nil if it did.
func failure(name string, e proc.Ended, bound time.Duration) error {
	how := ""
	switch {
	case e.Late:
		return fmt.Errorf("%s did not end within %s and was killed", name, ha.Span(bound))
	case e.Signal != 0:
		how = fmt.Sprintf("ended by signal %d (%s)", e.Signal, ha.SignalName(e.Signal))
	case e.Code != 0:
		how = fmt.Sprintf("ended with exit %d", e.Code)
	default:
		return nil
	}
	if said := strings.TrimSpace(e.Output); said != "" {
		how += ": " + said
	}
	return fmt.Errorf("%s %s", name, how)
}

// found runs a command of a program that Gemel attaches to: its start command,
// which leaves the program behind, or its stop command.
func (h *hands) found(argv, env []string, timeout time.Duration) error {
	return short(h.group.ctx, proc.Command{Args: argv, Env: env, Timeout: timeout, Leave: true})
}

func (h *hands) reboot(r ha.Reboot, command []string) {
	h.group.wg.Go(func() { reboot(h.group.ctx, func(in ha.Input) { h.engine.Tell(in) }, r, command) })
}

// heard tells how long each source of beats was silent, the longest first.
func heard(all []beat.ThreadHeard, now ha.Instant) []string {
	slices.SortFunc(all, func(a, b beat.ThreadHeard) int { return cmp.Compare(a.At, b.At) })
	var notes []string
	for _, t := range all {
		name := "sd_notify or the watchdog command"
		if t.Name != "" {
			name = fmt.Sprintf("thread %s (%d)", t.Name, t.TID)
		}
		notes = append(notes, fmt.Sprintf("%s was last heard %s ago", name, ha.Span(now.Sub(t.At))))
	}
	return notes
}

// examine takes the evidence of a program before it is killed.
func (h *hands) examine(a ha.Examine, pid int) {
	h.group.wg.Go(func() {
		ref := ""
		if pid != 0 {
			tree := []int{pid}
			if cg, ok := h.tree.At(a.Start); ok {
				if all, err := cg.Procs(); err == nil {
					tree = all
				}
			}
			r, err := h.proofs.Take(evidence.Case{Process: a.Process, Start: a.Start, PID: pid, Tree: tree,
				Log: h.outputs.Path(a.Process), Notes: heard(h.beats.Heard(a.Process), clock.Now()), At: clock.Now()}, ha.ExamineBound)
			if err != nil {
				h.o.Log.Warn("evidence was not taken", "process", a.Process, "error", err)
			}
			ref = r
		}
		h.engine.Tell(ha.Examined{Process: a.Process, Start: a.Start, Ref: ref})
	})
}
