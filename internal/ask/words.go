package ask

import (
	"fmt"
	"strings"
	"time"

	"gemel/internal/ha"
)

// human prints a duration as a person says it: two units at most.
func human(d time.Duration) string {
	if d < 0 {
		return "-" + human(-d)
	}
	switch {
	case d < time.Millisecond:
		return ha.Span(d)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", d.Seconds()), ".0") + " s"
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return two(int(d.Minutes()), "min", int(d.Seconds())%60, "s")
	case d < 48*time.Hour:
		return two(int(d.Hours()), "h", int(d.Minutes())%60, "min")
	}
	h := int(d.Hours())
	return two(h/24, "d", h%24, "h")
}

func two(a int, unit string, b int, small string) string {
	if b == 0 {
		return fmt.Sprintf("%d %s", a, unit)
	}
	return fmt.Sprintf("%d %s %d %s", a, unit, b, small)
}

// links tells turns as links; of very many the middle is left out.
func (c *collector) links(turns []turn) []Link {
	const head, tail = 10, 30
	var out []Link
	for i, t := range turns {
		if len(turns) > head+tail && i >= head && i < len(turns)-tail {
			if i == head {
				out = append(out, Link{Seq: t.Seq, At: t.At, Wall: t.Wall, Left: len(turns) - head - tail})
			}
			continue
		}
		out = append(out, link(t))
	}
	return out
}

// link tells one turn.
func link(t turn) Link {
	l := Link{Seq: t.Seq, At: t.At, Wall: t.Wall, Fact: fact(t)}
	seen := map[string]bool{}
	for _, a := range t.Actions {
		if routine(a) {
			continue
		}
		why := a.Because()
		if key := why.String(); !seen[key] && why.Rule != "" && why.Rule != ownRule {
			seen[key] = true
			l.Reasons = append(l.Reasons, why)
		}
		text := order(a)
		if e, ok := a.(ha.Emit); ok && e.Event.Subject != t.of && e.Event.Subject.Kind != ha.KindNode {
			text = e.Event.Subject.String() + ", " + text
		}
		l.Orders = append(l.Orders, text)
		if e, ok := a.(ha.Emit); ok && e.Event.ID != 0 {
			l.Events = append(l.Events, e.Event.ID)
		}
	}
	return l
}

// fact tells what came in, in one sentence without a full stop.
func fact(t turn) string {
	switch in := t.Input.(type) {
	case nil:
		if t.Note != "" {
			return "something came in that this version does not know (" + t.Note + ")"
		}
		return "Gemel noted"
	case ha.Tick:
		return tick(t)
	case ha.Exited:
		return exited(t, in)
	case ha.Request:
		return request(in)
	case ha.Missed:
		return missed(t, in)
	case ha.Booted:
		return booted(in)
	}
	if s := ofProgram(t.Input); s != "" {
		return s
	}
	return ofNode(t.Input)
}

// ofProgram tells the plain facts about a program.
func ofProgram(in ha.Input) string {
	switch in := in.(type) {
	case ha.Started:
		return fmt.Sprintf("start %d runs as pid %d", in.Start, in.PID)
	case ha.StartFailed:
		return fmt.Sprintf("start %d could not be executed: %s", in.Start, in.Error)
	case ha.StopFailed:
		return fmt.Sprintf("start %d is still there after SIGKILL: %s", in.Start, in.Detail)
	case ha.Ready:
		return fmt.Sprintf("start %d is ready (%s)", in.Start, in.How)
	case ha.Stopping:
		return fmt.Sprintf("start %d announced its own end", in.Start)
	case ha.Busy:
		return fmt.Sprintf("start %d asked for %s more", in.Start, human(in.For))
	case ha.Examined:
		if in.Ref == "" {
			return fmt.Sprintf("no evidence of start %d could be taken", in.Start)
		}
		return fmt.Sprintf("the evidence of start %d was kept as %s", in.Start, in.Ref)
	case ha.Adopted:
		how := "a new monitor found it running"
		if in.Foreign {
			how = "its attach rule found it running"
		}
		return fmt.Sprintf("%s: start %d, pid %d", how, in.Start, in.PID)
	case ha.NotFound:
		return "nothing matched its attach rule: " + in.Detail
	case ha.FailedOver:
		s := fmt.Sprintf("the answer of the failover of %s: %v", in.Process, in.Outcome)
		if in.Detail != "" {
			s += ", " + in.Detail
		}
		return s
	case ha.RebootFailed:
		return fmt.Sprintf("the reboot that %s asked for did not happen: %s", in.Process, in.Detail)
	}
	return ""
}

