package rack

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/config"
	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// killBound is how long the processes of a node may take to be gone after SIGKILL.
const killBound = 20 * time.Second

// A Node is one machine of a rack.
type Node struct {
	Name    ha.Node
	Witness bool

	rack    *Rack
	number  int
	space   *space
	boots   int
	binary  string // empty: the rack's
	keeper  sync.WaitGroup
	stopped []int     // the processes that Freeze stopped
	disk    bool      // its data is on one of its own
	slow    *exec.Cmd // what holds up its disk

	mu      sync.Mutex
	up      bool      // somebody starts Gemel again when it ends
	pauses  []between // in which nothing of the machine ran
	offline []between // when it was off
}

// between is a time; a zero To is now.
type between struct{ From, To ha.Instant }

// Path is a path below the node's directory.
func (n *Node) Path(name string) string { return filepath.Join(n.rack.Dir, string(n.Name), name) }

// prepare writes who the node is.
func prepare(n *Node, key string) error {
	if size := n.rack.o.Disk; size != 0 {
		if err := mount(n, size); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(n.Path("data/cluster"), 0o700); err != nil {
		return fmt.Errorf("preparing node %s: %w", n.Name, err)
	}
	b, err := config.EncodeNode(identity(n))
	if err != nil {
		return fmt.Errorf("preparing node %s: %w", n.Name, err)
	}
	return errors.Join(os.WriteFile(n.Path("data/node.yaml"), b, 0o600),
		os.WriteFile(n.Path("data/cluster/heartbeat.key"), []byte(key+"\n"), 0o600),
		os.WriteFile(n.Path("gemel.yaml"), []byte(manifestOf(n.rack)), 0o600),
		os.WriteFile(n.Path("reset"), nil, 0o600), newBoot(n))
}

// newBoot is the part of a boot that the machine's clock and disk see: a new boot id,
// and an empty run directory.
func newBoot(n *Node) error {
	n.boots++
	id := make([]byte, 16)
	_, _ = rand.Read(id) // it never fails
	text := fmt.Sprintf("%x-%x-%x-%x-%x\n", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	return errors.Join(os.RemoveAll(n.Path("run")), os.Mkdir(n.Path("run"), 0o700),
		os.WriteFile(n.Path("boot_id"), []byte(text), 0o644))
}

func identity(n *Node) *manifest.Identity {
	id := &manifest.Identity{Name: n.Name, Witness: n.Witness, Cluster: manifest.Cluster{ID: n.rack.prefix, Name: "rack"},
		Profile: n.rack.o.Profile, Level: manifest.Level{Guard: true}}
	if n.rack.o.Fence != nil && !n.Witness {
		id.Level.Fence = n.rack.o.Fence(n.Name)
	}
	if n.rack.o.Level != nil {
		n.rack.o.Level(n.Name, &id.Level)
	}
	id.Timers, _ = manifest.Profile(n.rack.o.Profile)
	for _, net := range []string{Blue, Red} {
		id.Networks = append(id.Networks, manifest.Network{Name: net, Address: netip.MustParseAddr(address(net, n.number)), Port: 5314})
	}
	for _, p := range n.rack.nodes {
		peer := manifest.Peer{Name: p.Name, Witness: p.Witness, Voter: p.number <= 3}
		for _, net := range []string{Blue, Red} {
			at := netip.MustParseAddr(address(net, p.number))
			peer.Addresses = append(peer.Addresses, manifest.PeerAddress{Network: net, At: netip.AddrPortFrom(at, 5314)})
			if peer.Voter {
				peer.Store = append(peer.Store, netip.AddrPortFrom(at, 5316))
			}
		}
		id.Peers = append(id.Peers, peer)
	}
	return id
}

// manifestOf is that of the rack: one group, with the address and one program.
func manifestOf(r *Rack) string {
	var words, nodes []string
	for _, w := range append(slices.Clone(r.o.Program), filepath.Join(r.Dir, "beats"), r.Address().String()) {
		words = append(words, strconv.Quote(w))
	}
	for _, n := range r.nodes {
		if !n.Witness {
			nodes = append(nodes, string(n.Name))
		}
	}
	env, parts := "", ""
	if r.o.Parts != "" {
		parts = ", " + strings.ReplaceAll(r.o.Parts, "DIR", r.Dir)
	}
	for _, e := range r.o.Env {
		k, v, _ := strings.Cut(e, "=")
		env += fmt.Sprintf(", %s: %q", k, v)
	}
	return fmt.Sprintf("processes:\n  beat:\n    command: [%s]\n    environment: {RACK: %q%s}\n    output: {mode: discard}\n"+
		"    restarts: {limit: 10000, within: 1m, delay: 0s}\n"+
		"groups:\n  %s: {nodes: [%s], run: [beat], addresses: [%s/24]%s}\n",
		strings.Join(words, ", "), r.prefix, env, Group, strings.Join(nodes, ", "), r.Address(), parts)
}

// Use has the node run another binary from its next start on.
func (n *Node) Use(binary string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.binary = binary
}

// Binary is what the node runs.
func (n *Node) Binary() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.binary == "" {
		return n.rack.o.Gemel
	}
	return n.binary
}

// Up reports whether the node runs: it neither crashed nor was paused or stopped.
func (n *Node) Up() bool { return n.keeps() && n.stopped == nil }

// Mend has a node run again whatever was done to it: it boots if it crashed, and what
// was stopped by a signal goes on, with room on its disk.
func (n *Node) Mend() error {
	if err := errors.Join(empty(n), quick(n)); err != nil {
		return err
	}
	switch {
	case n.stopped != nil:
		return n.Resume()
	case !n.keeps():
		return n.Boot()
	}
	for _, p := range n.Processes() {
		if state(p.PID) == 'T' {
			_ = unix.Kill(p.PID, unix.SIGCONT) // one that died is none that has to go on
		}
	}
	return nil
}

// Start starts gemel run, and goes on starting it 100 ms after its end, as a service
// manager would, until the node is stopped or crashes.
func (n *Node) Start() error {
	n.mu.Lock()
	up := n.up
	n.up = true
	n.mu.Unlock()
	if up {
		return nil
	}
	n.rack.Note("start %s", n.Name)
	first := make(chan error, 1)
	n.keeper.Go(func() {
		for told := false; ; told = true {
			c, err := n.begin()
			if !told {
				first <- err
			}
			if err != nil {
				n.rack.Note("%v", err)
				return
			}
			_ = c.Wait() // whatever it ended with, it is started again
			time.Sleep(100 * time.Millisecond)
			if !n.keeps() {
				return
			}
		}
	})
	return <-first
}

// keeps reports whether Gemel is started again when it ends.
func (n *Node) keeps() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.up
}

