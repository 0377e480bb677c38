package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"gemel/internal/ha"
	"gemel/internal/store/etcdpb"
)

const (
	nodesPrefix  = "nodes/"
	groupsPrefix = "groups/"
)

// breath is how long after a failed attempt the next one begins at the earliest.
const breath = 5 * time.Millisecond

// Node reads the key of a node, linearizably: what it says was so at some instant
// between call and return. Whoever takes authority from it counts from before the
// call. The answer has no ID.
func (c *Client) Node(ctx context.Context, n ha.Node) ha.NodeRead {
	resp, err := c.scan(ctx, whole(c.key(ha.NodeKey(n))))
	if err != nil {
		return ha.NodeRead{Error: fmt.Sprintf("reading node %s: %v", n, err)}
	}
	out := ha.NodeRead{At: rev(resp.GetHeader().GetRevision())}
	for _, kv := range kvs(resp, 0) {
		rec, err := c.node(kv)
		if err != nil {
			return ha.NodeRead{Error: err.Error()}
		}
		out.Key, out.Record = rec.Key, rec.NodeRecord
	}
	return out
}

// Read reads all that a brain decides by, linearizably and at one revision. The
// answer has no ID.
func (c *Client) Read(ctx context.Context) ha.StoreRead {
	resp, err := c.scan(ctx, whole(c.key(ha.BrainKey)), below(c.key(nodesPrefix)), below(c.key(groupsPrefix)))
	if err != nil {
		return ha.StoreRead{Error: fmt.Sprintf("reading the store: %v", err)}
	}
	out := ha.StoreRead{At: rev(resp.GetHeader().GetRevision())}
	for _, kv := range kvs(resp, 0) {
		if err := c.decode(kv, &out.Brain); err != nil {
			return ha.StoreRead{Error: err.Error()}
		}
		out.Epoch = rev(kv.GetModRevision())
	}
	for _, kv := range kvs(resp, 1) {
		rec, err := c.node(kv)
		if err != nil {
			return ha.StoreRead{Error: err.Error()}
		}
		out.Nodes = append(out.Nodes, rec)
	}
	for _, kv := range kvs(resp, 2) {
		rec := ha.KeyedGroup{Key: rev(kv.GetModRevision())}
		if err := c.decode(kv, &rec.GroupRecord); err != nil {
			return ha.StoreRead{Error: err.Error()}
		}
		if c.name(kv) != ha.GroupKey(rec.Group) {
			return ha.StoreRead{Error: fmt.Sprintf("key %s of the store holds the record of group %q", kv.GetKey(), rec.Group)}
		}
		out.Groups = append(out.Groups, rec)
	}
	return out
}

// node reads a record that stands under its own name: one that was copied to
// another key would be somebody else's authority.
func (c *pool) node(kv *etcdpb.KeyValue) (ha.KeyedNode, error) {
	rec := ha.KeyedNode{Key: rev(kv.GetModRevision())}
	if err := c.decode(kv, &rec.NodeRecord); err != nil {
		return ha.KeyedNode{}, err
	}
	if c.name(kv) != ha.NodeKey(rec.Node) {
		return ha.KeyedNode{}, fmt.Errorf("key %s of the store holds the record of node %q", kv.GetKey(), rec.Node)
	}
	return rec, nil
}

func (c *pool) decode(kv *etcdpb.KeyValue, to any) error {
	if err := json.Unmarshal(kv.GetValue(), to); err != nil {
		return fmt.Errorf("key %s of the store: %w", kv.GetKey(), err)
	}
	return nil
}

func (c *pool) name(kv *etcdpb.KeyValue) string {
	return strings.TrimPrefix(string(kv.GetKey()), c.c.Prefix)
}

// scan reads ranges at one revision.
func (c *pool) scan(ctx context.Context, ranges ...*etcdpb.RangeRequest) (*etcdpb.TxnResponse, error) {
	req := &etcdpb.TxnRequest{}
	for _, r := range ranges {
		req.Success = append(req.Success, &etcdpb.RequestOp{RequestRange: r})
	}
	return repeat(ctx, c, func(ctx context.Context, e *end) (*etcdpb.TxnResponse, error) {
		l, err := c.fit(ctx, e)
		if err != nil {
			return nil, err
		}
		floor := c.high.Load()
		resp, err := ask[etcdpb.TxnRequest, etcdpb.TxnResponse](ctx, l, "KV/Txn", req)
		if err != nil {
			return nil, plain(err)
		}
		h := resp.GetHeader()
		return resp, c.saw(h.GetClusterId(), h.GetRevision(), floor)
	})
}

// repeat makes attempts until one succeeds or ctx ends, the next one at another
// end if there are several, also while one is on its way. Only what may be done
// twice is done by it. Attempts that are late end after it, by their own bound.
func repeat[T any](ctx context.Context, c *pool, try func(context.Context, *end) (T, error)) (T, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		v   T
		err error
		by  int32
	}
	results := make(chan result)
	at, running := c.first.Load(), 0
	tries := 0
	start := func() {
		by := at % int32(len(c.ends))
		// Two of each length, twice as long each time: a store on a machine that is
		// short of time would never be quick enough.
		bound := c.c.Attempt << min(tries/(2*len(c.ends)), 4)
		tries++
		at++
		running++
		go func() {
			once, stop := context.WithTimeout(ctx, bound)
			defer stop()
			v, err := try(once, c.ends[by])
			select {
			case results <- result{v, err, by}:
			case <-ctx.Done():
			}
		}()
	}
	start()
	next := time.NewTimer(c.c.Hedge)
	defer next.Stop()
	var none T
	var last error
	for {
		select {
		case <-ctx.Done():
			if last == nil {
				last = errors.New("no answer in time")
			}
			return none, fmt.Errorf("%s: %w", c.ends[0].name, last)
		case r := <-results:
			running--
			if r.err == nil {
				c.first.Store(r.by)
				return r.v, nil
			}
			last = r.err
			if errors.Is(last, errClosed) || len(c.ends) == 1 && (errors.Is(last, ErrForeign) || errors.Is(last, ErrVersion)) {
				return none, fmt.Errorf("%s: %w", c.ends[0].name, last)
			}
			if running == 0 {
				next.Reset(breath)
			}
		case <-next.C:
			if running < len(c.ends) {
				start()
				next.Reset(c.c.Hedge)
			}
		}
	}
}
