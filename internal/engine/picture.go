package engine

import (
	"context"
	"slices"
	"time"

	"gemel/internal/decide/ladder"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/status"
)

// spacing is the least time between two pictures that nobody asked for: a
// thousand exits at once are not a thousand pictures of a thousand programs. Where
// a picture takes long it is share times what the last one took.
const (
	spacing = 50 * time.Millisecond
	share   = 40
)

// picture is what is known for the next Snapshot besides the core's own view.
type picture struct {
	node     status.NodeStatus
	revision uint64
	usage    map[ha.Process]status.Usage // as measured last
	stale    bool                        // something changed since the last one was drawn
	drawn    ha.Instant
	took     time.Duration // to draw the last one

	of    *manifest.Manifest // what fixed is from
	fixed map[ha.Process]fixed
}

// fixed is what of a process in the picture is the same until the manifest is
// another.
type fixed struct {
	uid      ha.UID
	line     string
	severity ha.Severity
	limit    int
	group    string
	ready    bool // it has a condition of readiness
}

func newPicture(node status.NodeStatus) picture { return picture{node: node, stale: true} }

// rampUp is the core's word for a program that runs and was not judged yet.
const rampUp ladder.State = "ramp-up"

// Sight is what is measured only when somebody looks.
type Sight struct {
	Usage   map[ha.Process]status.Usage // nil: what was measured last still holds
	Differs bool                        // the manifest's file holds another one than the one in force
}

// Look takes what was measured for somebody who looks. When it returns, the
// board shows it and everything that the loop had been told before.
func (e *Engine) Look(ctx context.Context, s Sight) error {
	return e.visit(ctx, func() {
		p := &e.loop.picture
		if s.Usage != nil {
			p.usage, p.stale = s.Usage, true
		}
		if s.Differs != p.node.Differs {
			p.node.Differs, p.stale = s.Differs, true
		}
		if p.stale || e.loop.s.Booted.Cluster { // who is heard changes all the time
			e.loop.draw()
		}
	})
}

// show draws the picture anew if it changed, and returns how long to wait if that
// is not due yet; zero: there is nothing to draw.
func (l *loop) show() (wait time.Duration) {
	p := &l.picture
	if !p.stale {
		return 0
	}
	if wait = p.drawn.Add(max(spacing, share*p.took)).Sub(l.s.Clock.Now()); wait > 0 {
		return wait
	}
	l.draw()
	return 0
}

// draw publishes the picture as it is now.
func (l *loop) draw() {
	p := &l.picture
	p.stale = false
	p.revision++
	p.drawn = l.s.Clock.Now()
	m := l.force.manifest
	view := l.machine.Node()
	node := p.node
	node.Role = view.Role
	node.Admin, node.Op = admin(view.Locked), op(view.Disabled)
	node.Budget, node.BudgetMax = view.Budget, m.Node.Budget.Limit
	node.Stopping, node.Lock = view.Stopping, status.Lock(view.Lock)
	node.Manifest, node.Digest = l.force.name, m.Digest
	shot := &status.Snapshot{
		Revision: p.revision, At: p.drawn, Wall: time.Now(), Node: node,
		Processes: p.processes(m, l.machine.Processes()), Checks: checks(m, l.machine.Checks()),
		Alarms: slices.Clone(l.teller.alarms.standing),
	}
	shot.Cluster = l.s.Edges.Cluster()
	shot.Groups = groups(m, ha.Node(node.Name), shot.Cluster, l.machine.Groups())
	for i := range shot.Processes {
		s := &shot.Processes[i]
		s.Threads, s.Status = l.s.Edges.Beating(s.Name)
		if s.PID != 0 {
			s.Usage = p.usage[s.Name]
		}
		// What this monitor found running has run since its start, not since a monitor
		// was replaced.
		if a, ok := l.programs.adopted[s.Name]; ok && a.start == s.Start && a.at == s.Since {
			s.Since = s.Started
		}
	}
	p.took = l.s.Clock.Now().Sub(p.drawn)
	l.s.Board.Publish(shot)
}

