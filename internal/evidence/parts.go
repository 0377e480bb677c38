package evidence

import (
	"cmp"
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

// part is one section. Each is read by a goroutine of its own, so that one that is
// held up costs only itself. add returns false when there is no more room.
type part struct {
	name string
	size int // bytes at most
	read func(k *Keeper, c Case, add func(string) bool)
}

// parts are the sections in their order; their sizes add up to less than maxSize.
var parts = []part{
	{"threads", 128 << 10, (*Keeper).threads},
	{"processes of its tree", 16 << 10, (*Keeper).tree},
	{"the process", 16 << 10, (*Keeper).process},
	{"cgroup", 16 << 10, (*Keeper).cgroup},
	{"the machine", 8 << 10, (*Keeper).machine},
	{"open files", 32 << 10, (*Keeper).files},
	{"end of its output", 8 << 10, (*Keeper).output},
}

const (
	maxThreads = 256
	maxCounted = 4096 // threads whose state is looked at
	maxTree    = 256
	maxFiles   = 256
	maxTail    = 4096
	maxFile    = 16 << 10 // of one file of /proc
)

// small reads the beginning of a file.
func small(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	return string(b), err
}

// word reads a file of one word; a dash if that cannot be.
func word(path string) string {
	s, err := small(path)
	if s = strings.TrimSpace(s); err != nil || s == "" {
		return "-"
	}
	return s
}

func (k *Keeper) of(pid int, name string) string {
	return filepath.Join(k.proc, strconv.Itoa(pid), name)
}

// numbers are the names in dir that are numbers, n at most.
func numbers(dir string, n int) (all []int, more bool, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	names, err := f.Readdirnames(n + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, err
	}
	for _, name := range names {
		if i, err := strconv.Atoi(name); err == nil {
			all = append(all, i)
		}
	}
	slices.Sort(all)
	if len(all) > n {
		return all[:n], true, nil
	}
	return all, false, nil
}

// stat reads what a stat file of /proc says. The command stands in brackets and
// may hold anything.
func stat(path string) (command, state string, parent int, ok bool) {
	s, err := small(path)
	open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if err != nil || open < 0 || end < open {
		return "", "", 0, false
	}
	if _, err := fmt.Sscan(s[end+1:], &state, &parent); err != nil {
		return "", "", 0, false
	}
	return oneLine(s[open+1 : end]), state, parent, true
}

type thread struct {
	tid            int
	command, state string
}

// threads tells what each thread waits for, those in state D first.
func (k *Keeper) threads(c Case, add func(string) bool) {
	task := k.of(c.PID, "task")
	tids, more, err := numbers(task, maxCounted)
	if err != nil {
		add(fmt.Sprintf("not readable: %v\n", err))
		return
	}
	var all []thread
	states := map[string]int{}
	for _, tid := range tids {
		if command, state, _, ok := stat(filepath.Join(task, strconv.Itoa(tid), "stat")); ok {
			all = append(all, thread{tid, command, state})
			states[state]++
		}
	}
	head := fmt.Sprintf("%d threads", len(all))
	if more {
		head = fmt.Sprintf("more than %d threads", maxCounted)
	}
	for _, s := range sorted(states) {
		head += fmt.Sprintf(", %d in state %s", states[s], s)
	}
	if len(all) > maxThreads {
		head += fmt.Sprintf("; %d are shown", maxThreads)
	}
	add(head + "\n")
	urgent := func(t thread) int { return strings.Index("DRTtXZ", t.state[:1]) + 1 }
	slices.SortStableFunc(all, func(a, b thread) int {
		return cmp.Compare((urgent(a)+9)%10, (urgent(b)+9)%10)
	})
	for _, t := range all[:min(len(all), maxThreads)] {
		dir := filepath.Join(task, strconv.Itoa(t.tid))
		line := fmt.Sprintf("%d %s state %s, waits in %s, syscall %s\n", t.tid, t.command, t.state,
			word(filepath.Join(dir, "wchan")), word(filepath.Join(dir, "syscall")))
		// Only root may read a stack; without one the line is what there is.
		if stack, err := small(filepath.Join(dir, "stack")); err == nil {
			for frame := range strings.Lines(stack) {
				line += "    " + strings.TrimPrefix(strings.TrimSpace(frame), "[<0>] ") + "\n"
			}
		}
		if !add(line) {
			return
		}
	}
}

func sorted(m map[string]int) []string {
	var all []string
	for s := range m {
		all = append(all, s)
	}
	slices.Sort(all)
	return all
}

// tree tells of the other processes that would be killed with it.
func (k *Keeper) tree(c Case, add func(string) bool) {
	n := 0
	for _, pid := range c.Tree {
		if pid == c.PID {
			continue
		}
		if n++; n > maxTree {
			add(fmt.Sprintf("%d more are not shown\n", len(c.Tree)-maxTree))
			return
		}
		command, state, parent, ok := stat(k.of(pid, "stat"))
		if !ok {
			continue
		}
		if !add(fmt.Sprintf("%d %s state %s, child of %d, waits in %s\n", pid, command, state, parent, word(k.of(pid, "wchan")))) {
			return
		}
	}
}

// process copies what the kernel says of the process without looking into its
// memory.
func (k *Keeper) process(c Case, add func(string) bool) {
	for _, name := range []string{"status", "limits", "sched", "io"} {
		s, err := small(k.of(c.PID, name))
		if err != nil {
			add(fmt.Sprintf("-- %s: not readable: %v\n", name, err))
			continue
		}
		add(fmt.Sprintf("-- %s\n%s", name, s))
	}
}

// cgroup copies the figures of its cgroups, of version 1 or 2.
func (k *Keeper) cgroup(c Case, add func(string) bool) {
	s, err := small(k.of(c.PID, "cgroup"))
	if err != nil {
		add(fmt.Sprintf("not readable: %v\n", err))
		return
	}
	names := []string{
		"cgroup.events", "cgroup.freeze", "memory.current", "memory.max", "memory.events", "memory.pressure",
		"cpu.stat", "cpu.max", "cpu.pressure", "io.stat", "io.pressure", "pids.current", "pids.max",
		"memory.usage_in_bytes", "memory.limit_in_bytes", "memory.failcnt", "freezer.state",
	}
	for line := range strings.Lines(s) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controller, path, ok := strings.Cut(rest, ":")
		if !ok || path == "/" {
			continue // the root's figures are the machine's
		}
		bases := []string{controller}
		if controller == "" {
			bases = []string{"", "unified"}
		}
		for _, base := range bases {
			dir := filepath.Join(k.cg, strings.TrimPrefix(base, "name="), filepath.Clean("/"+path))
			for _, name := range names {
				if v, err := small(filepath.Join(dir, name)); err == nil && strings.TrimSpace(v) != "" {
					add(fmt.Sprintf("%s: %s\n", name, strings.ReplaceAll(strings.TrimSpace(v), "\n", "; ")))
				}
			}
		}
	}
}

