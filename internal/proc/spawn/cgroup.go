package spawn

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
	"gemel/internal/proc"
)

// Cgroup holds all processes of one start: a control group, or on machines
// without one the session of its first process and whatever carries its id in the
// environment. Its methods may be called by several goroutines.
type Cgroup struct {
	tree *Tree
	id   ha.StartID

	mu    sync.Mutex
	dirs  [4]string // v2, then v1 of each controller; "" none
	watch int       // cgroup.events, open; 0: not held
	lead  int       // first process; 0 not known
	since uint64    // start time of lead in clock ticks
}

func (c *Cgroup) joins() [4]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dirs
}

// make makes the directories and writes the limits. Groups of v1 are made only
// for a limit, because entering one after the fork costs a grace period of the
// kernel.
func (c *Cgroup) make(s *proc.Spec) error {
	t := c.tree
	wants := [...]bool{s.Memory > 0, s.PIDs > 0, s.CPU > 0}
	if t.v2 != "" {
		if err := c.mkdir(0, t.v2); err != nil {
			return err
		}
	}
	for i, name := range controllers {
		switch {
		case !wants[i]:
		case t.on[name]:
			if err := limitV2(c.dirs[0], name, s); err != nil {
				return err
			}
		case t.v1[name] != "":
			if err := c.mkdir(i+1, t.v1[name]); err != nil {
				return err
			}
			if err := limitV1(c.dirs[i+1], name, s); err != nil {
				return err
			}
		default:
			return fmt.Errorf("a %s limit is asked for, but this machine has no %s controller that can be used (%s): take the limit out, or let the controller be delegated", name, name, t)
		}
	}
	return nil
}

func (c *Cgroup) mkdir(i int, base string) error {
	dir := filepath.Join(base, dirOf(c.id))
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	c.dirs[i] = dir
	return nil
}

const cpuPeriod = 100_000 // microseconds

func quota(cores float64) int64 { return max(1000, int64(cores*cpuPeriod)) }

func limitV2(dir, name string, s *proc.Spec) error {
	switch name {
	case "memory":
		return write(dir+"/memory.max", strconv.FormatInt(s.Memory, 10))
	case "pids":
		return write(dir+"/pids.max", strconv.Itoa(s.PIDs))
	}
	return write(dir+"/cpu.max", fmt.Sprintf("%d %d", quota(s.CPU), cpuPeriod))
}

func limitV1(dir, name string, s *proc.Spec) error {
	switch name {
	case "memory":
		return write(dir+"/memory.limit_in_bytes", strconv.FormatInt(s.Memory, 10))
	case "pids":
		return write(dir+"/pids.max", strconv.Itoa(s.PIDs))
	}
	if err := write(dir+"/cpu.cfs_period_us", strconv.Itoa(cpuPeriod)); err != nil {
		return err
	}
	return write(dir+"/cpu.cfs_quota_us", strconv.FormatInt(quota(s.CPU), 10))
}

// Lead tells the first process of a start that was adopted. Ready.Start and
// Parked.Release tell their own. If the group lies elsewhere than in the Tree,
// because an earlier daemon ran in another place, it is found by its process.
func (c *Cgroup) Lead(pid int) {
	since := uint64(0)
	if c.joins()[0] == "" {
		since = startTicks(pid)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lead, c.since = pid, since
	if c.dirs == [4]string{} {
		c.find(pid)
	}
}

// find looks for the group of a pid in the mounted hierarchies.
func (c *Cgroup) find(pid int) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	groups, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return
	}
	h := parseHierarchy(string(mounts), string(groups))
	all := [4]string{h.own}
	for i, name := range controllers {
		all[i+1] = h.v1[name].own
	}
	for i, dir := range all {
		if filepath.Base(dir) == dirOf(c.id) && exists(dir) {
			c.dirs[i] = dir
		}
	}
}

// Start is the start that the group was made for.
func (c *Cgroup) Start() ha.StartID { return c.id }

// Path is the directory of the group in v2, else the first in v1; empty without.
func (c *Cgroup) Path() string {
	for _, dir := range c.joins() {
		if dir != "" {
			return dir
		}
	}
	return ""
}

// Kill sends SIGKILL to every process of the group, frozen ones and those being
// forked at this moment as well. It does not wait for their end.
func (c *Cgroup) Kill() error {
	if dir := c.joins()[0]; dir != "" && exists(dir+"/cgroup.kill") {
		err := write(dir+"/cgroup.kill", "1")
		if err != nil && exists(dir) {
			return fmt.Errorf("kill start %s: %w", c.id, err)
		}
		return nil
	}
	if err := c.killEach(); err != nil {
		return fmt.Errorf("kill start %s: %w", c.id, err)
	}
	return nil
}

