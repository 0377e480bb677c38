package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	gemelv1 "gemel/api/gemel/v1"
)

// change is a command that asks for one change of each name given.
type change struct {
	use, short, long string
	verb             gemelv1.Verb
	checks           bool     // checks are targets as well
	extra            []string // what else is, for completion
	forGood          bool     // nothing takes it back
}

func changeCommand(t *tool, ch change) *cobra.Command {
	return &cobra.Command{
		Use: ch.use, GroupID: "act", Short: ch.short, Long: ch.long,
		Args: args(1, -1), ValidArgsFunction: t.names(ch.checks, ch.extra...),
		RunE: func(c *cobra.Command, args []string) error {
			return t.each(args, func(name string) error {
				return t.request(c.Context(), ch.verb, name, "", ch.forGood)
			})
		},
	}
}

// each runs f for every name and tells all failures, not only the first.
func (t *tool) each(names []string, f func(string) error) error {
	var status exitStatus
	for _, n := range names {
		if err := f(n); err != nil {
			if st, told := err.(exitStatus); told {
				status = st
				continue
			}
			status = exitStatus(t.fail(err))
		}
	}
	if status != 0 {
		return status
	}
	return nil
}

// request asks for one change and prints how to take it back.
func (t *tool) request(ctx context.Context, verb gemelv1.Verb, name, value string, forGood bool) error {
	target, err := t.target(ctx, name)
	if err != nil {
		return err
	}
	r, err := t.ask(ctx, &gemelv1.RequestRequest{Verb: verb, Target: target, Value: value})
	if err != nil {
		return err
	}
	return t.answer(target, r, nil, forGood)
}

// ask asks for one change. A refusal is no error.
func (t *tool) ask(ctx context.Context, q *gemelv1.RequestRequest) (*gemelv1.RequestResponse, error) {
	client, err := t.dial()
	if err != nil {
		return nil, err
	}
	return client.Request(ctx, q)
}

// answer prints what became of one change: of what takes a while, how far it is.
func (t *tool) answer(target *gemelv1.Subject, r *gemelv1.RequestResponse, p *progress, forGood bool) error {
	switch {
	case t.json:
		o := object(r)
		o["target"] = subject(target)
		p.put(o)
		if err := t.printJSON(o); err != nil {
			return err
		}
	case !r.GetOk():
		fmt.Fprintf(t.w.Err, "gemel: refused: %s\n", clean(t.command(r.GetReason().GetText())))
	case p == nil || p.wrong == "":
		if p == nil || p.reached {
			fmt.Fprintln(t.out, clean(r.GetReason().GetText()))
		} else {
			fmt.Fprintln(t.out, clean(p.text(target.GetName())))
		}
		if u := r.GetUndo(); u != "" {
			fmt.Fprintf(t.out, "  to take it back: %s\n", t.command(u))
		} else if forGood {
			fmt.Fprintln(t.out, "  this cannot be taken back")
		}
	}
	if !r.GetOk() {
		return exitStatus(ExitRefused)
	}
	return nil
}

func startCommand(t *tool) *cobra.Command {
	return reachCommand(t, change{use: "start NAME...", verb: gemelv1.Verb_VERB_START,
		short: "start a process that was stopped or has not been started",
		long: `Starts processes, and before them what they need. It returns when they are ready, or have
run for a second where the manifest has no ready:. One that was given up must be locked and
unlocked instead: gemel lock NAME; gemel unlock NAME.`})
}

func stopCommand(t *tool) *cobra.Command {
	return reachCommand(t, change{use: "stop NAME...", verb: gemelv1.Verb_VERB_STOP,
		short: "stop a process; it stays stopped until it is started",
		long: `Stops processes in two stages: the stop signal, and after the grace SIGKILL to the whole
tree. What needs them is stopped first. It returns when they have ended. They stay stopped,
also when Gemel is restarted.`})
}

func restartCommand(t *tool) *cobra.Command {
	return reachCommand(t, change{use: "restart NAME...", verb: gemelv1.Verb_VERB_RESTART,
		short: "stop and start a process; no restart is counted",
		long: `Stops and starts processes. It is no fault: no alarm is raised and no restart counted. It
returns when they run again, as start does.`})
}

func lockCommand(t *tool) *cobra.Command {
	return changeCommand(t, change{use: "lock NAME|node...", verb: gemelv1.Verb_VERB_LOCK, checks: true, extra: []string{"node"},
		short: "take a process, a check or the node out of monitoring",
		long: `Locks processes, checks, or the whole node: they are left as they are and not watched or
recovered until they are unlocked. A lock survives restarts and reboots.`})
}

func unlockCommand(t *tool) *cobra.Command {
	return changeCommand(t, change{use: "unlock NAME|node...", verb: gemelv1.Verb_VERB_UNLOCK, checks: true, extra: []string{"node"},
		short: "watch it again; a fault that was given up is forgotten",
		long: `Unlocks processes, checks, or the node: monitoring begins anew. A process that was given
up and locked is enabled again; one that should run and does not is started.`})
}

func clearCommand(t *tool) *cobra.Command {
	return changeCommand(t, change{use: "clear NAME|node...", verb: gemelv1.Verb_VERB_CLEAR, extra: []string{"node"}, forGood: true,
		short: "forget counted restarts, or the budget of the node",
		long:  "Forgets the restarts counted for processes, or the node's count of reboots and failovers."})
}
