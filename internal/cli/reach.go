package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
)

const (
	reachBound = 2 * time.Minute        // how long the end of what was asked for is waited for, if not said otherwise
	reachTell  = 3 * time.Second        // after which somebody who waits is told for what
	reachLook  = 100 * time.Millisecond // between two looks
	proofTime  = time.Second            // what says nothing of its readiness must run for so long
)

// patienceOf is how long a command waits for what it asked for.
type patienceOf struct {
	not   bool
	bound time.Duration
}

// reachCommand is a change that takes a while: it returns when that is over, and
// what it prints is true then.
func reachCommand(t *tool, ch change) *cobra.Command {
	var wait patienceOf
	c := &cobra.Command{
		Use: ch.use, GroupID: "act", Short: ch.short,
		Long: ch.long + `

It is asked for all names at once. Nothing is taken back when --timeout is over or the
command is interrupted: it goes on, and gemel status NAME tells how far it is.`,
		Args: args(1, -1), ValidArgsFunction: t.names(false),
		RunE: func(c *cobra.Command, args []string) error {
			if err := wait.check(); err != nil {
				return err
			}
			return t.reach(c.Context(), ch.verb, args, wait)
		},
	}
	wait.flags(c)
	return c
}

func (p *patienceOf) flags(c *cobra.Command) {
	c.Flags().BoolVar(&p.not, "no-wait", false, "only ask, and return at once")
	c.Flags().DurationVar(&p.bound, "timeout", reachBound, "wait at most so long; exit status 1 if that is not enough: `DURATION`")
}

func (p *patienceOf) check() error {
	if p.bound <= 0 {
		return wrongUsage("--timeout is %s; it must be above 0; --no-wait does not wait at all", ha.Span(p.bound))
	}
	return nil
}

// wish is one process of which a change was asked.
type wish struct {
	verb   gemelv1.Verb
	target *gemelv1.Subject
	before *gemelv1.ProcessStatus // as it was when it was asked
	answer *gemelv1.RequestResponse
}

// reach asks for a change of every name, waits for all of them and tells all.
func (t *tool) reach(ctx context.Context, verb gemelv1.Verb, names []string, wait patienceOf) error {
	var wishes []wish
	err := t.each(names, func(name string) error {
		s, err := t.snapshot(ctx)
		if err != nil {
			return err
		}
		w := wish{verb: verb}
		if w.target, err = find(s, name); err != nil {
			return err
		}
		w.before = processOf(s, w.target.GetName())
		if w.answer, err = t.ask(ctx, &gemelv1.RequestRequest{Verb: verb, Target: w.target}); err != nil {
			return err
		}
		if !w.answer.GetOk() {
			return t.answer(w.target, w.answer, nil, false)
		}
		wishes = append(wishes, w)
		return nil
	})
	var status exitStatus
	if err != nil && !errors.As(err, &status) {
		return err
	}
	end := time.Now().Add(wait.bound)
	for _, w := range wishes {
		p, err := t.await(ctx, w, wait, end)
		if err != nil {
			return err
		}
		if err := t.answer(w.target, w.answer, p, false); err != nil {
			return err
		}
		if p.wrong != "" {
			status = ExitFailed
			if !t.json {
				t.say(p.wrong)
				fmt.Fprintln(t.w.Err, "  "+clean(t.command(p.hint)))
			}
		}
	}
	if status != 0 {
		return status
	}
	return nil
}

// progress is how far a change is.
type progress struct {
	now     *gemelv1.ProcessStatus // as it was seen last
	reached bool                   // it is as it was asked for
	wrong   string                 // it is not and will not be soon; empty: nothing is wrong
	hint    string                 // what to do about it
}

// text says how far a change is that has not reached its end.
func (p *progress) text(name string) string {
	return fmt.Sprintf("%s: asked for; now: %s (gemel status %s tells how far it is)", name, p.now.GetState(), name)
}

