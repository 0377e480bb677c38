package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"connectrpc.com/connect"

	"gemel/internal/store/etcdpb"
)

// Backup writes all of the store to w, at one revision, and a hash of it at the
// end. It is what etcd's own tools call a snapshot. w has everything only if there
// is no error.
func (c *Client) Backup(ctx context.Context, w io.Writer) error {
	e := c.ends[int(c.first.Load())%len(c.ends)]
	l, err := c.fit(ctx, e)
	if err != nil {
		return fmt.Errorf("saving the store: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ask := connect.NewRequest(&etcdpb.SnapshotRequest{})
	l.sign(ask.Header())
	s, err := client[etcdpb.SnapshotRequest, etcdpb.SnapshotResponse](l, "Maintenance/Snapshot").CallServerStream(ctx, ask)
	if err != nil {
		return fmt.Errorf("saving the store: %w", plain(err))
	}
	defer func() { cancel(); _ = s.Close() }()
	t := &tail{to: w, sum: sha256.New()}
	for s.Receive() {
		if _, err := t.Write(s.Msg().GetBlob()); err != nil {
			return fmt.Errorf("saving the store: %w", err)
		}
	}
	if err := s.Err(); denied.is(err) {
		return fmt.Errorf("saving the store: %w: only its user root may copy all of an etcd that has users: etcdctl snapshot save FILE, as root", ErrRefused)
	} else if err != nil {
		return fmt.Errorf("saving the store: %w", plain(err))
	}
	if err := t.end(); err != nil {
		return fmt.Errorf("saving the store: %w", err)
	}
	return nil
}

// A tail passes on what is written and sums up all but the last 32 bytes, which
// are the sum.
type tail struct {
	to   io.Writer
	sum  hash.Hash
	last []byte
}

func (t *tail) Write(b []byte) (int, error) {
	if n, err := t.to.Write(b); err != nil {
		return n, err
	}
	t.last = append(t.last, b...)
	if over := len(t.last) - sha256.Size; over > 0 {
		t.sum.Write(t.last[:over]) // a hash never fails
		t.last = append(t.last[:0], t.last[over:]...)
	}
	return len(b), nil
}

func (t *tail) end() error {
	if len(t.last) != sha256.Size || !bytes.Equal(t.sum.Sum(nil), t.last) {
		return errors.New("what has arrived is not whole: its hash is another one")
	}
	return nil
}