func unkeep(n *Node) {
	n.mu.Lock()
	n.up = false
	n.mu.Unlock()
}

// begin starts gemel run inside of the node, under the node's boot id.
func (n *Node) begin() (*exec.Cmd, error) {
	log, err := os.OpenFile(n.Path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting node %s: %w", n.Name, err)
	}
	defer log.Close()
	// A reset of the machine is noted, and not done: the machine is everybody's.
	c := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c",
		`set -e; mount --bind "$0/boot_id" /proc/sys/kernel/random/boot_id
		if [ -e /proc/sysrq-trigger ]; then mount --bind "$0/reset" /proc/sysrq-trigger; fi; exec "$@"`, n.Path(""),
		n.Binary(), "run", "--data-dir", n.Path("data"), "--run-dir", n.Path("run"), n.Path("gemel.yaml"))
	c.Env = slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, "GEMEL_") || strings.HasPrefix(e, "NOTIFY_") || strings.HasPrefix(e, "INVOCATION_ID=")
	})
	if n.rack.o.Managed {
		c.Env = append(c.Env, "INVOCATION_ID=0123456789abcdef0123456789abcdef")
	}
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := n.space.do(c.Start); err != nil {
		return nil, fmt.Errorf("starting node %s: %w", n.Name, err)
	}
	return c, nil
}

// A Process is one that runs on a node. Part is shadow, monitor, store, guard, or
// program for what is not Gemel's own.
type Process struct {
	PID  int
	Part string
}

// Processes lists what runs on the node.
func (n *Node) Processes() []Process {
	dirs, _ := os.ReadDir("/proc")
	var all []Process
	shadows := map[int]bool{}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st) != nil || st.Ino != n.space.ino {
			continue // a zombie has no namespace any more
		}
		p := Process{PID: pid, Part: "program"}
		if w := words(pid, "cmdline"); len(w) > 1 && slices.Contains(w, n.Path("run")) {
			switch w[1] {
			case "run":
				p.Part, shadows[pid] = "shadow", true
			case "monitor", "store", "guard":
				p.Part = w[1]
			}
		}
		all = append(all, p)
	}
	for i, p := range all { // a child before its exec looks like the shadow
		if p.Part == "shadow" && shadows[parent(p.PID)] {
			all[i].Part = "program"
		}
	}
	return all
}

func words(pid int, file string) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil || len(b) == 0 {
		return nil
	}
	return strings.Split(string(bytes.TrimSuffix(b, []byte{0})), "\x00")
}

// stat is the state of a process, and what follows it; nil if it is gone.
func stat(pid int) []string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])); len(f) > 1 {
		return f
	}
	return nil
}

func parent(pid int) int {
	if f := stat(pid); f != nil {
		n, _ := strconv.Atoi(f[1])
		return n
	}
	return 0
}

// state is the letter of a process's state; zero if it is gone.
func state(pid int) byte {
	if f := stat(pid); f != nil {
		return f[0][0]
	}
	return 0
}

