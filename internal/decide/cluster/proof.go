package cluster

import (
	"slices"

	"gemel/internal/decide/place"
	"gemel/internal/ha"
)

// A group that needs more than its node offers by itself goes on by a proof that this one
// is off, and never by time: a machine that its host has stopped as a whole knows nothing
// of time, and runs for an instant when it goes on. The proof is in the node's own key, so
// that who decides next has it as well. See docs/decisions/0254.

// sure reports whether a group may leave a lost node only by a proof that this one is off.
func sure(b *Brain, g ha.Group, holder ha.Node) bool {
	level, ok := b.mind.needs[g]
	if !ok || b.bad[flawTime] {
		return false
	}
	own := 0
	if n := slices.IndexFunc(b.mind.Facts, func(f place.Node) bool { return f.Name == holder }); n >= 0 {
		own = b.mind.Facts[n].Level
	}
	return level > own
}

// needs are the levels of the groups that need more than 1. What a shadow and a guard offer
// is what time rests on: the others need nothing else.
func needs(groups []place.Group) map[ha.Group]int {
	all := map[ha.Group]int{}
	for _, g := range groups {
		if g.Rules.Level > 1 {
			all[g.Name] = g.Rules.Level
		}
	}
	return all
}

// shot is a device that was ordered for an incarnation of a node. An incarnation is never
// resumed after a boot, so that its end is one for good.
type shot struct {
	node        ha.Node
	incarnation ha.Incarnation
	keys        []ha.Rev   // that the orders named
	at          ha.Instant // of the last one
	off         bool       // one of them was confirmed
}

func shotAt(b *Brain, n ha.KeyedNode) *shot {
	i := slices.IndexFunc(b.shots, func(s shot) bool { return s.node == n.Node && s.incarnation == n.Incarnation })
	if i < 0 {
		return nil
	}
	return &b.shots[i]
}

// shoot orders a node off whose suspicion, or eviction, is written.
func shoot(b *Brain, n ha.KeyedNode, why ha.Reason) {
	s := shotAt(b, n)
	if s == nil {
		b.shots = slices.DeleteFunc(b.shots, func(s shot) bool { return s.node == n.Node })
		b.shots = append(b.shots, shot{node: n.Node, incarnation: n.Incarnation})
		s = &b.shots[len(b.shots)-1]
	}
	s.at = b.now
	if !slices.Contains(s.keys, n.Key) {
		s.keys = append(s.keys, n.Key)
	}
	b.order(ha.TurnOff{Node: n.Node, Key: n.Key, Why: why})
}

// hit takes the confirmation of a device.
func hit(b *Brain, in ha.Off) {
	for i := range b.shots {
		if s := &b.shots[i]; s.node == in.Node && slices.Contains(s.keys, in.Key) {
			s.off = true
		}
	}
}

// confirm writes the proof that an evicted node is off into its key.
func confirm(b *Brain) bool {
	for _, n := range b.store.Nodes {
		if n.State != ha.NodeEvicted || n.Off || !proved(b, n) {
			continue
		}
		r := n.NodeRecord
		r.Off = true
		b.send([]ha.Put{{Key: ha.NodeKey(r.Node), Guard: n.Key, Node: &r}}, because("confirmed", "it is confirmed that it is off", fact("node", string(r.Node))), false)
		return true
	}
	return false
}

func proved(b *Brain, n ha.KeyedNode) bool {
	s := shotAt(b, n)
	return s != nil && s.off || n.Incarnation != "" && b.mind.Off[n.Node] == n.Incarnation
}

// pursue has an evicted node turned off for whose end a group waits, again each minute
// until it is confirmed. One that is heard comes back by itself, and says what is there.
func pursue(b *Brain) {
	for _, n := range b.store.Nodes {
		if n.State != ha.NodeEvicted || n.Off || proved(b, n) || !b.ear.silent(n.Node, 1) || !slices.Contains(b.mind.Fences, n.Node) {
			continue
		}
		i := slices.IndexFunc(b.store.Groups, func(k ha.KeyedGroup) bool {
			return k.Node == n.Node && k.Incarnation == n.Incarnation && sure(b, k.Group, n.Node)
		})
		if s := shotAt(b, n); i < 0 || s != nil && b.now.Sub(s.at) < condemnedFor {
			continue
		}
		shoot(b, n, because("pursue", "a group waits for the proof that it is off", fact("group", string(b.store.Groups[i].Group))))
	}
}

// unproved says of each node why it does not get a group that the lost one had.
func unproved(b *Brain, at []place.At, holder ha.Node) []place.At {
	text := string(holder) + " had it last and is not proved to be off: it goes on when "
	if slices.Contains(b.mind.Fences, holder) {
		text += "its fence device confirms that, when "
	}
	text += string(holder) + " itself is back, or when an operator confirms that it is off (gemel confirm-off " + string(holder) + ")"
	at = slices.Clone(at)
	for _, name := range b.mind.Listed {
		i := slices.IndexFunc(at, func(x place.At) bool { return x.Node == name })
		if i < 0 {
			at = append(at, place.At{Node: name})
			i = len(at) - 1
		}
		at[i].Unproved = text
	}
	return at
}
