package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	gemelv1 "gemel/api/gemel/v1"
)

// topEvery is the least time between two tables of top.
const topEvery = 2 * time.Second

// orders are the ways in which top can sort: the greatest first, or the names.
var orders = map[string]func(a, b *gemelv1.ProcessStatus) int{
	"cpu": func(a, b *gemelv1.ProcessStatus) int {
		return cmp.Or(cmp.Compare(b.GetUsage().GetPercent(), a.GetUsage().GetPercent()), cmp.Compare(b.GetUsage().GetMemory(), a.GetUsage().GetMemory()))
	},
	"memory": func(a, b *gemelv1.ProcessStatus) int {
		return cmp.Compare(b.GetUsage().GetMemory(), a.GetUsage().GetMemory())
	},
	"tasks": func(a, b *gemelv1.ProcessStatus) int {
		return cmp.Compare(b.GetUsage().GetTasks(), a.GetUsage().GetTasks())
	},
	"name": func(a, b *gemelv1.ProcessStatus) int { return cmp.Compare(a.GetName(), b.GetName()) },
}

func topCommand(t *tool) *cobra.Command {
	var once bool
	var by string
	c := &cobra.Command{
		Use: "top", GroupID: "look", Args: args(0, 0),
		Short: "processor and memory use of each process, the busiest first",
		Long: `Prints for each process that runs what it and its children use: per cent of one core
since the table before, memory, threads and processes, and processor time since its
start. It is drawn anew every two seconds until Ctrl-C.`,
		Example: "  gemel top\n  gemel top --once --sort memory",
		RunE: func(c *cobra.Command, _ []string) error {
			if orders[by] == nil {
				return wrongUsage("gemel top cannot sort by %q; it can by cpu, memory, tasks, name", by)
			}
			seen := 0
			return watch(c.Context(), t, topEvery, func(s *gemelv1.Snapshot) error {
				// The first picture has no span to count processor time over.
				if seen++; once && seen == 1 {
					return nil
				}
				slices.SortStableFunc(s.Processes, orders[by])
				if err := showTop(t, s, !once); err != nil {
					return err
				}
				if once {
					return errSeen
				}
				return nil
			})
		},
	}
	c.Flags().BoolVarP(&once, "once", "1", false, "print one table and end")
	c.Flags().StringVar(&by, "sort", "cpu", "sort by `COLUMN`: cpu, memory, tasks, name")
	_ = c.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions([]string{"cpu", "memory", "tasks", "name"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func showTop(t *tool, s *gemelv1.Snapshot, draw bool) error {
	if t.json {
		return t.printJSON(object(s))
	}
	var b strings.Builder
	topTable(&b, t.out, s)
	if draw {
		t.out.draw(b.String())
		return nil
	}
	_, err := io.WriteString(t.out, b.String())
	return err
}

func topTable(w io.Writer, out *screen, s *gemelv1.Snapshot) {
	var cpu float64
	var memory int64
	rows := make([][]cell, 0, len(s.GetProcesses()))
	for _, p := range s.GetProcesses() {
		if p.GetPid() == 0 {
			continue
		}
		u := p.GetUsage()
		cpu += u.GetPercent()
		memory += u.GetMemory()
		rows = append(rows, []cell{
			{text: p.GetName()},
			{text: fmt.Sprintf("%.1f", u.GetPercent()), right: true},
			{text: amount(u.GetMemory()), right: true},
			{text: strconv.Itoa(int(u.GetTasks())), right: true},
			{text: processorTime(u.GetCpu().AsDuration()), right: true},
			{text: strconv.Itoa(int(p.GetPid())), right: true},
			{text: oneLine(p.GetLine())},
		})
	}
	fmt.Fprintf(w, "%s  %s  %d of %d processes run, %.1f %% of a core, %s\n\n", out.paint(bold, s.GetNode().GetName()),
		s.GetAt().AsTime().Local().Format("15:04:05-07:00"), len(rows), len(s.GetProcesses()), cpu, amount(memory))
	out.table(w, []string{"PROCESS", "CPU%", "MEM", "TASKS", "TIME", "PID", "COMMAND"}, rows)
}

// processorTime is finer than age: many programs use less than a second a day.
func processorTime(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.2fs", d.Seconds())
	}
	return age(d)
}
