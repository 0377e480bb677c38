package cluster

import (
	"slices"
	"strconv"
	"time"

	"gemel/internal/ha"
)

// Self is what an Authority is made of.
type Self struct {
	Node   ha.Node
	Boot   string // the kernel's boot id
	Era    uint64
	Timers Timers
	// Incarnation is the one that the last life of the daemon had in this boot;
	// empty: there was none.
	Incarnation ha.Incarnation
	// Away says that the alarm stands that the store does not answer.
	Away  bool
	Plant []Flaw
}

// An Authority decides what this node may run, and until when. It is used by one
// goroutine.
type Authority struct {
	self Self
	bad  flaws
	now  ha.Instant
	out  []ha.Action

	ids   uint64
	asks  []ask      // without an answer yet
	next  ha.Instant // of the next read
	view  view
	right rights
	said  ha.Said
	stage stage
	fresh bool // the incarnation was never sent to the store
	reach reach
}

// reach is whether the store answers.
type reach struct {
	last ha.Instant // when it did
	away bool       // that it does not was told
	why  string     // it did not the last time; empty: it did
}

// ask is a question or a transaction that is on its way.
type ask struct {
	id    uint64
	kind  askKind
	began ha.Instant // not later than when it was sent
	wrote ha.NodeRecord
}

type askKind uint8

const (
	askRead askKind = iota
	askClear
	askJoin
	askLeave
)

// view is what the newest answer said.
type view struct {
	at     ha.Rev // of the store; no older answer counts
	key    ha.Rev // of the node's key; zero: there was none
	record ha.NodeRecord
	known  bool // there was an answer
}

// rights are what follows from it.
type rights struct {
	number uint64
	held   []ha.Right // sorted by group
	holds  ha.Holds   // what the edge says is there
	told   bool       // it said so at least once: before, anything may be there
	since  []stake    // groups that a Rights after that one gave
}

// stake is a group that may have been started after the edge last said what is there.
type stake struct {
	group  ha.Group
	number uint64 // of the last Rights that held it
}

// stage is what a node wants of its membership.
type stage uint8

const (
	staying stage = iota
	drawing       // a new incarnation was asked for
	leaving
	gone
)

// NewAuthority returns the authority of a node in a life of the daemon. Nothing is
// held before the first answer; what a life before held goes on to its deadlines.
func NewAuthority(s Self) *Authority {
	a := &Authority{self: s, bad: plant(s.Plant)}
	a.reach.away = s.Away
	return a
}

// Step takes one fact and returns what is to be done about it.
func (a *Authority) Step(now ha.Instant, in ha.Input) []ha.Action {
	a.now, a.out = now, nil
	stalled(a)
	switch in := in.(type) {
	case ha.NodeRead:
		if q, ok := answered(a, in.ID); ok && in.Error == "" {
			a.take(q.began, in.At, in.Key, in.Record)
		}
	case ha.StoreWritten:
		if q, ok := answered(a, in.ID); ok {
			a.wrote(q, in)
		}
	case ha.Holds:
		a.seen(in)
	case ha.Drawn:
		if a.stage == drawing {
			a.self.Incarnation, a.stage, a.fresh = in.Incarnation, staying, true
			a.remember(in.Incarnation, because("draw", "the next life of the daemon goes on as this one"))
		}
	case ha.Stirred:
		if in.At > a.view.at && a.stage != gone {
			a.next = min(a.next, a.now) // what it says may be about this node
		}
	case ha.Departs:
		if a.stage != gone {
			a.stage = leaving
			if !a.bad[flawKept] {
				// What says that all is stopped may be committed when a next life has begun: that
				// one must be somebody else, or it would run what was given up.
				a.remember("", because("leave", "no later life goes on as this one"))
			}
			a.give(nil, because("leave", "this node leaves the cluster"))
		}
	}
	a.lapse()
	a.move()
	a.ask()
	reached(a, in)
	a.say()
	return a.out
}

// stalled tells that this node did not run: it comes that much later to its next renewal than
// it wanted to, which is half of what makes others suspect it.
func stalled(a *Authority) {
	late := a.now.Sub(a.next)
	if a.next == 0 || a.stage == gone || late < a.self.Timers.Silence/2 {
		return
	}
	text := "for " + late.Round(time.Millisecond).String()
	a.order(tell(a.now, ha.Stalled, ofNode(a.self.Node), text, because("stalled", text)))
}

