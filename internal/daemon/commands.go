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
	"gemel/internal/manifest"
	"gemel/internal/proc"
)

// probe runs the command of a check. Only proc forks, so that the prober is
// given this.
func (h *hands) probe(ctx context.Context, argv, env []string, who string, timeout time.Duration) (int, string, error) {
	c := proc.Command{Args: argv, Env: append([]string{"PATH=" + proc.DefaultPath}, env...), Timeout: timeout}
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
		return -1, strings.TrimSpace(fmt.Sprintf("no answer within %v\n%s", timeout, e.Output)), err
	}
	return e.Code, e.Output, err
}

// script runs a handler.
func (h *hands) script(ctx context.Context, argv, env []string, timeout time.Duration) error {
	e, err := proc.Run(ctx, proc.Command{Args: argv, Env: append([]string{"PATH=" + proc.DefaultPath}, env...), Timeout: timeout})
	switch {
	case err != nil:
		return err
	case e.Late:
		return fmt.Errorf("%s did not end within %v and was killed", argv[0], timeout)
	case e.Code != 0:
		return fmt.Errorf("%s ended with exit %d: %s", argv[0], e.Code, strings.TrimSpace(e.Output))
	}
	return nil
}

// launch starts a program that Gemel attaches to by the command that its
// manifest names, and then looks for it.
func (h *hands) launch(a ha.Start, p manifest.Process) {
	h.group.wg.Go(func() {
		if len(p.Attach.Start) > 0 {
			e, err := proc.Run(h.group.ctx, proc.Command{Args: p.Attach.Start, Timeout: time.Minute})
			if err == nil && e.Code != 0 {
				err = fmt.Errorf("the start command ended with exit %d: %s", e.Code, strings.TrimSpace(e.Output))
			}
			if err != nil {
				h.engine.Tell(ha.StartFailed{Process: a.Process, Start: a.Start, Error: err.Error()})
				return
			}
		}
		h.attach.Seek(ha.Seek(a), p)
	})
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
		notes = append(notes, fmt.Sprintf("%s was last heard %v ago", name, now.Sub(t.At).Round(time.Millisecond)))
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
