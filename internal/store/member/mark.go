package member

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"gemel/internal/store"
	"gemel/internal/store/disk"
)

// A mark says beside a data directory whose data it is and how far it was at
// least. A voter votes by what it remembers: one that came back with less than it
// had acknowledged would help to elect a leader without what was committed, or
// vote twice in one term.
type mark struct {
	// The ids are in hex, as etcd prints them. They are empty from just before the
	// first start of a member until just after it.
	Cluster string `json:"cluster"`
	Member  string `json:"member"`
	Name    string `json:"name"`
	Index   uint64 `json:"index"` // of the log; the data has at least this
	Term    uint64 `json:"term"`
	Rev     int64  `json:"revision"`
	// Odd is why this data cannot be right, as was found out while it served.
	Odd string `json:"odd,omitempty"`
}

func hex(id uint64) string { return strconv.FormatUint(id, 16) }

// readMark returns the mark of a data directory; nil: there is none.
func readMark(dir string) (*mark, error) {
	b, err := os.ReadFile(disk.MarkPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the mark of the store: %w", err)
	}
	var m mark
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%w: the mark %s is damaged: %w", store.ErrForeign, disk.MarkPath(dir), err)
	}
	return &m, nil
}

// write puts the mark in place of the former one, so that a power cut leaves one
// of the two.
func (m mark) write(dir string) (err error) {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("the mark of the store: %w", err)
	}
	path := disk.MarkPath(dir)
	if err := replaceFile(path, append(b, '\n')); err != nil {
		return fmt.Errorf("writing the mark of the store: %w", err)
	}
	return nil
}

func replaceFile(path string, b []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return disk.Sync(filepath.Dir(path))
}

// walDir is where etcd keeps its log below a data directory.
func walDir(dir string) string { return filepath.Join(dir, "member", "wal") }

// logOf reads from etcd's own log whose it is and how far it goes; nil: there is
// no log.
func logOf(dir string) (*mark, error) {
	where := walDir(dir)
	if !wal.Exist(where) {
		return nil, nil
	}
	none := zap.NewNop()
	snaps, err := wal.ValidSnapshotEntries(none, where)
	if err == nil && len(snaps) == 0 {
		err = errors.New("it says no snapshot, not even the first")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: reading the log of the store in %s: %w", store.ErrForeign, where, err)
	}
	snap := snaps[len(snaps)-1]
	w, err := wal.OpenForRead(none, where, snap)
	if err != nil {
		return nil, fmt.Errorf("%w: opening the log of the store in %s: %w", store.ErrForeign, where, err)
	}
	meta, state, entries, err := w.ReadAll()
	_ = w.Close()
	var id etcdserverpb.Metadata
	if err == nil {
		err = proto.Unmarshal(meta, &id)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: reading the log of the store in %s: %w", store.ErrForeign, where, err)
	}
	m := &mark{Cluster: hex(id.GetClusterID()), Member: hex(id.GetNodeID()), Index: snap.GetIndex(), Term: state.GetTerm()}
	if n := len(entries); n > 0 {
		m.Index = max(m.Index, entries[n-1].GetIndex())
	}
	return m, nil
}

// identify decides whether the member may start on its data. fresh says that it
// never did.
func identify(m Member) (fresh bool, err error) {
	is, err := readMark(m.Dir)
	if err != nil {
		return false, err
	}
	has, err := logOf(m.Dir)
	if err != nil {
		return false, err
	}
	switch {
	case has == nil && (is == nil || is.Member == ""):
		return true, nil
	case is != nil && is.Member == "" && is.Name == m.Name:
		return false, nil // its first start was cut off
	case is == nil:
		return false, fmt.Errorf("%w: %s holds data of member %s, and no mark says that it is ours", store.ErrForeign, m.Dir, has.Member)
	case is.Odd != "":
		return false, fmt.Errorf("%w: the data in %s is damaged: %s", store.ErrForeign, m.Dir, is.Odd)
	case has == nil:
		return false, fmt.Errorf("%w: the data of member %s is gone from %s (it was at entry %d)", store.ErrForeign, is.Member, m.Dir, is.Index)
	case is.Name != m.Name:
		return false, fmt.Errorf("%w: %s is of %q and this is %q", store.ErrForeign, m.Dir, is.Name, m.Name)
	case is.Cluster != has.Cluster || is.Member != has.Member:
		return false, fmt.Errorf("%w: %s holds data of member %s of cluster %s, and its mark says member %s of cluster %s",
			store.ErrForeign, m.Dir, has.Member, has.Cluster, is.Member, is.Cluster)
	case has.Index < is.Index || has.Term < is.Term:
		return false, fmt.Errorf("%w: the data in %s is older than it was: entry %d of term %d, its mark says %d of %d",
			store.ErrForeign, m.Dir, has.Index, has.Term, is.Index, is.Term)
	}
	return false, nil
}
