package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"gemel/internal/clock"
	"gemel/internal/decide/place"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/store"
)

// The keys of what operators ask for in a cluster.
const (
	wishes     = "wishes/"
	wishGroup  = wishes + "group/"
	wishNode   = wishes + "node/"
	wishBound  = 5 * time.Second // for an operator's change
	wishRepeat = 3               // how often a change that lost against another one is tried again
)

// groupWish is what was asked for a group.
type groupWish struct {
	Node   ha.Node `json:"node,omitempty"` // where it is to be; empty: nothing was asked
	Forced bool    `json:"forced,omitempty"`
	// Fence is that of the group when it was asked: under a greater one on another node
	// the group went elsewhere since, and the wish is over.
	Fence  ha.Fence `json:"fence,omitzero"`
	Locked bool     `json:"locked,omitempty"`
	// Until is the end of its maintenance, by wall time.
	Until time.Time `json:"until,omitzero"`
	// Barred are nodes that do not get it, until when by wall time, and why.
	Barred map[ha.Node]bar `json:"barred,omitempty"`
	By     string          `json:"by,omitempty"`
	At     time.Time       `json:"at,omitzero"`
}

// bar keeps a group from a node for a while.
type bar struct {
	Until time.Time `json:"until"`
	Why   string    `json:"why"`
}

// nodeWish is what was asked for a node.
type nodeWish struct {
	Drained bool `json:"drained,omitempty"`
	// Off is the incarnation of which an operator says that its machine is off.
	Off   ha.Incarnation `json:"off,omitempty"`
	Until time.Time      `json:"until,omitzero"` // the end of its maintenance
	By    string         `json:"by,omitempty"`
	At    time.Time      `json:"at,omitzero"`
}

// kept is what is written down of it: nothing if nothing is asked for any more. What ends one
// of the wishes leaves the others.
func (n nodeWish) kept() any {
	if !n.Drained && n.Off == "" && n.Until.IsZero() {
		return nil
	}
	return n
}

// wholeCluster stands for all nodes among those that something was asked for: no node has
// such a name.
const wholeCluster ha.Node = "*"

// wished is all that was asked for, and what it is judged by.
type wished struct {
	groups map[ha.Group]groupWish
	nodes  map[ha.Node]nodeWish
	facts  map[ha.Node]fact
	trails map[ha.Group]trail
	fences map[ha.Node]fenceTested
}

// read takes the documents of wishes and facts. One that cannot be read, as of a newer version,
// is left out.
func (w *wished) read(docs []store.Doc) {
	*w = wished{map[ha.Group]groupWish{}, map[ha.Node]nodeWish{}, map[ha.Node]fact{}, map[ha.Group]trail{}, map[ha.Node]fenceTested{}}
	for _, d := range docs {
		if name, ok := strings.CutPrefix(d.Key, wishGroup); ok {
			var g groupWish
			if json.Unmarshal(d.Value, &g) == nil {
				w.groups[ha.Group(name)] = g
			}
		}
		if name, ok := strings.CutPrefix(d.Key, wishNode); ok {
			var n nodeWish
			if json.Unmarshal(d.Value, &n) == nil {
				w.nodes[ha.Node(name)] = n
			}
		}
		w.said(d.Key, d.Value)
	}
}

