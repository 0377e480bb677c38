package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	gemelv1 "gemel/api/gemel/v1"
)

func whyCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "why [NAME|NUMBER|node] | not GROUP on NODE", GroupID: "look", Args: args(0, 4),
		Short: "the chain of facts and rules behind a state or an event",
		Long: `Tells in plain sentences why a process, a check or the node is as it is, or how an event
came about: which fact came, which rule fired on which values, what was done, and what
came of it. Without an argument: what happened last. Of a group of a cluster: why it is where
it is, why not on each other node, and what happened to it last; "gemel why not GROUP on
NODE" tells that of one node.`,
		Example:           "  gemel why nginx\n  gemel why 1042\n  gemel why web\n  gemel why not web on beta\n  gemel why",
		ValidArgsFunction: firstOnly(t.names(true, "node")),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				if len(args) != 4 || args[0] != "not" || args[2] != "on" {
					return wrongUsage("gemel why takes one name or number, or: gemel why not GROUP on NODE")
				}
				return whyNot(c.Context(), t, strings.TrimPrefix(args[1], "group/"), args[3])
			}
			q, err := question(c.Context(), t, args)
			if err != nil {
				return err
			}
			if sub := q.GetSubject(); sub.GetKind() == gemelv1.Kind_KIND_GROUP {
				s, err := t.snapshot(c.Context())
				if err != nil {
					return err
				}
				if s.GetCluster() != nil {
					return whyGroup(c.Context(), t, s, sub.GetName())
				}
			}
			client, err := t.dial()
			if err != nil {
				return err
			}
			r, err := client.Why(c.Context(), q)
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(json.RawMessage(r.GetChainJson()))
			}
			fmt.Fprint(t.out, clean(r.GetText()))
			var chain struct {
				Evidence []string `json:"evidence"`
			}
			if err := json.Unmarshal([]byte(r.GetChainJson()), &chain); err == nil && len(chain.Evidence) > 0 {
				fmt.Fprintf(t.out, "\nThe evidence: %s\n", t.command("gemel evidence "+quoted(chain.Evidence[len(chain.Evidence)-1])))
			}
			return nil
		},
	}
}

// firstOnly completes only the first argument.
func firstOnly(f func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(c *cobra.Command, given []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(given) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return f(c, given, prefix)
	}
}

// eventNumber reads 1042 or #1042.
func eventNumber(s string) (uint64, bool) {
	id, err := strconv.ParseUint(strings.TrimPrefix(s, "#"), 10, 64)
	return id, err == nil
}

func question(ctx context.Context, t *tool, args []string) (*gemelv1.WhyRequest, error) {
	if len(args) == 0 {
		return &gemelv1.WhyRequest{Question: &gemelv1.WhyRequest_Last{Last: true}}, nil
	}
	if id, ok := eventNumber(args[0]); ok {
		return &gemelv1.WhyRequest{Question: &gemelv1.WhyRequest_Event{Event: id}}, nil
	}
	// A name that nothing has now may have had a past.
	f := &gemelv1.EventFilter{}
	if err := subjects(ctx, t, f, args); err != nil {
		return nil, err
	}
	sub := f.Subjects[0]
	if sub.GetKind() == gemelv1.Kind_KIND_UNSPECIFIED {
		sub.Kind = gemelv1.Kind_KIND_PROCESS
	}
	return &gemelv1.WhyRequest{Question: &gemelv1.WhyRequest_Subject{Subject: sub}}, nil
}

func evidenceCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "evidence [NAME|NUMBER|REF]", GroupID: "look", Args: args(0, 1),
		Short: "what a program did before it was killed",
		Long: `Prints what was kept of a program before it was killed: states and stacks of its threads,
open files, the end of its output. It is named as gemel why tells, by the number of its
event, or by a process, which means the newest of it. Without an argument: what is kept
of the newest events.`,
		Example:           "  gemel evidence\n  gemel evidence orders\n  gemel evidence 1042",
		ValidArgsFunction: firstOnly(t.names(false)),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := t.dial()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return listEvidence(c.Context(), t)
			}
			ref, err := evidenceRef(c.Context(), t, args[0])
			if err != nil {
				return err
			}
			r, err := client.Evidence(c.Context(), &gemelv1.EvidenceRequest{Ref: ref})
			if err != nil {
				return err
			}
			switch {
			case t.json:
				return t.printJSON(map[string]string{"ref": ref, "text": string(r.GetData())})
			case t.out.terminal():
				_, err = fmt.Fprint(t.out, clean(string(r.GetData())))
			default:
				_, err = t.out.Write(r.GetData())
			}
			return err
		},
	}
}

// kept returns the newest events that have evidence, oldest first.
func kept(ctx context.Context, t *tool, f *gemelv1.EventFilter) ([]*gemelv1.Event, error) {
	client, err := t.dial()
	if err != nil {
		return nil, err
	}
	r, err := client.Events(ctx, &gemelv1.EventsRequest{Filter: f, Limit: mostEvents})
	if err != nil {
		return nil, err
	}
	var out []*gemelv1.Event
	seen := make(map[string]bool)
	for _, e := range r.GetEvents() {
		if ref := e.GetEvidence(); ref != "" && !seen[ref] {
			seen[ref] = true
			out = append(out, e)
		}
	}
	return out, nil
}

func listEvidence(ctx context.Context, t *tool) error {
	es, err := kept(ctx, t, nil)
	if err != nil {
		return err
	}
	if len(es) == 0 && !t.json {
		fmt.Fprintln(t.out, "no evidence is kept; it is taken of a program that hangs or fails its check, before it is killed")
	}
	for _, e := range es {
		if t.json {
			if err := t.printJSON(map[string]any{"ref": e.GetEvidence(), "event": e.GetId(), "subject": subject(e.GetSubject()), "at": e.GetAt().AsTime()}); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(t.out, "%s  %-16s %s\n", clockTime(e.GetAt().AsTime()), subject(e.GetSubject()), e.GetEvidence())
	}
	return nil
}

// evidenceRef finds the evidence that is meant.
func evidenceRef(ctx context.Context, t *tool, given string) (string, error) {
	if id, ok := eventNumber(given); ok {
		client, err := t.dial()
		if err != nil {
			return "", err
		}
		r, err := client.Events(ctx, &gemelv1.EventsRequest{After: max(id, 1) - 1, Limit: 1})
		if err != nil {
			return "", err
		}
		if es := r.GetEvents(); len(es) == 1 && es[0].GetId() == id && es[0].GetEvidence() != "" {
			return es[0].GetEvidence(), nil
		}
		return "", notFound{fmt.Sprintf("no evidence was kept with event %d", id), "gemel evidence lists what is kept"}
	}
	s, err := t.snapshot(ctx)
	if err != nil {
		return "", err
	}
	sub, err := find(s, given)
	if err != nil {
		return given, nil // it is no name, so it is the evidence's own
	}
	es, err := kept(ctx, t, &gemelv1.EventFilter{Subjects: []*gemelv1.Subject{sub}})
	if err != nil {
		return "", err
	}
	if len(es) == 0 {
		return "", notFound{"no evidence is kept of " + given, "it is taken of a program that hangs or fails its check, before it is killed"}
	}
	return es[len(es)-1].GetEvidence(), nil
}

func whoamiCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "whoami", GroupID: "look", Args: args(0, 0),
		Short: "which role you have here, and why",
		Long: `Prints how the daemon sees you: user, role (viewer, operator, admin) and the reason. The
manifest gives roles, below node: access:.`,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := t.dial()
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
			fmt.Fprintf(t.out, "%s (uid %d): %s: %s\n", r.GetUser(), r.GetUid(), role, r.GetReason())
			return nil
		},
	}
}
