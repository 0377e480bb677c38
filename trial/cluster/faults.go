package main

import (
	"errors"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
	"gemel/internal/lab/rack"
)

// slowBy is how much longer an fsync takes on a slow disk.
const slowBy = 300 * time.Millisecond

// fault is one thing that the nemesis does. It is ended by heal.
type fault struct {
	name string
	do   func(*campaign) error
}

// faults lists those that are asked for.
func (c *campaign) faults() []fault {
	all := []fault{
		{"crash", func(c *campaign) error { return crash(c.some()) }},
		{"crash of the active", func(c *campaign) error { return crash(c.active) }},
		{"pause", func(c *campaign) error { return pause(c.some()) }},
		{"pause of the active", func(c *campaign) error { return pause(c.active) }},
		{"one network", func(c *campaign) error { return c.rack.Sever(c.some(), c.network()) }},
		{"cable", func(c *campaign) error { return c.rack.Pull(c.some(), c.network(), false) }},
		{"both networks", func(c *campaign) error { return c.rack.Sever(c.some(), rack.Blue, rack.Red) }},
		{"both networks of the active", func(c *campaign) error { return c.rack.Sever(c.active, rack.Blue, rack.Red) }},
		{"not heard", func(c *campaign) error { return c.oneWay(c.some().Name, "", 100) }},
		{"hears nothing", func(c *campaign) error { return c.oneWay("", c.some().Name, 100) }},
		{"split", func(c *campaign) error { a, b := c.two(); return c.rack.Split(a, b, rack.Blue, rack.Red) }},
		{"split one way", func(c *campaign) error { a, b := c.two(); return c.oneWay(a.Name, b.Name, 100) }},
		{"loss", func(c *campaign) error { return c.oneWay(c.some().Name, "", 20) }},
		{"flapping", flap},
		{"store killed", func(c *campaign) error { return kill(c.some(), "store") }},
		{"monitor killed", func(c *campaign) error { return kill(c.some(), "monitor") }},
		{"shadow killed", func(c *campaign) error { return kill(c.some(), "shadow") }},
		{"both halves killed", func(c *campaign) error { return kill(c.some(), "shadow", "monitor") }},
		{"monitor hangs", func(c *campaign) error { return hang(c.active, "monitor") }},
		{"store hangs", func(c *campaign) error { return hang(c.some(), "store") }},
		{"quorum lost", quorum},
		{"restart", func(c *campaign) error {
			n := c.some()
			return up(n, func() error { return errors.Join(n.Stop(), n.Start()) })
		}},
	}
	if c.o.Disk != 0 {
		all = append(all, fault{"disk full", func(c *campaign) error { return fill(c.some()) }},
			fault{"disk of the active full", func(c *campaign) error { return fill(c.active) }})
	}
	if _, err := exec.LookPath("strace"); err == nil { // run.sh sees to it
		all = append(all, fault{"disk slow", func(c *campaign) error { return slow(c.some()) }},
			fault{"disks of all slow", func(c *campaign) error { return slow(c.rack.Nodes()...) }})
	}
	if c.next != "" {
		all = append(all, fault{"rolling upgrade", upgrade})
	}
	if c.only != nil {
		all = slices.DeleteFunc(all, func(f fault) bool { return !slices.Contains(c.only, f.name) })
	}
	return all
}

// some is any node, the witness as well.
func (c *campaign) some() *rack.Node {
	all := c.rack.Nodes()
	return all[c.rand.IntN(len(all))]
}

func (c *campaign) two() (a, b *rack.Node) {
	all := c.rack.Nodes()
	i := c.rand.IntN(len(all))
	return all[i], all[(i+1+c.rand.IntN(len(all)-1))%len(all)]
}

func (c *campaign) network() string { return []string{rack.Blue, rack.Red}[c.rand.IntN(2)] }

func (c *campaign) oneWay(from, to ha.Node, percent int) error {
	return errors.Join(c.rack.Lose(rack.Blue, from, to, percent), c.rack.Lose(rack.Red, from, to, percent))
}

// up does what is for a node that runs. The second of two faults may meet one that
// the first one ended: that is one fault then.
func up(n *rack.Node, do func() error) error {
	if n.Up() {
		return do()
	}
	return nil
}

func crash(n *rack.Node) error { return up(n, n.Crash) }
func pause(n *rack.Node) error { return up(n, n.Pause) }

func fill(n *rack.Node) error { return up(n, n.Fill) }

// slow has an fsync take longer than a silence, on the disks of nodes that run. One whose voter is not there
// just now has no disk to wait for.
func slow(nodes ...*rack.Node) error {
	for _, n := range nodes {
		_ = up(n, func() error { return n.Slow(slowBy) })
	}
	return nil
}

// kill tells nothing of a part that is not there: it was killed just before.
func kill(n *rack.Node, parts ...string) error {
	return up(n, func() error {
		for _, p := range parts {
			_ = n.Signal(unix.SIGKILL, p)
		}
		return nil
	})
}

func hang(n *rack.Node, part string) error {
	return up(n, func() error { _ = n.Signal(unix.SIGSTOP, part); return nil })
}

func quorum(c *campaign) error {
	for _, n := range c.rack.Nodes() {
		if n != c.active {
			if err := crash(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// flap takes a node off a network again and again.
func flap(c *campaign) error {
	n, network := c.some(), c.network()
	for range 4 {
		if err := c.rack.Pull(n, network, false); err != nil {
			return err
		}
		time.Sleep(time.Duration(50+c.rand.IntN(300)) * time.Millisecond)
		if err := c.rack.Pull(n, network, true); err != nil {
			return err
		}
		time.Sleep(time.Duration(50+c.rand.IntN(300)) * time.Millisecond)
	}
	return nil
}

// upgrade has the nodes go over to the other build, one after the other, without a
// pause between.
func upgrade(c *campaign) error {
	for _, n := range c.rack.Nodes() {
		err := up(n, func() error {
			to := c.next
			if n.Binary() == c.next {
				to = c.o.Gemel
			}
			if out := n.Tool("upgrade", to); strings.Contains(out, "(exit status") {
				// A refusal is no violation: the other fault of this trial may be the reason.
				c.rack.Note("upgrade of %s: %s", n.Name, strings.TrimSpace(out))
				return nil
			}
			n.Use(to)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// heal ends every fault.
func (c *campaign) heal() error {
	err := c.rack.Heal()
	for _, n := range c.rack.Nodes() {
		for _, network := range []string{rack.Blue, rack.Red} {
			err = errors.Join(err, c.rack.Pull(n, network, true))
		}
		err = errors.Join(err, n.Mend())
	}
	return err
}
