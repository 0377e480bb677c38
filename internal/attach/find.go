package attach

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// finder finds programs by their attach rules.
type finder struct {
	proc    string // "/proc"; another directory in tests
	cgroups string // "/sys/fs/cgroup"; another directory in tests
}

// found is a program that matches a rule.
type found struct {
	pid   int
	began ha.Instant // when it started
}

// ticksPerSecond is what the kernel counts start times in, on every machine
// (USER_HZ).
const ticksPerSecond = 100

// open finds the program and opens its pidfd. Then it looks again: the pid may
// have been given to another one in between.
func (f *finder) open(rule manifest.Attach) (*os.File, found, error) {
	pid, err := f.find(rule)
	if err != nil {
		return nil, found{}, err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, found{}, fmt.Errorf("holding pid %d: %w", pid, err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, found{}, errors.Join(fmt.Errorf("holding pid %d: %w", pid, err), unix.Close(fd))
	}
	file := os.NewFile(uintptr(fd), "pidfd")
	st, ok := f.stat(pid)
	if again, err := f.find(rule); err != nil || again != pid || !ok {
		return nil, found{}, errors.Join(fmt.Errorf("pid %d changed hands while it was looked at", pid), file.Close())
	}
	return file, found{pid, st.began}, nil
}

// pid asks the kernel for the number of a held program.
func (f *finder) pid(file *os.File) (int, error) {
	conn, err := file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var text []byte
	if cerr := conn.Control(func(fd uintptr) {
		text, err = os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(int(fd)))
	}); cerr != nil {
		return 0, cerr
	}
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "\nPid:")
	line, _, _ := strings.Cut(rest, "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || pid <= 0 {
		return 0, errors.New("the program is gone")
	}
	return pid, nil
}

func (f *finder) find(a manifest.Attach) (pid int, err error) {
	what := "the process that was found"
	switch {
	case a.PIDFile != "":
		what = "the process of the pid file " + a.PIDFile
		pid, err = f.byPIDFile(a.PIDFile)
	case a.Unit != "":
		pid, err = f.byUnit(a.Unit)
	default:
		pid, err = f.byCommandLine(a.CommandLine)
	}
	if err == nil && f.own(pid) {
		return 0, fmt.Errorf("%s, pid %d, is Gemel itself or process 1: neither is ever attached to", what, pid)
	}
	return pid, err
}

// own reports whether a pid is one that must never be stopped: the first process,
// or a half of Gemel.
func (f *finder) own(pid int) bool {
	if pid == 1 || pid == os.Getpid() || pid == os.Getppid() {
		return true
	}
	st, ok := f.stat(pid)
	if !ok || st.parent != os.Getpid() {
		return false
	}
	// A child of the monitor may be the shadow that it started.
	mine, err1 := os.Readlink("/proc/self/exe")
	its, err2 := os.Readlink(filepath.Join(f.proc, strconv.Itoa(pid), "exe"))
	return err1 == nil && err2 == nil && mine == its
}

// maxPIDFile bounds a pid file; some daemons write more than the pid into it.
const maxPIDFile = 4096

// byPIDFile takes the first line of a pid file. Who may write to it may choose
// what Gemel stops, so that not everybody may.
func (f *finder) byPIDFile(path string) (int, error) {
	// A named pipe in its place must not hold us up.
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, fmt.Errorf("reading the pid file: %w", err)
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return 0, fmt.Errorf("reading the pid file %s: %w", path, err)
	}
	if !st.Mode().IsRegular() {
		return 0, fmt.Errorf("the pid file %s is no regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(file, maxPIDFile))
	if err != nil {
		return 0, fmt.Errorf("reading the pid file %s: %w", path, err)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("the pid file %s holds no pid", path)
	}
	if _, ok := f.stat(pid); !ok {
		return 0, fmt.Errorf("the pid file %s names pid %d, which does not run", path, pid)
	}
	return pid, f.trusted(path, st, pid)
}

// trusted refuses a pid file by which another user could have a program of
// somebody else stopped.
func (f *finder) trusted(path string, st fs.FileInfo, pid int) error {
	if st.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("the pid file %s can be written by everybody: chmod o-w %s", path, path)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || sys.Uid == 0 || int(sys.Uid) == os.Geteuid() {
		return nil
	}
	var who unix.Stat_t
	if err := unix.Stat(filepath.Join(f.proc, strconv.Itoa(pid)), &who); err != nil {
		return fmt.Errorf("looking at pid %d: %w", pid, err)
	}
	if who.Uid != sys.Uid {
		return fmt.Errorf("the pid file %s belongs to user %d and names pid %d of user %d: it must belong to root or to the user of the program", path, sys.Uid, pid, who.Uid)
	}
	return nil
}

// byCommandLine finds the one process whose arguments are exactly those of the
// line. Processes that such a one has forked are its workers and do not count.
// Two that remain are refused: there would be no telling which is meant.
func (f *finder) byCommandLine(line string) (int, error) {
	want, err := Split(line)
	if err != nil {
		return 0, err
	}
	match := strings.Join(want, "\x00") + "\x00"
	dirs, err := os.ReadDir(f.proc)
	if err != nil {
		return 0, fmt.Errorf("looking through the processes: %w", err)
	}
	all := make(map[int]stat)
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(f.proc, d.Name(), "cmdline"))
		if err != nil || string(b) != match {
			continue
		}
		if st, ok := f.stat(pid); ok {
			all[pid] = st
		}
	}
	first, second := 0, 0
	for pid, st := range all {
		if _, worker := all[st.parent]; worker {
			continue
		}
		if first != 0 {
			second = first
		}
		first = pid
	}
	switch {
	case first == 0:
		return 0, fmt.Errorf("no process has the command line %q", line)
	case second != 0:
		return 0, fmt.Errorf("pids %d and %d both have the command line %q, and neither is a worker of the other: attach by pidfile or unit",
			min(first, second), max(first, second), line)
	}
	return first, nil
}