// Signal sends a signal to the parts named, in this order; it fails if one is not
// there.
func (n *Node) Signal(sig unix.Signal, parts ...string) error {
	n.rack.Note("%v to %s of %s", sig, strings.Join(parts, ", "), n.Name)
	all := n.Processes()
	for _, part := range parts {
		i := slices.IndexFunc(all, func(p Process) bool { return p.Part == part })
		if i < 0 {
			return fmt.Errorf("node %s has no %s to send %v to", n.Name, part, sig)
		}
		if err := unix.Kill(all[i].PID, sig); err != nil {
			return fmt.Errorf("sending %v to the %s of node %s: %w", sig, part, n.Name, err)
		}
	}
	return nil
}

// Crash ends everything of the node in one instant, and with no packet that would
// tell the others.
func (n *Node) Crash() error {
	n.rack.Note("crash of %s", n.Name)
	noteTrees(n)
	unkeep(n)
	if err := n.rack.isolate(n); err != nil {
		return err
	}
	n.mu.Lock()
	n.offline = append(n.offline, between{From: clock.Now()})
	n.mu.Unlock()
	for end := clock.Now().Add(killBound); ; {
		all := n.Processes()
		if len(all) == 0 {
			break
		}
		for _, p := range all {
			_ = unix.Kill(p.PID, unix.SIGKILL)
		}
		if clock.Now() > end {
			return fmt.Errorf("node %s: %d processes do not die", n.Name, len(all))
		}
		time.Sleep(time.Millisecond)
	}
	n.keeper.Wait()
	return nil
}

// Boot is the start of a machine after Crash.
func (n *Node) Boot() error {
	n.rack.Note("boot of %s", n.Name)
	if err := errors.Join(newBoot(n), plug(n)); err != nil {
		return err
	}
	n.mu.Lock()
	n.offline[len(n.offline)-1].To = clock.Now()
	n.mu.Unlock()
	if err := n.rack.join(n); err != nil {
		return err
	}
	return n.Start()
}

// Stop ends Gemel by SIGTERM and waits for that.
func (n *Node) Stop() error {
	unkeep(n)
	if err := n.Signal(unix.SIGTERM, "shadow"); err != nil {
		return err
	}
	for end := clock.Now().Add(killBound); len(n.Processes()) > 0; time.Sleep(5 * time.Millisecond) {
		if clock.Now() > end {
			return fmt.Errorf("node %s did not end within %v of SIGTERM: %v", n.Name, killBound, n.Processes())
		}
	}
	n.keeper.Wait()
	return nil
}

// Pause stops the whole machine, as the host of a virtual one does: no process of it
// runs and its networks are still. Resume has it go on.
func (n *Node) Pause() error {
	n.rack.Note("pause of %s", n.Name)
	noteTrees(n)
	if err := n.rack.isolate(n); err != nil {
		return err
	}
	n.mu.Lock()
	n.pauses = append(n.pauses, between{From: clock.Now()})
	n.mu.Unlock()
	seen := map[int]bool{}
	for fresh := true; fresh; { // until no process has been begun meanwhile
		fresh = false
		for _, p := range n.Processes() {
			if !seen[p.PID] {
				fresh, seen[p.PID] = true, true
				_ = unix.Kill(p.PID, unix.SIGSTOP)
			}
		}
	}
	for pid := range seen {
		n.stopped = append(n.stopped, pid)
	}
	return nil
}

// Resume ends Pause. The networks are there first: what was under way arrives.
func (n *Node) Resume() error {
	n.rack.Note("%s goes on", n.Name)
	n.mu.Lock()
	n.pauses[len(n.pauses)-1].To = clock.Now()
	n.mu.Unlock()
	err := n.rack.join(n)
	for _, pid := range n.stopped {
		_ = unix.Kill(pid, unix.SIGCONT) // one that died is none that has to go on
	}
	n.stopped = nil
	return err
}

// absent reports whether a node's addresses do not count at an instant: it is off, or
// paused, or went on only just before.
func (n *Node) absent(at ha.Instant) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	in := func(b between, after time.Duration) bool {
		return at >= b.From && (b.To == 0 || at <= b.To.Add(after))
	}
	return slices.ContainsFunc(n.offline, func(b between) bool { return in(b, 0) }) ||
		slices.ContainsFunc(n.pauses, func(b between) bool { return in(b, afterPause) })
}

// Tool runs the tool against the node's Gemel.
func (n *Node) Tool(args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, n.rack.o.Gemel, append(args, "--data-dir", n.Path("data"), "--run-dir", n.Path("run"))...)
	c.WaitDelay = time.Second
	b, err := c.CombinedOutput()
	if err != nil {
		b = append(b, ("(" + err.Error() + ")\n")...)
	}
	return string(b)
}

// Evidence is what all nodes say now: status, the last events, the last of the log.
func (r *Rack) Evidence() string {
	var b strings.Builder
	for _, n := range r.nodes {
		log, _ := os.ReadFile(n.Path("log"))
		fmt.Fprintf(&b, "---- node %s\n%s\n-- events\n%s\n-- log\n%s\n", n.Name,
			n.Tool("status"), last(n.Tool("events"), 40), last(string(log), 20))
	}
	return b.String()
}

// last is the end of a text, in lines.
func last(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
