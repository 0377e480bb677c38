// Package rack builds a cluster of Gemel's on one machine: nodes in network
// namespaces, joined by switches in a namespace of their own, and beside them an
// oracle that no fault touches. It is for tests and campaigns only; it needs root,
// ip and nft.
//
// All nodes share the machine's one CLOCK_BOOTTIME, so what the oracle measures
// across nodes is exact: in milliseconds, and without a clock to agree on.
//
// A rack takes itself down when it is closed, and also when its owner dies: a
// process that only waits for that does it. What is left of racks whose owner was
// killed together with that process is swept by the next New.
package rack

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// The networks of a rack: Blue is IPv4 and Red is IPv6, both between nodes; Service
// is where the service address is and the client asks. Faults of nodes take their
// part of all three; faults of networks leave Service alone.
const (
	Blue    = "blue"
	Red     = "red"
	Service = "svc"
)

// Group is the one group of a rack: it has a program (Play) and the service address.
const Group ha.Group = "web"

// Options are what a rack is made of.
type Options struct {
	Gemel   string   // the binary of the nodes
	Nodes   int      // that may run the group; zero: two. With two there is a witness beside them
	Profile string   // of the timers; empty: normal
	Program []string // command that calls Play, without the arguments of Play
	Env     []string // KEY=VALUE, for the program
	Managed bool     // the nodes know of a service manager
	// Parts are more keys of the group, as a manifest has them; DIR in it is the rack's.
	Parts string
	Fence func(ha.Node) *manifest.Fence // how a node is turned off; nil: not at all
	// Level changes what makes the exclusivity of a node; nil: nothing does.
	Level func(ha.Node, *manifest.Level)
	Dir   string // holds everything; empty: one in memory if there is such a place
	Disk  int64  // bytes of a disk of its own for each node's data, in memory; zero: none
	Log   io.Writer
}

// A Rack is a cluster. Its methods are for one goroutine.
type Rack struct {
	Dir    string
	Client *Client
	Oracle *Oracle
	Start  ha.Instant // everything that the rack notes counts from here

	o      Options
	prefix string // of the names of its namespaces
	nodes  []*Node
	sw     *space
	drops  []drop
	undo   io.Closer // its end takes the rack down
	down   *exec.Cmd // the process that does
	keep   bool
}

// New builds a rack and starts nothing on it. It is closed by Close.
func New(o Options) (r *Rack, err error) {
	if o.Nodes == 0 {
		o.Nodes = 2
	}
	if o.Profile == "" {
		o.Profile = "normal"
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	if err := sweep(); err != nil {
		return nil, err
	}
	r = &Rack{o: o, Start: clock.Now()}
	if r.prefix, err = newName(); err != nil {
		return nil, err
	}
	r.Dir = o.Dir
	if r.Dir == "" {
		// In memory: what others write to the disk is no fault that was ordered.
		r.Dir = filepath.Join("/tmp", r.prefix)
		var fs unix.Statfs_t
		if unix.Statfs("/dev/shm", &fs) == nil && fs.Type == unix.TMPFS_MAGIC && fs.Bavail*uint64(fs.Bsize) > 2<<30 {
			r.Dir = filepath.Join("/dev/shm", r.prefix)
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
			r = nil
		}
	}()
	for i := range o.Nodes {
		r.nodes = append(r.nodes, &Node{Name: ha.Node(rune('a' + i)), number: i + 1, rack: r})
	}
	if o.Nodes == 2 {
		r.nodes = append(r.nodes, &Node{Name: "w", Witness: true, number: 3, rack: r})
	}
	if err := watch(r); err != nil {
		return r, err
	}
	if err := build(r); err != nil {
		return r, err
	}
	key := hex.EncodeToString([]byte(strings.Repeat(r.prefix, 3))[:32])
	for _, n := range r.nodes {
		if err := prepare(n, key); err != nil {
			return r, err
		}
	}
	if r.Oracle, err = observe(r); err != nil {
		return r, err
	}
	r.Client, err = newClient(r)
	return r, err
}

// newName is one that no other rack of this machine has, and tells whose it is: pid
// and start time of its owner.
func newName() (string, error) {
	began, err := startTime(os.Getpid())
	if err != nil {
		return "", err
	}
	for i := range 1000 {
		p := fmt.Sprintf("rack-%d-%s-%d", os.Getpid(), began, i)
		if err := os.Mkdir(filepath.Join("/tmp", p), 0o755); err == nil {
			return p, nil
		} else if !errors.Is(err, os.ErrExist) {
			return "", fmt.Errorf("making the directory of a rack: %w", err)
		}
	}
	return "", errors.New("a thousand racks of this process are there already: close some")
}

// startTime is when a process began, as a word; it fails if the process is gone.
func startTime(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", fmt.Errorf("reading when process %d began: %w", pid, err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 20 {
		return "", fmt.Errorf("/proc/%d/stat has only %d fields", pid, len(f)+2)
	}
	return f[19], nil
}

// takeDown waits for the end of its input and takes away what the names in
// $DIR/names still name: first the processes, then the disks and namespaces, at last the
// control groups that are listed beside.
const takeDown = `cat >/dev/null
trap '' HUP INT TERM
for round in 1 2 3 4 5 6 7 8 9 10; do
	left=
	for n in $(cat "$DIR/names"); do
		p=$(ip netns pids "$n" 2>/dev/null) || true
		[ -n "$p" ] && { left=1; kill -9 $p 2>/dev/null || true; }
	done
	[ -z "$left" ] && break
	sleep 0.1
done
[ -f "$DIR/mounts" ] && for d in $(cat "$DIR/mounts"); do umount -l "$d" 2>/dev/null || true; done
for n in $(cat "$DIR/names"); do ip netns del "$n" 2>/dev/null || true; done
[ -f "$DIR/trees" ] && for t in $(sort -u "$DIR/trees"); do
	for d in /sys/fs/cgroup/"$t" /sys/fs/cgroup/*/"$t" /sys/fs/cgroup/*/*/"$t"; do
		[ -d "$d" ] && { rmdir "$d"/* 2>/dev/null; rmdir "$d" 2>/dev/null; }
	done
done
true
`

