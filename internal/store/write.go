package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"gemel/internal/ha"
	"gemel/internal/store/etcdpb"
	"google.golang.org/protobuf/proto"
)

// Write carries out one transaction: all of it if every guard holds, else nothing.
// It is sent once. What is neither OK nor Refused has an unknown outcome, also when
// it may never have been sent. The answer has no ID.
func (c *Client) Write(ctx context.Context, w ha.WriteStore) ha.StoreWritten {
	req := &etcdpb.TxnRequest{}
	if w.Epoch != 0 {
		req.Compare = append(req.Compare, c.at(ha.BrainKey, w.Epoch))
	}
	for _, p := range w.Puts {
		if !p.Blind {
			req.Compare = append(req.Compare, c.at(p.Key, p.Guard))
		}
		v, err := value(p)
		if err != nil {
			return ha.StoreWritten{Error: fmt.Sprintf("writing %s: %v", p.Key, err)}
		}
		if v != nil {
			req.Success = append(req.Success, put(c.key(p.Key), v))
		}
	}
	resp, err := c.once(ctx, req)
	if err != nil {
		return ha.StoreWritten{Error: err.Error()}
	}
	if !resp.GetSucceeded() {
		return ha.StoreWritten{Refused: true}
	}
	return ha.StoreWritten{OK: true, At: rev(resp.GetHeader().GetRevision())}
}

// value returns what a key becomes; nil: it is only compared.
func value(p ha.Put) ([]byte, error) {
	switch {
	case p.Node != nil:
		return json.Marshal(p.Node)
	case p.Group != nil:
		return json.Marshal(p.Group)
	case p.Brain != nil:
		return json.Marshal(p.Brain)
	}
	return nil, nil
}

// How a transaction compares: etcd's numbers for "is equal" and "revision of the
// last change".
const isEqual, ofRevision = 0, 2

// at compares the revision of a key. A key that does not exist is at zero.
func (c *pool) at(key string, at ha.Rev) *etcdpb.Compare {
	return &etcdpb.Compare{Result: isEqual, Target: ofRevision, Key: c.key(key), ModRevision: proto.Int64(int64(at))}
}

func put(key, value []byte) *etcdpb.RequestOp {
	return &etcdpb.RequestOp{RequestPut: &etcdpb.PutRequest{Key: key, Value: value}}
}

func remove(key []byte) *etcdpb.RequestOp {
	return &etcdpb.RequestOp{RequestDeleteRange: &etcdpb.DeleteRangeRequest{Key: key}}
}

func whole(key []byte) *etcdpb.RangeRequest { return &etcdpb.RangeRequest{Key: key} }

func below(prefix []byte) *etcdpb.RangeRequest {
	return &etcdpb.RangeRequest{Key: prefix, RangeEnd: past(prefix)}
}

// past returns the first key after all that begin with a prefix.
func past(prefix []byte) []byte {
	out := append([]byte(nil), prefix...)
	out[len(out)-1]++ // a slash
	return out
}

// kvs returns what the n-th range of a transaction found.
func kvs(r *etcdpb.TxnResponse, n int) []*etcdpb.KeyValue {
	if n >= len(r.GetResponses()) {
		return nil
	}
	return r.GetResponses()[n].GetResponseRange().GetKvs()
}

// once sends a transaction that writes, one time, to whom answered last. There is
// no second attempt here: the first one may be committed later than the second,
// and later than whatever was decided by the answer to that. The error is
// ErrUnknown unless it was certainly not sent.
func (c *pool) once(ctx context.Context, req *etcdpb.TxnRequest) (*etcdpb.TxnResponse, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.c.Bound)
		defer cancel()
	}
	e := c.ends[int(c.first.Load())%len(c.ends)]
	l, err := c.fit(ctx, e)
	if err != nil {
		return nil, fmt.Errorf("writing to the store at %s: not sent: %w", e.name, err)
	}
	// Over this connection or not at all: what cannot be sent now is not sent later either.
	resp, err := ask[etcdpb.TxnRequest, etcdpb.TxnResponse](ctx, l, "KV/Txn", req)
	if err != nil {
		return nil, fmt.Errorf("writing to the store at %s: %w: %w", e.name, ErrUnknown, plain(err))
	}
	h := resp.GetHeader()
	if err := c.saw(h.GetClusterId(), h.GetRevision(), 0); err != nil {
		return nil, errors.Join(ErrUnknown, err)
	}
	return resp, nil
}
