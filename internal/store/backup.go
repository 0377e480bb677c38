package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
)

// bump is how far a restore moves the revisions forward. It must be more than the
// store has gone since the backup: whoever remembers a revision from then must
// find that it is at a later one now, not at the same with other contents.
const bump = 1_000_000_000

// Backup writes all of the store to w, at one revision, and a hash of it at the
// end. It is what etcd's own tools call a snapshot. w has everything only if there
// is no error.
func (c *Client) Backup(ctx context.Context, w io.Writer) error {
	e := c.ends[int(c.first.Load())%len(c.ends)]
	if _, err := c.fit(ctx, e); err != nil {
		return fmt.Errorf("saving the store: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := etcdserverpb.NewMaintenanceClient(e.conn).Snapshot(ctx, &etcdserverpb.SnapshotRequest{})
	if err != nil {
		return fmt.Errorf("saving the store: %w", plain(err))
	}
	t := &tail{to: w, sum: sha256.New()}
	for {
		part, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("saving the store: %w", plain(err))
		}
		if _, err := t.Write(part.GetBlob()); err != nil {
			return fmt.Errorf("saving the store: %w", err)
		}
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

// Restore makes the data of a member from a backup, for a cluster that nobody has
// been in before: m.Token must be new. m.Cluster is who will be in it; each of them
// is restored from the same file, or, better, one alone, which adds the others.
// Revisions go on above all that were, and none from before can be read or watched.
// There must be no data: Wipe takes it away.
func Restore(file string, m Member, log *slog.Logger) error {
	m, err := m.checked()
	if err != nil {
		return err
	}
	unlock, err := lock(m.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	old, err := readMark(m.Dir)
	if err != nil && !errors.Is(err, ErrForeign) {
		return err
	}
	if entries, err := os.ReadDir(m.Dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("restoring the store: %s is not empty; wipe it before", m.Dir)
	}
	conf := snapshot.RestoreConfig{
		SnapshotPath: file, Name: m.Name, OutputDataDir: m.Dir,
		InitialCluster: m.initial(), PeerURLs: []string{peerURL(m.Name)}, InitialClusterToken: m.Token,
		RevisionBump: bump, MarkCompacted: true,
	}
	if err := snapshot.NewV3(zapTo(log)).Restore(conf); err != nil {
		return errors.Join(fmt.Errorf("restoring the store from %s: %w", file, err), os.RemoveAll(m.Dir))
	}
	is, err := logOf(m.Dir)
	if err == nil && is == nil {
		err = errors.New("it has no log")
	}
	if err == nil && old != nil && old.Cluster == is.Cluster {
		err = fmt.Errorf("its cluster would have the same id (%s) as before; give it another token", is.Cluster)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("restoring the store from %s: %w", file, err), os.RemoveAll(m.Dir))
	}
	if err := syncTree(m.Dir); err != nil {
		return fmt.Errorf("restoring the store: %w", err)
	}
	is.Name = m.Name
	return is.write(m.Dir)
}

// syncTree puts all files of a directory on the disk, and their names.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncDir(path) // a file is synced the same way
	})
}