// Freeze asks that every process of the group stops, or goes on; it does not wait
// until they have.
func (c *Cgroup) Freeze(on bool) error {
	word := "0"
	if on {
		word = "1"
	}
	if dir := c.joins()[0]; dir != "" && exists(dir+"/cgroup.freeze") {
		if err := write(dir+"/cgroup.freeze", word); err != nil {
			return fmt.Errorf("freeze start %s: %w", c.id, err)
		}
		return nil
	}
	if err := c.stopEach(on); err != nil {
		return fmt.Errorf("freeze start %s: %w", c.id, err)
	}
	return nil
}

// Procs lists the processes of the group, zombies not counted where the kernel
// can tell.
func (c *Cgroup) Procs() ([]int, error) {
	dir := c.Path()
	if dir == "" {
		return c.members()
	}
	b, err := slurp(dir + "/cgroup.procs")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list processes of start %s: %w", c.id, err)
	}
	var pids []int
	for _, w := range strings.Fields(string(b)) {
		if pid, err := strconv.Atoi(w); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Empty reports whether no process is left in the group. What cannot be read is
// not taken for empty.
func (c *Cgroup) Empty() bool {
	if empty, ok := c.watched(); ok {
		return empty
	}
	if dir := c.joins()[0]; dir != "" {
		if !exists(dir) {
			return true
		}
		w := words(dir + "/cgroup.events")
		for i := 0; i+1 < len(w); i += 2 {
			if w[i] == "populated" {
				return w[i+1] == "0"
			}
		}
		return false
	}
	pids, err := c.Procs()
	return err == nil && len(pids) == 0
}

// OOMKills counts the processes of the group that the out-of-memory killer ended
// because of the group's own limit.
func (c *Cgroup) OOMKills() int {
	dirs := c.joins()
	n := int64(0)
	if dirs[0] != "" {
		n += field(dirs[0]+"/memory.events", "oom_kill")
	}
	if dirs[1] != "" {
		n += field(dirs[1]+"/memory.oom_control", "oom_kill")
	}
	return int(n)
}

// Usage returns the CPU time used so far, the memory used now in bytes and the
// number of tasks; each is zero where the machine does not account. Without a
// memory controller, memory is the sum of what the processes have resident, in
// which shared pages count for each.
func (c *Cgroup) Usage() (cpu time.Duration, memory int64, tasks int) {
	dirs := c.joins()
	if dirs[0] != "" {
		cpu = time.Duration(field(dirs[0]+"/cpu.stat", "usage_usec")) * time.Microsecond
		tasks = len(words(dirs[0] + "/cgroup.threads"))
		for _, n := range numbers(dirs[0] + "/memory.current") {
			memory = int64(n)
		}
	}
	if dirs[1] != "" {
		for _, n := range numbers(dirs[1] + "/memory.usage_in_bytes") {
			memory = int64(n)
		}
	}
	if cpu > 0 && memory > 0 {
		return cpu, memory, tasks
	}
	pids, err := c.Procs()
	if err != nil {
		return cpu, memory, tasks
	}
	sum := sumOf(pids)
	if cpu == 0 {
		cpu = sum.cpu
	}
	if memory == 0 {
		memory = sum.memory
	}
	return cpu, memory, max(tasks, sum.tasks)
}

// Remove removes the group, and groups that the program made in it. While
// processes are left it fails with an error that is syscall.EBUSY, and the caller
// tries again; a group that is gone is no error.
func (c *Cgroup) Remove() error {
	for _, dir := range c.joins() {
		if dir == "" {
			continue
		}
		if err := removeTree(dir); err != nil {
			return fmt.Errorf("remove control group %s: %w", dir, cleaned(err))
		}
	}
	return nil
}

func removeTree(dir string) error {
	err := os.Remove(dir)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	list, rerr := os.ReadDir(dir)
	if rerr != nil {
		return err
	}
	inner := false
	for _, d := range list {
		if d.IsDir() {
			inner = true
			if err := removeTree(filepath.Join(dir, d.Name())); err != nil {
				return err
			}
		}
	}
	if !inner {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Watch makes Empty cheap, at the price of a descriptor until Close. It is for
// programs whose successor is to start as soon as they have ended.
func (c *Cgroup) Watch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watch != 0 || c.dirs[0] == "" {
		return
	}
	if fd, err := unix.Open(c.dirs[0]+"/cgroup.events", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		c.watch = fd // else Empty goes the long way
	}
}

// watched is Empty by the descriptor of Watch; ok is false if that cannot tell.
func (c *Cgroup) watched() (empty, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watch == 0 {
		return false, false
	}
	var b [128]byte
	n, err := unix.Pread(c.watch, b[:], 0)
	if err != nil {
		return false, false
	}
	_, rest, found := bytes.Cut(b[:n], []byte("populated "))
	return len(rest) > 0 && rest[0] == '0', found && len(rest) > 0
}

// Close gives back what Watch holds.
func (c *Cgroup) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watch != 0 {
		_ = unix.Close(c.watch) // nothing was written
		c.watch = 0
	}
}
