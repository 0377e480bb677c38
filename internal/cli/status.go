package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	gemelv1 "gemel/api/gemel/v1"
)

func statusCommand(t *tool) *cobra.Command {
	var watch bool
	c := &cobra.Command{
		Use: "status [NAME...]", GroupID: "look",
		Short: "what runs, in which state and why",
		Long: `Prints the node, each process and each check: state, since when, restarts counted
in the window, processor and memory use, and the reason for the state. It ends
with what to do next when something is wrong.`,
		Example:           "  gemel status\n  gemel status nginx\n  gemel status --watch\n  gemel status --json | jq .processes",
		ValidArgsFunction: t.completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			if watch {
				return watchStatus(c.Context(), t, args)
			}
			client, err := t.dial(c.Context())
			if err != nil {
				return err
			}
			r, err := client.Status(c.Context(), &gemelv1.StatusRequest{})
			if err != nil {
				return err
			}
			return showStatus(t, r.GetSnapshot(), args)
		},
	}
	c.Flags().BoolVarP(&watch, "watch", "w", false, "draw it anew whenever it changes, until Ctrl-C")
	return c
}

func watchStatus(ctx context.Context, t *tool, names []string) error {
	client, err := t.dial(ctx)
	if err != nil {
		return err
	}
	stream, err := client.WatchStatus(ctx, &gemelv1.WatchStatusRequest{IntervalMs: 500})
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		if t.colour && !t.json {
			fmt.Fprint(t.w.Out, "\x1b[H\x1b[2J")
		}
		if err := showStatus(t, stream.Msg().GetSnapshot(), names); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil // the way to leave
	}
	return stream.Err()
}

// chosen keeps what the user asked for, or everything.
func chosen(s *gemelv1.Snapshot, names []string) error {
	if len(names) == 0 {
		return nil
	}
	want := make(map[string]bool)
	for _, n := range names {
		want[n] = true
	}
	found := make(map[string]bool)
	var ps []*gemelv1.ProcessStatus
	for _, p := range s.GetProcesses() {
		if want[p.GetName()] {
			ps = append(ps, p)
			found[p.GetName()] = true
		}
	}
	var cs []*gemelv1.CheckStatus
	for _, c := range s.GetChecks() {
		if want[c.GetName()] {
			cs = append(cs, c)
			found[c.GetName()] = true
		}
	}
	for _, n := range names {
		if !found[n] {
			return notFound{fmt.Sprintf("there is no process or check %q", n), "gemel status lists them"}
		}
	}
	s.Processes, s.Checks = ps, cs
	return nil
}

func showStatus(t *tool, s *gemelv1.Snapshot, names []string) error {
	if s == nil {
		return errors.New("the daemon answered without a status")
	}
	if err := chosen(s, names); err != nil {
		return err
	}
	if t.json {
		return t.printJSON(object(s))
	}
	now := s.GetAt().AsTime()
	nodeLine(t, s, now)
	if len(s.GetProcesses()) > 0 {
		fmt.Fprintln(t.w.Out)
		processTable(t, s.GetProcesses(), now)
	}
	if len(s.GetChecks()) > 0 {
		fmt.Fprintln(t.w.Out)
		checkTable(t, s.GetChecks(), now)
	}
	next(t, s)
	return nil
}

func nodeLine(t *tool, s *gemelv1.Snapshot, now time.Time) {
	n := s.GetNode()
	state := t.paint(green, "running")
	switch {
	case n.GetStopping():
		state = t.paint(yellow, "stopping")
	case n.GetOp() == gemelv1.Op_OP_DISABLED:
		state = t.paint(red, "monitoring disabled")
	case n.GetAdmin() == gemelv1.Admin_ADMIN_LOCKED:
		state = t.paint(yellow, "locked")
	case n.GetShadow() == 0:
		state = t.paint(yellow, "without a shadow")
	}
	fmt.Fprintf(t.w.Out, "%s  %s  gemel %s up %s, monitor %d, shadow %d\n", t.paint(bold, n.GetName()), state, n.GetVersion(),
		age(now.Sub(n.GetSince().AsTime())), n.GetMonitor(), n.GetShadow())
	if used := len(n.GetBudget()); used > 0 {
		fmt.Fprintf(t.w.Out, "reboots and failovers counted: %d of %d\n", used, n.GetBudgetMax())
	}
	if n.GetDiffers() {
		fmt.Fprintln(t.w.Out, t.paint(yellow, n.GetManifest()+" differs from the manifest in force: gemel diff "+n.GetManifest()))
	}
}

