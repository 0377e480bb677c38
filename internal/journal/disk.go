package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const suffix = ".journal"

// file is a segment that is being written.
type file interface {
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error
}

// disk is where segments are made; tests give one that fails on demand.
type disk interface {
	// Create makes a segment that must not be there yet.
	Create(path string) (file, error)
	// Reopen opens a segment to go on writing it.
	Reopen(path string) (file, error)
	SyncDir(dir string) error
	Remove(path string) error
}

type realDisk struct{}

func (realDisk) Create(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return realFile{f}, nil
}

func (realDisk) Reopen(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	return realFile{f}, nil
}

func (realDisk) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (realDisk) Remove(path string) error { return os.Remove(path) }

type realFile struct{ *os.File }

// Sync is fdatasync: the size of a file that grew is synced with it.
func (f realFile) Sync() error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := c.Control(func(fd uintptr) {
		for {
			if serr = unix.Fdatasync(int(fd)); serr != unix.EINTR {
				return
			}
		}
	}); err != nil {
		return err
	}
	return os.NewSyscallError("fdatasync", serr)
}

// lock takes the one writer's lock: it is on the directory itself, so that it
// needs no file of its own on a disk that is full or read-only.
func lock(dir string) (*os.File, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the journal: %w", err)
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		d.Close()
		if err == unix.EWOULDBLOCK {
			return nil, fmt.Errorf("the journal %s is being written by another gemel; "+
				"stop that one, or give this one a directory of its own with --data-dir", dir)
		}
		return nil, fmt.Errorf("locking the journal %s: %w", dir, err)
	}
	return d, nil
}

// A segment is one file of the journal.
type segment struct {
	first uint64 // number of its base record
	path  string
	size  int64
}

func segmentPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%020d%s", first, suffix))
}

// segments lists the segments of a journal, oldest first. What is no file of
// ours is left out; a name of ours that is no file is told in odd.
func segments(dir string) (list []segment, odd []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("listing the journal: %w", err)
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok {
			continue
		}
		first, err := strconv.ParseUint(name, 10, 64)
		if err != nil || len(name) != 20 {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted for the size bound while we looked
		}
		if err != nil || !info.Mode().IsRegular() {
			odd = append(odd, fmt.Sprintf("%s is not a regular file", e.Name()))
			continue
		}
		list = append(list, segment{first, filepath.Join(dir, e.Name()), info.Size()})
	}
	slices.SortFunc(list, func(a, b segment) int {
		if a.first < b.first {
			return -1
		}
		return 1
	})
	return list, odd, nil
}

// create makes a segment's file under the first number that is free: something
// else may stand in place of a segment.
func create(d disk, dir string, from uint64) (seq uint64, path string, f file, err error) {
	for seq = from; seq < from+100; seq++ {
		path = segmentPath(dir, seq)
		if f, err = d.Create(path); !errors.Is(err, os.ErrExist) {
			break
		}
	}
	return seq, path, f, err
}
