package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	gemelv1 "gemel/api/gemel/v1"
)

func moveCommand(t *tool) *cobra.Command {
	var wait patienceOf
	var forced bool
	c := &cobra.Command{
		Use: "move GROUP [NODE]", GroupID: "act", Args: args(1, 2), ValidArgsFunction: t.names(false),
		Short: "move a group to another node of the cluster",
		Long: `Moves a group: it is stopped where it is, and started on NODE when its stop is proved. Without
NODE it goes to the first of its nodes that does not have it. The other node must be at
least as healthy, and have its files; --forced asks for neither, only for a node that runs.
The command returns when the group is active there.`,
		Example: "  gemel move web beta\n  gemel move web\n  gemel move web beta --forced --no-wait",
		RunE: func(c *cobra.Command, args []string) error {
			if err := wait.check(); err != nil {
				return err
			}
			to := ""
			if len(args) == 2 {
				to = args[1]
			}
			return t.move(c.Context(), &gemelv1.RequestRequest{Verb: gemelv1.Verb_VERB_MOVE, Value: to, Forced: forced,
				Target: &gemelv1.Subject{Kind: gemelv1.Kind_KIND_GROUP, Name: args[0]}}, wait)
		},
	}
	wait.flags(c)
	c.Flags().BoolVar(&forced, "forced", false, "also to a node that is less healthy or behind; never without a proof that it stopped")
	return c
}

// move asks for a move and waits until the group is active where it was asked to be.
func (t *tool) move(ctx context.Context, q *gemelv1.RequestRequest, wait patienceOf) error {
	before, err := t.snapshot(ctx)
	if err != nil {
		return err
	}
	r, err := t.ask(ctx, q)
	if err != nil {
		return err
	}
	if err := t.answer(q.GetTarget(), r, nil, false); err != nil || wait.not || !r.GetOk() {
		return err
	}
	to := factOf(r, "to")
	ctx, cancel := context.WithTimeout(ctx, wait.bound)
	defer cancel()
	began := time.Now()
	look := time.NewTicker(reachLook)
	defer look.Stop()
	for {
		s, err := t.snapshot(ctx)
		if err != nil {
			return err
		}
		g := groupOf(s, q.GetTarget().GetName())
		if g != nil && g.GetNode() == to && (g.GetState() != "starting" && g.GetState() != "stopping") {
			if !t.json && g.GetNode() != groupOf(before, g.GetName()).GetNode() {
				fmt.Fprintf(t.out, "%s is on %s, fence %s, after %s\n", g.GetName(), g.GetNode(), g.GetFence(), time.Since(began).Round(10*time.Millisecond))
			}
			return nil
		}
		select {
		case <-ctx.Done():
			fmt.Fprintf(t.w.Err, "gemel: %s is not on %s after %s: %s\n", g.GetName(), to, wait.bound, g.GetReason())
			return exitStatus(ExitFailed)
		case <-look.C:
		}
	}
}

// factOf returns a fact of the reason of an answer.
func factOf(r *gemelv1.RequestResponse, name string) string {
	for _, f := range r.GetReason().GetFacts() {
		if f.GetName() == name {
			return f.GetValue()
		}
	}
	return ""
}

// groupOf returns a group of a picture; nil: there is none.
func groupOf(s *gemelv1.Snapshot, name string) *gemelv1.GroupStatus {
	for _, g := range s.GetGroups() {
		if g.GetName() == name {
			return g
		}
	}
	return nil
}

// nodeChange is a command about a node of the cluster.
func nodeChange(t *tool, use, short, long string, verb gemelv1.Verb) *cobra.Command {
	return &cobra.Command{
		Use: use, GroupID: "act", Args: args(0, 1), Short: short, Long: long,
		RunE: func(c *cobra.Command, args []string) error {
			target := &gemelv1.Subject{Kind: gemelv1.Kind_KIND_NODE}
			if len(args) == 1 {
				target.Name = args[0]
			}
			r, err := t.ask(c.Context(), &gemelv1.RequestRequest{Verb: verb, Target: target})
			if err != nil {
				return err
			}
			return t.answer(target, r, nil, false)
		},
	}
}

func drainCommand(t *tool) *cobra.Command {
	return nodeChange(t, "drain [NODE]", "have all groups leave a node of the cluster, and none come",
		`Moves all groups away from a node, this one if none is named, each to where it belongs besides.
It stays so, also over reboots, until gemel resume. What belongs to no group runs on.`, gemelv1.Verb_VERB_DRAIN)
}

func resumeCommand(t *tool) *cobra.Command {
	return nodeChange(t, "resume [NODE]", "let a drained node take groups again",
		`Takes a drain back. Groups that left come back only if their failback is automatic, or by
gemel move.`, gemelv1.Verb_VERB_RESUME)
}

func confirmOffCommand(t *tool) *cobra.Command {
	c := nodeChange(t, "confirm-off NODE", "say that a lost node is off, so that groups which wait for that go on",
		`A group that needs more exclusivity than its lost node offers by itself (require-level) goes on
elsewhere when it is proved that this node is off: by its fence device, by the node itself when
it is back, or by this word. It holds for this end of the node alone, is kept in the store, and
is in the audit with who said it. Look before you say it: power off, or the machine gone. A
node that is heard, or is no evicted one, is refused. A wrong word runs the group twice.`, gemelv1.Verb_VERB_CONFIRM_OFF)
	c.Args, c.Example = args(1, 1), "  gemel confirm-off alpha"
	return c
}

func brainCommand(t *tool) *cobra.Command {
	c := &cobra.Command{Use: "brain", GroupID: "act", Args: args(0, 0), Short: "who decides for the cluster",
		Long: "One node decides which node runs what (gemel status names it); the next takes over when it is lost."}
	s := nodeChange(t, "switch [NODE]", "have another node decide",
		`Hands the decision over to a node of the cluster: to the named one, or to a member that runs no group
if there is one. No group notices. By itself this is done, at most once in ten minutes, when
the node that decides runs groups and another one runs none: then its death costs no election.`, gemelv1.Verb_VERB_DECIDE)
	s.GroupID = ""
	c.AddCommand(s)
	return c
}
