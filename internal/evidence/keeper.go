package evidence

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"gemel/internal/ha"
)

// A Keeper takes evidence and keeps it in one directory.
type Keeper struct {
	dir   string
	proc  string        // "/proc"
	cg    string        // "/sys/fs/cgroup"
	turns chan struct{} // one for each Take under way
	lost  atomic.Int32  // readings that were given up and still go on
}

// New keeps evidence in dir, which it makes when it is needed first.
func New(dir string) *Keeper {
	return &Keeper{dir: dir, proc: "/proc", cg: "/sys/fs/cgroup", turns: make(chan struct{}, maxTurns)}
}

// A Case is what evidence is taken of.
type Case struct {
	Process ha.Process
	Start   ha.StartID
	PID     int
	Tree    []int    // processes of its cgroup or group; empty: PID alone
	Log     string   // file of its output; empty if it is not captured
	Notes   []string // what is known already, one line each, as which thread was silent
	At      ha.Instant
}

// Entry is one piece of evidence that is kept.
type Entry struct {
	Ref  string
	At   time.Time
	Size int64
}

const (
	maxKept  = 200
	maxBytes = 20 << 20 // of all that is kept
	maxSize  = 256 << 10
	maxTurns = 32
	// maxLost bounds the readings that the kernel holds up. Each has a thread of
	// this process; when they are that many, nothing more is tried.
	maxLost = 16
	suffix  = ".txt"
	stamp   = "20060102T150405.000Z"
)

// Take writes down what can be learned within bound and returns its name. What
// takes longer is left out, and the evidence says so.
func (k *Keeper) Take(c Case, bound time.Duration) (ref string, err error) {
	began := time.Now()
	whole := time.NewTimer(bound)
	defer whole.Stop()
	select {
	case k.turns <- struct{}{}:
		defer func() { <-k.turns }()
	case <-whole.C:
		return "", fmt.Errorf("evidence: %d others took all of the %s", maxTurns, ha.Span(bound))
	}
	if n := k.lost.Load(); n >= maxLost {
		return "", fmt.Errorf("evidence: %d earlier readings are still held up by the kernel", n)
	}
	reading := time.NewTimer(bound * 3 / 4)
	defer reading.Stop()
	text := k.read(c, reading.C).text(c, began)

	type written struct {
		ref string
		err error
	}
	done := make(chan written, 1)
	k.lost.Add(1) // until it is done: nobody waits for it after the bound
	go func() {
		ref, err := k.write(c, text, began)
		k.lost.Add(-1) // before it is told: who waited counts it no more
		done <- written{ref, err}
	}()
	select {
	case w := <-done:
		return w.ref, w.err
	case <-whole.C:
		return "", fmt.Errorf("evidence: not written within %s: the disk is slow", ha.Span(bound))
	}
}

// Pending is how many readings and writings are held up and go on by themselves.
func (k *Keeper) Pending() int { return int(k.lost.Load()) }

// read starts the readers and waits for them until over.
func (k *Keeper) read(c Case, over <-chan time.Time) *report {
	r := newReport(&k.lost)
	for i, p := range parts {
		go func() {
			defer r.end(i)
			p.read(k, c, func(s string) bool { return r.add(i, s) })
		}()
	}
	select {
	case <-r.done:
	case <-over:
		r.giveUp()
	}
	return r
}

// Put keeps a text that somebody else wrote, and returns its name.
func (k *Keeper) Put(c Case, text string) (ref string, err error) {
	return k.write(c, text, time.Now())
}

// write puts the text under its name, and makes room for it.
func (k *Keeper) write(c Case, text string, at time.Time) (string, error) {
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return "", fmt.Errorf("evidence: %w", err)
	}
	if err := k.prune(len(text)); err != nil {
		return "", err
	}
	ref := fmt.Sprintf("%s-%s-%d%s", at.UTC().Format(stamp), plain(string(c.Process)), c.Start, suffix)
	f, err := os.CreateTemp(k.dir, ".new-*")
	if err != nil {
		return "", fmt.Errorf("evidence: %w", err)
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(k.dir, ref))
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("evidence: %w", err), os.Remove(f.Name()))
	}
	return ref, nil
}

// prune removes the oldest until there is room for size bytes more, and what a
// crash left half written.
func (k *Keeper) prune(size int) error {
	all, err := List(k.dir)
	if err != nil {
		return err
	}
	total := int64(size)
	for _, e := range all {
		total += e.Size
	}
	for len(all) > 0 && (len(all) >= maxKept || total > maxBytes) {
		if err := os.Remove(filepath.Join(k.dir, all[0].Ref)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("evidence: %w", err)
		}
		total -= all[0].Size
		all = all[1:]
	}
	half, err := filepath.Glob(filepath.Join(k.dir, ".new-*"))
	if err != nil {
		return fmt.Errorf("evidence: %w", err)
	}
	for _, name := range half {
		if st, err := os.Stat(name); err == nil && time.Since(st.ModTime()) > time.Hour {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("evidence: %w", err)
			}
		}
	}
	return nil
}

// List returns what is kept in dir, the oldest first.
func List(dir string) ([]Entry, error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	var all []Entry
	for _, f := range files {
		when, _, ok := strings.Cut(f.Name(), "-")
		at, err := time.Parse(stamp, when)
		if !ok || err != nil || !strings.HasSuffix(f.Name(), suffix) {
			continue
		}
		st, err := f.Info()
		if err != nil || !st.Mode().IsRegular() {
			continue // removed meanwhile
		}
		all = append(all, Entry{f.Name(), at, st.Size()})
	}
	slices.SortFunc(all, func(a, b Entry) int { return strings.Compare(a.Ref, b.Ref) })
	return all, nil
}

// Read returns what is kept in dir under ref. A ref that is no name of evidence,
// as one that leads to another directory, is not found.
func Read(dir, ref string) ([]byte, error) {
	none := &ha.Error{Kind: ha.ErrNotFound, Reason: "no-evidence", Hint: "the oldest evidence makes room for the newest",
		Err: fmt.Errorf("there is no evidence %q", ref)}
	if ref != filepath.Base(ref) || strings.HasPrefix(ref, ".") || !strings.HasSuffix(ref, suffix) {
		return nil, none
	}
	b, err := os.ReadFile(filepath.Join(dir, ref))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, none
	}
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	return b, nil
}

// plain makes a name fit for a file.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '.' {
			return r
		}
		return '_'
	}, s[:min(len(s), 64)])
}
