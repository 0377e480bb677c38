package cli

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	gemelv1 "gemel/api/gemel/v1"
)

// watchEvery is the least time between two pictures of status --watch.
const watchEvery = 500 * time.Millisecond

func statusCommand(t *tool) *cobra.Command {
	var follow, check, verbose bool
	c := &cobra.Command{
		Use: "status [NAME...]", GroupID: "look",
		Short: "what runs, in which state and why; with NAME all that is known of it",
		Long: `Prints the node, each process, each check and each group: state, since when, restarts
counted in the window of the limit, processor and memory use, and the reason for the
state. It ends with what to look at when something is wrong or unusual. With names it
prints all that is known of these.

--check is for scripts: it prints only what is wrong, one line each, and the exit status
is 1 if anything is. Wrong are a standing alarm, a process that is down although it
should run, a check that fails, and Gemel without one of its halves. What was locked or
stopped by order is not.`,
		Example:           "  gemel status\n  gemel status nginx\n  gemel status --watch\n  gemel status --check || mail -s trouble root\n  gemel status --json | jq '.processes[] | select(.op == \"disabled\")'",
		ValidArgsFunction: t.names(true),
		RunE: func(c *cobra.Command, names []string) error {
			show := func(s *gemelv1.Snapshot) error {
				if t.json {
					return statusJSON(t, s, names)
				}
				text, err := statusText(t, s, names, verbose)
				if err != nil {
					return err
				}
				if follow {
					t.out.draw(text)
					return nil
				}
				_, err = io.WriteString(t.out, text)
				return err
			}
			if follow && check {
				return wrongUsage("--watch and --check exclude each other")
			}
			if follow {
				return watch(c.Context(), t, watchEvery, show)
			}
			s, err := t.snapshot(c.Context())
			if err != nil {
				return err
			}
			if check {
				return checkStatus(t, s, names)
			}
			return show(s)
		},
	}
	c.Flags().BoolVarP(&follow, "watch", "w", false, "draw it anew whenever it changes, until Ctrl-C")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "list all that Gemel would use and this machine or user does not have")
	c.Flags().BoolVar(&check, "check", false, "print only what is wrong; exit status 1 if anything is")
	return c
}

// chosen keeps in s only what names ask for; with none it keeps everything.
func chosen(s *gemelv1.Snapshot, names []string) error {
	if len(names) == 0 {
		return nil
	}
	var ps []*gemelv1.ProcessStatus
	var cs []*gemelv1.CheckStatus
	for _, n := range names {
		sub, err := find(s, n)
		if err != nil {
			return err
		}
		for _, p := range s.GetProcesses() {
			if sub.GetKind() == gemelv1.Kind_KIND_PROCESS && p.GetName() == sub.GetName() {
				ps = append(ps, p)
			}
		}
		for _, c := range s.GetChecks() {
			if sub.GetKind() == gemelv1.Kind_KIND_CHECK && c.GetName() == sub.GetName() {
				cs = append(cs, c)
			}
		}
	}
	var as []*gemelv1.Event
	for _, a := range s.GetAlarms() {
		for _, p := range ps {
			if a.GetSubject().GetKind() == gemelv1.Kind_KIND_PROCESS && a.GetSubject().GetName() == p.GetName() {
				as = append(as, a)
			}
		}
		for _, c := range cs {
			if a.GetSubject().GetKind() == gemelv1.Kind_KIND_CHECK && a.GetSubject().GetName() == c.GetName() {
				as = append(as, a)
			}
		}
	}
	s.Processes, s.Checks, s.Alarms, s.Groups = ps, cs, as, groupsOf(s.GetGroups(), ps)
	return nil
}

// groupsOf keeps the groups that the processes belong to.
func groupsOf(gs []*gemelv1.GroupStatus, ps []*gemelv1.ProcessStatus) []*gemelv1.GroupStatus {
	var out []*gemelv1.GroupStatus
	for _, g := range gs {
		if slices.ContainsFunc(ps, func(p *gemelv1.ProcessStatus) bool {
			return slices.Contains(g.GetRun(), p.GetName()) || slices.Contains(g.GetStandby(), p.GetName())
		}) {
			out = append(out, g)
		}
	}
	return out
}

