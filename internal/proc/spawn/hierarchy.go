package spawn

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// place is a mounted hierarchy and the directory of the caller's group in it.
type place struct{ mount, own string }

// hierarchy is what control groups this machine has.
type hierarchy struct {
	place                  // v2
	v1    map[string]place // by controller
}

func readHierarchy() (*hierarchy, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if errors.Is(err, os.ErrNotExist) {
		own = nil // a kernel without control groups
	} else if err != nil {
		return nil, err
	}
	return parseHierarchy(string(mounts), string(own)), nil
}

// parseHierarchy reads /proc/PID/mountinfo and /proc/PID/cgroup.
func parseHierarchy(mounts, groups string) *hierarchy {
	h := &hierarchy{v1: map[string]place{}}
	paths := map[string]string{}
	for line := range strings.Lines(groups) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		for c := range strings.SplitSeq(f[1], ",") {
			paths[c] = f[2] // v2 has the empty name
		}
	}
	for line := range strings.Lines(mounts) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(g) < 3 {
			continue
		}
		root, point := unescape(f[3]), unescape(f[4])
		switch g[0] {
		case "cgroup2":
			if path, ok := paths[""]; ok && h.mount == "" {
				h.place = place{point, inside(point, root, path)}
			}
		case "cgroup":
			for _, c := range controllers {
				path, ok := paths[c]
				if ok && h.v1[c].mount == "" && slices.Contains(strings.Split(g[2], ","), c) {
					h.v1[c] = place{point, inside(point, root, path)}
				}
			}
		}
	}
	if filepath.Base(h.own) == "daemon" {
		h.own = filepath.Dir(h.own) // the leaf that an earlier Open moved us to
	}
	return h
}

// inside maps the path of a group to its directory under a mount that shows the
// hierarchy from root on.
func inside(mount, root, path string) string {
	if path == root {
		return mount
	}
	if root != "/" {
		rest, ok := strings.CutPrefix(path, root+"/")
		if !ok {
			return mount
		}
		path = rest
	}
	if strings.HasPrefix(path, "/..") {
		return mount // outside of our namespace
	}
	return filepath.Join(mount, path)
}

func words(file string) []string {
	b, err := slurp(file)
	if err != nil {
		return nil
	}
	return strings.Fields(string(b))
}

// slurp is os.ReadFile with half as many calls: files of the kernel have no size,
// and nothing waits for them.
func slurp(file string) ([]byte, error) {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: file, Err: err}
	}
	defer unix.Close(fd)
	b := make([]byte, 0, 1024)
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := unix.Read(fd, b[len(b):cap(b)])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, &os.PathError{Op: "read", Path: file, Err: err}
		case n == 0:
			return b, nil
		default:
			b = b[:len(b)+n]
		}
	}
}

func numbers(file string) []int {
	var out []int
	for _, w := range words(file) {
		if n, err := strconv.Atoi(w); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// field reads the number behind a key of a file like cpu.stat.
func field(file, key string) int64 {
	w := words(file)
	for i := 0; i+1 < len(w); i += 2 {
		if w[i] == key {
			n, _ := strconv.ParseInt(w[i+1], 10, 64) // not a number: not known
			return n
		}
	}
	return 0
}

// write writes a value to a file of a control group, in one call as the kernel
// wants it.
func write(file, value string) error {
	fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: file, Err: err}
	}
	for _, err = unix.Write(fd, []byte(value)); errors.Is(err, unix.EINTR); {
		_, err = unix.Write(fd, []byte(value))
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("set %s to %s: %w", file, value, cleaned(err))
	}
	return nil
}

// cleaned is the errno without the path that os adds.
func cleaned(err error) error {
	var e syscall.Errno
	if errors.As(err, &e) {
		return e
	}
	return err
}

func cause(err error) string { return cleaned(err).Error() }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
