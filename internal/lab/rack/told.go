package rack

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/clock"
	"gemel/internal/rpc"
)

// Snapshot is what a node says of itself and of its cluster.
func (n *Node) Snapshot() (*gemelv1.Snapshot, error) {
	c, err := rpc.Dial(n.Path("run/api.sock"))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	a, err := c.Status(ctx, &gemelv1.StatusRequest{})
	if err != nil {
		return nil, fmt.Errorf("asking node %s for its status: %w", n.Name, err)
	}
	return a.GetSnapshot(), nil
}

// Whole waits until every node has both halves, is answered by the store, and sees
// every node that may run the group as a member that it hears on all networks. It is
// the state from which a fault is a single one.
func (r *Rack) Whole(bound time.Duration) error {
	for end := clock.Now().Add(bound); ; time.Sleep(20 * time.Millisecond) {
		var missing []string
		for _, n := range r.nodes {
			if s := lacks(n); s != "" {
				missing = append(missing, string(n.Name)+": "+s)
			}
		}
		if len(missing) == 0 {
			return nil
		}
		if clock.Now() > end {
			return errors.New("the cluster did not become whole within " + bound.String() + ":\n" + strings.Join(missing, "\n"))
		}
	}
}

// lacks says what is not as Whole wants it; empty: nothing.
func lacks(n *Node) string {
	s, err := n.Snapshot()
	if err != nil {
		return err.Error()
	}
	c := s.GetCluster()
	switch {
	case s.GetNode().GetShadow() == 0:
		return "it has no shadow"
	case !c.GetStore():
		return "the store does not answer it"
	}
	for _, m := range c.GetNodes() {
		if !n.Witness && !m.GetWitness() && m.GetState() != "member" {
			return fmt.Sprintf("%s is %s for it", m.GetName(), m.GetState())
		}
		if !m.GetSelf() && len(m.GetHears()) < 2 {
			return fmt.Sprintf("it hears %s on %q only", m.GetName(), m.GetHears())
		}
	}
	return ""
}