func processTable(t *tool, ps []*gemelv1.ProcessStatus, now time.Time) {
	rows := make([][]cell, 0, len(ps))
	for _, p := range ps {
		pid := "-"
		if p.GetPid() != 0 {
			pid = strconv.Itoa(int(p.GetPid()))
		}
		cpu, mem := "-", "-"
		if u := p.GetUsage(); u != nil && p.GetPid() != 0 {
			cpu, mem = fmt.Sprintf("%.1f", u.GetPercent()), amount(u.GetMemory())
		}
		rows = append(rows, []cell{
			{text: p.GetName()},
			{text: stateText(p), colour: stateColour(p)},
			{text: pid, right: true},
			{text: age(now.Sub(p.GetSince().AsTime())), right: true},
			{text: fmt.Sprintf("%d/%d", p.GetWindow(), p.GetLimit()), right: true},
			{text: cpu, right: true},
			{text: mem, right: true},
			{text: clean(why(p))},
		})
	}
	t.table([]string{"PROCESS", "STATE", "PID", "SINCE", "RESTARTS", "CPU%", "MEM", "WHY"}, rows)
}

func why(p *gemelv1.ProcessStatus) string {
	if s := p.GetStatus(); s != "" && p.GetPid() != 0 {
		return p.GetReason() + " (" + s + ")"
	}
	return p.GetReason()
}

func stateText(p *gemelv1.ProcessStatus) string {
	if p.GetAdmin() == gemelv1.Admin_ADMIN_LOCKED {
		return p.GetState() + ", locked"
	}
	return p.GetState()
}

func stateColour(p *gemelv1.ProcessStatus) string {
	switch {
	case p.GetOp() == gemelv1.Op_OP_DISABLED:
		return red
	case p.GetAdmin() == gemelv1.Admin_ADMIN_LOCKED:
		return yellow
	}
	switch p.GetState() {
	case "running", "done":
		return green
	case "disabled", "stuck", "failed":
		return red
	case "stopped":
		return plain
	}
	return yellow
}

func checkTable(t *tool, cs []*gemelv1.CheckStatus, now time.Time) {
	rows := make([][]cell, 0, len(cs))
	for _, c := range cs {
		colour := yellow
		switch c.GetState() {
		case "passing":
			colour = green
		case "failing":
			colour = red
		case "off":
			colour = plain
		}
		last := "-"
		if c.GetLast() != nil {
			last = age(now.Sub(c.GetLast().AsTime()))
		}
		rows = append(rows, []cell{
			{text: c.GetName()}, {text: c.GetState(), colour: colour}, {text: last, right: true},
			{text: fmt.Sprintf("%d/%d", c.GetFailures(), c.GetLimit()), right: true}, {text: clean(c.GetDetail())},
		})
	}
	t.table([]string{"CHECK", "STATE", "SINCE", "FAILURES", "DETAIL"}, rows)
}

// next says what to do when something is wrong.
func next(t *tool, s *gemelv1.Snapshot) {
	n := s.GetNode()
	var lines []string
	for _, a := range s.GetAlarms() {
		lines = append(lines, fmt.Sprintf("%s %s: %s  (gemel why %d)", wordOf(a.GetSeverity()), subject(a.GetSubject()), a.GetText(), a.GetId()))
	}
	for _, p := range s.GetProcesses() {
		if p.GetOp() == gemelv1.Op_OP_DISABLED {
			lines = append(lines, fmt.Sprintf("%s is given up: repair it, then gemel lock %s; gemel unlock %s", p.GetName(), p.GetName(), p.GetName()))
		}
	}
	if n.GetOp() == gemelv1.Op_OP_DISABLED {
		lines = append(lines, "nothing is watched on this node: find what brought it down, then gemel lock node; gemel unlock node")
	}
	lines = append(lines, n.GetNotes()...)
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(t.w.Out, "\n%s\n", t.paint(bold, "What to look at:"))
	for _, l := range lines {
		fmt.Fprintln(t.w.Out, "  "+clean(l))
	}
}

func subject(s *gemelv1.Subject) string {
	if s.GetName() == "" {
		return wordOf(s.GetKind())
	}
	return s.GetName()
}