// lockText says since when something is locked and who did it, as " since TIME by
// WHO"; empty if that is not known.
func lockText(l *gemelv1.Lock) string {
	if l == nil {
		return ""
	}
	text := " since " + clockTime(l.GetSince().AsTime())
	if by := l.GetBy(); by != "" {
		text += " by " + oneLine(by)
	}
	return text
}

// statusText is the screen of status.
func statusText(t *tool, s *gemelv1.Snapshot, names []string, verbose bool) (string, error) {
	all := s.GetChecks()
	if err := chosen(s, names); err != nil {
		return "", err
	}
	var b strings.Builder
	now := s.GetAt().AsTime()
	if len(s.GetProcesses())+len(s.GetChecks()) > 0 && len(names) > 0 {
		showDetails(&b, t, s, all)
		return b.String(), nil
	}
	nodeLine(&b, t.out, s, now)
	clusterTable(&b, t.out, s.GetCluster(), now)
	processTable(&b, t.out, s.GetProcesses(), now)
	checkTable(&b, t.out, s.GetChecks(), now)
	groupTable(&b, t.out, s)
	nextLines(&b, t.out, s)
	skew := ""
	if t.client != nil {
		skew = t.client.Skew(t.w.Version)
	}
	showConcerns(&b, t, append(concerns(s, now), remarks(s, skew, verbose)...))
	return b.String(), nil
}

// statusJSON is the document of status --json.
func statusJSON(t *tool, s *gemelv1.Snapshot, names []string) error {
	if err := chosen(s, names); err != nil {
		return err
	}
	return t.printJSON(object(s))
}

// checkStatus tells a script what is wrong.
func checkStatus(t *tool, s *gemelv1.Snapshot, names []string) error {
	if err := chosen(s, names); err != nil {
		return err
	}
	if len(names) > 0 {
		// A question about some of them is none about the node.
		s.Node = nil
	}
	cs := concerns(s, s.GetAt().AsTime())
	if t.json {
		wrong := make([]map[string]string, 0, len(cs))
		for _, c := range cs {
			wrong = append(wrong, map[string]string{"subject": c.who, "text": c.text, "do": c.do})
		}
		if err := t.printJSON(map[string]any{"ok": len(cs) == 0, "wrong": wrong}); err != nil {
			return err
		}
	} else {
		for _, c := range cs {
			fmt.Fprintf(t.out, "%s: %s\n", c.who, clean(c.text))
		}
	}
	if len(cs) > 0 {
		return exitStatus(ExitFailed)
	}
	return nil
}

func nodeLine(w io.Writer, out *screen, s *gemelv1.Snapshot, now time.Time) {
	n := s.GetNode()
	state := out.paint(green, "running")
	switch {
	case n.GetStopping():
		state = out.paint(yellow, "stopping")
	case n.GetOp() == gemelv1.Op_OP_DISABLED:
		state = out.paint(red, "monitoring disabled")
	case n.GetAdmin() == gemelv1.Admin_ADMIN_LOCKED:
		state = out.paint(yellow, "locked")
	case n.GetShadow() == 0:
		state = out.paint(yellow, "without a shadow")
	}
	fmt.Fprintf(w, "%s  %s  gemel %s up %s, monitor %d, shadow %d\n", out.paint(bold, n.GetName()), state, n.GetVersion(),
		age(now.Sub(n.GetSince().AsTime())), n.GetMonitor(), n.GetShadow())
}

// wideStatus is how wide a terminal must be for what gemel top shows as well.
const wideStatus = 100

