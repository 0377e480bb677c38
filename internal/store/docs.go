package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"gemel/internal/ha"
	"gemel/internal/store/etcdpb"
)

const (
	docsPrefix = "docs/"
	// docLimit bounds what one transaction writes. It is below the limit of an etcd
	// that nobody has set up for us, 1.5 MiB.
	docLimit = 1400 << 10
	// docShare of the store is for documents. When it is full the brain must be able
	// to write: a store without room takes nothing at all.
	docShare = 2
)

// A Doc is a value that the machines of a cluster do not decide by: a manifest, a
// setting.
type Doc struct {
	Key string
	// Rev is the revision of the key: that it has, or when it is written, that it
	// must have. Zero: there is no such key.
	Rev ha.Rev
	// Value is what it says; nil in a write: take it away.
	Value []byte
}

// Doc reads a document. One that is not there has no revision.
func (c *Client) Doc(ctx context.Context, key string) (Doc, error) {
	resp, err := c.scan(ctx, whole(c.key(docsPrefix+key)))
	if err != nil {
		return Doc{}, fmt.Errorf("reading %s: %w", key, err)
	}
	for _, kv := range kvs(resp, 0) {
		return Doc{Key: key, Rev: rev(kv.GetModRevision()), Value: kv.GetValue()}, nil
	}
	return Doc{Key: key}, nil
}

// Docs reads all documents whose keys begin with prefix, sorted by key, at one
// revision, which it returns. The empty prefix is all of them.
func (c *Client) Docs(ctx context.Context, prefix string) ([]Doc, ha.Rev, error) {
	resp, err := c.scan(ctx, below(c.key(docsPrefix+prefix)))
	if err != nil {
		return nil, 0, fmt.Errorf("reading the documents below %s: %w", prefix, err)
	}
	var out []Doc
	for _, kv := range kvs(resp, 0) {
		key := strings.TrimPrefix(c.name(kv), docsPrefix)
		out = append(out, Doc{Key: key, Rev: rev(kv.GetModRevision()), Value: kv.GetValue()})
	}
	return out, rev(resp.GetHeader().GetRevision()), nil
}

// PutDoc writes one document, if its key has the revision guard.
func (c *Client) PutDoc(ctx context.Context, key string, guard ha.Rev, value []byte) (ha.Rev, error) {
	if value == nil {
		value = []byte{}
	}
	return c.PutDocs(ctx, Doc{Key: key, Rev: guard, Value: value})
}

// PutDocs writes documents in one transaction: all if each key has the revision
// that is told of it, else none. The error is ErrRefused if it certainly is not
// written, and ErrUnknown if nobody knows.
func (c *Client) PutDocs(ctx context.Context, docs ...Doc) (ha.Rev, error) {
	req := &etcdpb.TxnRequest{}
	size, grows := 0, false
	for _, d := range docs {
		if d.Key == "" {
			return 0, fmt.Errorf("%w: a document without a key", ErrRefused)
		}
		k := c.key(docsPrefix + d.Key)
		req.Compare = append(req.Compare, c.at(docsPrefix+d.Key, d.Rev))
		if d.Value == nil {
			req.Success = append(req.Success, remove(k))
			continue
		}
		grows = true
		size += len(k) + len(d.Value)
		req.Success = append(req.Success, put(k, d.Value))
	}
	if size > docLimit {
		return 0, fmt.Errorf("%w: %s is too large: %d bytes, at most %d are taken", ErrRefused, docs[0].Key, size, docLimit)
	}
	if grows {
		if err := c.room(ctx, size); err != nil {
			return 0, fmt.Errorf("writing %s: %w", docs[0].Key, err)
		}
	}
	resp, err := c.once(ctx, req)
	if err != nil {
		if !errors.Is(err, ErrUnknown) {
			err = fmt.Errorf("%w: %w", ErrRefused, err)
		}
		return 0, err
	}
	if !resp.GetSucceeded() {
		return 0, fmt.Errorf("%w: somebody else has changed %s meanwhile", ErrRefused, docs[0].Key)
	}
	return rev(resp.GetHeader().GetRevision()), nil
}

// room refuses a document that would take the brain's place.
func (c *pool) room(ctx context.Context, size int) error {
	s, err := repeat(ctx, c, func(ctx context.Context, e *end) (*etcdpb.StatusResponse, error) {
		l, err := c.fit(ctx, e)
		if err != nil {
			return nil, err
		}
		s, err := ask[etcdpb.StatusRequest, etcdpb.StatusResponse](ctx, l, "Maintenance/Status", &etcdpb.StatusRequest{})
		return s, plain(err)
	})
	if err != nil {
		return fmt.Errorf("%w: asking how full the store is: %w", ErrRefused, err)
	}
	all := s.GetDbSizeQuota()
	if all == 0 {
		all = Quota
	}
	if used := s.GetDbSizeInUse(); used+int64(size) > all/docShare {
		return fmt.Errorf("%w: the store holds %d KiB of %d, and documents may fill 1/%d of it; take old ones away, or wait some minutes until the store has forgotten those that were",
			ErrRefused, used>>10, all>>10, docShare)
	}
	return nil
}
