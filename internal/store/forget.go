package store

import (
	"context"
	"errors"
	"fmt"

	"gemel/internal/ha"
	"gemel/internal/store/etcdpb"
)

// Forget takes away all that a brain decides by: who is a member, what was granted to
// whom, and who decides. It is for a store that was restored, before anybody decides by
// it: what it says of them is of an era that is over. Documents stay.
func (c *Client) Forget(ctx context.Context) error {
	all := c.Read(ctx)
	if all.Error != "" {
		return errors.New(all.Error)
	}
	keys := []string{ha.BrainKey}
	for _, n := range all.Nodes {
		keys = append(keys, ha.NodeKey(n.Node))
	}
	for _, g := range all.Groups {
		keys = append(keys, ha.GroupKey(g.Group))
	}
	req := &etcdpb.TxnRequest{}
	for _, k := range keys {
		req.Success = append(req.Success, remove(c.key(k)))
	}
	if _, err := c.once(ctx, req); err != nil {
		return fmt.Errorf("forgetting the members of a former era: %w", err)
	}
	return nil
}
