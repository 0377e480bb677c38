package engine

import (
	"context"
	"time"

	"gemel/internal/decide/ladder"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/status"
)

// picture is what is known for the next Snapshot besides the core's own view.
type picture struct {
	node     status.NodeStatus
	notes    []string
	running  map[ha.Process]running
	revision uint64
	usage    map[ha.Process]status.Usage // as measured last
	asked    uint64                      // requests so far
	stale    bool                        // something changed since the last publication
	at       ha.Instant
}

// running is the start of a process that runs.
type running struct {
	start ha.StartID
	pid   int
}

func newPicture(node status.NodeStatus) picture {
	return picture{node: node, running: make(map[ha.Process]running), stale: true}
}

// publish draws the picture anew if it changed.
func (e *Engine) publish(force bool) {
	p := &e.picture
	if !p.stale && !force {
		return
	}
	p.stale = false
	p.revision++
	now := e.s.Clock.Now()
	p.at = now
	view := e.machine.Node()
	node := p.node
	node.Role = view.Role
	node.Admin, node.Op = admin(view.Locked), op(view.Disabled)
	node.Budget, node.BudgetMax = view.Budget, e.manifest.Node.Budget.Limit
	node.Stopping = view.Stopping
	node.Manifest, node.Digest = e.source.name, e.manifest.Digest
	node.Notes = p.notes
	e.s.Board.Publish(&status.Snapshot{
		Revision: p.revision, At: now, Wall: time.Now(), Node: node,
		Processes: e.processes(), Checks: e.checks(),
		Alarms: append([]ha.Event(nil), e.alarms.standing...),
	})
}

func (e *Engine) processes() []status.ProcessStatus {
	views := e.machine.Processes()
	out := make([]status.ProcessStatus, 0, len(views))
	groups := make(map[ha.Process]string)
	for _, g := range e.manifest.Groups {
		for _, p := range g.Run {
			groups[p] = string(g.Name)
		}
	}
	for _, v := range views {
		p, _ := e.manifest.Process(v.Name)
		s := processStatus(v, p)
		s.Group = groups[v.Name]
		s.Threads, s.Status = e.s.Edges.Beating(v.Name)
		if v.PID != 0 {
			s.Usage = e.picture.usage[v.Name]
		}
		out = append(out, s)
	}
	return out
}

func processStatus(v ladder.View, p manifest.Process) status.ProcessStatus {
	return status.ProcessStatus{
		Name: v.Name, UID: p.UID, Line: p.Line(), State: string(v.State), Reason: v.Reason,
		Admin: admin(v.Locked), Op: op(v.Disabled), Severity: p.Severity,
		Recovery: v.Recovery, Escalation: v.Escalation, Overlay: v.Overlay,
		Start: v.Start, PID: v.PID, Since: v.Since, Started: v.Started,
		Starts: v.Starts, Window: v.Window, Limit: p.Restarts.Limit, Last: v.Last,
	}
}

func (e *Engine) checks() []status.CheckStatus {
	views := e.machine.Checks()
	out := make([]status.CheckStatus, 0, len(views))
	for _, v := range views {
		c, _ := e.manifest.Check(v.Name)
		out = append(out, status.CheckStatus{
			Name: v.Name, UID: c.UID, Line: c.Line(), Admin: admin(v.Locked), Op: op(v.Disabled),
			State: string(v.State), Failures: v.Failures, Limit: c.Failures, Last: v.Last,
			Detail: v.Detail, Covers: c.Covers,
		})
	}
	return out
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

// Used puts measured use into the picture, which is published before Used
// returns.
func (e *Engine) Used(ctx context.Context, use map[ha.Process]status.Usage) error {
	e.inbox.put(item{do: func() ha.Input {
		e.picture.usage = use
		e.publish(true)
		return nil
	}})
	return e.Turn(ctx)
}
