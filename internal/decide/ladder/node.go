package ladder

import (
	"fmt"
	"slices"

	"gemel/internal/ha"
)

const nodeKey = "node"

// node is the machine of the node: its admin state, its budget of reboots and
// failovers, its life from boot to end, and the halves of Gemel.
type node struct {
	m        *Machine
	hard     keptNode
	role     ha.Role
	roles    map[ha.Process]ha.Role // of those that have their own
	boot     string
	name     ha.Node // empty: not known, every process is for this node
	fresh    bool    // the machine was booted since the monitor before
	settled  bool
	catching bool // the facts that waited for Settled are being taken
	quitting bool
	kill     bool // the second Quit: no grace
	done     bool
	quitWhy  string
	broken   string
}

// keptNode is the memory of the node; each change of it is kept with fsync.
type keptNode struct {
	Boot     string       `json:"boot,omitempty"` // boot id that the instants belong to
	At       ha.Instant   `json:"at,omitempty"`   // when it was kept
	Locked   bool         `json:"locked,omitempty"`
	Lock     lock         `json:"lock,omitzero"`
	Disabled bool         `json:"disabled,omitempty"` // the budget was exceeded
	Budget   []ha.Instant `json:"budget,omitempty"`   // ascending
	Shadow   bool         `json:"shadow,omitempty"`   // its alarm stands
	Monitor  bool         `json:"monitor,omitempty"`
}

func (n *node) load(value string) {
	if err := load(value, &n.hard); err != nil {
		n.hard = keptNode{Disabled: true}
		n.broken = err.Error()
	}
}

// watching reports whether the node recovers anything at all.
func (n *node) watching() bool {
	return n.settled && !n.quitting && !n.hard.Locked && !n.hard.Disabled
}

// emit tells an event of the node, or of a half of Gemel.
func (n *node) emit(e ha.Event, detail string) {
	entry, _ := e.Code.Entry()
	e.At, e.Change, e.Text, e.Detail, e.Role = n.m.now, entry.Change, entry.Text, detail, n.role
	n.m.do(ha.Emit{Event: e})
}

// booted opens a life. After a boot of the machine the instants of the boot
// before are carried over by the least age that is certain.
func (n *node) booted(in ha.Booted) {
	n.boot, n.name = in.Boot, in.Node
	for _, p := range n.m.list {
		p.plan.strays, p.mem.Strays = p.mem.Strays, nil
		n.m.touch(p)
	}
	n.fresh = in.NewBoot || n.hard.Boot != "" && n.hard.Boot != in.Boot
	if n.fresh {
		for i, t := range n.hard.Budget {
			n.hard.Budget[i] = -ha.Instant(n.hard.At.Sub(t) + in.Gap)
		}
		for _, p := range n.m.list {
			p.mem.rebooted()
			n.m.touch(p)
		}
	}
	n.m.cluster.begin(n.m, in)
	if n.broken != "" {
		for _, code := range [...]ha.Code{ha.InternalFault, ha.MemoryLost} {
			n.emit(ha.Event{Code: code, Subject: ha.OfNode(), UID: ha.UIDGlobal, Severity: ha.Major,
				Why: because(ruleInternal, "the memory of the node cannot be read", "error", n.broken)}, n.broken)
		}
	}
}

// roleSet takes the role of this node, as a whole or for one process.
func (n *node) roleSet(in ha.RoleSet) {
	if in.Process == "" {
		n.role = in.Role
	} else {
		n.rule(in.Process, in.Role)
	}
	n.m.touchAll()
}

// rule remembers the role of one process, also of one that the manifest does not
// name yet.
func (n *node) rule(name ha.Process, role ha.Role) {
	n.roles[name] = role
	if p := n.m.procs[name]; p != nil {
		p.plan.role, p.plan.ruled = role, true
	}
}

// spent returns the entries that still count.
func (n *node) spent() []ha.Instant {
	var kept []ha.Instant
	for _, t := range n.hard.Budget {
		if n.m.now.Sub(t) < n.m.man.Node.Budget.Within {
			kept = append(kept, t)
		}
	}
	return kept
}

// pay takes one entry for a failover or reboot that is about to be ordered. A
// failover and the reboot after it are one entry.
func (n *node) pay(p *proc) bool {
	spent := n.spent()
	if len(spent) >= n.m.man.Node.Budget.Limit {
		return false
	}
	n.hard.Budget = append(spent, n.m.now)
	return true
}

// giveBack returns the entry of a failover that was refused and not followed by
// a reboot.
func (n *node) giveBack(paid ha.Instant) {
	if i := slices.Index(n.hard.Budget, paid); i >= 0 {
		n.hard.Budget = slices.Delete(slices.Clone(n.hard.Budget), i, i+1)
	}
}

// exceed ends all monitoring: the budget is used up.
func (n *node) exceed(culprit *proc) {
	b := n.m.man.Node.Budget
	why := because(ruleBudget, "one more reboot or failover would exceed the budget of this node",
		"spent", len(n.spent()), "limit", b.Limit, "within", b.Within, "culprit", culprit.name)
	n.hard.Disabled = true
	n.emit(ha.Event{Code: ha.ExcessiveReboots, Subject: ha.OfNode(), UID: ha.UIDGlobal, Severity: culprit.cfg.Severity, Why: why},
		fmt.Sprintf("%d within %s; the last one was wanted for %s", len(n.spent()), ha.Span(b.Within), culprit.name))
	culprit.emit(disabled(culprit.mem.Cure.Fault), culprit.mem.Cure.Detail, why)
	culprit.handle("give-up", culprit.cfg.Handlers.GiveUp, why)
	culprit.mem.Fell = !culprit.alive()
	if culprit.run.heir {
		culprit.run.expel = why
	}
	n.unwatched()
}

