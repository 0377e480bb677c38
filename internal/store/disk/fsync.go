package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Fsync measures what a write of the store costs on the disk below dir: n appends
// of the size of a small entry, each synced. It takes its file away again.
func Fsync(dir string, n int) (p50, p99 time.Duration, err error) {
	if n < 1 {
		return 0, 0, fmt.Errorf("measuring the disk: %d writes are too few", n)
	}
	f, err := os.OpenFile(filepath.Join(dir, ".fsync"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, 0, fmt.Errorf("measuring the disk: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	// etcd's log is made in advance as well: an append does not move its end.
	entry := make([]byte, 2300)
	if _, err := f.Write(make([]byte, n*len(entry))); err != nil {
		return 0, 0, fmt.Errorf("measuring the disk: %w", err)
	}
	if err := f.Sync(); err != nil {
		return 0, 0, fmt.Errorf("measuring the disk: %w", err)
	}
	took := make([]time.Duration, n)
	for i := range took {
		began := time.Now()
		entry[0] = byte(i)
		if _, err := f.WriteAt(entry, int64(i*len(entry))); err != nil {
			return 0, 0, fmt.Errorf("measuring the disk: %w", err)
		}
		if err := fdatasync(f); err != nil {
			return 0, 0, fmt.Errorf("measuring the disk: %w", err)
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took[n/2], took[min(n-1, n*99/100)], nil
}
