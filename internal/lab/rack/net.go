package rack

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
)

// run runs a program and has its output in the error.
func run(input string, argv ...string) error {
	c := exec.Command(argv[0], argv[1:]...)
	c.Stdin = strings.NewReader(input)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// space is a network namespace.
type space struct {
	name string
	ino  uint64
}

func (s *space) path() string { return "/run/netns/" + s.name }

// find learns the number by which a process's namespace is known.
func (s *space) find() error {
	var st unix.Stat_t
	if err := unix.Stat(s.path(), &st); err != nil {
		return fmt.Errorf("looking at namespace %s: %w", s.name, err)
	}
	s.ino = st.Ino
	return nil
}

// do calls f on a thread inside of the namespace: what f opens and starts is of it.
func (s *space) do(f func() error) error {
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// Not the main thread: it would stay in the namespace for good, and with it what
			// /proc says of the whole process. While it is locked here, another one is taken.
			defer runtime.UnlockOSThread()
			failed <- s.do(f)
			return
		}
		// Never unlocked: the thread ends with this goroutine, and nobody else gets one
		// that is in a foreign namespace.
		fd, err := unix.Open(s.path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			_ = unix.Close(fd)
		}
		if err != nil {
			failed <- fmt.Errorf("entering namespace %s: %w", s.name, err)
			return
		}
		failed <- f()
	}()
	return <-failed
}

// address is a node's on a network, without the length of the network.
func address(network string, number int) string {
	switch network {
	case Red:
		return fmt.Sprintf("fd77:2::%x", number)
	case Service:
		return fmt.Sprintf("10.77.3.%d", number)
	}
	return fmt.Sprintf("10.77.1.%d", number)
}

// number of the client on the service network.
const clientNumber = 254

// build makes the namespaces and joins them.
func build(r *Rack) error {
	r.sw = &space{name: r.prefix + "-sw"}
	for _, n := range r.nodes {
		n.space = &space{name: r.prefix + "-" + string(n.Name)}
	}
	all := []*space{r.sw}
	for _, n := range r.nodes {
		all = append(all, n.space)
	}
	for _, s := range all {
		if err := run("", "ip", "netns", "add", s.name); err != nil {
			return err
		}
		if err := s.find(); err != nil {
			return err
		}
	}
	var b strings.Builder
	fmt.Fprintln(&b, "link set lo up")
	for _, net := range []string{Blue, Red, Service} {
		// Snooping would learn which port wants which IPv6 neighbour, and forget it.
		fmt.Fprintf(&b, "link add %s type bridge mcast_snooping 0 forward_delay 0\nlink set %s up\n", net, net)
		for _, n := range r.nodes {
			fmt.Fprintf(&b, "link add %s.%s type veth peer name %s netns %s\nlink set %s.%s master %s up\n",
				n.Name, net, net, n.space.name, n.Name, net, net)
		}
	}
	fmt.Fprintf(&b, "addr add %s/24 dev %s\n", address(Service, clientNumber), Service)
	if err := run(b.String(), "ip", "-n", r.sw.name, "-batch", "-"); err != nil {
		return err
	}
	for _, n := range r.nodes {
		if err := plug(n); err != nil {
			return err
		}
	}
	return r.sw.do(func() error { return run(ruleset(nil), "nft", "-f", "-") })
}

// plug gives a node its devices' addresses, and takes away all others: what a boot
// does.
func plug(n *Node) error {
	var b strings.Builder
	fmt.Fprintln(&b, "link set lo up")
	for _, net := range []string{Blue, Red, Service} {
		bits := 24
		if net == Red {
			bits = 64
		}
		fmt.Fprintf(&b, "addr flush dev %s\nlink set %s up\naddr add %s/%d dev %s nodad\n", net, net, address(net, n.number), bits, net)
	}
	return run(b.String(), "ip", "-n", n.space.name, "-batch", "-")
}

// drop is what the switches do not pass on. Nodes are those at the two ends; an
// empty one is any. Percent is how many of a hundred are lost.
type drop struct {
	Network  string // empty: every one, the service network as well
	From, To ha.Node
	Percent  int
	off      *Node // of a node that is off or paused: healing leaves it
}

