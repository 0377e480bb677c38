package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	gemelv1 "gemel/api/gemel/v1"
)

// showTop draws the table of use.
func showTop(t *tool, s *gemelv1.Snapshot) error {
	ps := slices.Clone(s.GetProcesses())
	slices.SortStableFunc(ps, func(a, b *gemelv1.ProcessStatus) int {
		if c := cmp.Compare(b.GetUsage().GetPercent(), a.GetUsage().GetPercent()); c != 0 {
			return c
		}
		return cmp.Compare(b.GetUsage().GetMemory(), a.GetUsage().GetMemory())
	})
	if t.json {
		s.Processes = ps
		return t.printJSON(object(s))
	}
	if t.colour {
		fmt.Fprint(t.w.Out, "\x1b[H\x1b[2J")
	}
	var cpu float64
	var memory int64
	rows := make([][]cell, 0, len(ps))
	for _, p := range ps {
		if p.GetPid() == 0 {
			continue
		}
		u := p.GetUsage()
		cpu += u.GetPercent()
		memory += u.GetMemory()
		rows = append(rows, []cell{
			{text: fmt.Sprintf("%.1f", u.GetPercent()), right: true},
			{text: amount(u.GetMemory()), right: true},
			{text: strconv.Itoa(int(u.GetTasks())), right: true},
			{text: age(u.GetCpu().AsDuration()), right: true},
			{text: strconv.Itoa(int(p.GetPid())), right: true},
			{text: p.GetName()},
			{text: clean(p.GetLine())},
		})
	}
	fmt.Fprintf(t.w.Out, "%s  %s  %d of %d processes run, %.1f %% of a core, %s\n\n", s.GetAt().AsTime().Local().Format(time.TimeOnly),
		t.paint(bold, s.GetNode().GetName()), len(rows), len(ps), cpu, amount(memory))
	t.table([]string{"CPU%", "MEM", "TASKS", "CPU", "PID", "PROCESS", "COMMAND"}, rows)
	return nil
}