// ofNode tells the plain facts about checks and the node.
func ofNode(in ha.Input) string {
	switch in := in.(type) {
	case ha.Verdict:
		if in.OK {
			return fmt.Sprintf("check %s passed", in.Check)
		}
		s := fmt.Sprintf("check %s failed: %s", in.Check, in.Detail)
		for i, p := range in.Accused {
			s += []string{", ", "; it accuses "}[b2i(i == 0)] + string(p)
		}
		return s
	case ha.RoleSet:
		return fmt.Sprintf("the role is %v", in.Role)
	case ha.HalfDied:
		if in.Hung {
			return fmt.Sprintf("the %s did not answer and was killed", in.Half)
		}
		return fmt.Sprintf("the %s ended with %v", in.Half, in.Status)
	case ha.HalfBack:
		return fmt.Sprintf("the %s runs as pid %d", in.Half, in.PID)
	case ha.Settled:
		return "the monitor had found out what runs"
	case ha.Applied:
		return fmt.Sprintf("manifest version %d came into force", in.Version)
	case ha.Quit:
		return "the end was asked for: " + in.Why
	}
	return "the fact " + in.Name()
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func tick(t turn) string {
	own := len(t.Actions) > 0
	for _, a := range t.Actions {
		e, ok := a.(ha.Emit)
		own = own && ok && e.Event.Why.Rule == ownRule
	}
	if own {
		return "Gemel noted"
	}
	return "the time was over that was waited for"
}

func exited(t turn, in ha.Exited) string {
	s := fmt.Sprintf("start %d ended with %v", in.Start, in.Status)
	if in.Status.Unknown {
		s = fmt.Sprintf("start %d ended unseen, between %s and %s ago", in.Start,
			human(t.At.Sub(in.Status.After)), human(t.At.Sub(in.Status.Before)))
	}
	if t.started != 0 {
		s += " after " + human(t.At.Sub(t.started))
	}
	if in.Successor != 0 {
		s += fmt.Sprintf("; by its standing order start %d was made at once", in.Successor)
		if in.PID != 0 {
			s += fmt.Sprintf(" (pid %d)", in.PID)
		}
	}
	return s
}

func request(in ha.Request) string {
	by := in.By
	if by == "" {
		by = "an operator"
	}
	s := fmt.Sprintf("%s asked: %s %s", by, in.Verb, in.Target)
	if in.Value != "" {
		s += " " + in.Value
	}
	return s
}

func missed(t turn, in ha.Missed) string {
	who := "it"
	if in.Thread != "" {
		who = "thread " + in.Thread
	}
	s := fmt.Sprintf("%s had not been heard for %s", who, human(t.At.Sub(in.Last)))
	if in.Last == 0 {
		s = who + " had never been heard since its start"
	}
	if in.Missing > 1 {
		s += fmt.Sprintf("; %d threads were late", in.Missing)
	}
	return s
}

func booted(in ha.Booted) string {
	switch {
	case in.First:
		return fmt.Sprintf("the first monitor of this node began (version %s)", in.Version)
	case in.NewBoot:
		return fmt.Sprintf("the machine was booted and a monitor began (version %s)", in.Version)
	}
	return fmt.Sprintf("a new monitor began (version %s)", in.Version)
}

// grantedWord stands before the answer to a request that was granted.
const grantedWord = "granted: "

// order tells what was ordered or told, in one sentence without a full stop.
func order(a ha.Action) string {
	switch a := a.(type) {
	case ha.Emit:
		s := fmt.Sprintf("event %d: %s", a.Event.ID, a.Event.Text)
		if a.Event.Detail != "" {
			s += " (" + a.Event.Detail + ")"
		}
		if a.Event.Change != ha.Info {
			s += fmt.Sprintf(" [%v %v]", a.Event.Change, a.Event.Severity)
		}
		return s
	case ha.Start:
		return fmt.Sprintf("start %d was ordered", a.Start)
	case ha.Stop:
		if a.Kill {
			return fmt.Sprintf("start %d was to be killed", a.Start)
		}
		return fmt.Sprintf("the stop of start %d was ordered", a.Start)
	case ha.Extend:
		return fmt.Sprintf("the kill of start %d was put off", a.Start)
	case ha.Seek:
		return "it was looked for by its attach rule"
	case ha.Examine:
		return fmt.Sprintf("evidence of start %d was to be taken", a.Start)
	case ha.Handle:
		return fmt.Sprintf("the handler of the rung %s was run", a.Rung)
	case ha.Failover:
		if a.Nowhere {
			return "it was to be started on no node"
		}
		if a.All {
			return "all groups of this node were asked to move"
		}
		return "its groups were asked to move"
	case ha.Reboot:
		return "the reboot of the machine was ordered"
	case ha.Answer:
		if a.OK {
			return grantedWord + a.Why.Text
		}
		return "refused: " + a.Why.Text
	case ha.Done:
		return "Gemel was done: " + a.Why.Text
	}
	return "the order " + a.Name()
}
