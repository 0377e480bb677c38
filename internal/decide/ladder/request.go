package ladder

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"gemel/internal/ha"
)

// answer is what becomes of a request.
type answer struct {
	ok   bool
	undo string
	text string
}

func accept(undo, format string, args ...any) answer {
	return answer{true, undo, fmt.Sprintf(format, args...)}
}

func refuse(format string, args ...any) answer { return answer{text: fmt.Sprintf(format, args...)} }

// request takes what an operator asks for and answers it once, at once: the
// answer says that it is under way, or why it is not.
func takeRequest(m *Machine, in ha.Request) {
	a := grantAny(m, in)
	rule := ruleRequest
	if !a.ok {
		rule = ruleRefused
	}
	touchAsked(m, in.Target)
	m.do(ha.Answer{ID: in.ID, OK: a.ok, Undo: a.undo, Why: because(rule, a.text, "verb", in.Verb, "target", in.Target, "by", in.By)})
}

// touchAsked has all looked at that a request for s may concern.
func touchAsked(m *Machine, s ha.Subject) {
	p := m.procs[ha.Process(s.Name)]
	switch {
	case s.Kind == ha.KindNode:
		m.touchAll()
	case s.Kind == ha.KindProcess && p != nil:
		m.touch(p)
		for _, q := range append(needed(p), dependents(p)...) {
			m.touch(q)
		}
	}
}

func grantAny(m *Machine, in ha.Request) answer {
	if m.node.quitting {
		return refuse("Gemel is stopping every program; nothing can be changed any more")
	}
	switch in.Target.Kind {
	case ha.KindNode:
		return m.node.grant(in)
	case ha.KindCheck:
		c := findCheck(m, ha.Check(in.Target.Name))
		if c == nil {
			return refuse("there is no check %q%s", in.Target.Name, near(in.Target.Name, checkNames(m)))
		}
		return c.grant(in)
	case ha.KindProcess:
		p := m.procs[ha.Process(in.Target.Name)]
		if p == nil || p.plan.gone {
			return refuse("there is no process %q%s", in.Target.Name, near(in.Target.Name, processNames(m)))
		}
		return grant(p, in)
	}
	return refuse("%s cannot be asked for on this machine: name a process, a check or the node", in.Target)
}

// grant decides a request for a process.
func grant(p *proc, in ha.Request) answer {
	h := &p.mem.Hard
	switch in.Verb {
	case ha.VerbStart:
		return askStart(p)
	case ha.VerbStop:
		return askStop(p)
	case ha.VerbRestart:
		return askRestart(p)
	case ha.VerbLock:
		if h.Locked {
			return accept("", "%s was locked already", p.name)
		}
		h.Locked, h.Lock = true, lockedBy(in)
		unwatched(p)
		return accept("gemel unlock "+string(p.name), "%s is locked: it is left as it is and not watched", p.name)
	case ha.VerbUnlock:
		return askUnlock(p)
	case ha.VerbClear:
		p.mem.Window = window{}
		return accept("", "the restarts counted for %s are forgotten", p.name)
	case ha.VerbRecovery:
		var r ha.Recovery
		if err := r.UnmarshalText([]byte(in.Value)); err != nil || r == ha.RecoveryUnset {
			return refuse("recovery %q is none of none, restart, failover-restart, failover-reboot", in.Value)
		}
		old := p.recovery()
		h.Recovery, h.RecoveryBy = r, lockedBy(in)
		if r == p.cfg.Recovery {
			h.Recovery, h.RecoveryBy = ha.RecoveryUnset, lock{}
		}
		return accept(fmt.Sprintf("gemel set %s recovery %v", p.name, old), "recovery of %s is %v", p.name, r)
	case ha.VerbEscalation:
		var e ha.Escalation
		if err := e.UnmarshalText([]byte(in.Value)); err != nil || e == ha.EscalationUnset {
			return refuse("escalation %q is none of none, failover, failover-reboot", in.Value)
		}
		old := p.escalation()
		h.Escalation, h.EscalationBy = e, lockedBy(in)
		if e == p.cfg.Restarts.Then {
			h.Escalation, h.EscalationBy = ha.EscalationUnset, lock{}
		}
		return accept(fmt.Sprintf("gemel set %s escalation %v", p.name, old), "escalation of %s is %v", p.name, e)
	}
	return refuse("%q is nothing that can be asked of a process", in.Verb)
}