// machine copies the state of the whole machine: a program may hang because
// everything does.
func (k *Keeper) machine(_ Case, add func(string) bool) {
	for _, name := range []string{"pressure/cpu", "pressure/memory", "pressure/io", "loadavg"} {
		if s, err := small(filepath.Join(k.proc, name)); err == nil {
			add(fmt.Sprintf("%s: %s\n", name, strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ")))
		}
	}
	s, err := small(filepath.Join(k.proc, "meminfo"))
	if err != nil {
		return
	}
	for line := range strings.Lines(s) {
		for _, key := range []string{"MemTotal:", "MemFree:", "MemAvailable:", "SwapFree:", "Dirty:", "Writeback:"} {
			if strings.HasPrefix(line, key) {
				add(line)
			}
		}
	}
}

// files lists what the process has open.
func (k *Keeper) files(c Case, add func(string) bool) {
	dir := k.of(c.PID, "fd")
	fds, more, err := numbers(dir, maxFiles)
	if err != nil {
		add(fmt.Sprintf("not readable: %v\n", err))
		return
	}
	for _, fd := range fds {
		target, err := os.Readlink(filepath.Join(dir, strconv.Itoa(fd)))
		if err != nil {
			continue
		}
		if !add(fmt.Sprintf("%d %s\n", fd, oneLine(target))) {
			return
		}
	}
	if more {
		add(fmt.Sprintf("and more than these %d\n", maxFiles))
	}
}

// output copies the last lines that the program printed.
func (k *Keeper) output(c Case, add func(string) bool) {
	if c.Log == "" {
		add("its output is not captured\n")
		return
	}
	f, err := os.Open(c.Log)
	if err != nil {
		add(fmt.Sprintf("not readable: %v\n", err))
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		add(fmt.Sprintf("not readable: %v\n", err))
		return
	}
	from := max(st.Size()-maxTail, 0)
	b, err := io.ReadAll(io.NewSectionReader(f, from, maxTail))
	if err != nil {
		add(fmt.Sprintf("not readable: %v\n", err))
	}
	text := string(b)
	if _, whole, ok := strings.Cut(text, "\n"); ok && from > 0 {
		text = whole // the first line is half a line
	}
	for line := range strings.Lines(text) {
		if !add("| " + line) {
			return
		}
	}
}
