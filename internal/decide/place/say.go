package place

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gemel/internal/ha"
)

// A voice puts into words what a work has decided.
type voice struct{ *work }

func fact(name string, value any) ha.Fact { return ha.Fact{Name: name, Value: fmt.Sprint(value)} }

func because(rule, text string, facts ...ha.Fact) ha.Reason {
	return ha.Reason{Rule: rule, Text: text, Facts: facts}
}

func list(names []string) string {
	out := slices.Clone(names)
	slices.Sort(out)
	return strings.Join(out, ",")
}

func (w *field) node(n int) string  { return string(w.nodes[n].Name) }
func (w *field) group(g int) string { return string(w.groups[g].Name) }

// rules are the ids of the codes; the manual explains each.
func (c code) rule() string {
	return "place." + [...]string{
		okay: "ok", witness: "witness", away: "not-member", suspected: "suspect", drained: "drained", mended: "maintenance",
		unlisted: "not-listed", weak: "level", unfit: "unfit", unasked: "unasked", barred: "barred", torn: "conflict", apart: "apart", full: "capacity",
		unproved: "unproved", onLoss: "on-loss", behind: "not-in-sync", worse: "less-healthy", unreached: "unreached", older: "release", leftSoon: "left-at-once",
		damped: "damped", later: "later", noCause: "no-cause", tied: "tied", locked: "locked", paused: "maintenance", nowhere: "nowhere",
	}[c]
}

// say puts into words why group g is not on node n.
func (w voice) say(f no, g, n int) ha.Reason {
	r := because(f.code.rule(), "")
	switch f.code {
	case later:
		r.Text = w.node(f.x) + " comes before it: " + w.sayBy(f.r, f.x)
	case noCause:
		r.Text, r.Facts = w.sayNoCause(f, n)
	case tied:
		r.Text, r.Facts = w.sayTied(f, g)
	case worse:
		r.Text, r.Facts = w.sayWorse(f, n)
	case locked, paused, mended, suspected:
		r.Text, r.Facts = w.sayHeld(f), nil
	case okay:
		r.Text = "it could run there"
	case nowhere:
		r.Text = "no node can take it"
	default:
		r.Text, r.Facts = w.sayBar(f, n)
	}
	if f.m != g && f.code != tied {
		r.Text = w.group(f.m) + ", which goes with it: " + r.Text
		r.Facts = append(r.Facts, fact("group", w.group(f.m)))
	}
	return r
}

// sayNoCause says why a group does not leave where it is for a node as good.
func (w voice) sayNoCause(f no, n int) (string, []ha.Fact) {
	r, base := &w.groups[f.m].Rules, f.m*len(w.nodes)
	if r.LeastGroups || w.listed[base+n] > w.listed[base+f.x] || len(r.Nodes) == 0 {
		return "it could run there, and has no cause to leave " + w.node(f.x), nil
	}
	failback := "manual"
	switch {
	case r.Failback && !r.Open:
		failback = "outside of its window"
	case r.Failback:
		failback = "to the first of the list only"
	}
	if req := w.groups[f.m].Request; req.Node == w.nodes[f.x].Name {
		failback = "off: an operator asked for " + w.node(f.x)
	}
	return w.node(n) + " is earlier in its list, and failback is " + failback, []ha.Fact{fact("on", w.node(f.x))}
}

