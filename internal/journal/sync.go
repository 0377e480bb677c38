package journal

import (
	"errors"
	"fmt"
)

// Sync returns when all that was written is on the disk. If the disk refused
// writes before, it tries them again.
func (j *Journal) Sync() error {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	for range 4 {
		again, err := j.syncOnce()
		if !again {
			if err == nil {
				j.prune()
			}
			return err
		}
	}
	return fmt.Errorf("syncing the journal: %w", errors.Join(errors.New("each new segment failed as well"), j.Trouble()))
}

// syncOnce syncs the segment; again says that there is a new one since, which is
// to be synced as well.
func (j *Journal) syncOnce() (again bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return false, nil
	}
	at, wall := j.o.Now()
	if err := j.catchUp(at, wall, true); err != nil {
		return false, err
	}
	cur, n := j.cur, len(j.held.unsynced)
	if n == 0 && !cur.fresh {
		return false, nil
	}
	j.mu.Unlock()
	err = cur.Sync()
	if err == nil && cur.fresh {
		err = j.o.disk.SyncDir(j.o.Dir)
	}
	j.mu.Lock()
	if j.cur.file != cur.file {
		return true, nil // given up by a write in between
	}
	if err != nil {
		if err := j.giveUp(fmt.Errorf("syncing the journal: %w", err), at, wall); err != nil {
			return false, err
		}
		return true, nil
	}
	j.cur.fresh = false
	j.held.unsynced = append([]byte(nil), j.held.unsynced[n:]...)
	if j.cur.off-j.cur.base < j.o.Segment {
		return false, nil
	}
	return j.rotate()
}

// rotate goes on in a new segment. Records that came during the fsync are synced
// first, with mu held: they are few.
func (j *Journal) rotate() (again bool, err error) {
	at, wall := j.o.Now()
	if len(j.held.unsynced) > 0 {
		if err := j.cur.Sync(); err != nil {
			if err := j.giveUp(fmt.Errorf("syncing the journal: %w", err), at, wall); err != nil {
				return false, err
			}
			return true, nil
		}
		j.held.unsynced = nil
	}
	if err := j.begin(at, wall); err != nil {
		// The records are safe where they are: this segment grows on.
		j.o.Log.Warn("the journal's segment is full and a new one cannot be made", "error", err)
		return false, nil
	}
	return true, nil
}

// prune deletes the oldest segments so that, with the present one full, the
// journal is within its limit.
func (j *Journal) prune() {
	j.mu.Lock()
	total := max(j.cur.off, j.cur.base+j.o.Segment)
	for _, s := range j.old {
		total += s.size
	}
	var gone []segment
	for len(j.old) > 0 && total > j.o.Limit {
		total -= j.old[0].size
		gone = append(gone, j.old[0])
		j.old = j.old[1:]
	}
	j.mu.Unlock()
	for _, s := range gone {
		if err := j.o.disk.Remove(s.path); err != nil {
			j.o.Log.Warn("deleting an old segment of the journal", "path", s.path, "error", err)
		}
	}
}