// byUnit finds the main process of a systemd unit: of its control group, the
// oldest whose parent is outside of it.
func (f *finder) byUnit(unit string) (int, error) {
	if !strings.Contains(unit, ".") {
		unit += ".service"
	}
	if strings.Contains(unit, "/") {
		return 0, fmt.Errorf("%q is no name of a unit", unit)
	}
	dir, err := f.unit(unit)
	if err != nil {
		return 0, err
	}
	members := make(map[int]stat)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return err
		}
		b, err := os.ReadFile(path)
		for _, field := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(field); err == nil {
				if st, ok := f.stat(pid); ok {
					members[pid] = st
				}
			}
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
		return 0, fmt.Errorf("looking into unit %s: %w", unit, err)
	}
	main := 0
	for pid, st := range members {
		if _, inside := members[st.parent]; inside {
			continue
		}
		if main == 0 || st.began < members[main].began || st.began == members[main].began && pid < main {
			main = pid
		}
	}
	if main == 0 {
		return 0, fmt.Errorf("unit %s has no process", unit)
	}
	return main, nil
}

// maxDepth bounds how deep in slices a unit is looked for.
const maxDepth = 6

// unit finds the control group of a unit: in the slice of the system, else in any.
func (f *finder) unit(unit string) (string, error) {
	// Version 2, version 2 beside version 1, and systemd's own of version 1.
	for _, base := range []string{".", "unified", "systemd"} {
		root := filepath.Join(f.cgroups, base)
		if dir := filepath.Join(root, "system.slice", unit); isDir(dir) {
			return dir, nil
		}
		if dir := below(root, unit, maxDepth); dir != "" {
			return dir, nil
		}
	}
	return "", fmt.Errorf("unit %s does not run on this machine: it has no control group", unit)
}

// below looks for a unit in the slices below a directory.
func below(dir, unit string, depth int) string {
	list, err := os.ReadDir(dir)
	if err != nil || depth == 0 {
		return ""
	}
	for _, d := range list {
		path := filepath.Join(dir, d.Name())
		if d.Name() == unit && d.IsDir() {
			return path
		}
		if d.IsDir() && strings.HasSuffix(d.Name(), ".slice") {
			if at := below(path, unit, depth-1); at != "" {
				return at
			}
		}
	}
	return ""
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// stat is what is read of /proc/PID/stat.
type stat struct {
	parent int
	began  ha.Instant
}

// stat looks at a process; false if it does not run. A zombie does not.
func (f *finder) stat(pid int) (stat, bool) {
	b, err := os.ReadFile(filepath.Join(f.proc, strconv.Itoa(pid), "stat"))
	if err != nil {
		return stat{}, false
	}
	// The name in parentheses may hold anything, also ") 1 ": the last one ends it.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return stat{}, false
	}
	parent, err1 := strconv.Atoi(fields[1])
	ticks, err2 := strconv.ParseInt(fields[19], 10, 64)
	return stat{parent, ha.Instant(ticks) * ha.Instant(time.Second/ticksPerSecond)}, err1 == nil && err2 == nil
}

// Split splits a command line at spaces; double quotes hold an argument with
// spaces together (the CMM's rule).
func Split(line string) ([]string, error) {
	var args []string
	var b strings.Builder
	in, quoted := false, false
	for _, r := range line {
		switch {
		case r == '"':
			quoted, in = !quoted, true
		case r == ' ' && !quoted:
			if in {
				args = append(args, b.String())
				b.Reset()
			}
			in = false
		default:
			b.WriteRune(r)
			in = true
		}
	}
	if quoted {
		return nil, fmt.Errorf("the command line %q has a quote that does not end", line)
	}
	if in {
		args = append(args, b.String())
	}
	if len(args) == 0 {
		return nil, errors.New("the command line is empty")
	}
	return args, nil
}
