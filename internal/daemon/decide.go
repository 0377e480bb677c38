package daemon

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"gemel/internal/ha"
)

// decide has another node decide. Each write of who decides is guarded on the key that
// is written here, so that nothing of the one before comes after it.
func (w wishing) decide(ctx context.Context, r ha.Request) (ha.Answer, error) {
	m, to := w.m, ha.Node(r.Target.Name)
	ctx, cancel := context.WithTimeout(ctx, wishBound)
	defer cancel()
	now := m.client.Read(ctx)
	if now.Error != "" {
		return refused("the cluster's store was not read (" + now.Error + "): nobody can be made to decide then"), nil
	}
	fit := w.deciders(now)
	switch {
	case to == "" && len(fit) == 0:
		return refused("no other node is a member of the cluster now"), nil
	case to == "":
		to = fit[0]
	case to == now.Brain.Node:
		return accepted("", fmt.Sprintf("%s decides already", to)), nil
	case !slices.Contains(fit, to):
		return refused(fmt.Sprintf("%s cannot decide: it is no member of the cluster now, or only votes; who could: %v", to, fit)), nil
	}
	// An epoch of zero is that of a store in which nobody has decided yet.
	out := m.client.Write(ctx, ha.WriteStore{Epoch: now.Epoch, Puts: []ha.Put{{Key: ha.BrainKey, Guard: now.Epoch, Brain: &ha.BrainRecord{Node: to}}}})
	switch {
	case out.Refused:
		return refused("who decides has changed meanwhile: see gemel status, and ask again"), nil
	case !out.OK:
		return refused("whether the store took it is not known (" + out.Error + "): see gemel status, and ask again"), nil
	}
	m.h.engine.Note(ha.BrainSwitched, ha.Subject{Kind: ha.KindNode, Name: string(to)}, "asked for by "+r.By)
	undo := ""
	if now.Brain.Node != "" {
		undo = "gemel brain switch " + string(now.Brain.Node)
	}
	return accepted(undo, fmt.Sprintf("%s decides from now on", to)), nil
}

// deciders are the members that could decide and do not, those without groups first.
func (w wishing) deciders(now ha.StoreRead) []ha.Node {
	var fit []ha.KeyedNode
	for _, p := range w.m.o.Identity.Peers { // in the order of the list
		i := slices.IndexFunc(now.Nodes, func(n ha.KeyedNode) bool { return n.Node == p.Name && n.State == ha.NodeMember })
		if i >= 0 && !p.Witness && p.Name != now.Brain.Node {
			fit = append(fit, now.Nodes[i])
		}
	}
	slices.SortStableFunc(fit, func(a, b ha.KeyedNode) int { return cmp.Compare(len(a.Grants), len(b.Grants)) })
	var names []ha.Node
	for _, n := range fit {
		names = append(names, n.Node)
	}
	return names
}
