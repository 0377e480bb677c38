package ladder

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"gemel/internal/ha"
)

// The bounds of a group's start and stop as a whole. A start that is not done in time is
// a failed one: what was started is stopped, and another node is asked for. A stop that
// is not proved in time is a fault of this node: what can be killed is, and what is left
// then is told, so that whoever can turns the node off. Nobody else starts the group
// meanwhile.

// proofTime is how long what was killed at the end of a stop-timeout may take to be seen
// gone, and the stops that come after it to be proved.
const proofTime = 5 * time.Second

// bounded is what a group knows of its bounds beside what the next monitor must know.
type bounded struct {
	slow  int  // starts in a row that were not done in time
	hurry bool // its stop is overdue: its programs are killed, and wait for no part any more
}

// keptBounds is what the next monitor must know of them.
type keptBounds struct {
	Began ha.Instant `json:"began,omitempty"` // its start; zero: none is under way
	Late  bool       `json:"late,omitempty"`  // its alarm stands
	Ends  ha.Instant `json:"ends,omitempty"`  // since when it is to stop; zero: it is not
	// Overdue says that the alarm of its stop stands; Unproved why it is not proved.
	Overdue  bool   `json:"overdue,omitempty"`
	Unproved string `json:"unproved,omitempty"`
}

// startOver is when the start that is under way here has failed; zero: never.
func startOver(g *group) ha.Instant {
	_, want := g.wanted()
	if !want || g.told || g.fleet || g.mem.Began == 0 || g.cfg.StartTimeout == 0 || !g.m.cluster.known || !g.m.node.settled {
		return 0
	}
	return g.mem.Began.Add(g.cfg.StartTimeout)
}

// stopOver is when its stop is overdue, and then, when it is not proved; zero: never.
func stopOver(g *group) ha.Instant {
	_, want := g.wanted()
	if want || g.mem.Ends == 0 || g.cfg.StopTimeout == 0 || !g.m.node.settled {
		return 0
	}
	at := g.mem.Ends.Add(g.cfg.StopTimeout)
	switch {
	case !g.hurry:
		return at
	case g.mem.Unproved == "":
		return at.Add(proofTime)
	}
	return 0
}

// bound judges what is over.
func bound(g *group) {
	now := g.m.now
	if at := startOver(g); at != 0 && at <= now {
		late(g)
	}
	if at := stopOver(g); at != 0 && at <= now && !g.hurry {
		overdue(g)
	}
	if at := stopOver(g); at != 0 && at <= now {
		unproved(g, fmt.Sprintf("it was to stop within %s: %s", ha.Span(g.cfg.StopTimeout), remains(g)))
	}
	if why := unprovable(g); why != "" {
		unproved(g, why)
	}
}

// late takes a start that was not done in time for a failed one. While nothing is
// recovered here it is told, and goes on.
func late(g *group) {
	text := fmt.Sprintf("not started within %s", ha.Span(g.cfg.StartTimeout))
	if why := waitsFor(g); why != "" {
		text += ": " + why
	}
	g.mem.Began, g.mem.Late = 0, true
	g.keep()
	raise(g, ha.GroupLate, ha.Major, text, because(ruleLate, text, "timeout", g.cfg.StartTimeout))
	if !g.m.node.watching() {
		return
	}
	g.slow++
	g.anew = text + ": everything of the group is stopped"
	g.rest = g.m.now.Add(pause(g.slow))
	flee(g, "", text, g.slow)
	g.m.touchAll()
}

// waitsFor says what the start waits for.
func waitsFor(g *group) string {
	for _, p := range g.parts {
		if p.step >= 0 && p.step <= g.programs && !p.ready {
			return string(p.name) + " is not started"
		}
	}
	if names := unready(g); len(names) > 0 {
		return strings.Join(names, ", ") + " not ready"
	}
	return g.waits(len(g.parts) + g.programs + 1)
}

// unready are its programs that should run and do not, or are not ready.
func unready(g *group) []string {
	var names []string
	for _, p := range g.members() {
		if !(p.run.phase == up && p.run.ready) && !p.mem.Done {
			names = append(names, string(p.name))
		}
	}
	return names
}

// overdue has everything of a stop killed that can be.
func overdue(g *group) {
	text := fmt.Sprintf("not stopped within %s: %s", ha.Span(g.cfg.StopTimeout), remains(g))
	g.hurry = true
	if !g.mem.Overdue {
		g.mem.Overdue = true
		g.keep()
		raise(g, ha.GroupUnproved, ha.Major, text+": what can be killed is", because(ruleUnproved, text, "timeout", g.cfg.StopTimeout))
	}
	for _, p := range programsOf(g) {
		if p.run.phase == stopping {
			g.m.do(ha.Stop{Process: p.name, Start: p.run.start, Kill: true, Why: because(ruleUnproved, "the time for the stop of its group is over", "timeout", g.cfg.StopTimeout)})
		}
	}
	g.m.touchAll()
}

