// Package secret reads and writes small files that are nobody else's business:
// private keys, and what decides whom to trust.
//
// A file is replaced as a whole or not at all, and a file that others may read or
// write is refused: a key that was readable is to be taken for a known one.
package secret

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// most is how large a file may be.
const most = 16 << 20

// Write replaces a file by one with this content, of mode 0600. When it returns
// nil both content and name are on the disk; when it fails the file that was
// there is untouched. Two writers at once leave the content of one of them.
func Write(path string, b []byte) (err error) {
	if len(b) > most {
		return fmt.Errorf("writing %s: %d bytes, at most %d are allowed", path, len(b), most)
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // 0600, never an existing one
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing %s: %w", path, errors.Join(err, remove(f.Name())))
		}
	}()
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// Remove deletes a file and makes sure that it stays deleted. One that is not
// there is no error.
func Remove(path string) error {
	if err := remove(path); err != nil {
		return fmt.Errorf("removing %s: %w", path, err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("removing %s: %w", path, err)
	}
	return nil
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Read returns the content of a file that belongs to this user or to root and
// that nobody else may read or write. The error of a file that is not there is
// fs.ErrNotExist.
func Read(path string) ([]byte, error) {
	// Without O_NONBLOCK a FIFO of that name would hold up the caller for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("reading a secret file: %w", err)
	}
	defer f.Close()
	st, err := f.Stat() // of what was opened, not of what has the name by now
	if err != nil {
		return nil, fmt.Errorf("reading a secret file: %w", err)
	}
	if err := private(path, st); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, fmt.Errorf("reading a secret file: %w", err)
	}
	if len(b) > most {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, most)
	}
	return b, nil
}

func private(path string, st fs.FileInfo) error {
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file (%v)", path, st.Mode().Type())
	}
	if open := st.Mode().Perm() & 0o077; open != 0 {
		return fmt.Errorf("%s: mode %04o lets others read or write it; only 0600 or less is allowed. "+
			"If nobody can have read it: chmod 600 %s. Else take it for known and make a new one", path, st.Mode().Perm(), path)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Uid != 0 && int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("%s: belongs to uid %d; it must belong to the user of Gemel (uid %d) or to root: chown %d %s",
			path, sys.Uid, os.Geteuid(), os.Geteuid(), path)
	}
	return nil
}
