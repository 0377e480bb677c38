package cluster

import (
	"reflect"
	"slices"

	"gemel/internal/decide/place"
	"gemel/internal/ha"
)

// tell emits an event.
func tell(now ha.Instant, code ha.Code, about ha.Subject, detail string, why ha.Reason) ha.Action {
	entry, _ := code.Entry()
	e := ha.Event{At: now, Code: code, Subject: about, Change: entry.Change, Severity: ha.OK, Text: entry.Text, Detail: detail, Why: why}
	switch code {
	case ha.MemberSuspected:
		e.Severity = ha.Minor
	case ha.MemberEvicted, ha.StoreAway:
		e.Severity = ha.Major
	}
	return ha.Emit{Event: e}
}

func ofNode(n ha.Node) ha.Subject { return ha.Subject{Kind: ha.KindNode, Name: string(n)} }

// tell says what a transaction that came about has changed. It is called before the
// picture of the store is.
func (b *Brain) tell(p *pending) {
	say := func(code ha.Code, about ha.Subject, detail string) {
		b.order(tell(b.now, code, about, detail, p.why))
	}
	if p.epoch {
		say(ha.BrainHere, ofNode(b.mind.Node), "")
	}
	for _, put := range p.puts {
		switch {
		case put.Brain != nil && !p.epoch:
			say(ha.BrainSwitched, ofNode(put.Brain.Node), "")
		case put.Group != nil:
			say(ha.GroupGranted, ha.OfGroup(put.Group.Group), "to "+string(put.Group.Node)+", fence "+put.Group.Fence.String())
		case put.Node != nil:
			tellNode(b, *put.Node, say)
		}
	}
}

// clarify tells what a write of unknown outcome has changed, if the store says now that it
// came about. An epoch is taken once more, and told then.
func (b *Brain) clarify(in ha.StoreRead) {
	p := b.way.doubt
	if p == nil {
		return
	}
	b.way.doubt = nil
	is := picture{StoreRead: in}
	for _, put := range p.puts {
		var came bool
		switch {
		case p.epoch:
		case put.Brain != nil:
			came = in.Epoch > put.Guard && in.Brain == *put.Brain
		case put.Node != nil:
			n := is.node(put.Node.Node)
			came = n != nil && n.Key > put.Guard && reflect.DeepEqual(n.NodeRecord, *put.Node)
		case put.Group != nil:
			g, ok := is.group(put.Group.Group)
			came = ok && g.Key > put.Guard && reflect.DeepEqual(g.GroupRecord, *put.Group)
		}
		if came { // it was all or nothing
			b.tell(p)
			return
		}
	}
}

// judge tells what of the placement people should know: that a group has no node, and
// why a move that something asks for is not made. Each is said once.
func judge(b *Brain) {
	a := placement(b, "")
	if b.last.told {
		return
	}
	b.last.told = true
	var without []ha.Group
	for _, c := range a.Choices {
		if c.Node == "" && c.From == "" {
			without = append(without, c.Group)
			if slices.ContainsFunc(c.Not, func(n place.WhyNot) bool { return n.Reason.Rule == "place.unasked" }) {
				continue // it may have one in a moment
			}
			if !slices.Contains(b.said.alarmed, c.Group) {
				b.said.alarmed = append(b.said.alarmed, c.Group)
				e := tell(b.now, ha.GroupUnplaced, ha.OfGroup(c.Group), c.Reason.Text, c.Reason).(ha.Emit)
				e.Event.Severity = ha.Major
				b.order(e)
			}
		}
		now := map[string]bool{}
		for _, r := range c.Refused {
			now[r.Text] = true
			if !b.said.refused[c.Group][r.Text] {
				b.order(tell(b.now, ha.GroupRefused, ha.OfGroup(c.Group), r.Text, r))
			}
		}
		b.said.refused[c.Group] = now
	}
	hush(b, without, "it has a node")
}

// hush clears the alarms of groups without a node but for those that have none still.
func hush(b *Brain, but []ha.Group, why string) {
	b.said.alarmed = slices.DeleteFunc(b.said.alarmed, func(g ha.Group) bool {
		if slices.Contains(but, g) {
			return false
		}
		e := tell(b.now, ha.GroupUnplaced, ha.OfGroup(g), why, because("placed", why)).(ha.Emit)
		e.Event.Change, e.Event.Severity = ha.Clear, ha.OK
		b.order(e)
		return true
	})
}

func tellNode(b *Brain, r ha.NodeRecord, say func(ha.Code, ha.Subject, string)) {
	was := b.store.node(r.Node)
	switch {
	case was == nil:
	case was.State != r.State && r.State == ha.NodeSuspect:
		say(ha.MemberSuspected, ofNode(r.Node), "")
	case was.State != r.State && r.State == ha.NodeEvicted:
		say(ha.MemberEvicted, ofNode(r.Node), "")
	case was.State == r.State:
		for _, g := range was.Grants {
			if !slices.ContainsFunc(r.Grants, func(x ha.Grant) bool { return x.Group == g.Group }) {
				say(ha.GroupMoving, ha.OfGroup(g.Group), "away from "+string(r.Node))
			}
		}
	}
}
