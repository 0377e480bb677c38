package rack

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// mount gives a node a disk of its own for its data, of so many bytes. It is noted for who takes
// the rack down.
func mount(n *Node, size int64) error {
	dir := n.Path("data")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("preparing node %s: %w", n.Name, err)
	}
	f, err := os.OpenFile(filepath.Join("/tmp", n.rack.prefix, "mounts"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("noting the disk of node %s: %w", n.Name, err)
	}
	defer f.Close()
	if _, err := fmt.Fprintln(f, dir); err != nil {
		return fmt.Errorf("noting the disk of node %s: %w", n.Name, err)
	}
	if err := unix.Mount("rack", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=700", size)); err != nil {
		return fmt.Errorf("making the disk of node %s: %w", n.Name, err)
	}
	n.disk = true
	return nil
}

// unmount takes the disk away when nothing runs on the node any more. With keep, what is on it
// is there afterwards all the same.
func unmount(n *Node, keep bool) error {
	if !n.disk {
		return nil
	}
	n.disk = false
	dir, aside := n.Path("data"), n.Path("data.kept")
	var err error
	if keep {
		err = errors.Join(os.Remove(filler(n)), os.CopyFS(aside, os.DirFS(dir)))
		if errors.Is(err, os.ErrNotExist) {
			err = nil // it was not full
		}
	}
	if e := unix.Unmount(dir, unix.MNT_DETACH); e != nil {
		return errors.Join(err, fmt.Errorf("taking away the disk of node %s: %w", n.Name, e))
	}
	if keep && err == nil {
		err = errors.Join(os.Remove(dir), os.Rename(aside, dir))
	}
	return err
}

func filler(n *Node) string { return n.Path("data/full") }

// Fill leaves no room on the disk of a node, which must have one of its own
// (Options.Disk). Mend makes room again.
func (n *Node) Fill() error {
	n.rack.Note("the disk of %s is full", n.Name)
	if !n.disk {
		return fmt.Errorf("node %s has no disk of its own: there is no way to fill it", n.Name)
	}
	f, err := os.OpenFile(filler(n), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("filling the disk of node %s: %w", n.Name, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("filling the disk of node %s: %w", n.Name, err)
	}
	// Whole steps first, and then what is left of them.
	at := st.Size()
	for step := int64(1 << 24); step >= 4096; {
		switch err := unix.Fallocate(int(f.Fd()), 0, at, step); {
		case errors.Is(err, unix.ENOSPC):
			step /= 2
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("filling the disk of node %s: %w", n.Name, err)
		default:
			at += step
		}
	}
	return nil
}

// empty makes room again.
func empty(n *Node) error {
	if err := os.Remove(filler(n)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("making room on the disk of node %s: %w", n.Name, err)
	}
	return nil
}

// Slow has each fsync of the node's voter take longer, until Mend. The tracer that does it
// holds up its other calls as well, by some microseconds each.
func (n *Node) Slow(by time.Duration) error {
	n.rack.Note("the disk of %s takes %v longer for an fsync", n.Name, by)
	all := n.Processes()
	i := slices.IndexFunc(all, func(p Process) bool { return p.Part == "store" })
	if i < 0 || n.slow != nil {
		return fmt.Errorf("node %s has no voter whose disk could be slowed down, or has a slow one already", n.Name)
	}
	c := exec.Command("strace", "-f", "-qqq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync",
		"-e", fmt.Sprintf("inject=fsync,fdatasync:delay_enter=%d", by.Microseconds()), "-p", strconv.Itoa(all[i].PID))
	if err := c.Start(); err != nil {
		return fmt.Errorf("slowing the disk of node %s down: %w", n.Name, err)
	}
	n.slow = c
	return nil
}

// quick ends what Slow began.
func quick(n *Node) error {
	c := n.slow
	if c == nil {
		return nil
	}
	n.slow = nil
	// It may be gone, with what it traced.
	if err := c.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("ending the tracer of node %s: %w", n.Name, err)
	}
	_ = c.Wait() // it ends by the signal
	return nil
}