// barred says why a start of p is refused; empty if it is not.
func barred(p *proc) string {
	switch {
	case elsewhere(p):
		return fmt.Sprintf("%s does not run here: %s", p.name, barElsewhere(p))
	case p.m.node.hard.Locked:
		return "the node is locked; first: gemel unlock node"
	case p.mem.Hard.Locked:
		return fmt.Sprintf("%s is locked; first: gemel unlock %s", p.name, p.name)
	case p.mem.Hard.Disabled:
		return fmt.Sprintf("%s was given up; repair it, then: gemel lock %s; gemel unlock %s", p.name, p.name, p.name)
	case p.away():
		return fmt.Sprintf("the group of %s is active on another node", p.name)
	case p.mem.Cure.Stage == rebooting:
		return fmt.Sprintf("a reboot of this machine was ordered for %s", p.name)
	case p.mem.Cure.Stage == failing:
		return fmt.Sprintf("a failover was asked for because of a fault of %s, and its answer decides what follows; gemel stop %s ends this recovery", p.name, p.name)
	case p.mem.Cure.Stage == examining:
		return fmt.Sprintf("a fault of %s is being examined, for %s at most; ask again then", p.name, ha.Span(ha.ExamineBound))
	}
	return ""
}

// askStart starts a process, and what it needs.
func askStart(p *proc) answer {
	if why := barred(p); why != "" {
		return refuse("%s", why)
	}
	if _, ok := intended(p); ok && p.alive() && p.run.phase <= up {
		return accept("", "%s runs already", p.name)
	}
	all := needed(p)
	for _, q := range all {
		if why := barred(q); why != "" && !q.alive() {
			return refuse("%s needs %s: %s", p.name, q.name, why)
		}
	}
	var also []string
	for _, q := range all {
		if _, ok := intended(q); !ok {
			also = append(also, string(q.name))
			wish(q)
		}
	}
	wish(p)
	undo := "gemel stop " + string(p.name)
	if len(also) > 0 {
		return accept(undo, "%s is started, and what it needs: %s", p.name, strings.Join(also, ", "))
	}
	switch p.run.phase {
	case stopping:
		return accept(undo, "%s is started again as soon as it has stopped", p.name)
	case stuck:
		return accept(undo, "%s is started again as soon as its copy that cannot be killed is gone", p.name)
	}
	if wait := blocker(p); wait != "" && !p.alive() {
		return accept(undo, "%s is to be started; it waits %s", p.name, wait)
	}
	return accept(undo, "%s is started", p.name)
}

// wish makes a process one that should run now.
func wish(p *proc) {
	h := &p.mem.Hard
	h.Halted, h.Asked = false, !p.cfg.AutoStart
	p.mem.Done, p.mem.Fell = false, false
	p.plan.hold, p.plan.told = 0, false
	if p.mem.Cure.Stage == waiting || p.mem.Cure.Stage == ending {
		p.mem.Cure.Due = p.m.now // an operator need not wait for the pause
	}
}

// needed returns all that p needs, the furthest first.
func needed(p *proc) []*proc {
	p.m.visit++
	all := further(p, nil)
	sort.Slice(all, func(i, j int) bool { return all[i].rank < all[j].rank })
	return all
}

// further adds what p needs and this walk did not come by yet.
func further(p *proc, all []*proc) []*proc {
	for _, n := range p.cfg.Needs {
		if q := p.m.procs[n]; q != nil && q.rank < p.rank && q.plan.walk.number != p.m.visit {
			q.plan.walk.number = p.m.visit
			all = further(q, append(all, q))
		}
	}
	return all
}

// dependents returns all that needs p, directly or not, by name.
func dependents(p *proc) []*proc {
	hit := map[*proc]bool{p: true}
	ranked := slices.Clone(p.m.list)
	sort.SliceStable(ranked, func(i, j int) bool { return ranked[i].rank < ranked[j].rank })
	for _, q := range ranked {
		for _, n := range q.cfg.Needs {
			if r := p.m.procs[n]; r != nil && r.rank < q.rank && hit[r] {
				hit[q] = true
			}
		}
	}
	delete(hit, p)
	var all []*proc
	for _, q := range p.m.list {
		if hit[q] {
			all = append(all, q)
		}
	}
	return all
}

// askStop stops a process, and before it what needs it.
func askStop(p *proc) answer {
	h := &p.mem.Hard
	if elsewhere(p) {
		return accept("", "%s is not run here: %s", p.name, barElsewhere(p))
	}
	if h.Halted && !p.alive() {
		return accept("", "%s is stopped already", p.name)
	}
	var also []string
	for _, q := range dependents(p) {
		if q.run.phase == up {
			also = append(also, string(q.name))
		}
	}
	h.Halted, h.Asked = true, false
	undo := "gemel start " + string(p.name)
	if p.mem.Cure.Stage == rebooting {
		return accept(undo, "%s is stopped; the reboot of this machine that was ordered for it goes on", p.name)
	}
	cancel(p)
	if len(also) > 0 {
		return accept(undo, "%s is stopped, and before it what needs it: %s", p.name, strings.Join(also, ", "))
	}
	return accept(undo, "%s is stopped", p.name)
}

