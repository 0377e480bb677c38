package ladder

import (
	"fmt"
	"slices"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// group is the machine of one group on this node, if the node is of a cluster:
// what the authority lets it be, and what of it is here.
type group struct {
	former   []ha.Process // that are not in Run any more, and may run still by its right
	m        *Machine
	cfg      manifest.Group
	parts    []*part
	programs int      // step of its programs
	grant    ha.Grant // what is held; Group empty: nothing
	mem      keptGroup
	role     ha.Role // that its programs have here
	told     bool    // that it is active was said
	gone     bool    // not in the manifest any more
	lapse    bool    // the shadow kills what is here of it
	made
	bounded
}

// keptGroup is what the next monitor must know of a group: programs are found by
// the shadow, addresses and scripts are found by nobody.
type keptGroup struct {
	Fence ha.Fence  `json:"fence,omitzero"`  // under which it was begun here; zero: nothing of it is here
	Parts []ha.Part `json:"parts,omitempty"` // that may be here
	// Unready are those of them that were not seen started: no program is, before they are.
	Unready []ha.Part `json:"unready,omitempty"`
	Halt    string    `json:"halt,omitempty"`  // why it is started nowhere, until an operator clears that
	Wrong   ha.Part   `json:"wrong,omitempty"` // for which its alarm stands
	keptBounds
}

// part is what of a group is no process.
type part struct {
	name   ha.Part
	step   int  // of the start of its group; negative: it is not in the manifest any more
	on     bool // it may be there
	busy   bool // an order for it is on its way
	ready  bool // it was seen started, by this life or the one before
	sure   bool // by this one
	fails  int
	starts int        // of a made part: that failed in a row
	stops  int        // that failed in a row
	begun  bool       // the order on its way is a start
	cut    bool       // that was told to end
	due    ha.Instant // it is not tried again before
	lost   ha.Instant // when it was last gone without an order
	losses int        // of those, one soon after the other
}

const groupKey = "group/"

func (g *group) key() string { return groupKey + string(g.cfg.Name) }

func compare[T ~string](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// assemble makes the parts those of the manifest, beside those that may be there.
func (g *group) assemble() {
	var list []*part
	add := func(step int, name ha.Part) {
		p := g.part(name)
		p.step = step
		list = append(list, p)
	}
	steps := g.cfg.Parts()
	g.programs = len(steps)
	for i, s := range steps {
		switch s.Kind {
		case manifest.PartAddresses:
			for _, a := range g.cfg.Addresses {
				add(i, ha.Part("address "+a.String()))
			}
		case manifest.PartPrograms:
			g.programs = i
		default:
			add(i, ha.Part(string(s.Kind)+" "+s.Name))
		}
	}
	for _, name := range g.mem.Parts {
		if !slices.ContainsFunc(list, func(p *part) bool { return p.name == name }) {
			add(-1, name)
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
	p := &part{name: name, on: on, ready: on && !slices.Contains(g.mem.Unready, name)}
	if name == g.mem.Wrong {
		p.fails = 1
	}
	return p
}

// members are the processes that are active with the group.
func (g *group) members() []*proc {
	var list []*proc
	for _, n := range g.cfg.Run {
		if p := g.m.procs[n]; p != nil && p.plan.home == g.cfg.Name && !g.gone {
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
	return g.running()
}

// wanted reports whether the group is to be active here, and if not, why. As long as
// this life knows no rights, what a life before had begun, its stop as well, goes on: the shadow's
// deadlines bound it.
func (g *group) wanted() (string, bool) {
	none := ha.Fence{}
	switch {
	case g.m.node.quitting:
		return "every program is stopped: " + g.m.node.quitWhy, false
	case !g.m.cluster.known:
		return "this node has no authority yet", g.mem.Fence != none && g.mem.Ends == 0
	case g.gone:
		return "it is not in the manifest any more", false
	case g.mem.Halt != "":
		return g.mem.Halt, false
	case g.anew != "":
		return g.anew, false
	case g.lapse:
		return "the authority for it had ended, and what is here of it ends first", false
	case g.grant.Group == "":
		return "it is not granted to this node", false
	case g.mem.Fence != none && g.mem.Fence != g.grant.Fence:
		return "it was granted anew, with a new fence: what runs under the old one ends first", false
	}
	return "", true
}

// waits says which part the start of a step waits for; empty: none.
func (g *group) waits(step int) string {
	for _, p := range g.parts {
		if p.step >= 0 && p.step < step && !p.ready {
			return fmt.Sprintf("it waits for %s", p.name)
		}
	}
	if g.programs < step && !g.started() {
		return "it waits for its programs"
	}
	return ""
}

// started reports whether the programs that should run do.
func (g *group) started() bool {
	for _, p := range g.members() {
		if p.plan.role != ha.Active || foundling(p) {
			return false
		}
		if _, ok := intended(p); ok && !(p.run.phase == up && p.run.ready) && !p.mem.Done {
			return false
		}
	}
	return true
}

// later reports whether something that was started after a step may still be there.
func (g *group) later(step int) bool {
	return slices.ContainsFunc(g.parts, func(p *part) bool { return p.on && p.step > step }) || g.programs > step && g.running()
}

// running reports whether a program that was started by its right may be there.
func (g *group) running() bool {
	for _, names := range [][]ha.Process{g.cfg.Run, g.former} {
		for _, n := range names {
			p := g.m.procs[n]
			if p != nil && (p.alive() && (p.mem.Of == g.cfg.Name || p.run.out == g.cfg.Name) ||
				len(p.mem.Strays) > 0 && (p.plan.home == g.cfg.Name || p.mem.Of == g.cfg.Name)) {
				return true
			}
		}
	}
	return false
}

// entitled reports whether its programs may run.
func (g *group) entitled() bool {
	_, ok := g.wanted()
	return ok && g.waits(g.programs) == "" && (!g.fleet && g.m.now >= g.rest || g.running())
}

// reconcile brings the group one step nearer to what is wanted. Addresses come
// before the programs that may bind to them, and go after them.
func (g *group) reconcile() {
	why, want := g.wanted()
	switch {
	case g.gone && g.mem.Fence == (ha.Fence{}) && !g.here():
		forget(g, why)
	case g.mem.Wrong != "" && !g.failing():
		g.alarm(&part{name: g.mem.Wrong}, ha.Clear, ha.OK, "it is not in the manifest any more")
	}
	if want && g.m.node.settled && g.m.cluster.known {
		if g.mem.Fence != g.grant.Fence {
			g.mem.Fence = g.grant.Fence
			startBegins(g)
			g.keep()
		}
		stopProved(g, "it is granted here again")
		entrust(g)
		for _, p := range g.parts {
			switch {
			case p.busy || g.m.now < p.due || g.m.now < g.rest || g.fleet && p.step >= 0:
			case p.step >= 0 && !p.sure && g.waits(p.step) == "":
				again := p.on && p.name.Made()
				p.on, p.busy, p.begun = true, true, true
				g.keep()
				g.m.do(ha.StartPart{Group: g.cfg.Name, Part: p.name, Fence: g.mem.Fence, Start: idOf(g, p), Again: again,
					Why: because(rulePart, "its group is granted to this node", "fence", g.mem.Fence)})
			case p.step < 0 && p.on:
				g.stop(p, because(rulePart, "it is not in the manifest any more"))
			}
		}
	}
	if waits := g.waits(g.programs); want && waits != "" {
		why = waits
	}
	g.turn(why)
	if want {
		g.announce()
		return
	}
	if g.mem.Fence != (ha.Fence{}) && g.here() {
		stopBegins(g)
		cutStarts(g)
	}
	for _, p := range g.parts {
		if p.on && !p.busy && g.m.now >= p.due && g.m.node.settled && !g.later(p.step) {
			g.stop(p, because(rulePart, why))
		}
	}
	if g.mem.Fence == (ha.Fence{}) {
		g.anew = "" // nothing of it was begun
	}
	if g.mem.Fence != (ha.Fence{}) && !g.here() && g.m.node.settled {
		// One that begins anew here has its alarms until it was started.
		if (g.anew == "" || g.grant.Group == "") && g.mem.Halt == "" {
			settleParts(g, "its group is not active here any more")
			if g.mem.Late {
				unlate(g, "it is not to be active here any more")
			}
		}
		stopProved(g, "nothing of it is here any more")
		fence := g.mem.Fence
		g.mem.Fence, g.told, g.lapse, g.anew = ha.Fence{}, false, false, ""
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
	// One that asked for this move itself is told by the answer to that.
	if p.mem.Cure.Stage == rebooting || p.mem.Cure.Stage == failing || p.mem.Hard.Locked {
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
	if g.role == ha.Active && !g.lapse && !g.hurry && slices.ContainsFunc(g.parts, func(p *part) bool { return p.on && p.step > g.programs }) {
		role = ha.Active // what was started after them is stopped before them
	}
	if g.entitled() || !g.m.cluster.known && g.mem.Fence != (ha.Fence{}) && g.mem.Ends == 0 && (g.m.now >= g.rest && g.waits(g.programs) == "" || g.running()) {
		role = ha.Active
	}
	for _, p := range g.members() {
		own := role
		if spares(g, p) || took(g, p) {
			own = ha.Active
		}
		if p.plan.ruled && p.plan.role == own && p.plan.bar == why {
			continue
		}
		p.plan.bar = why
		g.m.node.rule(p.name, own)
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
	p.busy, p.begun, p.ready, p.sure = true, false, false, false
	g.m.do(ha.StopPart{Group: g.cfg.Name, Part: p.name, Fence: g.mem.Fence, Start: idOf(g, p), Why: why})
}

// announce says once that everything of it was started.
func (g *group) announce() {
	if g.told || !g.m.cluster.known || !g.entitled() {
		return
	}
	if !g.started() || slices.ContainsFunc(g.parts, func(p *part) bool { return p.step >= 0 && !p.ready }) {
		return
	}
	g.told = true
	startDone(g)
	g.tell(ha.GroupActive, "fence "+g.mem.Fence.String(), because(ruleGroup, "everything of it was started", "fence", g.mem.Fence))
}

func (g *group) tell(code ha.Code, detail string, why ha.Reason) {
	entry, _ := code.Entry()
	g.m.do(ha.Emit{Event: ha.Event{At: g.m.now, Code: code, Subject: ha.OfGroup(g.cfg.Name), Change: entry.Change,
		Severity: ha.OK, Text: entry.Text, Detail: detail, Role: g.role, Why: why}})
}

func (g *group) alarm(p *part, change ha.Change, severity ha.Severity, detail string) {
	entry, _ := ha.GroupPart.Entry()
	if g.mem.Wrong = ""; change == ha.Assert {
		g.mem.Wrong = p.name
	}
	g.keep()
	g.m.do(ha.Emit{Event: ha.Event{At: g.m.now, Code: ha.GroupPart, Subject: ha.OfGroup(g.cfg.Name), Change: change,
		Severity: severity, Text: entry.Text, Detail: string(p.name) + ": " + detail, Role: g.role,
		Why: because(rulePart, fmt.Sprintf("%s: %s", p.name, detail), "fails", p.fails)}})
}

// failing reports whether a part of it failed last. The alarm is that of the group:
// it stands as long as one does.
func (g *group) failing() bool {
	return slices.ContainsFunc(g.parts, func(p *part) bool { return p.fails > 0 || p.starts > 0 })
}

// keep writes down what may be here of it.
func (g *group) keep() {
	g.mem.Parts, g.mem.Unready = nil, nil
	for _, p := range g.parts {
		if p.on {
			g.mem.Parts = append(g.mem.Parts, p.name)
		}
		if p.on && !p.ready {
			g.mem.Unready = append(g.mem.Unready, p.name)
		}
	}
	value := save(g.mem)
	var old keptGroup
	_ = load(g.m.kept[g.key()], &old)
	if g.mem.Fence == (ha.Fence{}) && len(g.mem.Parts) == 0 && g.mem.Halt == "" && g.mem.Wrong == "" && g.mem.keptBounds == (keptBounds{}) {
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
	// Which alarms stand is known for certain, or one would stand for ever.
	sync := old.Late != g.mem.Late || old.Overdue != g.mem.Overdue || old.Wrong != g.mem.Wrong
	g.m.do(ha.Keep{Key: g.key(), Value: value, Sync: sync, Why: because(ruleKeep, "the next monitor must know what of the group is here")})
}
