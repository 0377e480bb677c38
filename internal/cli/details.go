package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
)

// fact is one line of a detailed view.
type fact struct{ name, value string }

// showDetails writes all that is known of the processes and checks of s; all are
// the checks of the node, for those that cover a process.
func showDetails(w io.Writer, t *tool, s *gemelv1.Snapshot, all []*gemelv1.CheckStatus) {
	now := s.GetAt().AsTime()
	cs := concerns(&gemelv1.Snapshot{Processes: s.GetProcesses(), Checks: s.GetChecks(), Alarms: s.GetAlarms()}, now)
	cs = append(cs, remarks(&gemelv1.Snapshot{Processes: s.GetProcesses(), Checks: s.GetChecks()}, "", true)...)
	first := true
	next := func() {
		if !first {
			fmt.Fprintln(w)
		}
		first = false
	}
	for _, p := range s.GetProcesses() {
		next()
		fmt.Fprintf(w, "%s  %s  for %s\n", t.out.paint(bold, p.GetName()), t.out.paint(stateColour(p), stateText(p)), age(now.Sub(since(p))))
		facts := append(processFacts(p, all, now), nextSteps(cs, p.GetName())...)
		if len(facts) == 0 || facts[len(facts)-1].name != "next" {
			facts = append(facts, fact{"more", fmt.Sprintf("gemel why %s; gemel logs %s; gemel events %s", p.GetName(), p.GetName(), p.GetName())})
		}
		showFacts(w, t, facts)
	}
	for _, c := range s.GetChecks() {
		next()
		fmt.Fprintf(w, "%s  %s\n", t.out.paint(bold, "check/"+c.GetName()), t.out.paint(checkColour(c), c.GetState()))
		showFacts(w, t, append(checkFacts(c, now), nextSteps(cs, "check/"+c.GetName())...))
	}
}

func nextSteps(cs []concern, who string) []fact {
	var out []fact
	for _, c := range cs {
		if c.who == who {
			out = append(out, fact{"look at", c.text}, fact{"next", c.do})
		}
	}
	return out
}

func showFacts(w io.Writer, t *tool, facts []fact) {
	for _, f := range facts {
		if f.value == "" {
			continue
		}
		value := oneLine(f.value)
		if f.name == "next" || f.name == "more" {
			value = t.command(value)
		}
		t.out.hang(w, fmt.Sprintf("  %-12s ", f.name), value)
	}
}

func processFacts(p *gemelv1.ProcessStatus, all []*gemelv1.CheckStatus, now time.Time) []fact {
	out := []fact{{"why", p.GetReason()}, {"command", p.GetLine()}}
	if p.GetPid() != 0 {
		out = append(out, fact{"started", fmt.Sprintf("%s, %s ago; pid %d, start %d, %s in all", clockTime(p.GetStarted().AsTime()),
			age(now.Sub(p.GetStarted().AsTime())), p.GetPid(), p.GetStart(), plural(int(p.GetStarts()), "start"))})
	} else {
		out = append(out, fact{"started", plural(int(p.GetStarts()), "start") + " in all"})
	}
	out = append(out, fact{"last end", endText(p.GetLast())}, fact{"says", p.GetStatus()})
	if n := p.GetThreads(); n > 0 {
		out = append(out, fact{"beats", plural(int(n), "thread")})
	}
	if u := p.GetUsage(); u != nil && p.GetPid() != 0 {
		out = append(out, fact{"uses", fmt.Sprintf("%.1f %% of a core, %s, %s, %s of processor time", u.GetPercent(), amount(u.GetMemory()),
			plural(int(u.GetTasks()), "task"), ha.Span(u.GetCpu().AsDuration()))})
	}
	hand := ""
	if p.GetOverlay() {
		hand = "; set by hand over the manifest (gemel diff)"
	}
	out = append(out,
		fact{"recovery", fmt.Sprintf("%s, then %s; %d of %d restarts of the window are counted%s", wordOf(p.GetRecovery()), wordOf(p.GetEscalation()),
			p.GetWindow(), p.GetLimit(), hand)},
		fact{"severity", wordOf(p.GetSeverity())},
		fact{"states", wordOf(p.GetAdmin()) + lockText(p.GetLock()) + ", " + wordOf(p.GetOp())},
	)
	if p.GetUid() != 0 {
		out = append(out, fact{"target", fmt.Sprintf("PmsProc%d", p.GetUid())})
	}
	var judges []string
	for _, c := range all {
		if slices.Contains(c.GetCovers(), p.GetName()) {
			judges = append(judges, c.GetName()+" ("+c.GetState()+")")
		}
	}
	return append(out, fact{"checks", strings.Join(judges, ", ")}, fact{"group", p.GetGroup()}, fact{"cgroup", p.GetCgroup()})
}

func endText(e *gemelv1.ExitStatus) string {
	if e == nil {
		return ""
	}
	s := e.GetText()
	if cpu := e.GetCpu().AsDuration(); cpu > 0 {
		s += fmt.Sprintf("; it used %s of processor time", ha.Span(cpu))
	}
	if rss := e.GetMaxRss(); rss > 0 {
		s += ", at most " + amount(rss)
	}
	return s
}

func checkFacts(c *gemelv1.CheckStatus, now time.Time) []fact {
	out := []fact{
		{"does", c.GetLine()}, {"said", c.GetDetail()}, {"covers", strings.Join(c.GetCovers(), ", ")},
		{"failures", fmt.Sprintf("%d in a row; %d are a fault", c.GetFailures(), c.GetLimit())},
		{"states", wordOf(c.GetAdmin()) + lockText(c.GetLock()) + ", " + wordOf(c.GetOp())},
	}
	if c.GetLast() != nil {
		out = append(out, fact{"told", fmt.Sprintf("%s, %s ago", clockTime(c.GetLast().AsTime()), age(now.Sub(c.GetLast().AsTime())))})
	}
	if c.GetUid() != 0 {
		out = append(out, fact{"target", fmt.Sprintf("PmsPie%d", c.GetUid())})
	}
	return out
}
