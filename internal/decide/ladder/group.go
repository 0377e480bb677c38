package ladder

import (
	"fmt"
	"slices"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// group is the machine of one group on this node, if the node is of a cluster:
// what the authority lets it be, and what of it is here.
type group struct {
	m     *Machine
	cfg   manifest.Group
	parts []*part
	grant ha.Grant // what is held; Group empty: nothing
	mem   keptGroup
	role  ha.Role // that its programs have here
	told  bool    // that it is active was said
	gone  bool    // not in the manifest any more
	lapse bool    // the shadow kills what is here of it
}

// keptGroup is what the next monitor must know of a group: programs are found by
// the shadow, addresses and scripts are found by nobody.
type keptGroup struct {
	Fence ha.Fence  `json:"fence,omitzero"` // under which it was begun here; zero: nothing of it is here
	Parts []ha.Part `json:"parts,omitempty"`
}

// part is what of a group is no process.
type part struct {
	name  ha.Part
	on    bool // it may be there
	busy  bool // an order for it is on its way
	ready bool // it was seen started, by this life or the one before
	sure  bool // by this one
	fails int
	due   ha.Instant // it is not tried again before
}

const groupKey = "group/"

func (g *group) key() string { return groupKey + string(g.cfg.Name) }

// cluster is what a node of a cluster knows of its groups.
type cluster struct {
	yes     bool   // this node is of a cluster
	known   bool   // MayRun came in this life
	number  uint64 // of the Rights that are obeyed
	groups  []*group
	account ha.Holds // that was told last
	said    bool
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
			g.cfg.Addresses = nil
			g.grant = ha.Grant{}
			g.gone = true
			list = append(list, g)
		}
	}
	slices.SortFunc(list, func(a, b *group) int { return compare(a.cfg.Name, b.cfg.Name) })
	c.groups = list
	for _, g := range list {
		g.assemble()
	}
}