// askRestart restarts a process; that is no fault and is not counted.
func askRestart(p *proc) answer {
	if why := barred(p); why != "" {
		return refuse("%s", why)
	}
	if _, ok := intended(p); !ok || p.run.phase == absent || p.run.phase == seeking {
		return askStart(p)
	}
	if p.mem.Cure.Stage != idle || p.run.phase >= stopping {
		wish(p)
		if p.run.phase == stuck {
			return accept("", "%s is started again as soon as its copy that cannot be killed is gone", p.name)
		}
		return accept("", "%s is being restarted already", p.name)
	}
	if wait := blocker(p); wait != "" {
		return refuse("%s would not start again: it would wait %s", p.name, wait)
	}
	p.plan.turn = because(ruleRequest, "an operator asked for a restart")
	return accept("", "%s is restarted", p.name)
}

// askUnlock begins the watch of a process anew.
func askUnlock(p *proc) answer {
	h := &p.mem.Hard
	if !h.Locked {
		if h.Disabled {
			return refuse("%s was given up but is not locked; repair it, then: gemel lock %s; gemel unlock %s", p.name, p.name, p.name)
		}
		return accept("", "%s was not locked", p.name)
	}
	h.Locked, h.Lock = false, lock{}
	fault := p.mem.Cure.Fault
	if p.m.node.watching() {
		initialize(p, "an operator unlocked it")
	} else {
		h.Disabled, p.mem.Fell, p.mem.Window = false, false, window{}
		p.mem.Cure = cure{Fault: fault}
	}
	return accept("gemel lock "+string(p.name), "%s is unlocked", p.name)
}

// grant decides a request for the node.
func (n *node) grant(in ha.Request) answer {
	switch in.Verb {
	case ha.VerbLock:
		if n.hard.Locked {
			return accept("", "the node was locked already")
		}
		n.hard.Locked, n.hard.Lock = true, lockedBy(in)
		n.unwatched()
		return accept("gemel unlock node", "the node is locked: its programs are left as they are and not watched")
	case ha.VerbUnlock:
		return n.askUnlock()
	case ha.VerbClear:
		n.hard.Budget = nil
		for _, p := range n.m.list {
			p.mem.Window = window{}
		}
		return accept("", "the reboots, failovers and restarts counted on this node are forgotten")
	}
	return refuse("%q is nothing that can be asked of the node: lock, unlock or clear", in.Verb)
}

func (n *node) askUnlock() answer {
	if !n.hard.Locked {
		if n.hard.Disabled {
			return refuse("the node used up its budget but is not locked; find the cause, then: gemel lock node; gemel unlock node")
		}
		return accept("", "the node was not locked")
	}
	if n.hard.Disabled {
		n.hard.Budget = nil
	}
	n.hard.Locked, n.hard.Lock, n.hard.Disabled = false, lock{}, false
	n.emit(ha.Event{Code: ha.Initialized, Subject: ha.OfNode(), UID: ha.UIDGlobal,
		Why: because(ruleInit, "an operator unlocked the node")}, "")
	for _, p := range n.m.list {
		if p.watched() && !p.plan.gone && !elsewhere(p) {
			initialize(p, "an operator unlocked the node")
		}
	}
	return accept("gemel lock node", "the node is unlocked")
}

// grant decides a request for a check.
func (c *check) grant(in ha.Request) answer {
	switch in.Verb {
	case ha.VerbLock, ha.VerbUnlock:
		if locked := in.Verb == ha.VerbLock; locked == c.mem.Locked {
			return accept("", "check %s was %sed already", c.cfg.Name, in.Verb)
		}
		c.mem = keptCheck{}
		if in.Verb == ha.VerbLock {
			c.mem = keptCheck{Locked: true, Lock: lockedBy(in)}
		}
		c.keep()
		undo := ha.VerbLock
		if in.Verb == ha.VerbLock {
			undo = ha.VerbUnlock
		}
		return accept(fmt.Sprintf("gemel %s check/%s", undo, c.cfg.Name), "check %s is %sed", c.cfg.Name, in.Verb)
	}
	return refuse("%q is nothing that can be asked of a check: lock or unlock", in.Verb)
}

func processNames(m *Machine) []string {
	var names []string
	for _, p := range m.list {
		if !p.plan.gone {
			names = append(names, string(p.name))
		}
	}
	return names
}

func checkNames(m *Machine) []string {
	var names []string
	for _, c := range m.checks {
		names = append(names, string(c.cfg.Name))
	}
	return names
}

// near says which names may have been meant.
func near(name string, names []string) string {
	type hit struct {
		name string
		far  int
	}
	var hits []hit
	for _, n := range names {
		if d := distance(name, n); d <= 1+len(name)/3 || name != "" && strings.Contains(n, name) {
			hits = append(hits, hit{n, d})
		}
	}
	sort.SliceStable(hits, func(i, j int) bool { return hits[i].far < hits[j].far })
	var best []string
	for _, h := range hits[:min(3, len(hits))] {
		best = append(best, h.name)
	}
	if len(best) == 0 {
		return "; gemel status lists what there is"
	}
	return "; did you mean " + strings.Join(best, ", ") + "?"
}

// distance counts the edits between two names.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := last
			if a[i] != b[j] {
				cost++
			}
			last = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
