package member

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/etcdutl/v3/snapshot"

	"gemel/internal/store"
	"gemel/internal/store/disk"
)

// bump is how far a restore moves the revisions forward. It must be more than the
// store has gone since the backup: whoever remembers a revision from then must
// find that it is at a later one now, not at the same with other contents.
const bump = 1_000_000_000

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
	unlock, err := disk.Lock(m.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	old, err := readMark(m.Dir)
	if err != nil && !errors.Is(err, store.ErrForeign) {
		return err
	}
	if entries, err := os.ReadDir(m.Dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("restoring the store: %s is not empty; wipe it before", m.Dir)
	}
	conf := snapshot.RestoreConfig{
		SnapshotPath: file, Name: m.Name, OutputDataDir: m.Dir,
		InitialCluster: m.initial(), PeerURLs: []string{store.PeerURL(m.Name)}, InitialClusterToken: m.Token,
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
		return disk.Sync(path) // a file is synced the same way
	})
}
