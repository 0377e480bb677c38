package sim

import (
	"slices"
	"strings"
	"time"

	"gemel/internal/ha"
)

// store is a linearizable map with revisions. What is slow, lost or late is on the
// way to it and back.
type store struct {
	w    *world
	rev  ha.Rev
	keys map[string]entry
	past []snapshot    // for a member that is behind
	away time.Duration // until when it has no quorum
	slow time.Duration // until when everything takes long
}

type entry struct {
	rev   ha.Rev
	node  ha.NodeRecord
	group ha.GroupRecord
	brain ha.BrainRecord
}

type snapshot struct {
	rev  ha.Rev
	at   time.Duration
	keys map[string]entry
}

func newStore(w *world) *store { return &store{w: w, keys: map[string]entry{}} }

// reach carries a request to the store and its answer back. do is called when, and
// if, it arrives there. back is called with what it returned, or with nil when the
// one who asked has given up: the request may arrive all the same.
func (s *store) reach(m *machine, do func() any, back func(any)) {
	w := s.w
	done := false
	answer := func(v any) {
		if !done {
			done = true
			back(v)
		}
	}
	w.after(w.c.Timers.Life*2/3, func() { answer(nil) })
	if m.apart > w.now && !w.dice.chance(8) {
		return // lost: this machine does not reach it
	}
	out := w.dice.between(200*time.Microsecond, 4*time.Millisecond)
	if s.slow > w.now || w.dice.chance(50) {
		out = w.dice.between(10*time.Millisecond, 2*w.c.Timers.Life)
	}
	w.after(out, func() { s.arrive(m, do, answer, &done) })
}

func (s *store) arrive(m *machine, do func() any, answer func(any), done *bool) {
	w := s.w
	if s.away > w.now {
		if w.dice.chance(2) {
			return
		}
		w.at(s.away+w.dice.between(0, 20*time.Millisecond), func() { s.arrive(m, do, answer, done) })
		return
	}
	v := do()
	if *done {
		w.res.Seen.Late++
	}
	if m.apart > w.now || w.dice.chance(100) {
		return // the answer is lost
	}
	back := w.dice.between(200*time.Microsecond, 4*time.Millisecond)
	if s.slow > w.now || w.dice.chance(50) {
		back = w.dice.between(10*time.Millisecond, w.c.Timers.Life)
	}
	w.after(back, func() { answer(v) })
}

// view is what a read sees.
func (s *store) view() (rev ha.Rev, keys map[string]entry) {
	if s.w.bad[flawStaleRead] && len(s.past) > 0 && s.w.dice.chance(3) {
		p := s.past[s.w.dice.upTo(len(s.past))]
		return p.rev, p.keys
	}
	return s.rev, s.keys
}

func (s *store) readNode(n ha.Node, id uint64) ha.NodeRead {
	rev, keys := s.view()
	e := keys[ha.NodeKey(n)]
	return ha.NodeRead{ID: id, At: rev, Key: e.rev, Record: clone(e.node)}
}

func (s *store) readAll(id uint64) ha.StoreRead {
	rev, keys := s.view()
	r := ha.StoreRead{ID: id, At: rev, Epoch: keys[ha.BrainKey].rev, Brain: keys[ha.BrainKey].brain}
	names := make([]string, 0, len(keys))
	for k := range keys {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		e := keys[k]
		switch {
		case strings.HasPrefix(k, "nodes/"):
			r.Nodes = append(r.Nodes, ha.KeyedNode{NodeRecord: clone(e.node), Key: e.rev})
		case strings.HasPrefix(k, "groups/"):
			r.Groups = append(r.Groups, ha.KeyedGroup{GroupRecord: e.group, Key: e.rev})
		}
	}
	return r
}

func clone(r ha.NodeRecord) ha.NodeRecord {
	r.Grants = slices.Clone(r.Grants)
	return r
}

// commit carries a transaction out if its guards hold.
func (s *store) commit(x ha.WriteStore) ha.StoreWritten {
	if x.Epoch != 0 && s.keys[ha.BrainKey].rev != x.Epoch {
		return ha.StoreWritten{ID: x.ID, Refused: true}
	}
	for _, p := range x.Puts {
		if !p.Blind && s.keys[p.Key].rev != p.Guard {
			return ha.StoreWritten{ID: x.ID, Refused: true}
		}
	}
	if s.w.bad[flawStaleRead] || s.w.bad[flawForgetful] {
		s.remember()
	}
	s.rev++
	for _, p := range x.Puts {
		e := s.keys[p.Key]
		switch {
		case p.Node != nil:
			s.count(e.node, *p.Node)
			e.node = clone(*p.Node)
		case p.Group != nil:
			e.group = *p.Group
		case p.Brain != nil:
			e.brain = *p.Brain
			s.w.res.Seen.Epochs++
			if x.Epoch != 0 {
				s.w.res.Seen.Switched++ // whoever takes it does not compare it twice
			}
		default:
			continue // only compared
		}
		e.rev = s.rev
		s.keys[p.Key] = e
		s.w.mark(uint64(s.rev))
		s.w.say("store r%d: %s", s.rev, p)
	}
	return ha.StoreWritten{ID: x.ID, OK: true, At: s.rev}
}

// remember keeps what stood here before a transaction.
func (s *store) remember() {
	old := make(map[string]entry, len(s.keys))
	for k, e := range s.keys {
		old[k] = e
	}
	s.past = append(s.past, snapshot{s.rev, s.w.now, old})
	if n := len(s.past); n > 4 {
		s.past = slices.Delete(s.past, 0, n-4)
	}
}

// forget is a store that comes back without its last transactions.
func (s *store) forget() {
	if len(s.past) == 0 {
		return
	}
	p := s.past[0]
	s.keys, s.past = p.keys, nil
	s.w.say("the store has forgotten all after r%d", p.rev)
}

func (s *store) count(old, r ha.NodeRecord) {
	c := &s.w.res.Seen
	switch {
	case old.State == ha.NodeMember && r.State == ha.NodeSuspect:
		c.Suspected++
	case r.State == ha.NodeEvicted:
		c.Evicted++
	case r.State == ha.NodeLeft:
		c.Left++
	case old.State == ha.NodeSuspect && r.Incarnation == old.Incarnation:
		c.Cleared++
	case r.Incarnation != old.Incarnation:
		c.Joined++
	case len(r.Grants) > len(old.Grants):
		c.Granted++
	case len(r.Grants) < len(old.Grants):
		c.Moved++
	}
}
