package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	gemelv1 "gemel/api/gemel/v1"
)

func planCommand(t *tool) *cobra.Command {
	var ifs []string
	c := &cobra.Command{
		Use: "plan [FILE]", GroupID: "look", Args: args(0, 1), ValidArgsFunction: manifests,
		Short: "where the groups of the cluster belong, as things are or if they were different",
		Long: `Tells for each group where it is, where it belongs, and why: by the manifest in force or by
FILE, as things are or as they would be. It asks the function that decides, and changes
nothing. What is supposed, each by an --if of its own:

  node NAME lost               the machine dies
  node NAME drained            as by gemel drain
  group NAME on NODE           as by gemel move
  group NAME on NODE forced    as by gemel move --forced`,
		Example: "  gemel plan\n  gemel plan --if 'node beta lost'\n  gemel plan new.yaml --if 'node beta lost' --if 'group web on gamma'",
		RunE: func(c *cobra.Command, args []string) error {
			q := &gemelv1.PlanRequest{}
			for _, s := range ifs {
				x, err := supposed(s)
				if err != nil {
					return err
				}
				q.If = append(q.If, x)
			}
			if len(args) == 1 {
				b, err := t.read(args[0])
				if err != nil {
					return err
				}
				q.Manifest, q.Name = b, args[0]
			}
			client, err := t.dial()
			if err != nil {
				return err
			}
			r, err := client.Plan(c.Context(), q)
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(object(r))
			}
			showPlan(t, r)
			return nil
		},
	}
	c.Flags().StringArrayVar(&ifs, "if", nil, "what is different, may be given again: `\"node NAME lost\"`")
	return c
}

// supposed reads one supposition.
func supposed(text string) (*gemelv1.Supposed, error) {
	w := strings.Fields(text)
	is := func(words ...string) bool {
		return len(w) == len(words) && !slices.ContainsFunc(words, func(x string) bool {
			i := slices.Index(words, x)
			return x != "" && w[i] != x
		})
	}
	switch {
	case is("node", "", "lost"):
		return &gemelv1.Supposed{Kind: gemelv1.Supposed_KIND_LOST, Node: w[1]}, nil
	case is("node", "", "drained"):
		return &gemelv1.Supposed{Kind: gemelv1.Supposed_KIND_DRAINED, Node: w[1]}, nil
	case is("group", "", "on", ""):
		return &gemelv1.Supposed{Kind: gemelv1.Supposed_KIND_MOVED, Group: w[1], Node: w[3]}, nil
	case is("group", "", "on", "", "forced"):
		return &gemelv1.Supposed{Kind: gemelv1.Supposed_KIND_FORCED, Group: w[1], Node: w[3]}, nil
	}
	return nil, wrongUsage("--if %q is nothing that can be supposed; allowed: \"node NAME lost\", \"node NAME drained\", \"group NAME on NODE\", \"group NAME on NODE forced\"", text)
}

func showPlan(t *tool, r *gemelv1.PlanResponse) {
	for _, c := range r.GetConflicts() {
		fmt.Fprintln(t.out, t.out.paint(yellow, clean(c.GetText())))
	}
	if len(r.GetGroups()) == 0 {
		fmt.Fprintln(t.out, "the manifest has no groups")
		return
	}
	var rows [][]cell
	for _, g := range r.GetGroups() {
		then, colour := cmp.Or(g.GetNode(), "nowhere"), plain
		switch {
		case g.GetNode() == "":
			colour = red
		case g.GetNode() != g.GetNow():
			colour = yellow
		}
		why := clean(g.GetReason().GetText())
		if len(g.GetWait()) > 0 {
			why += "; after " + strings.Join(g.GetWait(), ", ")
		}
		for _, x := range g.GetRefused() {
			why += "; " + clean(x.GetText())
		}
		for _, n := range g.GetNot() {
			if worth(g, n.GetReason().GetRule()) {
				why += "; not " + n.GetNode() + ": " + clean(n.GetReason().GetText())
			}
		}
		rows = append(rows, []cell{{text: g.GetName()}, {text: cmp.Or(g.GetNow(), "-")}, {text: then, colour: colour}, {text: oneLine(why)}})
	}
	t.out.table(t.out, []string{"GROUP", "NOW", "BELONGS ON", "WHY"}, rows)
}

// worth reports whether the plan says beside a group why it is not on a node: what its
// parts say there always, anything but the obvious if it is nowhere.
func worth(g *gemelv1.PlannedGroup, rule string) bool {
	switch rule {
	case "place.unfit", "place.unasked":
		return true
	case "place.witness", "place.not-listed":
		return false
	}
	return g.GetNode() == ""
}