// sayBar says what keeps a group off a node.
func (w voice) sayBar(f no, n int) (string, []ha.Fact) {
	m := &w.groups[f.m]
	if f.code == damped {
		return fmt.Sprintf("it failed over %d times lately and stays from %d on", m.Failovers, m.Rules.Limit), nil
	}
	name, at := w.node(n), w.at[f.m*len(w.nodes)+n]
	switch f.code {
	case witness:
		return name + " is a witness and only votes", nil
	case away:
		return name + " is not a member of the cluster", []ha.Fact{fact("state", w.nodes[n].State)}
	case drained:
		return name + " is drained", nil
	case unlisted:
		return name + " is not among its nodes", nil
	case weak:
		return fmt.Sprintf("%s offers exclusivity level %d and it needs %d", name, w.nodes[n].Offers(), m.Rules.Level), nil
	case unfit:
		return "it could not run on " + name + ": " + at.Unfit, nil
	case unasked:
		if w.nodes[n].Level < 0 {
			return name + " has not said yet what exclusivity it offers", nil
		}
		return "its parts have not said yet whether they could run on " + name, nil
	case barred:
		return "it may not run on " + name + ": " + at.Barred, nil
	case torn:
		return "it is to be both with and apart from " + w.group(f.x), nil
	case apart:
		return "it stays apart from " + w.group(f.x) + ", which is on " + name, nil
	case full:
		return name + " has no room for it", []ha.Fact{fact("resource", w.res[f.r]), fact("free", f.v), fact("bound", w.bound[n][f.r])}
	case unproved:
		return at.Unproved, nil
	case onLoss:
		return "a take-over on " + name + " waits for " + w.lastOf(f.m) + ", which had it last, or for an operator: " + at.OnLoss, nil
	case behind:
		return "its files are not in sync on " + name, []ha.Fact{fact("files", list(at.Behind))}
	case unreached:
		return fmt.Sprintf("%s is not known to reach %s, which %s reaches", name, m.Rules.Targets[f.r], w.node(f.x)), nil
	case older:
		if w.nodes[n].Release == "" {
			return name + " has not said yet of which release it is, as " + w.node(f.x) + " has", []ha.Fact{fact(w.node(f.x), w.nodes[f.x].Release)}
		}
		return name + " has an older release than " + w.node(f.x),
			[]ha.Fact{fact(name, w.nodes[n].Release), fact(w.node(f.x), w.nodes[f.x].Release)}
	case leftSoon:
		return "it would leave " + name + " for " + w.node(f.x) + " at once", nil
	}
	return "", nil
}

func (w voice) sayWorse(f no, n int) (string, []ha.Fact) {
	ms := []int{f.m}
	text := w.node(n) + " is less healthy than " + w.node(f.x)
	if full3(w.health(ms, n), w.health(ms, f.x)) <= 0 {
		text = w.node(n) + " is not so much healthier that it counts"
	}
	return text, w.healthFacts(ms, f.x, n)
}

func (w voice) sayTied(f no, g int) (string, []ha.Fact) {
	switch {
	case f.r == byRequest:
		return "an operator asked for " + w.node(f.x), nil
	case f.m == g:
		return "what goes with it is on " + w.node(f.x), nil
	}
	return "it goes with " + w.group(f.m) + ", which is on " + w.node(f.x), []ha.Fact{fact("with", w.group(f.m))}
}

func (w voice) sayHeld(f no) string {
	switch f.code {
	case locked:
		return "it is locked"
	case paused:
		return "it is in maintenance"
	case mended:
		return w.node(f.x) + " is in maintenance"
	}
	return w.node(f.x) + " is suspected"
}

// sayBy says what made the first node come before the others.
func (w voice) sayBy(by, n int) string {
	switch by {
	case bySync:
		return "its files are in sync there"
	case byHealth:
		return "it is healthier"
	case byReach:
		return "it reaches more of the targets"
	case byHome:
		return "it fails back there"
	case byLast:
		return "it had it last"
	case byFewest:
		return "it has fewer groups"
	case byList:
		return "it is earlier in the list"
	case byName:
		return "its name is first"
	}
	return "no other can take it"
}

// lastOf names who had a group last, also if that is no node any more.
func (w *work) lastOf(g int) string {
	switch s := &w.st[g]; {
	case s.last >= 0:
		return w.node(s.last)
	case w.groups[g].Now != "":
		return string(w.groups[g].Now)
	}
	return string(w.groups[g].Last)
}

// sayGrant says why a group that nobody has goes to the best of the nodes.
func (w voice) sayGrant(f no, last int, lost no) ha.Reason {
	n := f.x
	by := fact("by", w.sayBy(f.r, n))
	switch {
	case last == n:
		return because("place.last-holder", w.node(n)+" had it last and can take it", by)
	case last != none && lost.code != later:
		why := "it is not in the cluster"
		if last >= 0 {
			why = w.say(lost, f.m, last).Text
		}
		return because("place.failover", w.lastOf(f.m)+" had it last; "+w.node(n)+" takes it over", fact(w.lastOf(f.m), why), by)
	case w.groups[f.m].Rules.LeastGroups:
		return because("place.least-groups", w.node(n)+" has the fewest groups of the nodes that can take it", by)
	}
	return because("place.configured-node", w.node(n)+" is the first of its nodes that can take it", by)
}

func (w voice) sayWith(a, n int) ha.Reason {
	return because("place.with", "it goes with "+w.group(a)+", which is on "+w.node(n), fact("with", w.group(a)))
}

