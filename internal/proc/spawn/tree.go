package spawn

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"gemel/internal/ha"
	"gemel/internal/proc"
)

// controllers are those that limits need, in the order of Cgroup.dirs after v2.
var controllers = [...]string{"memory", "pids", "cpu"}

// Tree is where the control groups of programs live on this machine. It may be
// used by several goroutines.
type Tree struct {
	name  string
	v2    string            // directory of this instance in cgroup v2; "" none
	v1    map[string]string // the same for each controller of v1
	on    map[string]bool   // controllers that work in v2
	kill  bool
	ice   bool // cgroup.freeze
	why   string
	notes []string

	mounts mounts          // changes; it has a lock of its own, as the shelf has
	shelf  *shelf          // nil: nothing is reserved
	born   atomic.Bool     // a child was born in a group of v2
	files  *syscall.Rlimit // of descriptors, before the Go runtime raised it; nil: it did not
}

// Open finds the place for control groups: under the group of the caller in
// cgroup v2 (pure, or hybrid at /sys/fs/cgroup/unified), with the controllers
// memory, pids and cpu taken from v1 where they live there. Name is the directory
// of this instance ("gemel", or "gemel-" and a hash of its run directory), so
// that several live beside each other. A machine without any is no error: the
// Tree then holds programs by session and process group, and Notes says so.
//
// Where cgroup v2 forbids processes beside groups with controllers, the caller
// and all processes of the same binary are moved into a group "daemon".
// Open starts and ends one short-lived child; call it before other children are
// waited for by waitid(P_ALL).
func Open(name string) (*Tree, error) {
	if name == "" || strings.ContainsAny(name, "/\n") || name == "daemon" || name[0] == '.' {
		return nil, fmt.Errorf("open control groups: %q cannot be the name of a directory of this instance", name)
	}
	h, err := readHierarchy()
	if err != nil {
		return nil, fmt.Errorf("open control groups: %w", err)
	}
	t := &Tree{name: name, v1: map[string]string{}, on: map[string]bool{}}
	t.openV2(h)
	t.openV1(h)
	t.probe()
	t.remark()
	return t, nil
}

// openV2 takes the first place where all controllers of the hierarchy work, else
// the first where a group can be made.
func (t *Tree) openV2(h *hierarchy) {
	if h.mount == "" {
		t.why = "cgroup v2 is not mounted"
		return
	}
	places := []string{h.own}
	if h.mount != h.own {
		places = append(places, h.mount)
	}
	best := -1
	for _, place := range places {
		dir := filepath.Join(place, t.name)
		if err := makeGroup(dir); err != nil {
			if t.why == "" {
				t.why = "no group can be made in " + place + ": " + cause(err)
			}
			continue
		}
		on, want := enable(place, dir)
		if len(on) > best {
			if t.v2 != "" {
				_ = os.Remove(t.v2) // made a moment ago, empty
			}
			best, t.v2, t.on = len(on), dir, on
		}
		if len(on) >= want {
			break
		}
	}
}

func (t *Tree) openV1(h *hierarchy) {
	for _, c := range controllers {
		if t.on[c] || h.v1[c].mount == "" {
			continue
		}
		for _, place := range []string{h.v1[c].own, h.v1[c].mount} {
			dir := filepath.Join(place, t.name)
			if makeGroup(dir) == nil {
				t.v1[c] = dir
				break
			}
		}
	}
}

func makeGroup(dir string) error {
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return writable(dir + "/cgroup.procs")
	}
	return err
}

