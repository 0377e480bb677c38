package place

import (
	"time"

	"gemel/internal/manifest"
)

// RulesOf returns what the manifest says of a group, as a placement takes it. The
// window of an automatic failback is open or not at now, which is the local time
// of the node that decides: that is the one thing here that a clock changes, so
// the answer is to be asked for anew when a window opens or closes.
//
// It is here, and not in manifest or config, because it is this package that says
// what its rules mean. Failovers, which Limit bounds, are counted by the caller
// within the group's FailoverLimit.Within.
func RulesOf(g manifest.Group, now time.Time) Rules {
	r := Rules{
		Nodes: g.Nodes, LeastGroups: g.Policy == "least-groups",
		Priority: g.Priority, Stickiness: g.Stickiness,
		After: g.After, With: g.With, Apart: g.Apart,
		Failback: g.Automatic(), Open: g.Open(now),
		Level: g.RequireLevel, Limit: g.FailoverLimit.Limit,
	}
	for _, a := range g.Weights {
		r.Weights = append(r.Weights, Amount(a))
	}
	for _, t := range g.Targets {
		r.Targets = append(r.Targets, t.String())
	}
	return r
}
