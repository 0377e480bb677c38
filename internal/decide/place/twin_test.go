package place

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"gemel/internal/ha"
)

// twin places the one group of a problem by the words of the rules, without
// anything that makes it quick or explains it.
type twin struct {
	p Problem
	g *Group
}

func (w twin) health(n ha.Node) Health {
	if h := w.g.on(n).Health; h != nil {
		return *h
	}
	return w.p.node(n).Health
}

func (w twin) synced(n ha.Node) bool { return len(w.g.on(n).Behind) == 0 }

func (w twin) takes(n ha.Node, forced bool) bool {
	q := w.p
	if !forced { // allowed looks for a force itself
		q.Groups = nil
	}
	return q.allowed(w.g, n) == ""
}

func (w twin) reaches(n ha.Node) (can, cannot []string) {
	for _, t := range w.g.Rules.Targets {
		if slices.Contains(w.p.node(n).Reaches, t) {
			can = append(can, t)
		} else if slices.Contains(w.p.node(n).Misses, t) {
			cannot = append(cannot, t)
		}
	}
	return can, cannot
}

func (w twin) reachesAllOf(n, x ha.Node) bool {
	a, _ := w.reaches(x)
	b, _ := w.reaches(n)
	return !slices.ContainsFunc(a, func(t string) bool { return !slices.Contains(b, t) })
}

// order puts health in words that sort: only with a critical alarm, or always.
func (w twin) order(n ha.Node, always bool) string {
	h := w.health(n)
	if !h.Critical && !always {
		return "0"
	}
	return fmt.Sprintf("%t %03d %03d", h.Critical, h.Majors, h.Minors) // "false" < "true"
}

func (w twin) damped() bool {
	return w.g.Rules.Limit > 0 && w.g.Failovers >= w.g.Rules.Limit
}

// flees says whether the group on x would rather be on n, by itself.
func (w twin) flees(x, n ha.Node, sticky int) bool {
	a, b := w.health(x), w.health(n)
	if a.Critical && !b.Critical {
		return true
	}
	if a.Critical && a.Majors-b.Majors > sticky {
		return true
	}
	if a.Critical && a.Majors == b.Majors && a.Minors-b.Minors > sticky {
		return true
	}
	if a.Critical != b.Critical && b.Critical || a.Critical && (a.Majors < b.Majors || a.Majors == b.Majors && a.Minors < b.Minors) {
		return false
	}
	_, misses := w.reaches(x)
	can, _ := w.reaches(n)
	return w.reachesAllOf(n, x) && slices.ContainsFunc(misses, func(t string) bool { return slices.Contains(can, t) })
}

func (w twin) wouldStay(n ha.Node) bool {
	return w.damped() || !slices.ContainsFunc(w.p.Nodes, func(o Node) bool {
		return o.Name != n && w.takes(o.Name, false) && w.synced(o.Name) && w.flees(n, o.Name, 0)
	})
}

// second is the guard of what is requested.
func (w twin) second(x, n ha.Node, any bool) bool {
	worse := w.order(n, true) > w.order(x, true)
	old := release(w.p.node(n).Release, w.p.node(x).Release) < 0
	return w.takes(n, false) && w.synced(n) && !worse && w.reachesAllOf(n, x) && (any || !old) && w.wouldStay(n)
}

// best sorts all nodes that are not out.
func (w twin) best(last ha.Node, out func(n ha.Node) bool) ha.Node {
	var c []ha.Node
	for _, n := range w.p.Nodes {
		if !out(n.Name) {
			c = append(c, n.Name)
		}
	}
	if len(c) == 0 {
		return ""
	}
	r := w.g.Rules
	flag := func(b bool) int { return map[bool]int{false: 0, true: 1}[b] }
	return slices.MinFunc(c, func(a, b ha.Node) int {
		ra, _ := w.reaches(a)
		rb, _ := w.reaches(b)
		return cmp.Or(
			cmp.Compare(flag(last != "" && a != last && !w.synced(a)), flag(last != "" && b != last && !w.synced(b))),
			strings.Compare(w.order(a, false), w.order(b, false)),
			cmp.Compare(len(rb), len(ra)),
			cmp.Compare(flag(a != w.home()), flag(b != w.home())),
			cmp.Compare(flag(w.p.has(w.g) != "" || a != last), flag(w.p.has(w.g) != "" || b != last)),
			cmp.Compare(slices.Index(r.Nodes, a), slices.Index(r.Nodes, b)),
			cmp.Compare(a, b))
	})
}