// writable tells whether a group that was there before is ours to use.
func writable(file string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// enable gives the wanted controllers to the groups below dir, which is in place.
// It returns those that work, and how many place could give.
func enable(place, dir string) (on map[string]bool, want int) {
	on = map[string]bool{}
	have := words(place + "/cgroup.controllers")
	var missing bool
	now := words(place + "/cgroup.subtree_control")
	for _, c := range controllers {
		if slices.Contains(have, c) {
			want++
			missing = missing || !slices.Contains(now, c)
		}
	}
	if missing {
		makeRoom(place)
	}
	for _, c := range controllers {
		if !slices.Contains(have, c) {
			continue
		}
		if !slices.Contains(now, c) && write(place+"/cgroup.subtree_control", "+"+c) != nil {
			continue
		}
		on[c] = write(dir+"/cgroup.subtree_control", "+"+c) == nil
		if !on[c] {
			delete(on, c)
		}
	}
	return on, want
}

// makeRoom moves the processes of this binary out of place, into a leaf, because a
// group with processes in it cannot give controllers to its children. Where other
// people's processes are, it is not ours to rearrange.
func makeRoom(place string) {
	if _, err := os.Stat(place + "/cgroup.type"); err != nil {
		return // the true root is exempt from the rule
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	pids := numbers(place + "/cgroup.procs")
	for _, pid := range pids {
		if exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe"); err != nil || strings.TrimSuffix(exe, " (deleted)") != self {
			return
		}
	}
	leaf := place + "/daemon"
	if err := makeGroup(leaf); err != nil {
		return
	}
	for _, pid := range pids {
		_ = write(leaf+"/cgroup.procs", strconv.Itoa(pid)) // what stays makes the controllers fail, which is said
	}
}

// String prints "v2 DIR", "hybrid DIR; memory, pids, cpu by v1", or
// "process groups: WHY".
func (t *Tree) String() string {
	var by []string
	for _, c := range controllers {
		if t.v1[c] != "" {
			by = append(by, c)
		}
	}
	old := strings.Join(by, ", ") + " by v1"
	switch {
	case t.v2 != "" && len(by) > 0:
		return "hybrid " + t.v2 + "; " + old
	case t.v2 != "":
		return "v2 " + t.v2
	case len(by) > 0:
		return "process groups: " + t.why + "; " + old
	}
	return "process groups: " + t.why
}

// Notes lists what is lacking on this machine, one sentence each.
func (t *Tree) Notes() []string { return slices.Clone(t.notes) }

func (t *Tree) remark() {
	if t.v2 == "" {
		t.notes = append(t.notes, "There are no control groups ("+t.why+
			"): programs are held by session and environment, and a child that leaves both is not found.")
	} else {
		t.kill = exists(t.v2 + "/cgroup.kill")
		t.ice = exists(t.v2 + "/cgroup.freeze")
		if !t.kill {
			t.notes = append(t.notes, "The kernel has no cgroup.kill (Linux 5.14): the processes of a program are killed one by one.")
		}
		if !t.ice {
			t.notes = append(t.notes, "The kernel has no cgroup.freeze (Linux 5.2): the processes of a program are stopped one by one.")
		}
	}
	var none []string
	for _, c := range controllers {
		if !t.Has(c) {
			none = append(none, c)
		}
	}
	if len(none) > 0 {
		t.notes = append(t.notes, "There is no "+strings.Join(none, ", no ")+" controller here: a start with such a limit is refused.")
	}
}

// Has reports whether the machine can do one of memory, cpu, pids (limits), kill
// and freeze (of a whole tree at once).
func (t *Tree) Has(resource string) bool {
	switch resource {
	case "kill":
		return t.kill
	case "freeze":
		return t.ice
	}
	return t.on[resource] || t.v1[resource] != ""
}

// Make makes the control group of a start and sets the limits of s. A limit that
// this machine has no controller for is an error, never ignored. On a machine
// without control groups it returns a Cgroup that holds the session of the start.
func (t *Tree) Make(p ha.Process, id ha.StartID, s *proc.Spec) (*Cgroup, error) {
	c := &Cgroup{tree: t, id: id}
	if err := c.make(s); err != nil {
		_ = c.Remove() // nothing was started in it
		return nil, fmt.Errorf("make control group of start %s of %s: %w", id, p, err)
	}
	return c, nil
}

// Find lists the starts whose control groups are there, for adoption; the caller
// removes those of dead starts.
func (t *Tree) Find() ([]ha.StartID, error) {
	var ids []ha.StartID
	for _, base := range t.bases() {
		if base == "" {
			continue
		}
		list, err := os.ReadDir(base)
		if err != nil {
			return nil, fmt.Errorf("list control groups: %w", err)
		}
		for _, d := range list {
			n, ok := strings.CutPrefix(d.Name(), dirPrefix)
			if id, err := strconv.ParseUint(n, 10, 64); ok && err == nil {
				ids = append(ids, ha.StartID(id))
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// At returns the control group of a start that Find told, or that of a program
// without one: ok is false if there is no group (then the Cgroup works by session;
// see Lead).
func (t *Tree) At(id ha.StartID) (*Cgroup, bool) {
	c := &Cgroup{tree: t, id: id}
	ok := false
	for i, base := range t.bases() {
		if dir := filepath.Join(base, dirOf(id)); base != "" && exists(dir) {
			c.dirs[i], ok = dir, true
		}
	}
	return c, ok
}

// Close removes the directories of this instance if no group is left in them.
// Programs that run keep theirs.
func (t *Tree) Close() {
	t.mounts.close()
	if t.shelf != nil {
		t.shelf.close()
	}
	for _, base := range t.bases() {
		if base != "" {
			for _, other := range others(base) {
				_ = os.Remove(other)
			}
			_ = os.Remove(base) // refused by the kernel while groups are left, which is right
		}
	}
}

// Place is the directory of this instance in cgroup v2, for groups of other names than
// those of starts; "": there is none. Close removes such a group when it is empty.
func (t *Tree) Place() string { return t.v2 }

// treeText is a Tree for another process.
type treeText struct {
	Name string            `json:"name"`
	V2   string            `json:"v2,omitempty"`
	V1   map[string]string `json:"v1,omitempty"`
	Kill bool              `json:"kill,omitempty"`
	Ice  bool              `json:"ice,omitempty"`
}

// MarshalText writes down where the control groups are.
func (t *Tree) MarshalText() ([]byte, error) {
	return json.Marshal(treeText{t.name, t.v2, t.v1, t.kill, t.ice})
}

// UnmarshalText makes of a new Tree one that finds the control groups of another
// process (At, Find) and ends what is in them. It changes nothing on the machine, and
// makes no groups.
func (t *Tree) UnmarshalText(b []byte) error {
	var x treeText
	if err := json.Unmarshal(b, &x); err != nil {
		return fmt.Errorf("reading where control groups are: %w", err)
	}
	t.name, t.v2, t.v1, t.kill, t.ice = x.Name, x.V2, x.V1, x.Kill, x.Ice
	return nil
}

// others are the groups in base that are no starts.
func others(base string) (dirs []string) {
	list, err := os.ReadDir(base)
	if err != nil {
		return nil
	}
	for _, d := range list {
		if d.IsDir() && !strings.HasPrefix(d.Name(), dirPrefix) {
			dirs = append(dirs, filepath.Join(base, d.Name()))
		}
	}
	return dirs
}

// bases are the directories of this instance, in the order of Cgroup.dirs.
func (t *Tree) bases() [4]string {
	all := [4]string{t.v2}
	for i, c := range controllers {
		all[i+1] = t.v1[c]
	}
	return all
}

const dirPrefix = "start-"

func dirOf(id ha.StartID) string { return dirPrefix + id.String() }