// freed are the groups that an operator let go to a node again.
func (w *wished) freed(before map[ha.Group]groupWish, node ha.Node) []ha.Group {
	var all []ha.Group
	for name, old := range before {
		_, was := old.Barred[node]
		if _, is := w.groups[name].Barred[node]; was && !is {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// wishing takes what operators ask for in a cluster, and keeps it in the store.
type wishing struct{ m *member }

// change changes one wish in the store. f makes the new value of the old one; nil
// takes it away.
func (w wishing) change(ctx context.Context, key string, f func(old []byte) (any, error)) error {
	m := w.m
	ctx, cancel := context.WithTimeout(ctx, wishBound)
	defer cancel()
	var err error
	for range wishRepeat {
		var d store.Doc
		if d, err = m.client.Doc(ctx, key); err != nil {
			break
		}
		var to any
		if to, err = f(d.Value); err != nil {
			break
		}
		var value []byte
		if to != nil {
			if value, err = json.Marshal(to); err != nil {
				break
			}
		}
		if _, err = m.client.PutDoc(ctx, key, d.Rev, value); err == nil {
			return nil
		}
		if !errors.Is(err, store.ErrRefused) {
			break
		}
	}
	return untaken(err)
}

// untaken tells of a change that was not written, or of which nobody knows.
func untaken(err error) error {
	e := &ha.Error{Kind: ha.ErrUnavailable, Reason: "store", Hint: "see gemel status: most of the voters must run and reach each other",
		Err: fmt.Errorf("the cluster's store did not take it: %w", err)}
	if errors.Is(err, store.ErrUnknown) {
		e.Reason, e.Err = "unknown", fmt.Errorf("whether the cluster's store took it is not known: %w", err)
	}
	return e
}

// request decides what an operator asks of a group or of a node of the cluster.
func (w wishing) request(ctx context.Context, r ha.Request) (ha.Answer, error) {
	m := w.m
	if m.loop == nil {
		return refused("this node is a witness: it only votes; ask another node"), nil
	}
	switch r.Verb {
	case ha.VerbMove:
		return w.move(ctx, r)
	case ha.VerbDrain, ha.VerbResume:
		return w.drain(ctx, r)
	case ha.VerbMaintain:
		return w.maintain(ctx, r)
	case ha.VerbDecide:
		return w.decide(ctx, r)
	case ha.VerbConfirmOff:
		return w.confirmOff(ctx, r)
	case ha.VerbLock, ha.VerbUnlock:
		return w.lock(ctx, r)
	case ha.VerbClear:
		return w.clear(ctx, r)
	}
	return refused(fmt.Sprintf("%s is nothing that can be asked of a group", r.Verb)), nil
}

func refused(text string) ha.Answer {
	return ha.Answer{Why: ha.Reason{Rule: "cluster.request", Text: text}}
}

func accepted(undo, text string, facts ...ha.Fact) ha.Answer {
	return ha.Answer{OK: true, Undo: undo, Why: ha.Reason{Rule: "cluster.request", Text: text, Facts: facts}}
}

// move has a group go to a node, if a placement with that wish would put it there.
func (w wishing) move(ctx context.Context, r ha.Request) (ha.Answer, error) {
	m := w.m
	name, to := ha.Group(r.Target.Name), ha.Node(r.Value)
	now, ok := m.current(ctx, name)
	if !ok {
		return refused("what the store says of " + string(name) + " is not known here yet: try again in a moment"), nil
	}
	groups := m.problem()
	i := slices.IndexFunc(groups, func(g place.Group) bool { return g.Name == name })
	if i < 0 {
		return refused("there is no group " + string(name)), nil
	}
	if to == "" {
		to = w.other(groups[i], now.Node)
	}
	switch {
	case to == "":
		return refused(fmt.Sprintf("%s has no other node that could run it", name)), nil
	case to == now.Node && groups[i].Request.Node == "":
		return accepted("", fmt.Sprintf("%s is on %s already", name, to), ha.Fact{Name: "to", Value: string(to)}), nil
	}
	groups[i].Request = place.Request{Node: to, Forced: r.Forced}
	answer, err := m.loop.Plan(ctx, groups, m.known())
	if err != nil {
		return ha.Answer{}, err
	}
	c, _ := answer.Choice(name)
	if c.Node != to {
		return refused(whyNot(c, to)), nil
	}
	err = w.change(ctx, wishGroup+string(name), func(old []byte) (any, error) {
		var g groupWish
		_ = json.Unmarshal(old, &g)
		g.Node, g.Forced, g.Fence, g.By, g.At = to, r.Forced, now.Fence, r.By, time.Now().UTC()
		return g, nil
	})
	if err != nil {
		return ha.Answer{}, err
	}
	undo := ""
	if now.Node != "" {
		undo = fmt.Sprintf("gemel move %s %s", name, now.Node)
	}
	return accepted(undo, fmt.Sprintf("%s goes to %s", name, to), ha.Fact{Name: "to", Value: string(to)}), nil
}

// current is what the store says of a group now. What this node heard last may be older
// than the grant: a wish under the fence of then would be over at once.
func (m *member) current(ctx context.Context, name ha.Group) (ha.GroupRecord, bool) {
	ctx, cancel := context.WithTimeout(ctx, wishBound)
	defer cancel()
	r := m.client.Read(ctx)
	if r.Error != "" {
		return m.record(name)
	}
	for _, g := range r.Groups {
		if g.Group == name {
			return g.GroupRecord, true
		}
	}
	return ha.GroupRecord{}, true
}

// whyNot says why a group would not go where it was asked to.
func whyNot(c place.Choice, to ha.Node) string {
	for _, r := range c.Refused {
		return r.Text
	}
	if r, ok := c.WhyNot(to); ok {
		return fmt.Sprintf("%s cannot go to %s: %s", c.Group, to, r.Text)
	}
	return fmt.Sprintf("%s cannot go to %s: %s", c.Group, to, c.Reason.Text)
}

// other is the first node of a group that does not have it.
func (w wishing) other(g place.Group, now ha.Node) ha.Node {
	m := w.m
	names := g.Rules.Nodes
	if len(names) == 0 {
		for _, p := range m.o.Identity.Peers {
			names = append(names, p.Name)
		}
	}
	for _, n := range names {
		i := slices.IndexFunc(m.seen().Nodes, func(k ha.KeyedNode) bool { return k.Node == n && k.State == ha.NodeMember })
		if n != now && i >= 0 {
			return n
		}
	}
	return ""
}

// bar keeps a group from nodes, as from one on which a program of it was given up.
func (w wishing) bar(ctx context.Context, name ha.Group, until time.Time, why string, nodes ...ha.Node) error {
	return w.change(ctx, wishGroup+string(name), func(old []byte) (any, error) {
		var g groupWish
		_ = json.Unmarshal(old, &g)
		if g.Barred == nil {
			g.Barred = map[ha.Node]bar{}
		}
		for _, n := range nodes {
			g.Barred[n] = bar{until.UTC(), why}
		}
		return g, nil
	})
}

// drain has all groups leave a node, or takes that back.
func (w wishing) drain(ctx context.Context, r ha.Request) (ha.Answer, error) {
	m := w.m
	name := ha.Node(r.Target.Name)
	if name == "" {
		name = m.o.Identity.Name
	}
	if !slices.ContainsFunc(m.o.Identity.Peers, func(p manifest.Peer) bool { return p.Name == name && !p.Witness }) {
		return refused(fmt.Sprintf("there is no node %s that runs groups", name)), nil
	}
	on := r.Verb == ha.VerbDrain
	err := w.change(ctx, wishNode+string(name), func(old []byte) (any, error) {
		var n nodeWish
		_ = json.Unmarshal(old, &n)
		n.Drained, n.By, n.At = on, r.By, time.Now().UTC()
		return n.kept(), nil
	})
	if err != nil {
		return ha.Answer{}, err
	}
	if on {
		return accepted("gemel resume "+string(name), fmt.Sprintf("all groups leave %s, and none comes", name)), nil
	}
	return accepted("gemel drain "+string(name), fmt.Sprintf("%s takes groups again", name)), nil
}

// confirmOff takes the word that an evicted node is off. It is about one incarnation:
// nothing of that one ever runs again, if the word is true.
func (w wishing) confirmOff(ctx context.Context, r ha.Request) (ha.Answer, error) {
	m := w.m
	name := ha.Node(r.Target.Name)
	within, cancel := context.WithTimeout(ctx, wishBound)
	defer cancel()
	now := m.client.Read(within)
	if now.Error != "" {
		return ha.Answer{}, untaken(errors.New(now.Error))
	}
	i := slices.IndexFunc(now.Nodes, func(n ha.KeyedNode) bool { return n.Node == name })
	switch {
	case name == m.o.Identity.Name:
		return refused(fmt.Sprintf("%s is this node, and is not off", name)), nil
	case i < 0:
		return refused(fmt.Sprintf("there is no node %s that was ever a member", name)), nil
	case now.Nodes[i].State != ha.NodeEvicted:
		return refused(fmt.Sprintf("%s is not evicted but %s: there is nothing to confirm", name, now.Nodes[i].State)), nil
	case now.Nodes[i].Off:
		return accepted("", fmt.Sprintf("it is confirmed already that %s is off", name)), nil
	}
	for _, h := range m.station.Heard(nil) {
		if h.Node == name && h.Last != 0 && clock.Now().Sub(h.Last) < m.o.Identity.Timers.Silence {
			return refused(fmt.Sprintf("%s is not off: it is heard on %s", name, h.Network)), nil
		}
	}
	err := w.change(ctx, wishNode+string(name), func(old []byte) (any, error) {
		var n nodeWish
		_ = json.Unmarshal(old, &n)
		n.Off, n.By, n.At = now.Nodes[i].Incarnation, r.By, time.Now().UTC()
		return n, nil
	})
	if err != nil {
		return ha.Answer{}, err
	}
	return accepted("", fmt.Sprintf("%s counts as off: what waits for that goes on", name), ha.Fact{Name: "incarnation", Value: string(now.Nodes[i].Incarnation)}), nil
}

// maintain begins or ends the maintenance of a group, a node or the cluster.
func (w wishing) maintain(ctx context.Context, r ha.Request) (ha.Answer, error) {
	m := w.m
	var until time.Time
	if r.Value != "" {
		d, err := time.ParseDuration(r.Value)
		if err != nil {
			return refused(fmt.Sprintf("%q is no duration", r.Value)), nil
		}
		until = time.Now().UTC().Add(d).Truncate(time.Second)
	}
	key, what := wishGroup+r.Target.Name, "group "+r.Target.Name
	undo := "gemel maintenance group/" + r.Target.Name + " --end"
	change := func(old []byte) (any, error) {
		var g groupWish
		_ = json.Unmarshal(old, &g)
		g.Until, g.By, g.At = until, r.By, time.Now().UTC()
		return g, nil
	}
	if r.Target.Kind == ha.KindNode {
		name := ha.Node(r.Target.Name)
		what, undo = "node "+r.Target.Name, "gemel maintenance node/"+r.Target.Name+" --end"
		switch {
		case name == "":
			name, what, undo = wholeCluster, "the cluster", "gemel maintenance cluster --end"
		case !slices.ContainsFunc(m.o.Identity.Peers, func(p manifest.Peer) bool { return p.Name == name && !p.Witness }):
			return refused(fmt.Sprintf("there is no node %s that runs groups", name)), nil
		}
		key = wishNode + string(name)
		change = func(old []byte) (any, error) {
			var n nodeWish
			_ = json.Unmarshal(old, &n)
			n.Until, n.By, n.At = until, r.By, time.Now().UTC()
			return n.kept(), nil
		}
	} else if !slices.ContainsFunc(m.problem(), func(g place.Group) bool { return string(g.Name) == r.Target.Name }) {
		return refused("there is no group " + r.Target.Name), nil
	}
	if err := w.change(ctx, key, change); err != nil {
		return ha.Answer{}, err
	}
	if until.IsZero() {
		return accepted("", fmt.Sprintf("the maintenance of %s is over", what)), nil
	}
	return accepted(undo, fmt.Sprintf("%s is in maintenance until %s: nothing is granted or moved there by itself, also not after a loss",
		what, until.Format(time.RFC3339))), nil
}

// clear lets a group go to the nodes again that it was barred from.
func (w wishing) clear(ctx context.Context, r ha.Request) (ha.Answer, error) {
	err := w.change(ctx, wishGroup+r.Target.Name, func(old []byte) (any, error) {
		var g groupWish
		_ = json.Unmarshal(old, &g)
		g.Barred = nil
		return g, nil
	})
	if err != nil {
		return ha.Answer{}, err
	}
	return accepted("", fmt.Sprintf("group %s may go to each of its nodes again", r.Target.Name)), nil
}

// lock keeps a group where it is, whatever happens but the loss of its node.
func (w wishing) lock(ctx context.Context, r ha.Request) (ha.Answer, error) {
	on := r.Verb == ha.VerbLock
	err := w.change(ctx, wishGroup+r.Target.Name, func(old []byte) (any, error) {
		var g groupWish
		_ = json.Unmarshal(old, &g)
		g.Locked, g.By, g.At = on, r.By, time.Now().UTC()
		if !on && g.Node == "" && len(g.Barred) == 0 && g.Until.IsZero() {
			return nil, nil
		}
		return g, nil
	})
	if err != nil {
		return ha.Answer{}, err
	}
	if on {
		return accepted("gemel unlock group/"+r.Target.Name, fmt.Sprintf("group %s is locked: it is neither granted nor moved", r.Target.Name)), nil
	}
	return accepted("gemel lock group/"+r.Target.Name, fmt.Sprintf("group %s is unlocked", r.Target.Name)), nil
}