func (w twin) home() ha.Node {
	if r := w.g.Rules; r.Failback && r.Open && !r.LeastGroups && len(r.Nodes) > 0 {
		return r.Nodes[0]
	}
	return ""
}

func (w twin) place() ha.Node {
	g, x, ask := w.g, w.p.has(w.g), w.g.Request
	if g.Locked || g.Maintenance {
		return x
	}
	if x == "" {
		return w.start()
	}
	at := w.p.node(x)
	if at.State == ha.NodeSuspect {
		return x
	}
	if ask.Node != "" && ask.Node != x && (ask.Forced && w.takes(ask.Node, true) || !ask.Forced && w.second(x, ask.Node, ask.Any)) {
		return ask.Node
	}
	pinned := ask.Forced && ask.Node == x
	if at.Maintenance {
		return x
	}
	if !w.takes(x, pinned) {
		q := w
		c := *g
		c.At, q.g = nil, &c
		onlyBarred := q.takes(x, false) // without what is barred it might stay
		n := w.best(x, func(n ha.Node) bool {
			if onlyBarred {
				return n == x || w.damped() || !w.takes(n, false) || !w.synced(n) || !w.wouldStay(n)
			}
			return n == x || !w.second(x, n, false)
		})
		if n != "" {
			return w.orAsked(n)
		}
	}
	if !pinned && !w.damped() {
		n := w.best(x, func(n ha.Node) bool {
			return n == x || !w.takes(n, false) || !w.synced(n) || !w.flees(x, n, g.Rules.Stickiness)
		})
		if n != "" {
			return w.orAsked(n)
		}
	}
	if h := w.home(); h != "" && h != x && ask.Node != x && !w.damped() && w.second(x, h, false) {
		return h
	}
	return x
}

// orAsked goes on at once to where it would be asked to go from there.
func (w twin) orAsked(n ha.Node) ha.Node {
	if ask := w.g.Request; ask.Node != "" && ask.Node != w.p.has(w.g) && w.second(n, ask.Node, ask.Any) {
		return ask.Node
	}
	return n
}

func (w twin) start() ha.Node {
	last, ask := w.g.Now, w.g.Request
	if last == "" {
		last = w.g.Last
	}
	out := func(n ha.Node) bool {
		return !w.takes(n, false) || last != "" && n != last && w.g.on(n).OnLoss != ""
	}
	if t := ask.Node; t != "" && (ask.Forced && w.takes(t, true) ||
		!ask.Forced && !out(t) && (last == "" || last == t || w.synced(t)) && w.wouldStay(t)) {
		return t
	}
	if n := w.p.node(last); n != nil && n.Maintenance {
		return ""
	}
	return w.best(last, out)
}

func TestOneGroupAgainstANaiveTwin(t *testing.T) {
	rules := map[string]int{}
	rollAll(t, true, func(d dice, p Problem) string {
		c := Plan(p).Choices[0]
		rules[c.Reason.Rule]++
		for _, r := range c.Refused {
			rules["refused: "+r.Rule]++
		}
		if n := (twin{p, &p.Groups[0]}).place(); n != c.Node {
			return fmt.Sprintf("the twin says %q", n)
		}
		return ""
	})
	for _, r := range []string{"configured-node", "last-holder", "failover", "health", "reach", "failback", "requested", "forced",
		"leaves-drained", "leaves-barred", "leaves-level", "leaves-not-listed", "locked", "suspect", "on-loss", "nowhere", "stays"} {
		if rules["place."+r] == 0 {
			t.Errorf("place.%s never fired", r)
		}
	}
	for _, r := range []string{"not-in-sync", "less-healthy", "unreached", "release", "left-at-once", "damped", "stuck", "locked"} {
		if rules["refused: place."+r] == 0 {
			t.Errorf("place.%s never refused", r)
		}
	}
	t.Log(rules)
}
