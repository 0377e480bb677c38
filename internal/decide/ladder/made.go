package ladder

import (
	"fmt"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// made is what a group knows of its parts that commands of others make: scripts and
// resource agents. What they start nobody sees but they, so that one that failed is
// stopped, with its proof, before it is started again, and what was started after it is
// stopped before it.
type made struct {
	anew  string     // why everything of it is stopped here first, and started again
	rest  ha.Instant // nothing of it is started before
	worn  window     // parts that were lost
	fleet bool       // a failover was asked for, and not answered
	paid  ha.Instant // the entry of the node's budget for it
	told  bool       // that it is to be started nowhere was ordered in this life
}

// partTries is how often a part is begun here before its group goes elsewhere.
const partTries = 3

// partLosses bound how often a part that ran may be found gone.
func partLosses() manifest.Restarts { return manifest.Restarts{Limit: 5, Within: 15 * time.Minute} }

// pause is how long a part is left alone after failures in a row.
func pause(fails int) time.Duration { return min(time.Second<<min(fails-1, 5), 30*time.Second) }

// idOf is a new number for the program that holds a part, if it has one.
func idOf(g *group, p *part) ha.StartID {
	if !p.name.Made() {
		return 0
	}
	return g.m.newID()
}

// partFailed judges a start or a stop of a made part that did not come about.
func partFailed(g *group, p *part, in ha.PartDone) {
	if !in.On {
		return // it is tried again; until it is proved the group stays
	}
	p.starts++
	if in.Gone {
		p.on, p.ready = false, false
		g.keep()
	} else {
		anew(g, p, in.Detail)
	}
	switch {
	case in.Fatal:
		g.mem.Halt = fmt.Sprintf("%s: %s: the group is started nowhere until it is cleared", p.name, in.Detail)
		g.keep()
		halted(g)
	case in.Hard || p.starts >= partTries:
		flee(g, p.name, fmt.Sprintf("%s cannot be kept running here: %s", p.name, in.Detail), p.starts)
	}
}

// partGone judges a made part that ran and does not any more, or not well.
func partGone(g *group, p *part, in ha.PartLost) {
	p.starts = max(p.starts, 1) // its alarm stands until it was started again
	anew(g, p, in.Detail)
	r := partLosses()
	if g.worn.full(g.m.now, r) {
		flee(g, p.name, fmt.Sprintf("%s cannot be kept running here: %s; it was lost %d times within %s", p.name, in.Detail, r.Limit, ha.Span(r.Within)), p.starts)
	}
	g.worn.add(g.m.now, r)
}

// anew has the group stopped here, in its order, and started anew.
func anew(g *group, p *part, why string) {
	g.anew = fmt.Sprintf("%s: %s: everything of the group is stopped before it is started again", p.name, why)
	g.rest, p.due = g.m.now.Add(pause(max(p.starts, 1))), 0
}

// flee asks for a failover of the group, if the node's budget allows it. What is
// refused is tried here again. The culprit is empty if its start as a whole took too long.
func flee(g *group, culprit ha.Part, why string, fails int) {
	if g.fleet || g.grant.Group == "" || !g.m.node.watching() {
		return
	}
	if !g.m.node.pay(nil) {
		return // the alarm stands, and it is tried here
	}
	g.fleet, g.paid = true, g.m.now
	g.m.do(ha.Failover{Group: g.cfg.Name, Part: culprit, Bar: true, Why: because(ruleFailover, why, "fails", fails)})
}

// halted orders once in a life that a group is started on no node.
func halted(g *group) {
	if g.mem.Halt == "" || g.made.told || !g.m.cluster.known {
		return
	}
	g.made.told = true
	g.m.do(ha.Failover{Group: g.cfg.Name, Bar: true, Nowhere: true, Why: because(ruleFailover, g.mem.Halt)})
}

// fled takes the answer of a failover that a part asked for.
func (c *cluster) fled(m *Machine, in ha.FailedOver) {
	g := c.group(in.Group)
	if in.Group == "" || g == nil || !g.fleet || in.Outcome == ha.OutcomeUnknown {
		return
	}
	g.fleet = false
	if in.Outcome != ha.Moved {
		m.node.giveBack(g.paid)
		g.tell(ha.GroupRefused, in.Detail, because(ruleFailover, "the failover was refused, so that it is tried here again", "detail", in.Detail))
	}
	if g.mem.Began != 0 {
		startBegins(g) // it is tried here, from now on
		g.keep()
	}
	m.touchAll()
}

// freed takes the word of an operator that a group may be started here again.
func (c *cluster) freed(m *Machine, in ha.GroupFreed) {
	g := c.group(in.Group)
	if g == nil {
		return
	}
	g.mem.Halt, g.made.told, g.worn, g.rest = "", false, window{}, 0
	g.keep()
	settleParts(g, "an operator cleared it")
	m.touchAll()
}

// settleParts forgets what was wrong with the parts of a group, and takes its alarm away.
func settleParts(g *group, why string) {
	bad := g.failing()
	for _, p := range g.parts {
		if p.on && !p.ready {
			continue // what is wrong with it is that it cannot be stopped
		}
		p.fails, p.starts, p.due = 0, 0, 0
		if bad && !g.failing() {
			bad = false
			g.alarm(p, ha.Clear, ha.OK, why)
		}
	}
}

// forget takes away every alarm of a group that is in no manifest any more, and of which
// nothing is here.
func forget(g *group, why string) {
	for _, p := range g.parts {
		p.fails, p.starts, p.due = 0, 0, 0
	}
	if g.mem.Wrong != "" {
		g.alarm(&part{name: g.mem.Wrong}, ha.Clear, ha.OK, why)
	}
	if g.mem.Late {
		unlate(g, why)
	}
	g.mem.Halt = ""
	g.keep()
}
