package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// pids lists every process of the machine.
func pids() []int {
	dirs, _ := os.ReadDir("/proc")
	var out []int
	for _, d := range dirs {
		if pid, err := strconv.Atoi(d.Name()); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// words reads a file of /proc that is a list with zero bytes between.
func words(pid int, file string) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil || len(b) == 0 {
		return nil
	}
	return strings.Split(string(bytes.TrimSuffix(b, []byte{0})), "\x00")
}

// stat is the letter of a process's state and its parent; zero if it is gone.
func stat(pid int) (state byte, parent int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 2 {
		return 0, 0
	}
	parent, _ = strconv.Atoi(f[1])
	return f[0][0], parent
}

// Alive reports whether a process is there and no zombie.
func Alive(pid int) bool {
	state, _ := stat(pid)
	return state != 0 && state != 'Z' && state != 'X'
}

// traces is what an instance leaves on the machine: processes and control groups.
type traces struct {
	dir  string
	tree string // GEMEL_TREE of its programs; empty while none was seen
}

// halves finds the two halves of this instance by their command lines; zero for
// one that is not there. A parked child looks like the shadow that it was cloned
// from and is told by its parent.
func (i *traces) halves() (shadow, monitor int) {
	var shadows []int
	for _, pid := range pids() {
		w := words(pid, "cmdline")
		if len(w) < 2 || !slices.Contains(w, filepath.Join(i.dir, "run")) || !Alive(pid) {
			continue
		}
		switch w[1] {
		case "monitor":
			monitor = pid
		case "run":
			shadows = append(shadows, pid)
		}
	}
	for _, pid := range shadows {
		if _, parent := stat(pid); !slices.Contains(shadows, parent) {
			shadow = pid
		}
	}
	return shadow, monitor
}

// Programs lists the processes of this instance's programs and their children:
// those that carry its name in their environment, and, because nginx writes over
// its own, those of the control groups.
func (i *traces) Programs() []int {
	found := pids()
	if i.tree == "" {
		i.tree = i.treeOf(found)
	}
	if i.tree == "" {
		return nil
	}
	found = slices.DeleteFunc(found, func(pid int) bool {
		env := words(pid, "environ")
		// The commands of checks know the tree too, and are of no process.
		return !slices.Contains(env, "GEMEL_TREE="+i.tree) ||
			!slices.ContainsFunc(env, func(w string) bool { return strings.HasPrefix(w, "GEMEL_PROCESS=") })
	})
	for _, dir := range i.groups() {
		b, _ := os.ReadFile(dir + "/cgroup.procs")
		for _, w := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(w); err == nil && pid > 0 {
				found = append(found, pid)
			}
		}
	}
	slices.Sort(found)
	return slices.DeleteFunc(slices.Compact(found), func(pid int) bool { return !Alive(pid) })
}

// treeOf reads the name of the instance's tree from a program of its shadow.
func (i *traces) treeOf(all []int) string {
	shadow, _ := i.halves()
	for _, pid := range all {
		if _, parent := stat(pid); shadow == 0 || parent != shadow {
			continue
		}
		for _, w := range words(pid, "environ") {
			if name, ok := strings.CutPrefix(w, "GEMEL_TREE="); ok {
				return name
			}
		}
	}
	return ""
}

// Left describes what is left of an instance: halves, programs, control groups.
func (i *traces) Left() []string {
	var out []string
	shadow, monitor := i.halves()
	for _, pid := range append([]int{shadow, monitor}, i.Programs()...) {
		if pid != 0 {
			out = append(out, fmt.Sprintf("pid %d: %s", pid, strings.Join(words(pid, "cmdline"), " ")))
		}
	}
	for _, dir := range append(i.groups(), i.bases()...) {
		out = append(out, "control group "+dir)
	}
	return out
}

// bases lists the directories that hold the instance's control groups.
func (i *traces) bases() []string {
	if i.tree == "" {
		return nil
	}
	var out []string
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/", "/sys/fs/cgroup/*/*/"} {
		found, _ := filepath.Glob(pattern + i.tree)
		out = append(out, found...)
	}
	return out
}

// groups lists the control groups of programs that are there.
func (i *traces) groups() []string {
	var out []string
	for _, base := range i.bases() {
		found, _ := filepath.Glob(base + "/*/cgroup.procs")
		for _, f := range found {
			out = append(out, filepath.Dir(f))
		}
	}
	return out
}

// sweep kills what is left, and removes the control groups that are empty.
func (i *traces) sweep() {
	shadow, monitor := i.halves()
	for _, pid := range append([]int{shadow, monitor}, i.Programs()...) {
		if pid != 0 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	for _, dir := range append(i.groups(), i.bases()...) {
		_ = os.Remove(dir)
	}
}
