package ladder

import (
	"slices"
	"strings"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// cluster is what a node of a cluster knows of its groups.
type cluster struct {
	yes     bool   // this node is of a cluster
	known   bool   // MayRun came in this life
	number  uint64 // of the Rights that are obeyed
	groups  []*group
	account ha.Holds // that was told last
	said    bool
	asylum
}

// gather makes the groups those of a manifest. One that is no longer in it is
// stopped first, and forgotten when nothing of it is here.
func (c *cluster) gather(m *Machine, man *manifest.Manifest) {
	var list []*group
	for _, cfg := range man.Groups {
		g := c.group(cfg.Name)
		if g == nil {
			g = &group{m: m}
			_ = load(m.kept[groupKey+string(cfg.Name)], &g.mem) // unreadable: what runs is found by the shadow
		}
		g.cfg, g.gone = cfg, false
		list = append(list, g)
	}
	for _, g := range c.groups {
		if !slices.ContainsFunc(list, func(x *group) bool { return x == g }) && g.here() {
			g.cfg.Addresses, g.cfg.Scripts, g.cfg.OCF, g.cfg.Standby = nil, nil, nil, nil
			g.grant = ha.Grant{}
			g.gone = true
			list = append(list, g)
		}
	}
	// What a life before had begun of a group that is in no manifest any more.
	for key, value := range m.kept {
		name, ok := strings.CutPrefix(key, groupKey)
		if !ok || slices.ContainsFunc(list, func(g *group) bool { return string(g.cfg.Name) == name }) {
			continue
		}
		g := &group{m: m, cfg: manifest.Group{Name: ha.Group(name)}, gone: true}
		if load(value, &g.mem) == nil {
			list = append(list, g)
		}
	}
	slices.SortFunc(list, func(a, b *group) int { return compare(a.cfg.Name, b.cfg.Name) })
	c.groups = list
	for _, g := range list {
		g.former = nil
		g.assemble()
	}
	for _, p := range m.list {
		c.former(p)
	}
}

// former notes a program that runs, or may, by the right of a group that does not have it any
// more. It is one of the group until it is gone.
func (c *cluster) former(p *proc) {
	for _, name := range []ha.Group{p.mem.Of, p.run.out} {
		if g := c.group(name); g != nil && p.plan.home != name && !slices.Contains(g.former, p.name) {
			g.former = append(g.former, p.name)
		}
	}
}

func (c *cluster) group(name ha.Group) *group {
	i := slices.IndexFunc(c.groups, func(g *group) bool { return g.cfg.Name == name })
	if i < 0 {
		return nil
	}
	return c.groups[i]
}

// mayRun takes what the authority gives.
func (c *cluster) mayRun(m *Machine, in ha.MayRun) {
	if c.known && in.Rights < c.number {
		return
	}
	c.known, c.number = true, in.Rights
	c.open(m.now)
	for _, g := range c.groups {
		g.grant = ha.Grant{}
		for _, r := range in.Groups {
			if r.Group == g.cfg.Name && !r.Leaving {
				g.grant = r.Grant
			}
		}
	}
	for _, g := range c.groups {
		halted(g)
	}
	m.touchAll()
}

// lapsed takes the news that the shadow kills what is here of a group. What ends now
// ends for that, and is no fault.
func (c *cluster) lapsed(m *Machine, in ha.Lapsed) {
	g := c.group(in.Group)
	if g == nil || g.mem.Fence != in.Fence {
		return // of what is over already
	}
	g.lapse, g.grant = g.here(), ha.Grant{} // it begins again when the authority was renewed
	g.tell(ha.GroupLapsed, "fence "+in.Fence.String(), because(ruleLapse, "the authority for it was not renewed in time", "fence", in.Fence))
	for _, p := range g.parts {
		if p.on && !p.busy {
			g.stop(p, because(ruleLapse, "the authority for its group has ended"))
		}
	}
	m.touchAll()
}

// partDone takes the outcome of an order for a part.
func (c *cluster) partDone(m *Machine, in ha.PartDone) {
	g := c.group(in.Group)
	if g == nil {
		return
	}
	i := slices.IndexFunc(g.parts, func(p *part) bool { return p.name == in.Part })
	if i < 0 || !g.parts[i].busy {
		return
	}
	p := g.parts[i]
	wasCut := p.cut
	p.busy, p.cut = false, false
	switch {
	case in.OK:
		p.on, p.ready, p.sure = in.On, in.On, in.On
		g.keep()
		bad := g.failing()
		if p.fails = 0; in.On {
			p.starts = 0
		}
		if bad && !g.failing() {
			g.alarm(p, ha.Clear, ha.OK, "it worked at last")
		}
		p.due = 0
		if !in.On {
			p.stops = 0
		}
	case wasCut && in.On:
		p.sure = false
		if in.Gone {
			p.on, p.ready = false, false
			g.keep()
		}
	default:
		if !in.On {
			p.stops++
		}
		p.sure = false // one that was there and could not be made so again: what runs with it runs on
		if !g.failing() {
			g.alarm(p, ha.Assert, ha.Major, in.Detail)
		}
		p.fails++
		p.due = m.now.Add(pause(p.fails))
		if p.name.Made() {
			partFailed(g, p, in)
		}
	}
	m.touchAll()
}

// partLost takes the news that a part is gone without an order: it is started again,
// and what runs with it goes on meanwhile. The first time that is at once; whoever takes
// it away again and again is not fought with.
func (c *cluster) partLost(m *Machine, in ha.PartLost) {
	g := c.group(in.Group)
	if g == nil {
		return
	}
	i := slices.IndexFunc(g.parts, func(p *part) bool { return p.name == in.Part })
	if i < 0 || g.parts[i].busy || !g.parts[i].sure {
		return
	}
	p := g.parts[i]
	p.sure = false
	if !g.failing() {
		g.alarm(p, ha.Assert, ha.Major, in.Detail)
	}
	p.fails = max(p.fails, 1)
	if p.losses++; p.lost == 0 || m.now >= p.lost.Add(lossesApart) {
		p.losses = 0
	}
	if p.lost = m.now; p.losses > 0 {
		p.due = m.now.Add(pause(p.losses))
	}
	if p.name.Made() {
		partGone(g, p, in)
	}
	m.touchAll()
}

// lossesApart is how long a part has to be there so that its next loss is one by itself;
// longer than the longest pause.
const lossesApart = time.Minute

// wake returns when a part is tried again.
func (c *cluster) wake() (t ha.Instant) {
	t = c.until
	for _, g := range c.groups {
		if g.rest != 0 && (t == 0 || g.rest < t) {
			t = g.rest
		}
		for _, over := range []ha.Instant{startOver(g), stopOver(g)} {
			if over != 0 && (t == 0 || over < t) {
				t = over
			}
		}
		for _, p := range g.parts {
			if p.due != 0 && !p.busy && (t == 0 || p.due < t) {
				t = p.due
			}
		}
	}
	return t
}

// reconcile looks at each group, and tells the authority what is here.
func (c *cluster) reconcile(m *Machine) {
	if !c.yes {
		return
	}
	c.shut(m)
	for _, g := range c.groups {
		if g.rest <= m.now {
			g.rest = 0
		}
		for _, p := range g.parts {
			if p.due != 0 && p.due <= m.now {
				p.due = 0
			}
		}
		bound(g)
		g.reconcile()
	}
}

// tell tells the authority what of the groups is here, when the shadow has told
// everything that it holds.
func (c *cluster) tell(m *Machine) {
	if !c.yes || !m.node.settled {
		return
	}
	h := ha.Holds{Rights: c.number}
	active := ha.Standby
	for _, g := range c.groups {
		if g.here() || g.mem.Fence != (ha.Fence{}) {
			h.Groups = append(h.Groups, g.cfg.Name)
			active = ha.Active
		}
		if g.mem.Unproved != "" {
			h.Unproved = append(h.Unproved, g.cfg.Name)
		}
	}
	if m.node.role != active {
		m.node.role = active
		m.touchAll()
	}
	if c.said && h.Rights == c.account.Rights && slices.Equal(h.Groups, c.account.Groups) && slices.Equal(h.Unproved, c.account.Unproved) {
		return
	}
	c.account, c.said = h, true
	m.do(ha.Account{Holds: h, Why: because(ruleAccount, "what of the groups is not seen stopped here has changed, or rights have")})
}

// begin opens a life in a cluster, or on a machine of none. After a boot nothing of a
// group is here.
func (c *cluster) begin(m *Machine, in ha.Booted) {
	c.yes, c.alone = in.Cluster, in.Cluster && in.Alone
	for _, g := range c.groups {
		if m.node.fresh || !c.yes {
			kept := g.mem
			g.mem = keptGroup{}
			if kept.Wrong != "" {
				g.alarm(&part{name: kept.Wrong}, ha.Clear, ha.OK, "the machine was booted")
			}
			if kept.Late {
				unlate(g, "the machine was booted")
			}
			if kept.Overdue {
				raise(g, ha.GroupUnproved, ha.OK, "the machine was booted", because(ruleUnproved, "the machine was booted: nothing of it is here"))
			}
			for _, p := range g.parts {
				p.on, p.fails = false, 0
			}
			g.keep()
		}
		if c.yes {
			g.rest = max(g.rest, g.mem.Began) // the life before left it alone until then
			why, _ := g.wanted()
			g.turn(why)
		}
	}
}

// GroupView is the picture of one group on this node.
type GroupView struct {
	Name   ha.Group
	State  string // active, starting, stopping, or empty: nothing of it is here
	Fence  ha.Fence
	Reason string
}

// outside says what of a group with scripts or resource agents no deadline reaches.
const outside = "what its scripts and agents leave in their control groups is killed at a deadline; what else they did, as a mount or an address, is not taken away"

// Groups returns the picture of each group, sorted by name; none on a machine of no
// cluster.
func (m *Machine) Groups() []GroupView {
	if !m.cluster.yes {
		return nil
	}
	views := make([]GroupView, 0, len(m.cluster.groups))
	for _, g := range m.cluster.groups {
		why, want := g.wanted()
		v := GroupView{Name: g.cfg.Name, Fence: g.mem.Fence, Reason: why}
		switch {
		case want && g.told:
			v.State = "active"
			if len(g.cfg.Scripts)+len(g.cfg.OCF) > 0 {
				v.Reason = outside
			}
		case want && g.mem.Fence != (ha.Fence{}):
			v.State, v.Reason = "starting", g.waits(len(g.cfg.Parts())+1)
			if v.Reason == "" && !g.started() {
				v.Reason = "its programs are starting"
			}
		case g.here() || g.mem.Fence != (ha.Fence{}):
			v.State = "stopping"
			if g.mem.Unproved != "" {
				v.Reason = "its stop is not proved: " + g.mem.Unproved
			}
		case g.mem.Halt != "" && g.grant.Group != "":
			v.State = "halted"
		}
		views = append(views, v)
	}
	return views
}
