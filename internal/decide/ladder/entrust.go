package ladder

import (
	"fmt"
	"slices"
	"time"

	"gemel/internal/ha"
)

// A machine that becomes the first node of a cluster runs programs of groups already, by
// no right: there was none. Nobody else may have them as long as no other node is in the
// cluster, so that they run on until their group is granted here, and then by its right.

// asylum is how long such programs may wait.
type asylum struct {
	alone bool       // no other node is in the cluster
	until ha.Instant // the end of the wait; zero: the store has not answered yet, or it is over
	over  bool
}

// asylumTime is how long after the first answer of the store a group has to be granted.
// One that is not will not be: what runs of it is stopped, and starts with its right.
const asylumTime = 15 * time.Second

// taking is how a copy that ran by no right comes under one.
type taking struct {
	asked  uint64   // with which Rights, plus one; zero: not yet
	out    ha.Group // by whose right it may be already: the order is on its way
	denied string   // why the shadow did not
}

// open begins the end of the wait, once.
func (c *cluster) open(now ha.Instant) {
	if c.alone && c.until == 0 && !c.over {
		c.until = now.Add(asylumTime)
	}
}

// shut ends the wait when its time has come.
func (c *cluster) shut(m *Machine) {
	if c.until != 0 && c.until <= m.now {
		c.until, c.over = 0, true
		m.touchAll()
	}
}

// foundling reports whether the copy of a program is one of a group and runs by no right.
func foundling(p *proc) bool {
	return p.m.cluster.alone && p.plan.home != "" && p.run.phase == up && p.mem.Of == "" && !p.run.foreign && !p.plan.gone
}

// spared is spares for whoever does not know the group.
func spared(p *proc) bool {
	g := p.m.cluster.group(p.plan.home)
	return g != nil && spares(g, p)
}

// spares reports whether a foundling runs on.
func spares(g *group, p *proc) bool {
	here := len(g.cfg.Nodes) == 0 || slices.Contains(g.cfg.Nodes, g.m.node.name)
	return foundling(p) && here && !g.gone && g.mem.Halt == "" && p.run.denied == "" && !g.m.cluster.over
}

// unowned says why a foundling is stopped that could run by the right of its group.
func unowned(p *proc) ha.Reason {
	why := p.run.denied
	if why == "" {
		why = "it did not come under it within " + ha.Span(asylumTime)
	}
	return because(ruleEntrust, "it runs by no right, and its group has one here: "+why, "start", p.run.start)
}

// took reports whether the copy of a program came under the right of the group while it
// ran. It need not wait for the parts that a start waits for.
func took(g *group, p *proc) bool {
	_, ok := g.wanted()
	return ok && p.alive() && p.mem.Taken == p.run.start && p.mem.Of == g.cfg.Name
}

// entrust orders that what runs of the group comes under its right.
func entrust(g *group) {
	for _, p := range g.members() {
		if !spares(g, p) || p.run.asked == g.m.cluster.number+1 {
			continue
		}
		p.run.asked, p.run.out = g.m.cluster.number+1, g.cfg.Name
		g.m.do(ha.Entrust{Process: p.name, Start: p.run.start, Group: g.cfg.Name, Fence: g.mem.Fence,
			Why: because(ruleEntrust, "it ran before this machine was in a cluster, and its group is granted here now", "start", p.run.start, "fence", g.mem.Fence)})
	}
}

// entrusted takes the outcome.
func entrusted(p *proc, in ha.Entrusted) {
	if in.Start == p.run.start {
		p.run.out = ""
	}
	switch {
	case in.Start != p.run.start || !p.alive() || p.mem.Of != "":
	case in.Error == "":
		p.mem.owned = owned{in.Group, in.Start}
		p.emit(ha.ProcessAdopted, fmt.Sprintf("pid %d, by the right of group %s with fence %s", p.run.pid, in.Group, in.Fence),
			because(ruleEntrust, "it goes on by the right of its group", "start", in.Start, "fence", in.Fence))
	case !in.Unentitled: // else it is asked again with the next rights
		p.run.denied = in.Error
	}
}

// Unowned returns the programs of groups that run by no right.
func Unowned(m *Machine) []ha.Process {
	var list []ha.Process
	for _, p := range m.list {
		if p.plan.home != "" && p.alive() && p.mem.Of == "" && !p.run.foreign && m.cluster.yes {
			list = append(list, p.name)
		}
	}
	return list
}