// reached tells when the store stops answering, and when it answers again.
func reached(a *Authority, in ha.Input) {
	answer, why := false, ""
	switch in := in.(type) {
	case ha.NodeRead:
		answer, why = in.Error == "", in.Error
	case ha.StoreWritten:
		answer, why = in.OK || in.Refused, in.Error
	}
	if why != "" || answer {
		a.reach.why = why
	}
	if a.reach.last == 0 || answer {
		a.reach.last = a.now
	}
	// Why is known when the first question that nobody answered has ended, which is soon.
	silent, life := a.now.Sub(a.reach.last), a.self.Timers.Life
	away := silent >= life && (a.reach.why != "" || silent >= life+life/4) || a.reach.away && !answer
	if away == a.reach.away || a.stage == gone {
		return
	}
	a.reach.away = away
	text := "no answer came for as long as an authority lasts"
	if a.reach.why != "" {
		text += ": " + a.reach.why
	}
	if !away {
		text = "it answers again"
	}
	e := tell(a.now, ha.StoreAway, ofNode(a.self.Node), text, because("away", text)).(ha.Emit)
	if !away {
		e.Event.Change, e.Event.Severity = ha.Clear, ha.OK
	}
	a.order(e)
}

// Wake returns when the authority wants to be asked again if nothing happens.
func (a *Authority) Wake() (ha.Instant, bool) {
	t := a.next
	for _, r := range a.right.held {
		t = min(t, r.Until)
	}
	return t, a.stage != gone
}

// Gone reports whether this node has left the cluster, or is out of it and wanted to
// leave.
func (a *Authority) Gone() bool { return a.stage == gone }

// KeptIncarnation is the key under which the incarnation is kept, as a JSON string, for
// the next life of the daemon in the same boot.
const KeptIncarnation = "cluster/incarnation"

func (a *Authority) remember(i ha.Incarnation, why ha.Reason) {
	value := ""
	if i != "" {
		value = strconv.Quote(string(i)) // what is drawn is plain ASCII
	}
	a.order(ha.Keep{Key: KeptIncarnation, Value: value, Sync: true, Why: why})
}

func (a *Authority) order(x ha.Action) { a.out = append(a.out, x) }

func answered(a *Authority, id uint64) (ask, bool) {
	i := slices.IndexFunc(a.asks, func(q ask) bool { return q.id == id })
	if i < 0 {
		return ask{}, false
	}
	q := a.asks[i]
	a.asks = slices.Delete(a.asks, i, i+1)
	return q, true
}

// mine reports whether a record is of this incarnation.
func (a *Authority) mine(r ha.NodeRecord) bool {
	if a.bad[flawOther] {
		return r.Node == a.self.Node
	}
	return r.Incarnation != "" && r.Incarnation == a.self.Incarnation && r.Era == a.self.Era &&
		(r.Boot == a.self.Boot || a.bad[flawResume])
}

// take is what an answer does. It gives authority only for what it says itself,
// and only from before it was asked for.
func (a *Authority) take(began ha.Instant, at, key ha.Rev, r ha.NodeRecord) {
	if at < a.view.at && !a.bad[flawOlder] {
		return
	}
	a.view = view{at, key, r, true}
	if a.stage == leaving || a.stage == gone {
		return
	}
	if !a.mine(r) {
		a.give(nil, because("foreign", "this node is not a member in this incarnation", fact("key", r.String())))
		return
	}
	if a.bad[flawAnswer] {
		began = a.now
	}
	switch {
	case r.State == ha.NodeMember, r.State == ha.NodeSuspect && a.bad[flawHold]:
		a.give(a.renewed(began.Add(r.Life), r.Grants), because("read", "the store says member", fact("revision", at.String())))
	case r.State == ha.NodeSuspect:
		// What is held goes on to its own end, unless it was taken away.
		kept := slices.Clone(a.right.held)
		for i, h := range kept {
			g, ok := r.Grant(h.Group)
			kept[i].Leaving = h.Leaving || !ok || g.Fence != h.Fence
		}
		a.give(kept, because("suspected", "the store says suspect: no new authority"))
	default:
		a.give(nil, because("out", "the store says "+string(r.State)))
	}
}