// put adds what is known to a JSON object.
func (p *progress) put(o map[string]any) {
	if p == nil {
		return
	}
	o["reached"], o["state"], o["pid"] = p.reached, p.now.GetState(), p.now.GetPid()
	if p.wrong != "" {
		o["error"] = map[string]any{"kind": "failed", "text": p.wrong, "hint": p.hint, "status": ExitFailed}
	}
}

// await looks until a wish has come true, cannot, or the time is over. A monitor
// that is replaced meanwhile is waited for.
func (t *tool) await(ctx context.Context, w wish, wait patienceOf, end time.Time) (*progress, error) {
	client, err := t.dial()
	if err != nil {
		return nil, err
	}
	patience := client.Patience()
	name := w.target.GetName()
	tell := time.Now().Add(reachTell)
	for {
		s, err := t.snapshot(ctx)
		if err != nil {
			if err := patience.Wait(ctx, err); err != nil {
				return nil, because(ctx, err)
			}
			continue
		}
		patience.Back()
		p := w.judge(processOf(s, name), s.GetAt().AsTime())
		now := time.Now()
		switch {
		case p.reached || wait.not || p.wrong != "":
			return p, nil
		case now.After(end):
			p.wrong = fmt.Sprintf("%s is not there after %s (%s): %s", name, ha.Span(wait.bound), p.now.GetState(), p.now.GetReason())
			p.hint = fmt.Sprintf("it goes on; gemel status %s tells how far it is, gemel why %s the reasons", name, name)
			return p, nil
		case !t.json && tell.Before(now):
			tell = end.Add(time.Hour)
			t.say(fmt.Sprintf("waiting for %s (%s): %s", name, p.now.GetState(), p.now.GetReason()))
		}
		pause := time.NewTimer(reachLook)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil, context.Cause(ctx)
		case <-pause.C:
		}
	}
}

// processOf returns the picture of a process; nil if there is none.
func processOf(s *gemelv1.Snapshot, name string) *gemelv1.ProcessStatus {
	for _, p := range s.GetProcesses() {
		if p.GetName() == name {
			return p
		}
	}
	return nil
}

// judge says how far a wish is when its process is seen like this.
func (w wish) judge(p *gemelv1.ProcessStatus, at time.Time) *progress {
	name := w.target.GetName()
	out := &progress{now: p}
	fails := func(hint, format string, args ...any) {
		out.wrong, out.hint = fmt.Sprintf(format, args...), hint
	}
	switch {
	case p == nil:
		fails("gemel status lists what there is", "%s is in the manifest no more", name)
	case p.GetState() == "stuck":
		fails("gemel why "+name, "%s is still there after SIGKILL: the kernel holds it", name)
	case w.verb == gemelv1.Verb_VERB_STOP:
		out.reached = p.GetPid() == 0 && p.GetState() != "starting" && p.GetState() != "stopping"
	default:
		w.judgeStart(p, at, out, fails)
	}
	return out
}

func (w wish) judgeStart(p *gemelv1.ProcessStatus, at time.Time, out *progress, fails func(hint, format string, args ...any)) {
	name := w.target.GetName()
	switch p.GetState() {
	case "done":
		out.reached = true
	case "running", "ramp-up":
		out.reached = (w.verb != gemelv1.Verb_VERB_RESTART || p.GetStart() != w.before.GetStart()) &&
			(p.GetState() == "running" || !p.GetUnready() && at.Sub(p.GetStarted().AsTime()) >= proofTime)
	case "given-up", "down", "stopped", "standby", "elsewhere":
		fails(fmt.Sprintf("gemel why %s tells why, gemel logs %s what it printed", name, name), "%s does not run: %s", name, p.GetReason())
	case "delayed":
		if p.GetStarts() == w.before.GetStarts() {
			return // from before: its pause is being ended
		}
		last := p.GetReason()
		if e := p.GetLast().GetText(); e != "" {
			last = e + "; " + last
		}
		fails(fmt.Sprintf("it is tried again; gemel why %s tells why, gemel logs %s what it printed", name, name), "%s did not stay up: %s", name, last)
	}
}