// hurried reports whether a program is killed with its group, without grace.
func hurried(p *proc) bool {
	g := p.m.cluster.group(p.mem.Of)
	return g != nil && g.hurry
}

// unprovable says why no waiting is known to prove the stop of a group that has no
// bound of its own; empty: it may be proved yet.
func unprovable(g *group) string {
	if _, want := g.wanted(); want || g.mem.Ends == 0 || g.cfg.StopTimeout != 0 || g.mem.Unproved != "" || !g.m.node.settled {
		return ""
	}
	for _, p := range programsOf(g) {
		if p.run.phase == stuck {
			return fmt.Sprintf("%s cannot be killed", p.name)
		}
	}
	for _, p := range g.parts {
		if p.on && p.stops >= partTries {
			return fmt.Sprintf("%s was not stopped in %d tries", p.name, p.stops)
		}
	}
	return ""
}

// unproved tells that a stop is not proved: the group stays blocked here, and whoever
// can turn this node off does.
func unproved(g *group, why string) {
	g.mem.Unproved, g.mem.Overdue = why, true
	g.keep()
	raise(g, ha.GroupUnproved, ha.Critical, why, because(ruleUnproved, why+": no proof of stop, no takeover"))
}

// remains says what of a group is here still.
func remains(g *group) string {
	var all []string
	for _, p := range programsOf(g) {
		word := "runs"
		switch p.run.phase {
		case stuck:
			word = "cannot be killed"
		case stopping:
			word = "is not gone"
		}
		all = append(all, fmt.Sprintf("%s %s", p.name, word))
	}
	for _, p := range g.parts {
		switch {
		case p.busy:
			all = append(all, fmt.Sprintf("%s does not end", p.name))
		case p.on && p.stops > 0:
			all = append(all, fmt.Sprintf("%s failed to stop", p.name))
		case p.on:
			all = append(all, fmt.Sprintf("%s is not stopped", p.name))
		}
	}
	if len(all) == 0 {
		return "its end is being noted"
	}
	return strings.Join(all, ", ")
}

// programsOf are the processes that were started by its right and may be there.
func programsOf(g *group) []*proc {
	var all []*proc
	for _, names := range [][]ha.Process{g.cfg.Run, g.former} {
		for _, n := range names {
			if p := g.m.procs[n]; p != nil && p.alive() && p.mem.Of == g.cfg.Name && !slices.Contains(all, p) {
				all = append(all, p)
			}
		}
	}
	return all
}

// startBegins notes that a start begins now, or when its rest is over.
func startBegins(g *group) { g.mem.Began = max(g.m.now, g.rest) }

// startDone notes that the start is over, by success.
func startDone(g *group) {
	g.slow, g.mem.Began = 0, 0
	if g.mem.Late {
		unlate(g, "it was started at last")
	}
	g.keep()
}

// unlate takes the alarm of a start away.
func unlate(g *group, why string) {
	g.mem.Late = false
	raise(g, ha.GroupLate, ha.OK, why, because(ruleLate, why))
}

// stopBegins notes that its stop began.
func stopBegins(g *group) {
	if g.mem.Ends == 0 {
		g.mem.Ends, g.mem.Began = g.m.now, 0
		g.keep()
	}
}

// stopProved ends its stop: nothing of it is here, or it is wanted here again.
func stopProved(g *group, why string) {
	g.hurry = false
	if g.mem.Ends == 0 {
		return
	}
	stood := g.mem.Overdue
	g.mem.Ends, g.mem.Overdue, g.mem.Unproved = 0, false, ""
	g.keep()
	if stood {
		raise(g, ha.GroupUnproved, ha.OK, why, because(ruleUnproved, why))
	}
}

// raise asserts an alarm of the group, or with the severity OK clears it.
func raise(g *group, code ha.Code, s ha.Severity, detail string, why ha.Reason) {
	entry, _ := code.Entry()
	change := ha.Assert
	if s == ha.OK {
		change = ha.Clear
	}
	g.m.do(ha.Emit{Event: ha.Event{At: g.m.now, Code: code, Subject: ha.OfGroup(g.cfg.Name), Change: change, Severity: s,
		Text: entry.Text, Detail: detail, Role: g.role, Why: why}})
}

// cutStarts ends a start that is under way: it is not wanted any more.
func cutStarts(g *group) {
	for _, p := range g.parts {
		if p.busy && p.begun && !p.cut && p.name.Made() && g.m.node.settled {
			p.cut = true
			g.m.do(ha.StopPart{Group: g.cfg.Name, Part: p.name, Fence: g.mem.Fence, Cut: true, Why: because(rulePart, "its start is not wanted any more")})
		}
	}
}