// planned asks where one group belongs.
func planned(ctx context.Context, t *tool, group string) (*gemelv1.PlannedGroup, error) {
	client, err := t.dial()
	if err != nil {
		return nil, err
	}
	r, err := client.Plan(ctx, &gemelv1.PlanRequest{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, g := range r.GetGroups() {
		if g.GetName() == group {
			return g, nil
		}
		names = append(names, g.GetName())
	}
	return nil, unknown("group", group, names)
}

// whyGroup tells why a group is where it is and what happened to it last.
func whyGroup(ctx context.Context, t *tool, s *gemelv1.Snapshot, name string) error {
	g, err := planned(ctx, t, name)
	if err != nil {
		return err
	}
	client, err := t.dial()
	if err != nil {
		return err
	}
	past, err := client.Events(ctx, &gemelv1.EventsRequest{Limit: lastOfGroup, Filter: &gemelv1.EventFilter{
		Subjects: []*gemelv1.Subject{{Kind: gemelv1.Kind_KIND_GROUP, Name: name}}}})
	if err != nil {
		return err
	}
	if t.json {
		o := object(g)
		var events []any
		for _, e := range past.GetEvents() {
			events = append(events, object(e))
		}
		o["events"] = events
		return t.printJSON(o)
	}
	is := groupOf(s, name)
	fmt.Fprintf(t.out, "%s  %s  on %s, fence %s\n", t.out.paint(bold, name), t.out.paint(groupColour(is), is.GetState()), cmp.Or(is.GetNode(), "no node"), cmp.Or(is.GetFence(), "none"))
	facts := []fact{{"here", is.GetReason()}, {"belongs on", cmp.Or(g.GetNode(), "no node")}, {"why", clean(g.GetReason().GetText())}}
	if len(g.GetWait()) > 0 {
		facts = append(facts, fact{"waits for", strings.Join(g.GetWait(), ", ")})
	}
	for _, r := range g.GetRefused() {
		facts = append(facts, fact{"refused", clean(r.GetText())})
	}
	for _, n := range g.GetNot() {
		facts = append(facts, fact{"not " + n.GetNode(), clean(n.GetReason().GetText())})
	}
	for _, e := range past.GetEvents() {
		facts = append(facts, fact{e.GetAt().AsTime().Local().Format("15:04:05.000"), clean(e.GetText()) + groupDetail(e)})
	}
	showFacts(t.out, t, facts)
	return nil
}

// lastOfGroup is how many events of a group why tells.
const lastOfGroup = 10

func groupDetail(e *gemelv1.Event) string {
	d := clean(e.GetDetail())
	if why := clean(e.GetWhy().GetText()); why != "" && why != d {
		d = strings.TrimPrefix(d+": "+why, ": ")
	}
	if d == "" {
		return ""
	}
	return ", " + d
}

// whyNot tells why a group is not on a node.
func whyNot(ctx context.Context, t *tool, group, node string) error {
	g, err := planned(ctx, t, group)
	if err != nil {
		return err
	}
	var nodes []string
	for _, n := range g.GetNot() {
		if n.GetNode() == node {
			if t.json {
				return t.printJSON(object(n))
			}
			fmt.Fprintf(t.out, "%s does not belong on %s: %s\n", group, node, clean(n.GetReason().GetText()))
			for _, f := range n.GetReason().GetFacts() {
				fmt.Fprintf(t.out, "  %s: %s\n", clean(f.GetName()), clean(f.GetValue()))
			}
			return nil
		}
		nodes = append(nodes, n.GetNode())
	}
	if g.GetNode() == node {
		if t.json {
			return t.printJSON(map[string]any{"node": node, "reason": nil})
		}
		fmt.Fprintf(t.out, "%s belongs on %s: %s\n", group, node, clean(g.GetReason().GetText()))
		return nil
	}
	return unknown("node", node, append(nodes, g.GetNode()))
}

func maintenanceCommand(t *tool) *cobra.Command {
	var length string
	var end bool
	c := &cobra.Command{
		Use: "maintenance group/NAME|node/NAME|cluster", GroupID: "act", Args: args(1, 1),
		Short: "hands off a group, a node or the cluster until an end",
		Long: `Begins maintenance: until its end nothing is granted or moved there by itself, also not after
a loss, and programs that fail are restarted but never moved away. It ends by itself. What
runs goes on to run. To have nothing watched use gemel lock; to empty a node, gemel drain.`,
		Example: "  gemel maintenance node/beta --for 2h\n  gemel maintenance cluster --for 30m\n  gemel maintenance node/beta --end",
		RunE: func(c *cobra.Command, args []string) error {
			target := &gemelv1.Subject{Kind: gemelv1.Kind_KIND_NODE}
			kind, name, _ := strings.Cut(args[0], "/")
			switch {
			case kind == "group" && name != "":
				target.Kind, target.Name = gemelv1.Kind_KIND_GROUP, name
			case kind == "node" && name != "":
				target.Name = name
			case args[0] != "cluster":
				return wrongUsage("maintenance of %q; allowed: group/NAME, node/NAME or cluster", args[0])
			}
			if end == (length != "") {
				return wrongUsage("say how long, as --for 2h, or --end")
			}
			r, err := t.ask(c.Context(), &gemelv1.RequestRequest{Verb: gemelv1.Verb_VERB_MAINTAIN, Target: target, Value: length})
			if err != nil {
				return err
			}
			return t.answer(target, r, nil, false)
		},
	}
	c.Flags().StringVar(&length, "for", "", "from 1m to 168h: `DURATION`")
	c.Flags().BoolVar(&end, "end", false, "end it now")
	return c
}