func (w voice) sayAsked(r Request, from int) ha.Reason {
	rule, text := "place.requested", "an operator asked for "+string(r.Node)
	if r.Forced {
		rule, text = "place.forced", "an operator forced it to "+string(r.Node)
	}
	if from != none {
		return because(rule, text, fact("from", w.node(from)))
	}
	return because(rule, text)
}

// sayLeave says why a group leaves a node that may not have it any more.
func (w voice) sayLeave(x, n int, cause no) ha.Reason {
	why := w.say(cause, cause.m, x)
	return because("place.leaves-"+strings.TrimPrefix(why.Rule, "place."), "it leaves "+w.node(x)+" for "+w.node(n)+": "+why.Text, why.Facts...)
}

func (w voice) sayHealth(ms []int, x, n int) ha.Reason {
	return because("place.health", w.node(n)+" is healthier than "+w.node(x), w.healthFacts(ms, x, n)...)
}

func (w voice) healthFacts(ms []int, x, n int) []ha.Fact {
	show := func(h Health) string {
		critical := "no critical"
		if h.Critical {
			critical = "critical"
		}
		return critical + "/" + strconv.Itoa(h.Majors) + " major/" + strconv.Itoa(h.Minors) + " minor"
	}
	return []ha.Fact{fact(w.node(x), show(w.health(ms, x))), fact(w.node(n), show(w.health(ms, n)))}
}

func (w voice) sayReach(ms []int, x, n int) ha.Reason {
	var gained []string
	for _, m := range ms {
		for _, t := range w.groups[m].Rules.Targets {
			if slices.Contains(w.nodes[n].Reaches, t) && !slices.Contains(w.nodes[x].Reaches, t) {
				gained = append(gained, t)
			}
		}
	}
	return because("place.reach", w.node(n)+" reaches what "+w.node(x)+" cannot", fact("targets", list(gained)))
}

func (w voice) sayFailback(x, h int) ha.Reason {
	return because("place.failback", w.node(h)+" is the first of its nodes and can take it back", fact("from", w.node(x)))
}

// sayRefused says that a move which something asked for is not made.
func (w voice) sayRefused(g, n int, f no, asked string) ha.Reason {
	if n == none && f.code == away {
		return because("place.no-such-node", "not moved: there is no such node", fact("asked", asked), fact("node", w.groups[f.m].Request.Node))
	}
	why := w.say(f, g, n)
	why.Text = "not moved: " + why.Text
	if n != none {
		why.Text = "not moved to " + w.node(n) + ": " + strings.TrimPrefix(why.Text, "not moved: ")
	}
	why.Facts = append(why.Facts, fact("asked", asked))
	return why
}

// sayStuck says that a group ought to leave and has nowhere to go.
func (w voice) sayStuck(g, x int, cause no) ha.Reason {
	why := w.say(cause, cause.m, x)
	r := because("place.stuck", "not moved off "+w.node(x)+", though "+why.Text+": no other node may take it")
	r.Facts = w.perNode(g, x)
	return r
}

// perNode lists the rule by which each node is out.
func (w voice) perNode(g, but int) []ha.Fact {
	var out []ha.Fact
	for n, f := range w.st[g].not {
		if n != but {
			out = append(out, fact(w.node(n), f.code.rule()))
		}
	}
	return out
}

func (w voice) sayStay(g int) ha.Reason {
	s := &w.st[g]
	switch on := w.node(s.now); s.held.code {
	case okay:
		if len(s.refused) > 0 {
			return because("place.stays", "it stays on "+on+": what asks it to leave is refused")
		}
		return because("place.stays", "it is on "+on+" and nothing asks it to leave")
	default:
		why := w.say(s.held, g, s.now)
		return because(why.Rule, "it stays on "+on+": "+why.Text, why.Facts...)
	}
}

// sayNowhere says why nobody has a group and nobody gets it.
func (w voice) sayNowhere(g int) ha.Reason {
	s := &w.st[g]
	if s.held.code == nowhere {
		for n, f := range s.not {
			if f.code == onLoss || f.code == unproved {
				why := w.say(f, g, n)
				return because(f.code.rule(), why.Text, w.perNode(g, none)...)
			}
		}
		return because("place.nowhere", "no node can take it", w.perNode(g, none)...)
	}
	if a := s.beside; a != none {
		on := w.st[a].now
		why := w.say(s.held, g, on)
		return because("place.with", "it goes with "+w.group(a)+" on "+w.node(on)+" and cannot: "+why.Text, why.Facts...)
	}
	why := w.say(s.held, g, none)
	return because(why.Rule, "nothing is done about it: "+why.Text, why.Facts...)
}
