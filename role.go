package gemel

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Fence tells one turn of a group from those before: it grows each time that the group
// is given to a node, also to the same one. Who keeps what a group writes should keep the
// greatest fence that it has seen, and refuse what comes with a smaller one.
type Fence struct{ Era, Counter uint64 }

// String is the fence as GEMEL_FENCE tells it, such as "1.7".
func (f Fence) String() string {
	return strconv.FormatUint(f.Era, 10) + "." + strconv.FormatUint(f.Counter, 10)
}

// Less reports whether f is of an earlier turn than g.
func (f Fence) Less(g Fence) bool {
	return f.Era < g.Era || f.Era == g.Era && f.Counter < g.Counter
}

// A Standing is what a program knows of its group.
type Standing struct {
	Group  string // empty: it is of no group of a cluster
	Active bool   // the group is active on this node, or starting here
	Fence  Fence  // of the present turn; zero: it never had one
	Node   string // the node that has it; empty: none
}

// Role returns where the group of this program stands now. It reads a file that Gemel
// keeps up to date, so it may be asked often; it is news, and no proof: a program that
// must not act twice checks Fence at what it acts upon.
func Role() Standing {
	s := Standing{Group: os.Getenv("GEMEL_GROUP"), Active: os.Getenv("GEMEL_ROLE") == "active"}
	s.Fence, _ = parseFence(os.Getenv("GEMEL_FENCE"))
	b, err := os.ReadFile(roleFile())
	if err != nil {
		return s
	}
	told, ok := parseStanding(string(b))
	if !ok || told.Fence.Less(s.Fence) {
		return s // of the turn before: this program was started by a later one
	}
	return told
}

// Watch calls f with the standing at once and after each change, until ctx ends, and
// returns its cause. In a program of no group it only waits.
func Watch(ctx context.Context, f func(Standing)) error {
	s := Role()
	f(s)
	path := roleFile()
	if path == "" {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	news, stop := renames(filepath.Dir(path))
	defer stop()
	// Also without inotify, and if a change was missed.
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-news:
		case <-look.C:
		}
		if now := Role(); now != s {
			s = now
			f(s)
		}
	}
}

func roleFile() string { return os.Getenv("GEMEL_ROLE_FILE") }

func parseFence(s string) (Fence, error) {
	era, counter, ok := strings.Cut(s, ".")
	e, err1 := strconv.ParseUint(era, 10, 64)
	c, err2 := strconv.ParseUint(counter, 10, 64)
	if !ok || err1 != nil || err2 != nil {
		return Fence{}, fmt.Errorf("gemel: %q is no fence", s)
	}
	return Fence{e, c}, nil
}

// parseStanding reads the lines of a role file.
func parseStanding(text string) (s Standing, ok bool) {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		switch key {
		case "group":
			s.Group = value
		case "role":
			s.Active, ok = value == "active", true
		case "fence":
			s.Fence, _ = parseFence(value) // empty: it never had one
		case "node":
			s.Node = value
		}
	}
	return s, ok && s.Group != ""
}

// renames tells, perhaps more often than there was one, that something was renamed in a
// directory. Without inotify it is silent.
func renames(dir string) (news <-chan struct{}, stop func()) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, func() {}
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := syscall.InotifyAddWatch(fd, dir, syscall.IN_MOVED_TO); err != nil {
		f.Close()
		return nil, func() {}
	}
	c := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var b [4096]byte
		for {
			if _, err := f.Read(b[:]); err != nil {
				return
			}
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}()
	return c, func() {
		f.Close()
		<-done
	}
}
