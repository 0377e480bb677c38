package spawn

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// members finds the processes of a start where there is no control group: those
// in the session of the first one, those with its id in their environment, and
// the descendants of both.
func (c *Cgroup) members() ([]int, error) {
	all, err := processes()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	c.mu.Lock()
	lead, since := c.lead, c.since
	c.mu.Unlock()
	if s, there := all[lead]; there && since != 0 && s.ticks != since {
		lead = 0 // the number belongs to a stranger now
	}
	in := map[int]bool{}
	for pid, s := range all {
		if lead > 0 && s.session == lead && s.ticks >= since || environHas("/proc/"+strconv.Itoa(pid), envStart+c.id.String(), envTree+c.tree.name) {
			in[pid] = true
		}
	}
	for grown := true; grown; {
		grown = false
		for pid, s := range all {
			if !in[pid] && in[s.parent] {
				in[pid], grown = true, true
			}
		}
	}
	var out []int
	for pid := range in {
		if s := all[pid].state; s != 'Z' && s != 'X' && pid != os.Getpid() {
			out = append(out, pid)
		}
	}
	return out, nil
}

func processes() (map[int]stat, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	all := map[int]stat{}
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		if s, ok := readStat(pid); ok {
			all[pid] = s
		}
	}
	return all, nil
}

// everyone lists the processes of a group and of those that the program made in it.
func everyone(c *Cgroup) ([]int, error) {
	pids, err := c.Procs()
	dir := c.Path()
	if err != nil || dir == "" {
		return pids, err
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != dir {
			pids = append(pids, numbers(path+"/cgroup.procs")...)
		}
		return nil // what is gone meanwhile holds nobody
	})
	return pids, err
}

const killRounds = 1000 // against a program that forks as fast as it is killed

// killEach kills one by one, again and again until a look around finds nobody new:
// a process may fork between the look and its end. Where the kernel can freeze, no
// process can.
func (c *Cgroup) killEach() error {
	if dir := c.joins()[0]; dir != "" && exists(dir+"/cgroup.freeze") {
		_ = c.Freeze(true) // the rounds below do without
		defer func() { _ = c.Freeze(false) }()
	}
	hit := map[int]uint64{}
	for range killRounds {
		pids, err := everyone(c)
		if err != nil {
			return err
		}
		fresh := 0
		for _, pid := range pids {
			ticks := startTicks(pid)
			if ticks == 0 || hit[pid] == ticks {
				continue
			}
			hit[pid] = ticks
			fresh++
			if err := send(pid, ticks, unix.SIGKILL); err != nil {
				return err
			}
		}
		if fresh == 0 {
			return nil
		}
	}
	return fmt.Errorf("it forks faster than it can be killed: %d processes were", len(hit))
}

func (c *Cgroup) stopEach(on bool) error {
	sig := unix.SIGCONT
	if on {
		sig = unix.SIGSTOP
	}
	pids, err := everyone(c)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := send(pid, startTicks(pid), sig); err != nil {
			return err
		}
	}
	return nil
}

// send signals a process by pidfd, so that a number that changed hands between
// the look and the signal hits nobody.
func send(pid int, ticks uint64, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("hold process %d: %w", pid, err)
	}
	defer shut(fd)
	if ticks == 0 || startTicks(pid) != ticks {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %s to process %d: %w", unix.SignalName(sig), pid, err)
	}
	return nil
}

type sum struct {
	cpu    time.Duration
	memory int64
	tasks  int
}

// sumOf adds up what the processes use, by /proc.
func sumOf(pids []int) sum {
	var s sum
	for _, pid := range pids {
		dir := "/proc/" + strconv.Itoa(pid)
		if m := numbers(dir + "/statm"); len(m) > 1 {
			s.memory += int64(m[1]) * int64(os.Getpagesize())
		}
		b, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(f) < 18 {
			continue
		}
		for _, i := range []int{11, 12} { // user and system time, in hundredths of a second
			n, _ := strconv.ParseInt(f[i], 10, 64)
			s.cpu += time.Duration(n) * 10 * time.Millisecond
		}
		n, _ := strconv.Atoi(f[17])
		s.tasks += n
	}
	return s
}
