package daemon

import (
	"context"
	"fmt"
	"slices"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/decide/place"
	"gemel/internal/ha"
)

// planning says where groups belong, for people: it is the function that decides, asked
// with what is, or with what would be.
type planning struct{ m *member }

// plan answers one question.
func (o planning) plan(ctx context.Context, q *gemelv1.PlanRequest) (*gemelv1.PlanResponse, error) {
	m := o.m
	if m.loop == nil {
		return nil, &ha.Error{Kind: ha.ErrRefused, Reason: "witness", Hint: "ask another node with --socket, or there",
			Err: fmt.Errorf("this node is a witness: it only votes")}
	}
	if m.seen().At == 0 {
		return nil, &ha.Error{Kind: ha.ErrUnavailable, Reason: "store", Hint: "see gemel status: most of the voters must run and reach each other",
			Err: fmt.Errorf("what the cluster's store says is not known here yet")}
	}
	var groups []place.Group
	if len(q.GetManifest()) == 0 {
		groups = m.problem()
	} else {
		man, err := m.o.parse(ctx, q.GetName(), q.GetManifest())
		if err != nil {
			return nil, err
		}
		groups = m.problemOf(man.Groups)
	}
	facts := m.known()
	var lost []ha.Node
	for _, s := range q.GetIf() {
		if err := o.suppose(s, groups, facts, &lost); err != nil {
			return nil, err
		}
	}
	answer, err := m.loop.Plan(ctx, groups, facts, lost...)
	if err != nil {
		return nil, err
	}
	return planOf(answer), nil
}

// suppose changes what is as it would be.
func (o planning) suppose(s *gemelv1.Supposed, groups []place.Group, facts []place.Node, lost *[]ha.Node) error {
	node := ha.Node(s.GetNode())
	wrong := func(format string, args ...any) error {
		return &ha.Error{Kind: ha.ErrNotFound, Reason: "if", Hint: "gemel status lists them", Err: fmt.Errorf(format, args...)}
	}
	n := slices.IndexFunc(facts, func(f place.Node) bool { return f.Name == node })
	if n < 0 {
		return wrong("there is no node %s", node)
	}
	switch s.GetKind() {
	case gemelv1.Supposed_KIND_LOST:
		*lost = append(*lost, node)
	case gemelv1.Supposed_KIND_DRAINED:
		facts[n].Drained = true
	case gemelv1.Supposed_KIND_MOVED, gemelv1.Supposed_KIND_FORCED:
		g := slices.IndexFunc(groups, func(g place.Group) bool { return string(g.Name) == s.GetGroup() })
		if g < 0 {
			return wrong("there is no group %s", s.GetGroup())
		}
		groups[g].Request = place.Request{Node: node, Forced: s.GetKind() == gemelv1.Supposed_KIND_FORCED}
	default:
		return &ha.Error{Kind: ha.ErrInvalid, Reason: "if", Hint: "see gemel.v1.Supposed", Err: fmt.Errorf("there is no supposition %d", s.GetKind())}
	}
	return nil
}

func planOf(a place.Answer) *gemelv1.PlanResponse {
	out := &gemelv1.PlanResponse{}
	for _, c := range a.Choices {
		g := &gemelv1.PlannedGroup{Name: string(c.Group), Now: string(c.From), Node: string(c.Node), Reason: reason(c.Reason)}
		for _, w := range c.Wait {
			g.Wait = append(g.Wait, string(w))
		}
		for _, r := range c.Refused {
			g.Refused = append(g.Refused, reason(r))
		}
		for _, n := range c.Not {
			g.Not = append(g.Not, &gemelv1.WhyNot{Node: string(n.Node), Reason: reason(n.Reason)})
		}
		out.Groups = append(out.Groups, g)
	}
	for _, r := range a.Conflicts {
		out.Conflicts = append(out.Conflicts, reason(r))
	}
	return out
}

func reason(r ha.Reason) *gemelv1.Reason {
	out := &gemelv1.Reason{Rule: r.Rule, Text: r.Text}
	for _, f := range r.Facts {
		out.Facts = append(out.Facts, &gemelv1.Fact{Name: f.Name, Value: f.Value})
	}
	return out
}

// problem is what the manifest in force and its operators ask for.
func (m *member) problem() []place.Group {
	m.mu.Lock()
	groups := m.groups
	m.mu.Unlock()
	return m.problemOf(groups)
}
