// Package part runs a program that is carried, packed, inside this one. What it
// brings along is no part of the process that carries it: it costs its room in the
// file, and memory only where it runs.
//
// The program is unpacked once, into a directory that is nobody else's, under the
// hash of what it is; each start makes sure that it still is that. Where this cannot
// be, on a disk that is full or takes no programs, it runs from memory instead.
package part

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockTime is how long another start may take to unpack the same.
const lockTime = 10 * time.Second

// A Part is a program inside this one.
type Part struct {
	Name   string
	Packed string // by gzip
	Sum    string // SHA-256 of what is packed, in hex
}

// Exec puts the program in the place of this process, with the arguments args, of
// which the first is the name that it is shown by. dir is where it is unpacked. It
// returns only if it failed or ctx has ended. Signals do what they do by default from
// then on: one that comes just before the exec is not lost on its way.
func (p Part) Exec(ctx context.Context, dir string, args []string, log *slog.Logger) error {
	path, unlock, err := p.place(ctx, dir, log)
	if err == nil {
		defer unlock() // by the exec, in the other case: nobody takes it away before
		err = run(ctx, path, args)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	log.Warn("a part of Gemel cannot be run from its file and runs from memory, which takes as much of it as the part has bytes",
		"part", p.Name, "directory", dir, "why", err)
	f, ferr := p.inMemory()
	if ferr == nil {
		defer func() { _ = f.Close() }()
		ferr = run(ctx, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), args)
	}
	return fmt.Errorf("running %s, a part of Gemel: %w; and from memory: %w; give it a data directory on a disk with room that takes programs", p.Name, err, ferr)
}

// run puts a program in the place of this process.
func run(ctx context.Context, path string, args []string) error {
	// A signal that arrives here would be noticed by a process that is no more.
	signal.Reset()
	if err := ctx.Err(); err != nil {
		return err
	}
	return fmt.Errorf("executing it: %w", syscall.Exec(path, args, os.Environ()))
}

// place makes sure that the program is unpacked, and alone, and returns where. It is
// locked until unlock, or the end of this process or its exec.
func (p Part) place(ctx context.Context, dir string, log *slog.Logger) (path string, unlock func(), err error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", nil, fmt.Errorf("making its directory: %w", err)
	}
	lock, err := own(ctx, dir)
	if err != nil {
		return "", nil, err
	}
	unlock = func() { _ = lock.Close() }
	path = filepath.Join(dir, p.file())
	if err = p.verify(path); err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			log.Warn("a part of Gemel is not what it was, and is unpacked anew", "part", p.Name, "file", path, "why", err)
		}
		if err = p.unpack(path); full(err) && p.others(dir) > 0 {
			err = p.unpack(path)
		}
	}
	if err != nil {
		unlock()
		return "", nil, err
	}
	p.others(dir)
	return path, unlock, nil
}

// file is the name of the program. It says what is in it.
func (p Part) file() string { return p.Name + "-" + p.Sum[:min(16, len(p.Sum))] }

// own locks a directory that is ours alone.
func own(ctx context.Context, dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("opening its directory: %w", err)
	}
	if err := ours(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	got := make(chan error, 1)
	go func() { got <- unix.Flock(int(f.Fd()), unix.LOCK_EX) }()
	late, stop := context.WithTimeout(ctx, lockTime)
	defer stop()
	select {
	case err = <-got:
	case <-late.Done(): // whoever waits on ends with this process
		return nil, fmt.Errorf("another start has held %s for %v", dir, lockTime)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking its directory: %w", err), f.Close())
	}
	return f, nil
}

// ours complains about what somebody else may change.
func ours(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("looking at %s: %w", f.Name(), err)
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d and this is user %d", f.Name(), st.Uid, os.Geteuid())
	}
	if st.Mode&0o022 != 0 {
		return fmt.Errorf("%s may be written by others: its mode is %04o and must be 0700", f.Name(), st.Mode&0o7777)
	}
	return nil
}

// verify says why a file is not the program, or nil.
func (p Part) verify(path string) error {
	f, err := os.OpenFile(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() || st.Mode().Perm() != 0o700 {
		return fmt.Errorf("%s is %v and not -rwx------", path, st.Mode())
	}
	if err := ours(f); err != nil {
		return err
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("reading it: %w", err)
	}
	return p.is(h.Sum(nil))
}

func (p Part) is(sum []byte) error {
	if got := hex.EncodeToString(sum); got != p.Sum {
		return fmt.Errorf("its hash is %s and not %s", got, p.Sum)
	}
	return nil
}

// unpack puts the program on the disk, whole or not at all.
func (p Part) unpack(path string) (err error) {
	next := path + ".new"
	// What a start that was cut off has left, and what is not the program.
	if err := errors.Join(os.RemoveAll(next), os.RemoveAll(path)); err != nil {
		return fmt.Errorf("unpacking it: %w", err)
	}
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		return fmt.Errorf("unpacking it: %w", err)
	}
	err = p.write(f)
	err = errors.Join(err, f.Chmod(0o700), f.Sync(), f.Close()) // the mode: whatever the umask is
	if err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("unpacking it: %w", err), os.Remove(next))
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("unpacking it: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// write unpacks the program. What is not the program when it is written is an error.
func (p Part) write(to io.Writer) error {
	z, err := gzip.NewReader(strings.NewReader(p.Packed))
	if err != nil {
		return fmt.Errorf("this file of Gemel is damaged: %w", err)
	}
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(to, h), z); err != nil {
		return err
	}
	if err := p.is(h.Sum(nil)); err != nil {
		return fmt.Errorf("this file of Gemel is damaged: %w", err)
	}
	return nil
}

// others takes away what other versions have left, and returns how much of it there
// was. One that runs does not need its name any more, and one that is to run again
// unpacks itself.
func (p Part) others(dir string) (n int) {
	all, _ := os.ReadDir(dir) // what cannot be listed stays
	for _, e := range all {
		if e.Name() != p.file() && os.RemoveAll(filepath.Join(dir, e.Name())) == nil {
			n++
		}
	}
	return n
}

// inMemory unpacks the program into memory that nobody can change any more.
func (p Part) inMemory() (*os.File, error) {
	fd, err := unix.MemfdCreate(p.Name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 all of them may be executed
		fd, err = unix.MemfdCreate(p.Name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("making room for it: %w", err)
	}
	f := os.NewFile(uintptr(fd), p.Name)
	err = p.write(f)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("unpacking it: %w", err), f.Close())
	}
	return f, nil
}

// full reports whether there was no room.
func full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
