package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	gemelv1 "gemel/api/gemel/v1"
)

// change is a command that asks for one change of each name given.
type change struct {
	use, short, long string
	verb             gemelv1.Verb
	done             string // "started %s"
	node             bool   // the word node, and check:NAME, are targets as well
}

func changeCommand(t *tool, ch change) *cobra.Command {
	return &cobra.Command{
		Use: ch.use, GroupID: "act", Short: ch.short, Long: ch.long,
		Args: cobra.MinimumNArgs(1), ValidArgsFunction: t.completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			return t.each(args, func(name string) error {
				return t.request(c.Context(), ch.verb, name, "", fmt.Sprintf(ch.done, name))
			})
		},
	}
}

// each runs f for every name and reports all refusals, not only the first.
func (t *tool) each(names []string, f func(string) error) error {
	var status exitStatus
	for _, n := range names {
		if err := f(n); err != nil {
			status = exitStatus(t.fail(err))
		}
	}
	if status != 0 {
		return status
	}
	return nil
}

// request asks for one change and prints how to take it back.
func (t *tool) request(ctx context.Context, verb gemelv1.Verb, name, value, done string) error {
	client, err := t.dial(ctx)
	if err != nil {
		return err
	}
	target, err := t.target(ctx, name)
	if err != nil {
		return err
	}
	r, err := client.Request(ctx, &gemelv1.RequestRequest{Verb: verb, Target: target, Value: value})
	if err != nil {
		return err
	}
	if t.json {
		o := object(r)
		o["target"] = name
		if err := t.printJSON(o); err != nil {
			return err
		}
		if !r.GetOk() {
			return exitStatus(ExitRefused)
		}
		return nil
	}
	if !r.GetOk() {
		fmt.Fprintf(t.w.Err, "gemel: refused: %s\n", clean(r.GetReason().GetText()))
		return exitStatus(ExitRefused)
	}
	fmt.Fprint(t.w.Out, done)
	if u := r.GetUndo(); u != "" {
		fmt.Fprintf(t.w.Out, "; to take it back: %s", u)
	}
	fmt.Fprintln(t.w.Out)
	return nil
}

// target finds what a name means: node, a process, a check (also as check:NAME),
// or one of the CMM's own targets (PmsGlobal, PmsProc51, PmsPie176).
func (t *tool) target(ctx context.Context, name string) (*gemelv1.Subject, error) {
	switch low := strings.ToLower(name); {
	case low == "node" || low == "pmsglobal":
		return &gemelv1.Subject{Kind: gemelv1.Kind_KIND_NODE}, nil
	case strings.HasPrefix(low, "check:"):
		return &gemelv1.Subject{Kind: gemelv1.Kind_KIND_CHECK, Name: name[len("check:"):]}, nil
	case strings.HasPrefix(low, "process:"):
		return &gemelv1.Subject{Kind: gemelv1.Kind_KIND_PROCESS, Name: name[len("process:"):]}, nil
	}
	s, err := t.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range s.GetProcesses() {
		if p.GetName() == name || p.GetUid() != 0 && strings.EqualFold(name, fmt.Sprintf("PmsProc%d", p.GetUid())) {
			return &gemelv1.Subject{Kind: gemelv1.Kind_KIND_PROCESS, Name: p.GetName()}, nil
		}
	}
	for _, c := range s.GetChecks() {
		if c.GetName() == name || c.GetUid() != 0 && strings.EqualFold(name, fmt.Sprintf("PmsPie%d", c.GetUid())) {
			return &gemelv1.Subject{Kind: gemelv1.Kind_KIND_CHECK, Name: c.GetName()}, nil
		}
	}
	// The daemon knows near names and says them.
	return &gemelv1.Subject{Kind: gemelv1.Kind_KIND_PROCESS, Name: name}, nil
}

func (t *tool) snapshot(ctx context.Context) (*gemelv1.Snapshot, error) {
	client, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	r, err := client.Status(ctx, &gemelv1.StatusRequest{})
	if err != nil {
		return nil, err
	}
	return r.GetSnapshot(), nil
}

// completeNames offers the names of processes and checks.
func (t *tool) completeNames(c *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	s, err := t.snapshot(c.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	add := func(n string) {
		if strings.HasPrefix(n, prefix) {
			names = append(names, n)
		}
	}
	for _, p := range s.GetProcesses() {
		add(p.GetName())
	}
	for _, k := range s.GetChecks() {
		add(k.GetName())
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func startCommand(t *tool) *cobra.Command {
	return changeCommand(t, change{use: "start NAME...", verb: gemelv1.Verb_VERB_START, done: "starting %s",
		short: "start a process that was stopped or has not been started",
		long:  "Starts processes. One that is given up must be unlocked instead: gemel lock NAME; gemel unlock NAME."})
}

func stopCommand(t *tool) *cobra.Command {
	return changeCommand(t, change{use: "stop NAME...", verb: gemelv1.Verb_VERB_STOP, done: "stopping %s",
		short: "stop a process; it stays stopped until it is started",
		long:  "Stops processes in two stages: the stop signal, and after the grace SIGKILL to the whole tree.\nWhat needs them is stopped first. They stay stopped, also when Gemel is restarted."})
}

func restartCommand(t *tool) *cobra.Command {
	return changeCommand(t, change{use: "restart NAME...", verb: gemelv1.Verb_VERB_RESTART, done: "restarting %s",
		short: "stop and start a process; no restart is counted", long: "Stops and starts processes. It is no fault: no event of one is told and no restart counted."})
}

func lockCommand(t *tool) *cobra.Command {
	return changeCommand(t, change{use: "lock NAME|node...", verb: gemelv1.Verb_VERB_LOCK, done: "locked %s", node: true,
		short: "take a process, a check or the node out of monitoring",
		long:  "Locks processes, checks, or the whole node: they are left as they are and not watched or\nrecovered until they are unlocked. The lock survives restarts and reboots."})
}

func unlockCommand(t *tool) *cobra.Command {
	return changeCommand(t, change{use: "unlock NAME|node...", verb: gemelv1.Verb_VERB_UNLOCK, done: "unlocked %s", node: true,
		short: "watch it again; a fault that was given up is forgotten",
		long:  "Unlocks processes, checks, or the node: monitoring begins anew. A process that was given up\nand locked is enabled again; one that should run and does not is started."})
}

func clearCommand(t *tool) *cobra.Command {
	return changeCommand(t, change{use: "clear NAME|node...", verb: gemelv1.Verb_VERB_CLEAR, done: "cleared %s", node: true,
		short: "forget counted restarts, or the budget of the node",
		long:  "Forgets the restarts counted for processes, or the node's count of reboots and failovers."})
}