func compare[T ~string](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (c *cluster) group(name ha.Group) *group {
	i := slices.IndexFunc(c.groups, func(g *group) bool { return g.cfg.Name == name })
	if i < 0 {
		return nil
	}
	return c.groups[i]
}

// assemble makes the parts those of the manifest, beside those that may be there.
func (g *group) assemble() {
	var list []*part
	for _, a := range g.cfg.Addresses {
		list = append(list, g.part(ha.Part("address "+a)))
	}
	for _, name := range g.mem.Parts {
		if !slices.ContainsFunc(list, func(p *part) bool { return p.name == name }) {
			list = append(list, g.part(name))
		}
	}
	g.parts = list
}

// part returns the part of that name. One that a monitor before had begun may be
// there.
func (g *group) part(name ha.Part) *part {
	for _, p := range g.parts {
		if p.name == name {
			return p
		}
	}
	on := slices.Contains(g.mem.Parts, name)
	return &part{name: name, on: on, ready: on}
}

// listed reports whether a part is of the manifest in force.
func (g *group) listed(p *part) bool {
	return slices.ContainsFunc(g.cfg.Addresses, func(a string) bool { return ha.Part("address "+a) == p.name })
}

// members are the processes that are active with the group.
func (g *group) members() []*proc {
	var list []*proc
	for _, n := range g.cfg.Run {
		if p := g.m.procs[n]; p != nil {
			list = append(list, p)
		}
	}
	return list
}

// here reports whether anything of the group may be active on this node.
func (g *group) here() bool {
	if slices.ContainsFunc(g.parts, func(p *part) bool { return p.on || p.busy }) {
		return true
	}
	return slices.ContainsFunc(g.members(), func(p *proc) bool { return p.alive() || len(p.mem.Strays) > 0 })
}

// wanted reports whether the group is to be active here, and if not, why. As long as
// this life knows no rights, what a life before had begun goes on: the shadow's
// deadlines bound it.
func (g *group) wanted() (string, bool) {
	none := ha.Fence{}
	switch {
	case g.m.node.quitting:
		return "every program is stopped: " + g.m.node.quitWhy, false
	case !g.m.cluster.known:
		return "this node has no authority yet", g.mem.Fence != none
	case g.gone:
		return "it is not in the manifest any more", false
	case g.lapse:
		return "the authority for it had ended, and what is here of it ends first", false
	case g.grant.Group == "":
		return "it is not granted to this node", false
	case g.mem.Fence != none && g.mem.Fence != g.grant.Fence:
		return "it was granted anew, with a new fence: what runs under the old one ends first", false
	}
	return "", true
}

// waits says which part its programs wait for; empty: none.
func (g *group) waits() string {
	for _, p := range g.parts {
		if g.listed(p) && !p.ready {
			return fmt.Sprintf("it waits for %s", p.name)
		}
	}
	return ""
}

// entitled reports whether its programs may run.
func (g *group) entitled() bool {
	_, ok := g.wanted()
	return ok && g.waits() == ""
}

// mayRun takes what the authority gives.
func (c *cluster) mayRun(m *Machine, in ha.MayRun) {
	if c.known && in.Rights < c.number {
		return
	}
	c.known, c.number = true, in.Rights
	for _, g := range c.groups {
		g.grant = ha.Grant{}
		for _, r := range in.Groups {
			if r.Group == g.cfg.Name && !r.Leaving {
				g.grant = r.Grant
			}
		}
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
	p.busy = false
	switch {
	case in.OK:
		p.on, p.ready, p.sure = in.On, in.On, in.On
		g.keep()
		if p.fails > 0 {
			p.fails = 0
			g.alarm(p, ha.Clear, ha.OK, "it worked at last")
		}
		p.due = 0
	default:
		p.ready, p.sure = false, false
		p.fails++
		p.due = m.now.Add(min(time.Second<<min(p.fails-1, 5), 30*time.Second))
		if p.fails == 1 {
			g.alarm(p, ha.Assert, ha.Major, in.Detail)
		}
	}
	m.touchAll()
}

// reconcile brings the group one step nearer to what is wanted. Addresses come
// before the programs that may bind to them, and go after them.
func (g *group) reconcile() {
	why, want := g.wanted()
	if want && g.m.node.settled && g.m.cluster.known {
		if g.mem.Fence != g.grant.Fence {
			g.mem.Fence = g.grant.Fence
			g.keep()
		}
		for _, p := range g.parts {
			switch {
			case p.busy || g.m.now < p.due:
			case g.listed(p) && !p.sure:
				p.on, p.busy = true, true
				g.keep()
				g.m.do(ha.StartPart{Group: g.cfg.Name, Part: p.name, Fence: g.mem.Fence,
					Why: because(rulePart, "its group is granted to this node", "fence", g.mem.Fence)})
			case !g.listed(p) && p.on:
				g.stop(p, because(rulePart, "it is not in the manifest any more"))
			}
		}
	}
	if waits := g.waits(); want && waits != "" {
		why = waits
	}
	g.turn(why)
	if want {
		g.announce()
		return
	}
	if !slices.ContainsFunc(g.members(), func(p *proc) bool { return p.alive() || len(p.mem.Strays) > 0 }) && g.m.node.settled {
		for _, p := range g.parts {
			if p.on && !p.busy && g.m.now >= p.due {
				g.stop(p, because(rulePart, why))
			}
		}
	}
	if g.mem.Fence != (ha.Fence{}) && !g.here() && g.m.node.settled {
		fence := g.mem.Fence
		g.mem.Fence, g.told, g.lapse = ha.Fence{}, false, false
		g.keep()
		g.tell(ha.GroupStopped, "fence "+fence.String(), because(ruleGroup, why))
		for _, p := range g.members() {
			settleGone(p)
		}
		g.m.touchAll() // one that was granted anew may begin
	}
}

// settleGone takes away what was wrong with a program whose group is not active here
// any more: its recovery is told by the node that runs it.
func settleGone(p *proc) {
	if p.mem.Cure.Stage == rebooting || p.mem.Hard.Locked {
		return
	}
	if p.mem.Cure.Stage != idle {
		cancel(p)
	}
	if p.mem.Cure.Fault != ha.FaultNone || p.mem.Hard.Disabled {
		initialize(p, "its group is not active here any more")
	}
}

// turn tells its programs their role.
func (g *group) turn(why string) {
	role := ha.Standby
	if g.entitled() || !g.m.cluster.known && g.mem.Fence != (ha.Fence{}) {
		role = ha.Active
	}
	for _, p := range g.members() {
		if p.plan.ruled && p.plan.role == role && p.plan.bar == why {
			continue
		}
		p.plan.bar = why
		g.m.node.rule(p.name, role)
		g.m.touch(p)
	}
	g.role = role
	for _, n := range g.cfg.Standby {
		p := g.m.procs[n]
		if p == nil || slices.Contains(g.cfg.Run, n) {
			continue
		}
		bar := ""
		switch {
		case role == ha.Active || g.mem.Fence != (ha.Fence{}):
			bar = "its group is active here, and it runs on standbys"
		case len(g.cfg.Nodes) > 0 && !slices.Contains(g.cfg.Nodes, g.m.node.name):
			bar = "this node is none of its group's"
		}
		if p.plan.idle != bar {
			p.plan.idle = bar
			g.m.touch(p)
		}
	}
}

func (g *group) stop(p *part, why ha.Reason) {
	p.busy, p.ready, p.sure = true, false, false
	g.m.do(ha.StopPart{Group: g.cfg.Name, Part: p.name, Fence: g.mem.Fence, Why: why})
}

// announce says once that everything of it was started.
func (g *group) announce() {
	if g.told || !g.m.cluster.known || !g.entitled() {
		return
	}
	for _, p := range g.members() {
		if _, ok := intended(p); ok && !(p.run.phase == up && p.run.ready) && !p.mem.Done {
			return
		}
	}
	g.told = true
	g.tell(ha.GroupActive, "fence "+g.mem.Fence.String(), because(ruleGroup, "everything of it was started", "fence", g.mem.Fence))
}

func (g *group) tell(code ha.Code, detail string, why ha.Reason) {
	entry, _ := code.Entry()
	g.m.do(ha.Emit{Event: ha.Event{At: g.m.now, Code: code, Subject: ha.OfGroup(g.cfg.Name), Change: entry.Change,
		Severity: ha.OK, Text: entry.Text, Detail: detail, Role: g.role, Why: why}})
}

func (g *group) alarm(p *part, change ha.Change, severity ha.Severity, detail string) {
	entry, _ := ha.GroupPart.Entry()
	g.m.do(ha.Emit{Event: ha.Event{At: g.m.now, Code: ha.GroupPart, Subject: ha.OfGroup(g.cfg.Name), Change: change,
		Severity: severity, Text: entry.Text, Detail: string(p.name) + ": " + detail, Role: g.role,
		Why: because(rulePart, fmt.Sprintf("%s: %s", p.name, detail), "fails", p.fails)}})
}

// keep writes down what may be here of it.
func (g *group) keep() {
	g.mem.Parts = nil
	for _, p := range g.parts {
		if p.on {
			g.mem.Parts = append(g.mem.Parts, p.name)
		}
	}
	value := save(g.mem)
	if g.mem.Fence == (ha.Fence{}) && len(g.mem.Parts) == 0 {
		value = ""
	}
	if value == g.m.kept[g.key()] {
		return
	}
	if value == "" {
		delete(g.m.kept, g.key())
	} else {
		g.m.kept[g.key()] = value
	}
	g.m.do(ha.Keep{Key: g.key(), Value: value, Why: because(ruleKeep, "the next monitor must know what of the group is here")})
}

// wake returns when a part is tried again.
func (c *cluster) wake() (t ha.Instant) {
	for _, g := range c.groups {
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
	for _, g := range c.groups {
		for _, p := range g.parts {
			if p.due != 0 && p.due <= m.now {
				p.due = 0
			}
		}
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
	}
	if m.node.role != active {
		m.node.role = active
		m.touchAll()
	}
	if c.said && h.Rights == c.account.Rights && slices.Equal(h.Groups, c.account.Groups) {
		return
	}
	c.account, c.said = h, true
	m.do(ha.Account{Holds: h, Why: because(ruleAccount, "what of the groups is not seen stopped here has changed, or rights have")})
}

// begin opens a life in a cluster, or on a machine of none. After a boot nothing of a
// group is here.
func (c *cluster) begin(m *Machine, in ha.Booted) {
	c.yes = in.Cluster
	for _, g := range c.groups {
		if m.node.fresh || !c.yes {
			g.mem = keptGroup{}
			for _, p := range g.parts {
				p.on = false
			}
			g.keep()
		}
		if c.yes {
			why, _ := g.wanted()
			g.turn(why)
		}
	}
}