// renewed are the rights by an answer that lasts until an instant. One that lasts
// longer by an earlier answer of the same grant keeps that.
func (a *Authority) renewed(until ha.Instant, grants []ha.Grant) []ha.Right {
	var all []ha.Right
	for _, g := range grants {
		r := ha.Right{Grant: g, Until: until}
		if i := slices.IndexFunc(a.right.held, func(h ha.Right) bool { return h.Grant == g }); i >= 0 {
			r.Until = max(until, a.right.held[i].Until)
		}
		if r.Until > a.now {
			all = append(all, r)
		}
	}
	all = append(all, a.leavers(until, all)...)
	slices.SortFunc(all, func(x, y ha.Right) int { return compare(x.Group, y.Group) })
	return all
}

// leavers are the groups that were taken away and are not seen stopped yet. Nobody
// else gets one before its stop is reported or this node is evicted, and for that
// the brain waits as for any authority: what still runs may go on for as long as the
// store says member, so that it can be stopped in its own time.
func (a *Authority) leavers(until ha.Instant, granted []ha.Right) []ha.Right {
	var all []ha.Right
	for _, g := range a.holding() {
		has := slices.ContainsFunc(granted, func(r ha.Right) bool { return r.Group == g })
		i := slices.IndexFunc(a.right.held, func(r ha.Right) bool { return r.Group == g })
		if has || i < 0 || until <= a.now {
			continue
		}
		r := a.right.held[i]
		r.Leaving, r.Until = true, max(until, r.Until)
		all = append(all, r)
	}
	return all
}

// give makes the rights those of held, and orders it if that is new.
func (a *Authority) give(held []ha.Right, why ha.Reason) {
	if slices.Equal(held, a.right.held) {
		return
	}
	a.right.number++
	for _, r := range held {
		if r.Leaving {
			continue
		}
		i := slices.IndexFunc(a.right.since, func(s stake) bool { return s.group == r.Group })
		if i < 0 {
			a.right.since = append(a.right.since, stake{group: r.Group})
			i = len(a.right.since) - 1
		}
		a.right.since[i].number = a.right.number
	}
	a.right.held = held
	a.order(ha.Rights{Number: a.right.number, Groups: slices.Clone(held), Why: why})
}

// lapse takes away what has come to its end.
func (a *Authority) lapse() {
	if slices.ContainsFunc(a.right.held, func(r ha.Right) bool { return r.Until <= a.now }) {
		kept := slices.DeleteFunc(slices.Clone(a.right.held), func(r ha.Right) bool { return r.Until <= a.now })
		a.give(kept, because("lapse", "the authority has ended without a new answer"))
	}
}

// seen notes what is there. A group that a later Rights gave may be there as well:
// the edge has not looked since.
func (a *Authority) seen(in ha.Holds) {
	if in.Rights < a.right.holds.Rights {
		return
	}
	a.right.holds, a.right.told = in, true
	a.right.since = slices.DeleteFunc(a.right.since, func(s stake) bool { return s.number <= in.Rights })
}