func processTable(w io.Writer, out *screen, ps []*gemelv1.ProcessStatus, now time.Time) {
	if len(ps) == 0 {
		return
	}
	usage := !out.terminal() || out.columns >= wideStatus
	head := []string{"PROCESS", "STATE", "PID", "SINCE", "RESTARTS"}
	if usage {
		head = append(head, "CPU%", "MEM")
	}
	rows := make([][]cell, 0, len(ps))
	for _, p := range ps {
		pid := "-"
		if p.GetPid() != 0 {
			pid = strconv.Itoa(int(p.GetPid()))
		}
		row := []cell{
			{text: p.GetName()},
			{text: stateText(p), colour: stateColour(p)},
			{text: pid, right: true},
			{text: age(now.Sub(since(p))), right: true},
			{text: restarts(p), right: true},
		}
		if usage {
			cpu, mem := "-", "-"
			if u := p.GetUsage(); u != nil && p.GetPid() != 0 {
				cpu, mem = fmt.Sprintf("%.1f", u.GetPercent()), amount(u.GetMemory())
			}
			row = append(row, cell{text: cpu, right: true}, cell{text: mem, right: true})
		}
		rows = append(rows, append(row, cell{text: oneLine(why(p, now))}))
	}
	fmt.Fprintln(w)
	out.table(w, append(head, "WHY"), rows)
}

// since is when a process came into its state. What runs does so since its start:
// neither the end of its ramp-up nor a new monitor is news.
func since(p *gemelv1.ProcessStatus) time.Time {
	if p.GetState() == "running" && p.GetStarted() != nil {
		return p.GetStarted().AsTime()
	}
	return p.GetSince().AsTime()
}

// why is what a table has room for: nothing of a process that simply runs, what
// it says of itself if it does, and how it ended before if it was restarted.
func why(p *gemelv1.ProcessStatus, now time.Time) string {
	switch {
	case p.GetState() != "running":
		// The state says the rest, and the end of a long sentence would be cut off.
		return strings.TrimPrefix(p.GetReason(), "it was given up: ")
	case p.GetAdmin() == gemelv1.Admin_ADMIN_LOCKED:
		return "not watched"
	}
	var parts []string
	if s := p.GetStatus(); s != "" {
		parts = append(parts, s)
	}
	if p.GetWindow() > 0 && p.GetLast() != nil {
		parts = append(parts, fmt.Sprintf("%s %s ago", p.GetLast().GetText(), age(now.Sub(p.GetStarted().AsTime()))))
	}
	return strings.Join(parts, "; ")
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
	case "given-up", "stuck", "down":
		return red
	case "stopped", "standby", "elsewhere":
		return plain
	}
	return yellow
}

func checkColour(c *gemelv1.CheckStatus) string {
	switch c.GetState() {
	case "passing":
		return green
	case "failing":
		return red
	case "off", "elsewhere":
		return plain
	}
	return yellow
}

func checkTable(w io.Writer, out *screen, cs []*gemelv1.CheckStatus, now time.Time) {
	if len(cs) == 0 {
		return
	}
	rows := make([][]cell, 0, len(cs))
	for _, c := range cs {
		state, last := c.GetState(), "-"
		if c.GetAdmin() == gemelv1.Admin_ADMIN_LOCKED {
			state += ", locked"
		}
		if c.GetLast() != nil {
			last = age(now.Sub(c.GetLast().AsTime()))
		}
		detail := oneLine(c.GetDetail())
		if detail == "" {
			detail = "covers " + strings.Join(c.GetCovers(), ", ")
		}
		rows = append(rows, []cell{
			{text: c.GetName()}, {text: state, colour: checkColour(c)}, {text: last, right: true},
			{text: fmt.Sprintf("%d/%d", c.GetFailures(), c.GetLimit()), right: true}, {text: detail},
		})
	}
	fmt.Fprintln(w)
	out.table(w, []string{"CHECK", "STATE", "SINCE", "FAILURES", "SAID"}, rows)
}

func subject(s *gemelv1.Subject) string {
	switch {
	case s.GetName() == "":
		return wordOf(s.GetKind())
	case s.GetKind() == gemelv1.Kind_KIND_CHECK:
		return "check/" + s.GetName()
	}
	return s.GetName()
}

// endless is a limit of restarts that nobody wrote: that of Gemel's own programs.
const endless = 1 << 20

// restarts is how many restarts are counted of those that are allowed.
func restarts(p *gemelv1.ProcessStatus) string {
	if p.GetLimit() >= endless {
		return fmt.Sprint(p.GetWindow())
	}
	return fmt.Sprintf("%d/%d", p.GetWindow(), p.GetLimit())
}
