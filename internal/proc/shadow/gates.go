package shadow

import (
	"io"
	"slices"

	"gemel/internal/ha"
	"gemel/internal/proc"
	"gemel/internal/proc/gate"
	"gemel/internal/proc/lapse"
	"gemel/internal/proc/spawn"
)

// gates are those before what runs by rights: see package gate. Where the machine has
// none, programs are killed at their deadlines all the same, a moment after a stop of the
// whole machine is over.
type gates struct {
	of   map[ha.Group]*gate.Gate
	held map[*spawn.Cgroup]io.Closer
	lack string // why there is none
}

// open has the gates of the groups whose rights were taken open until their kills, and
// puts them before what runs already, such as what a shadow before this one has started.
func (g *gates) open(r *rights, list []proc.Right, refused []lapse.Refusal) {
	s := r.of
	for _, x := range list {
		if slices.ContainsFunc(refused, func(f lapse.Refusal) bool { return f.Right.Group == x.Group }) {
			continue
		}
		if !g.until(s, x) {
			return
		}
	}
	for _, c := range s.kids {
		if c.owner != "" && c.exit == nil && c.group != nil && g.held[c.group] == nil {
			g.hold(s, c.owner, c.group)
		}
	}
}

// until sets the deadline of a group's gate, and makes the gate if there is none. False:
// there can be none.
func (g *gates) until(s *shadow, x proc.Right) bool {
	if g.lack != "" {
		return false
	}
	k := g.of[x.Group]
	if k == nil {
		var err error
		if k, err = gate.New(); err != nil {
			g.lacking(s, err)
			return false
		}
		if g.of == nil {
			g.of = map[ha.Group]*gate.Gate{}
		}
		g.of[x.Group] = k
	}
	if err := k.Until(x.Kill); err != nil {
		// A gate that shuts too early would be worse than none.
		g.close()
		g.lacking(s, err)
		return false
	}
	return true
}

// hold puts the gate of a group before a start, if there is one.
func (g *gates) hold(s *shadow, name ha.Group, c *spawn.Cgroup) {
	k := g.of[name]
	if k == nil || g.lack != "" {
		return
	}
	held, err := k.Hold(c.Path())
	if err != nil {
		g.lacking(s, err)
		return
	}
	if g.held == nil {
		g.held = map[*spawn.Cgroup]io.Closer{}
	}
	g.held[c] = held
}

func (g *gates) lacking(s *shadow, err error) {
	g.lack = err.Error()
	s.c.Log.Warn("what programs of groups send is not held back at their deadline: they are killed then, and on a machine "+
		"that stood still they may answer for a moment until they are", "err", err)
}

// release gives back what a start needed.
func (g *gates) release(c *spawn.Cgroup) {
	if held := g.held[c]; held != nil {
		_ = held.Close()
		delete(g.held, c)
	}
}

func (g *gates) close() {
	for c := range g.held {
		g.release(c)
	}
	for name, k := range g.of {
		_ = k.Close()
		delete(g.of, name)
	}
}