// holding is what is not seen stopped.
func (a *Authority) holding() []ha.Group {
	all := slices.Clone(a.right.holds.Groups)
	for _, s := range a.right.since {
		all = append(all, s.group)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// There returns the groups of which something may be here; false: that is not known yet.
func There(a *Authority) ([]ha.Group, bool) { return a.holding(), a.right.told }

// clean reports whether nothing of the cluster is there.
func (a *Authority) clean() bool { return a.right.told && len(a.holding()) == 0 }

// move writes what the node itself wants in its key.
func (a *Authority) move() {
	if !a.view.known || slices.ContainsFunc(a.asks, func(q ask) bool { return q.kind != askRead }) {
		return
	}
	r, mine := a.view.record, a.mine(a.view.record)
	switch {
	case a.stage == leaving:
		if !mine || r.State == ha.NodeEvicted || r.State == ha.NodeLeft {
			a.stage = gone
			return
		}
		if a.clean() {
			r.State, r.Grants = ha.NodeLeft, nil
			a.write(askLeave, r, because("leave", "all is stopped: this node leaves"))
		}
	case a.stage != staying:
	case mine && r.State == ha.NodeSuspect:
		r.State = ha.NodeMember
		a.write(askClear, r, because("clear", "this node is alive: it clears the suspicion"))
	case mine && r.State == ha.NodeMember:
	case !a.clean():
		// It joins with nothing of the cluster running.
	case !a.fresh:
		// One that was a member once, or may have been, is never one again.
		a.stage = drawing
		a.order(ha.Draw{Why: because("draw", "this node joins anew, as nobody that was here before")})
	default:
		a.fresh = false
		a.join(r)
	}
}

// join makes this incarnation the member. The life stays what it was if that was
// longer: what the one before held may last as long.
func (a *Authority) join(old ha.NodeRecord) {
	r := ha.NodeRecord{Node: a.self.Node, Incarnation: a.self.Incarnation, Boot: a.self.Boot, Era: a.self.Era,
		State: ha.NodeMember, Life: max(a.self.Timers.Life, old.Life)}
	a.write(askJoin, r, because("join", "this node joins", fact("incarnation", string(r.Incarnation))))
}

func (a *Authority) write(kind askKind, r ha.NodeRecord, why ha.Reason) {
	a.ids++
	a.asks = append(a.asks, ask{id: a.ids, kind: kind, began: a.now, wrote: r})
	p := ha.Put{Key: ha.NodeKey(a.self.Node), Guard: a.view.key, Node: &r}
	p.Blind = kind == askClear && a.bad[flawClear]
	a.order(ha.WriteStore{ID: a.ids, Puts: []ha.Put{p}, Why: why})
}

// wrote takes the outcome of what this node wrote. One that came about is as good
// as a read that began when it was sent.
func (a *Authority) wrote(q ask, in ha.StoreWritten) {
	if in.OK {
		a.take(q.began, in.At, in.At, q.wrote)
		switch q.kind {
		case askJoin:
			a.order(tell(a.now, ha.MemberJoined, ofNode(a.self.Node), "incarnation "+string(q.wrote.Incarnation), because("join", "this node joined")))
		case askLeave:
			a.order(tell(a.now, ha.MemberLeft, ofNode(a.self.Node), "", because("leave", "all was stopped, and this node left")))
		}
		if q.kind == askLeave && a.stage == leaving {
			a.stage = gone
		}
		return
	}
	a.next = a.now // what stands there now is read before anything is tried again
	a.view.known = false
}

// ask reads the key ten times in a life. An answer that is slower than that may be
// followed by the next question: what counts is when each was sent. Three times are enough
// for a member that holds nothing and was answered: it has no authority that could
// end, and a change of its key stirs it.
func (a *Authority) ask() {
	if a.stage == gone || a.now < a.next {
		return
	}
	life := a.self.Timers.Life
	a.asks = slices.DeleteFunc(a.asks, func(q ask) bool { return q.began.Add(life) <= a.now })
	pause, why := life/10, because("read", "authority is renewed ten times in its life")
	if idle(a) {
		pause, why = life/3, because("look", "this node holds nothing: three times in a life are enough")
	}
	a.next = a.now.Add(pause)
	a.ids++
	a.asks = append(a.asks, ask{id: a.ids, began: a.now})
	a.order(ha.ReadNode{ID: a.ids, Why: why})
}

// idle reports whether there is nothing to renew, and nothing to look for.
func idle(a *Authority) bool {
	r := a.view.record
	return a.stage == staying && len(a.asks) == 0 && a.reach.why == "" && a.view.known && a.mine(r) && r.State == ha.NodeMember && len(r.Grants) == 0 &&
		len(a.right.held) == 0 && a.clean()
}

// say keeps what the heartbeats say true. The revision is said only when this node
// obeys it: what it does not grant is not started any more.
func (a *Authority) say() {
	s := ha.Said{Incarnation: a.self.Incarnation}
	if a.view.known && a.right.told && a.mine(a.view.record) {
		s.Key = a.view.key
	}
	if !a.bad[flawReport] {
		s.Holds = a.holding()
	}
	s.Unproved, s.Away = a.right.holds.Unproved, a.reach.away
	if s.Away == a.said.Away && s.Incarnation == a.said.Incarnation && s.Key == a.said.Key && slices.Equal(s.Holds, a.said.Holds) && slices.Equal(s.Unproved, a.said.Unproved) {
		return
	}
	a.said = s
	a.order(ha.Say{Said: s, Why: because("say", "what this node obeys and holds has changed")})
}

func fact(name, value string) ha.Fact { return ha.Fact{Name: name, Value: value} }