// watch starts the process that takes the rack down when this one ends, however.
func watch(r *Rack) error {
	names := r.prefix + "-sw\n"
	for _, n := range r.nodes {
		names += r.prefix + "-" + string(n.Name) + "\n"
	}
	at := filepath.Join("/tmp", r.prefix)
	if err := os.WriteFile(filepath.Join(at, "names"), []byte(names), 0o600); err != nil {
		return fmt.Errorf("noting the namespaces of a rack: %w", err)
	}
	r.down = exec.Command("sh", "-c", takeDown)
	r.down.Env = append(os.Environ(), "DIR="+at)
	r.down.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	in, err := r.down.StdinPipe()
	if err != nil {
		return fmt.Errorf("preparing the end of a rack: %w", err)
	}
	if err := r.down.Start(); err != nil {
		return fmt.Errorf("preparing the end of a rack: %w", err)
	}
	r.undo = in
	return nil
}

// Keep leaves the directory where it is when the rack is closed.
func (r *Rack) Keep() { r.keep = true }

// Close ends everything that runs in the rack, and takes it away. The directory
// stays if Keep was called.
func (r *Rack) Close() error {
	if r.Client != nil {
		r.Client.close()
	}
	if r.Oracle != nil {
		r.Oracle.close()
	}
	var err error
	for _, n := range r.nodes {
		unkeep(n)
		noteTrees(n)
		err = errors.Join(err, quick(n))
	}
	// What is on the disks may have to be kept: they are taken away below.
	if e := os.Remove(filepath.Join("/tmp", r.prefix, "mounts")); !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	if r.undo != nil {
		err = errors.Join(err, r.undo.Close())
		if e := r.down.Wait(); e != nil {
			err = errors.Join(err, fmt.Errorf("taking a rack down: %w", e))
		}
	}
	for _, n := range r.nodes {
		n.keeper.Wait()
		err = errors.Join(err, unmount(n, r.keep))
	}
	if !r.keep {
		err = errors.Join(err, os.RemoveAll(r.Dir))
	}
	if at := filepath.Join("/tmp", r.prefix); at != r.Dir {
		err = errors.Join(err, os.RemoveAll(at))
	}
	return err
}

// noteTrees notes the names of a node's control groups, for who takes them away.
func noteTrees(n *Node) {
	f, err := os.OpenFile(filepath.Join("/tmp", n.rack.prefix, "trees"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return // they stay; nothing else depends on it
	}
	defer f.Close()
	for _, p := range n.Processes() {
		for _, w := range words(p.PID, "environ") {
			if t, ok := strings.CutPrefix(w, "GEMEL_TREE="); ok && !strings.ContainsAny(t, "/ *?[") {
				_, _ = fmt.Fprintln(f, t)
			}
		}
	}
}

// sweep takes away the racks whose owner is dead and that still stand: those of
// whom somebody killed the process that takes them down as well.
func sweep() error {
	dirs, err := filepath.Glob("/tmp/rack-*-*-*")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		f := strings.Split(filepath.Base(dir), "-")
		pid, err := strconv.Atoi(f[1])
		if err != nil || len(f) != 4 {
			continue
		}
		if began, err := startTime(pid); err == nil && began == f[2] {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "names")); err != nil {
			continue
		}
		c := exec.Command("sh", "-c", takeDown)
		c.Env = append(os.Environ(), "DIR="+dir)
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("sweeping %s, whose owner is dead: %w\n%s", dir, err, out)
		}
		// What a dead campaign found may be worth more than the space.
		if err := os.Remove(filepath.Join(dir, "names")); err != nil {
			return fmt.Errorf("sweeping %s: %w", dir, err)
		}
	}
	return nil
}

// Nodes lists all, the witness last.
func (r *Rack) Nodes() []*Node { return slices.Clone(r.nodes) }

// Node finds one by its name; a name that there is not is a mistake of the caller.
func (r *Rack) Node(name ha.Node) *Node {
	i := slices.IndexFunc(r.nodes, func(n *Node) bool { return n.Name == name })
	if i < 0 {
		panic("rack: there is no node " + string(name))
	}
	return r.nodes[i]
}

// Address is the service address.
func (r *Rack) Address() netip.Addr { return netip.MustParseAddr("10.77.3.100") }

// Begin starts all nodes and waits until the client is answered and the cluster is
// whole.
func (r *Rack) Begin(bound time.Duration) error {
	for _, n := range r.nodes {
		if err := n.Start(); err != nil {
			return err
		}
	}
	if _, err := r.Active(bound); err != nil {
		return err
	}
	return r.Whole(bound)
}

// Active waits until the client is answered by a node, and returns which.
func (r *Rack) Active(bound time.Duration) (*Node, error) {
	since := clock.Now()
	for {
		if a, ok := r.Client.last(); ok && a.Sent >= since {
			return r.Node(a.Node), nil
		}
		if clock.Now().Sub(since) > bound {
			return nil, fmt.Errorf("nobody answered at the service address within %v", bound)
		}
		time.Sleep(time.Millisecond)
	}
}

// Note writes a line with the time since the beginning.
func (r *Rack) Note(format string, args ...any) {
	_, _ = fmt.Fprintf(r.o.Log, "%9.3f %s\n", clock.Now().Sub(r.Start).Seconds(), fmt.Sprintf(format, args...))
}
