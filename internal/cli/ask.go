package cli

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	gemelv1 "gemel/api/gemel/v1"
)

func whyCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "why [NAME|NUMBER|node]", GroupID: "look", Args: cobra.MaximumNArgs(1),
		Short: "the chain of facts and rules behind a state or an event",
		Long: `Tells in plain sentences why a process, a check or the node is as it is, or how an event
came about: which fact came, which rule fired on which values, what was done, and what
came of it. Without an argument: what happened last.`,
		Example:           "  gemel why nginx\n  gemel why 1042\n  gemel why",
		ValidArgsFunction: t.completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := t.dial(c.Context())
			if err != nil {
				return err
			}
			q := &gemelv1.WhyRequest{Question: &gemelv1.WhyRequest_Last{Last: true}}
			if len(args) == 1 {
				if id, err := strconv.ParseUint(strings.TrimPrefix(args[0], "#"), 10, 64); err == nil {
					q.Question = &gemelv1.WhyRequest_Event{Event: id}
				} else {
					s, err := t.target(c.Context(), args[0])
					if err != nil {
						return err
					}
					q.Question = &gemelv1.WhyRequest_Subject{Subject: s}
				}
			}
			r, err := client.Why(c.Context(), q)
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(json.RawMessage(r.GetChainJson()))
			}
			fmt.Fprint(t.w.Out, clean(r.GetText()))
			return nil
		},
	}
}

func replayCommand(t *tool) *cobra.Command {
	var since string
	c := &cobra.Command{
		Use: "replay", GroupID: "look", Args: cobra.NoArgs,
		Short: "run the journal through the deciding core and say where it differs",
		Long: `Feeds every recorded fact to the core again and compares the orders with the recorded
ones. No difference means that the journal explains everything that was done. The exit
status is 1 if there is one.`,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := t.dial(c.Context())
			if err != nil {
				return err
			}
			r, err := client.Replay(c.Context(), &gemelv1.ReplayRequest{})
			if err != nil {
				return err
			}
			if t.json {
				if err := t.printJSON(json.RawMessage(r.GetReportJson())); err != nil {
					return err
				}
			} else {
				fmt.Fprint(t.w.Out, clean(r.GetText()))
			}
			if r.GetDifferences() > 0 {
				return exitStatus(ExitFailed)
			}
			return nil
		},
	}
	c.Flags().StringVar(&since, "since", "", "only from then on, as far as the journal allows")
	return c
}

func whoamiCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "whoami", GroupID: "look", Args: cobra.NoArgs,
		Short: "which role you have here, and why",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := t.dial(c.Context())
			if err != nil {
				return err
			}
			r, err := client.WhoAmI(c.Context(), &gemelv1.WhoAmIRequest{})
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(object(r))
			}
			role := wordOf(r.GetAccess())
			if role == "" {
				role = "no role"
			}
			fmt.Fprintf(t.w.Out, "%s (uid %d): %s: %s\n", r.GetUser(), r.GetUid(), role, r.GetReason())
			return nil
		},
	}
}