// unwatched ends what recoveries are under way, for a lock or a disabled node.
func (n *node) unwatched() {
	for _, p := range n.m.list {
		unwatched(p)
	}
	n.m.touchAll()
}

// unwatched ends the recovery of one process that is not watched any more: what
// does not run stays so until it is unlocked.
func unwatched(p *proc) {
	if p.mem.Cure.Stage != idle && !p.alive() {
		p.mem.Fell = true
	}
	if p.mem.Cure.Stage != rebooting {
		cancel(p)
	}
}

// quit stops every program; a second one leaves them no grace.
func (n *node) quit(in ha.Quit) {
	n.kill = n.quitting
	n.quitting = true
	if n.quitWhy == "" {
		n.quitWhy = in.Why
	}
	for _, p := range n.m.list {
		p.mem.Done = false
		if p.mem.Cure.Stage != rebooting {
			cancel(p)
		}
		if n.kill && (p.run.phase == stopping || p.run.phase == stuck) {
			n.m.do(ha.Stop{Process: p.name, Start: p.run.start, Kill: true,
				Why: because(ruleQuit, "the end was asked for a second time: no grace", "why", in.Why)})
		}
	}
	n.m.touchAll()
}

// rebooter returns the first process other than p for which a reboot is on its way.
func (n *node) rebooter(p *proc) *proc {
	for _, q := range n.m.list {
		if q != p && q.mem.Cure.Stage == rebooting {
			return q
		}
	}
	return nil
}

// finished says Done when no program is left but those that cannot be killed.
func (n *node) finished() {
	if !n.quitting || n.done {
		return
	}
	var left []string
	for _, p := range n.m.list {
		if len(p.mem.Strays) > 0 && !n.kill {
			return
		}
		switch p.run.phase {
		case absent, seeking:
		case stuck:
			left = append(left, string(p.name))
		default:
			return
		}
	}
	if !n.kill && slices.ContainsFunc(n.m.cluster.groups, (*group).here) && n.m.cluster.yes && len(left) == 0 {
		return
	}
	n.done = true
	for _, p := range n.m.list {
		if p.mem.Done { // an orderly end is a new beginning for what runs once
			p.mem.Done = false
			n.m.touch(p)
		}
	}
	why := because(ruleQuit, "every program has stopped")
	if len(left) > 0 {
		why = because(ruleQuit, "every program has stopped but those that cannot be killed", "left", left)
	}
	n.m.do(ha.Done{Why: why})
}

// keep writes the node's memory down if it changed.
func (n *node) keep() {
	same := n.hard
	same.Boot = n.boot
	var old keptNode
	_ = load(n.m.kept[nodeKey], &old)
	same.At = old.At
	if value := save(same); value == n.m.kept[nodeKey] || n.m.kept[nodeKey] == "" && value == save(keptNode{Boot: n.boot}) {
		return
	}
	n.hard.Boot, n.hard.At = n.boot, n.m.now
	value := save(n.hard)
	n.m.kept[nodeKey] = value
	n.m.do(ha.Keep{Key: nodeKey, Value: value, Sync: true, Why: because(ruleKeep, "the next boot must know this of the node")})
}

// halfDied raises the alarm of the other half, which is being started again by
// the one that lives.
func (n *node) halfDied(in ha.HalfDied) {
	e, stands := n.half(in.Half)
	if stands == nil {
		return
	}
	*stands = true
	e.Code, e.Fault, e.Severity = ha.ExistenceRecovering, ha.FaultExistence, ha.Major
	text := fmt.Sprintf("the %s ended: %v", in.Half, in.Status)
	if in.Hung {
		e.Code, e.Fault = ha.WatchdogRecovering, ha.FaultWatchdog
		text = fmt.Sprintf("the %s did not answer and was killed", in.Half)
	}
	e.Why = because(ruleHalf, text, "status", in.Status, "hung", in.Hung)
	n.emit(e, text)
	e.Code, e.Fault = ha.AttemptRestart, ha.FaultNone
	n.emit(e, "")
}

// halfBack takes that alarm away.
func (n *node) halfBack(in ha.HalfBack) {
	e, stands := n.half(in.Half)
	if stands == nil || !*stands {
		return
	}
	*stands = false
	e.Code, e.Severity = ha.Recovered, ha.OK
	e.Why = because(ruleHalf, fmt.Sprintf("the %s runs again", in.Half), "pid", in.PID)
	n.emit(e, fmt.Sprintf("pid %d", in.PID))
}

func (n *node) half(k ha.Kind) (ha.Event, *bool) {
	switch k {
	case ha.KindShadow:
		return ha.Event{Subject: ha.Subject{Kind: k}, UID: ha.UIDShadow}, &n.hard.Shadow
	case ha.KindMonitor:
		return ha.Event{Subject: ha.Subject{Kind: k}, UID: ha.UIDMonitor}, &n.hard.Monitor
	}
	return ha.Event{}, nil
}
