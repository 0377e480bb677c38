package place

import (
	"cmp"
	"slices"

	"gemel/internal/ha"
)

// A code is one way in which a node is not for a group.
type code uint8

const (
	okay code = iota
	// Of the node and the group: it may not run there.
	witness
	away
	suspected
	drained
	mended // the node is in maintenance
	unlisted
	weak  // the exclusivity level is too low
	unfit // its parts say that they could not run there
	unasked
	barred
	torn // it is with and apart from the same group
	apart
	full
	// Of a take-over.
	unproved
	onLoss
	// Of a move from where it is.
	behind
	worse
	unreached
	older
	leftSoon
	damped
	// Of a choice.
	later
	noCause
	tied
	// Of a group about which nothing is done.
	locked
	paused // the group is in maintenance
	nowhere
)

// A no is a code with what it was about.
type no struct {
	code code
	m    int   // the group of the unit that it is about
	x    int   // another group, or node
	r    int   // a resource, a position, or a criterion
	v    int64 // what room there was
}

// may says whether a group may run on a node at all. Forced waives what bars it.
func (w *field) may(g, n int, forced bool) no {
	node, c := &w.nodes[n], okay
	switch at := w.at[g*len(w.nodes)+n]; {
	case node.Witness:
		c = witness
	case node.State == ha.NodeSuspect:
		c = suspected
	case node.State != ha.NodeMember:
		c = away
	case w.listed[g*len(w.nodes)+n] == none:
		c = unlisted
	case node.Drained:
		c = drained
	case node.Maintenance:
		c = mended
	case node.Level < 0 && w.groups[g].Rules.Level > 0:
		if w.groups[g].Now != node.Name {
			c = unasked
		}
	case node.Offers() < w.groups[g].Rules.Level:
		c = weak
	case at != nil && at.Unfit != "" && w.groups[g].Now != node.Name:
		c = unfit
	case at != nil && at.Unasked && w.groups[g].Now != node.Name:
		c = unasked
	case at != nil && at.Barred != "" && !forced:
		c = barred
	}
	return no{code: c, m: g, x: n}
}

// fits says whether groups may be on a node together, beside what is to be there.
func (w *work) fits(ms []int, n int, forced bool) no {
	for _, m := range ms {
		if f := w.may(m, n, forced); f.code != okay {
			return f
		}
		for _, h := range w.links[m].apart {
			if w.unitOf[h] == w.unitOf[m] {
				return no{code: torn, m: m, x: h}
			}
			if w.st[h].now == n {
				return no{code: apart, m: m, x: h}
			}
		}
	}
	for r, bound := range w.bound[n] {
		if bound == none {
			continue
		}
		var need int64
		for _, m := range ms {
			if w.st[m].now != n {
				need += w.weigh[m][r]
			}
		}
		if need > 0 && w.load[n][r]+need > bound {
			return no{code: full, m: ms[0], r: r, x: n, v: bound - w.load[n][r]}
		}
	}
	return no{}
}

// synced says whether the files of groups are in sync on a node.
func (w *field) synced(ms []int, n int) no {
	for _, m := range ms {
		if at := w.at[m*len(w.nodes)+n]; at != nil && len(at.Behind) > 0 {
			return no{code: behind, m: m}
		}
	}
	return no{}
}

// health is the worst that counts for any of the groups.
func (w *field) health(ms []int, n int) Health {
	var out Health
	for i, m := range ms {
		h := w.nodes[n].Health
		if at := w.at[m*len(w.nodes)+n]; at != nil && at.Health != nil {
			h = *at.Health
		}
		if i == 0 || full3(h, out) > 0 {
			out = h
		}
	}
	return out
}

// full3 is the whole order of health: for "at least as healthy". Less is better.
func full3(a, b Health) int {
	return cmp.Or(cmpBool(a.Critical, b.Critical), cmp.Compare(a.Majors, b.Majors), cmp.Compare(a.Minors, b.Minors))
}

// grave is the order of health by which a group leaves or is given a node: without
// a critical alarm majors and minors count nothing.
func grave(a, b Health) int {
	if !a.Critical {
		a = Health{}
	}
	if !b.Critical {
		b = Health{}
	}
	return full3(a, b)
}

// healthier says whether b is so much healthier than a that a group leaves a.
func healthier(a, b Health, sticky int) bool {
	switch {
	case !a.Critical:
		return false
	case !b.Critical:
		return true
	case a.Majors != b.Majors:
		return a.Majors-b.Majors > max(sticky, 0)
	default:
		return a.Minors-b.Minors > max(sticky, 0)
	}
}

func cmpBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// reached counts the targets that are known to be reachable.
func (w *field) reached(ms []int, n int) int {
	c := 0
	for _, m := range ms {
		for _, t := range w.groups[m].Rules.Targets {
			if slices.Contains(w.nodes[n].Reaches, t) {
				c++
			}
		}
	}
	return c
}

// covers says whether n reaches all that x reaches.
func (w *field) covers(ms []int, x, n int) no {
	for _, m := range ms {
		for i, t := range w.groups[m].Rules.Targets {
			if slices.Contains(w.nodes[x].Reaches, t) && !slices.Contains(w.nodes[n].Reaches, t) {
				return no{code: unreached, m: m, r: i, x: x}
			}
		}
	}
	return no{}
}

// gains says whether n reaches a target that x cannot, and all that x reaches.
func (w *field) gains(ms []int, x, n int) bool {
	if len(w.nodes[x].Misses) == 0 || w.covers(ms, x, n).code != okay {
		return false
	}
	for _, m := range ms {
		for _, t := range w.groups[m].Rules.Targets {
			if slices.Contains(w.nodes[x].Misses, t) && !slices.Contains(w.nodes[x].Reaches, t) && slices.Contains(w.nodes[n].Reaches, t) {
				return true
			}
		}
	}
	return false
}

// better says whether groups on x are to leave it for n by themselves.
func (w *field) better(ms []int, x, n, sticky int) bool {
	a, b := w.health(ms, x), w.health(ms, n)
	return healthier(a, b, sticky) || grave(b, a) <= 0 && w.gains(ms, x, n)
}

// as says whether n may have what x has by request: the second guard.
func (w *work) as(ms []int, x, n int, any bool) no {
	if f := w.fits(ms, n, false); f.code != okay {
		return f
	}
	if f := w.synced(ms, n); f.code != okay {
		return f
	}
	if full3(w.health(ms, n), w.health(ms, x)) > 0 {
		return no{code: worse, m: ms[0], x: x}
	}
	if f := w.covers(ms, x, n); f.code != okay {
		return f
	}
	if !any && release(w.nodes[n].Release, w.nodes[x].Release) < 0 {
		return no{code: older, m: ms[0], x: x}
	}
	return w.stays(ms, n)
}

// stays says whether groups would stay on n. Stickiness is left out, so that more
// of it never lets a move through that was refused with less.
func (w *work) stays(ms []int, n int) no {
	if w.damp(ms).code != okay {
		return no{}
	}
	for o := range w.nodes {
		if o != n && w.better(ms, n, o, 0) && w.synced(ms, o).code == okay && w.fits(ms, o, false).code == okay {
			return no{code: leftSoon, m: ms[0], x: o}
		}
	}
	return no{}
}

// damp says whether any of the groups failed over too often.
func (w *field) damp(ms []int) no {
	for _, m := range ms {
		if g := &w.groups[m]; g.Rules.Limit > 0 && g.Failovers >= g.Rules.Limit {
			return no{code: damped, m: m}
		}
	}
	return no{}
}
