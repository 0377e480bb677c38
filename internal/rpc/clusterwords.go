package rpc

import (
	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
	"gemel/internal/status"
)

func groupOf(g status.GroupStatus) *gemelv1.GroupStatus {
	out := &gemelv1.GroupStatus{Name: string(g.Name), State: g.State, Reason: clean(g.Reason), Nodes: textsOf(g.Nodes), Run: textsOf(g.Run),
		Standby: textsOf(g.Standby), Node: string(g.Node), Wanted: string(g.Wanted), Locked: g.Locked, Maintenance: wallOf(g.Until), Level: levelOf(g.Level, g.Node != ""), RequireLevel: int32(g.Needs), Next: clean(g.Next)}
	if g.Fence != (ha.Fence{}) {
		out.Fence = g.Fence.String()
	}
	return out
}

// levelOf is an exclusivity level, where there is one and it is known.
func levelOf(n int, is bool) *int32 {
	if !is || n < 0 {
		return nil
	}
	l := int32(n)
	return &l
}

func clusterOf(at scene, c *status.ClusterStatus) *gemelv1.ClusterStatus {
	if c == nil {
		return nil
	}
	out := &gemelv1.ClusterStatus{Id: c.ID, Name: c.Name, Profile: c.Profile, Brain: string(c.Brain), Store: c.Away == 0, StoreAway: at.when(c.Away), Lacks: c.Lacks, Maintenance: wallOf(c.Until)}
	for _, n := range c.Nodes {
		out.Nodes = append(out.Nodes, &gemelv1.MemberStatus{Name: string(n.Name), State: n.State, Witness: n.Witness, Self: n.Self,
			Hears: n.Hears, Misses: n.Misses, Heard: at.when(n.Heard), Groups: textsOf(n.Groups), Drained: n.Drained, Maintenance: wallOf(n.Until),
			Level: levelOf(n.Level, !n.Witness), Lacks: clean(n.Lacks)})
	}
	return out
}