func (p *picture) fix(m *manifest.Manifest) {
	if p.of == m {
		return
	}
	p.of, p.fixed = m, make(map[ha.Process]fixed, len(m.Processes))
	groups := make(map[ha.Process]string)
	for _, g := range m.Groups {
		for _, name := range g.Run {
			groups[name] = string(g.Name)
		}
	}
	for i := range m.Processes {
		c := &m.Processes[i]
		p.fixed[c.Name] = fixed{c.UID, c.Line(), c.Severity, c.Restarts.Limit, groups[c.Name],
			c.Ready.Kind != manifest.ReadyStarted}
	}
}

func (p *picture) processes(m *manifest.Manifest, views []ladder.View) []status.ProcessStatus {
	p.fix(m)
	out := make([]status.ProcessStatus, len(views))
	for i := range views {
		v, f := &views[i], p.fixed[views[i].Name]
		out[i] = status.ProcessStatus{
			Name: v.Name, UID: f.uid, Line: f.line, State: string(v.State), Reason: v.Reason,
			Admin: admin(v.Locked), Op: op(v.Disabled), Severity: f.severity,
			Recovery: v.Recovery, Escalation: v.Escalation, Overlay: v.Overlay,
			Start: v.Start, PID: v.PID, Since: v.Since, Started: v.Started,
			Starts: v.Starts, Window: v.Window, Limit: f.limit, Last: v.Last,
			Group: f.group, Unready: f.ready && v.State == rampUp, Lock: status.Lock(v.Lock),
			RecoveryBy: status.Lock(v.RecoveryBy), EscalationBy: status.Lock(v.EscalationBy),
		}
	}
	return out
}

func checks(m *manifest.Manifest, views []ladder.CheckView) []status.CheckStatus {
	out := make([]status.CheckStatus, 0, len(views))
	for _, v := range views {
		c, _ := m.Check(v.Name)
		out = append(out, status.CheckStatus{
			Name: v.Name, UID: c.UID, Line: c.Line(), Admin: admin(v.Locked), Op: op(v.Disabled),
			State: string(v.State), Failures: v.Failures, Limit: c.Failures, Last: v.Last,
			Detail: v.Detail, Covers: c.Covers, Lock: status.Lock(v.Lock),
		})
	}
	return out
}

// groups are what they are here: on a machine of no cluster they wait for one.
func groups(m *manifest.Manifest, me ha.Node, c *status.ClusterStatus, here []ladder.GroupView) []status.GroupStatus {
	out := make([]status.GroupStatus, 0, len(m.Groups))
	for _, g := range m.Groups {
		s := status.GroupStatus{State: "waiting", Nodes: g.Nodes, Run: g.Run, Standby: g.Standby}
		s.Name, s.Reason = g.Name, g.Waiting()
		if c != nil {
			s = clustered(s, me, c, here)
		}
		out = append(out, s)
	}
	return out
}

// clustered says where a group of a cluster is, and what of it is here.
func clustered(s status.GroupStatus, me ha.Node, c *status.ClusterStatus, here []ladder.GroupView) status.GroupStatus {
	if i := slices.IndexFunc(c.Groups, func(p status.Placed) bool { return p.Name == s.Name }); i >= 0 {
		s.Placed = c.Groups[i]
	}
	if i := slices.IndexFunc(here, func(v ladder.GroupView) bool { return v.Name == s.Name }); i >= 0 && here[i].State != "" {
		s.State, s.Reason = here[i].State, here[i].Reason
		return s
	}
	mine := len(s.Nodes) == 0 || slices.Contains(s.Nodes, me)
	switch {
	case s.Node == me && c.Away != 0:
		s.State, s.Reason = "stopped", "this node's authority has ended: the store does not answer; another node may run it now"
	case s.Node == me:
		s.State, s.Reason = "starting", "it was just granted to this node"
	case s.Node == "":
		s.State = "unplaced"
	case mine:
		s.State = "standby"
	default:
		s.State = "elsewhere"
	}
	return s
}

func admin(locked bool) status.Admin {
	if locked {
		return status.Locked
	}
	return status.Unlocked
}

func op(disabled bool) status.Op {
	if disabled {
		return status.Disabled
	}
	return status.Enabled
}