// rules of one drop. The service network has its own end (the client) on the switch
// itself, therefore three hooks.
func (d drop) rules(chain string) []string {
	nets := []string{d.Network}
	if d.Network == "" {
		nets = []string{Blue, Red, Service}
	}
	var all []string
	for _, net := range nets {
		var b strings.Builder
		if d.From != "" {
			if chain == "output" {
				continue
			}
			fmt.Fprintf(&b, "iifname %q ", string(d.From)+"."+net)
		}
		if d.To != "" {
			if chain == "input" {
				continue
			}
			fmt.Fprintf(&b, "oifname %q ", string(d.To)+"."+net)
		}
		if d.Percent < 100 {
			fmt.Fprintf(&b, "numgen random mod 100 < %d ", d.Percent)
		}
		all = append(all, b.String()+"drop")
	}
	return all
}

// ruleset is the whole table; it replaces the one before in one transaction.
func ruleset(drops []drop) string {
	var b strings.Builder
	b.WriteString("table bridge rack\ndelete table bridge rack\ntable bridge rack {\n")
	for _, chain := range []string{"forward", "input", "output"} {
		fmt.Fprintf(&b, "chain %s { type filter hook %s priority 0; policy accept;\n", chain, chain)
		for _, d := range drops {
			for _, rule := range d.rules(chain) {
				fmt.Fprintln(&b, rule)
			}
		}
		b.WriteString("}\n")
	}
	return b.String() + "}\n"
}

// set changes what the switches drop.
func (r *Rack) set(drops []drop) error {
	err := r.sw.do(func() error { return run(ruleset(drops), "nft", "-f", "-") })
	if err != nil {
		return fmt.Errorf("setting what the switches drop: %w", err)
	}
	r.drops = drops
	return nil
}

// add drops more.
func (r *Rack) add(more ...drop) error { return r.set(append(slices.Clone(r.drops), more...)) }

// Cut drops what goes from one node to another on a network: one direction. An empty
// node is any.
func (r *Rack) Cut(network string, from, to ha.Node) error { return r.Lose(network, from, to, 100) }

// Lose is Cut for so many of a hundred packets.
func (r *Rack) Lose(network string, from, to ha.Node, percent int) error {
	if network == "" || from == "" && to == "" {
		return errors.New("a cut wants a network, and at least one end")
	}
	r.Note("drop %d %% of %s from %s to %s", percent, network, orAny(from), orAny(to))
	return r.add(drop{Network: network, From: from, To: to, Percent: percent})
}

func orAny(n ha.Node) string {
	if n == "" {
		return "anybody"
	}
	return string(n)
}

// Sever cuts a node off on networks, both ways.
func (r *Rack) Sever(n *Node, networks ...string) error {
	var all []drop
	for _, net := range networks {
		all = append(all, drop{Network: net, From: n.Name, Percent: 100}, drop{Network: net, To: n.Name, Percent: 100})
	}
	r.Note("cut %s off %s", n.Name, strings.Join(networks, " and "))
	return r.add(all...)
}

// Split cuts two nodes off each other, both ways, on networks; others hear both.
func (r *Rack) Split(a, b *Node, networks ...string) error {
	var all []drop
	for _, net := range networks {
		all = append(all, drop{Network: net, From: a.Name, To: b.Name, Percent: 100}, drop{Network: net, From: b.Name, To: a.Name, Percent: 100})
	}
	r.Note("split %s and %s on %s", a.Name, b.Name, strings.Join(networks, " and "))
	return r.add(all...)
}

// Heal takes away every cut and loss. Nodes that are off or paused stay so.
func (r *Rack) Heal() error {
	r.Note("heal")
	return r.set(slices.DeleteFunc(slices.Clone(r.drops), func(d drop) bool { return d.off == nil }))
}

// isolate is what a machine without power does on its networks; join ends it.
func (r *Rack) isolate(n *Node) error {
	return r.add(drop{From: n.Name, Percent: 100, off: n}, drop{To: n.Name, Percent: 100, off: n})
}

func (r *Rack) join(n *Node) error {
	return r.set(slices.DeleteFunc(slices.Clone(r.drops), func(d drop) bool { return d.off == n }))
}

// Pull takes a node's cable out of a network, or puts it in: unlike a cut, the node
// sees that.
func (r *Rack) Pull(n *Node, network string, in bool) error {
	state := "down"
	if in {
		state = "up"
	}
	r.Note("cable of %s to %s: %s", n.Name, network, state)
	return run("", "ip", "-n", r.sw.name, "link", "set", string(n.Name)+"."+network, state)
}
