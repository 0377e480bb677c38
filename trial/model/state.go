package main

// rev is a revision of one key. Only order and equality count, so a state keeps
// them renumbered: the smallest one in use is 1. Zero is none.
type rev = int8

type status = int8

const (
	member status = iota
	suspect
	left
	evicted
)

// last is what an answer says to its node.
type last = int8

const (
	unknown last = iota
	granted
	idle      // member, and nothing is granted
	suspected // says nothing of what is granted
	out
)

const (
	nodes  = 2
	brains = 2
	reads  = 2 // of one node, at one time, where that matters
	late   = 2 // writes whose answer nobody waits for any more
)

// key is nodes/N in the store: what the cluster says of one node.
type key struct {
	rev   rev
	state status
	grant bool
	mine  bool // it names the node's present incarnation
}

// read is a linearizable read that a node makes of its own key.
type read struct {
	stage int8 // 0 none, 1 sent, 2 answered: the answer is on its way
	age   int8 // ticks since before it was sent
	got   key
}

// node is one machine.
type node struct {
	auth  int8 // ticks of authority that are left; the program may run as long as it lasts
	seen  rev  // highest revision of its key that it took
	last  last // what the answer said that it took last
	heard bool // a grant was seen at some time; only for a planted bug
	going bool // it has given up everything, and says so to the store
	reads [reads]read
	clear read // of a suspicion: a write that brings back what it wrote
	guard rev  // of the clear
	joins bool // the write that joins is on its way
	jrev  rev  // its guard
}

type op = int8

const (
	nothing op = iota
	opSuspect
	opEvict // and grant to the other, if to is set
	opRemove
	opGrant
	opNever // refused, whatever it was
)

// write is a transaction of a brain. It is guarded on the epoch and on each key
// that it looked at.
type write struct {
	op    op
	node  int8 // that it is about
	to    bool // an eviction that grants to the other as well
	epoch rev
	guard [nodes]rev // 0: not guarded
	stage int8       // 1 sent, 2 committed, 3 refused: the answer is on its way
	got   key        // of node, as committed
	wait  int8       // for a planted bug: counts from before the commit
}

// view is what a brain knows of a key, and since which revision.
type view struct {
	key
	wait int8 // ticks before it may evict; -1: no suspicion of its own stands at this revision
	off  int8 // fencing of this suspicion: 0 none, 1 ordered, 2 confirmed
}

type brain struct {
	epoch rev // 0: none held
	views [nodes]view
	w     write
}

// state is everything. It has no pointers, so that it is its own identity.
type state struct {
	keys   [nodes]key
	epoch  rev
	nodes  [nodes]node
	brains [brains]brain
	late   [late]write
	report [nodes]rev  // "stopped, r" on its way to whoever asks; any number of times
	proof  [nodes]bool // a confirmation of an older fencing lies about
}

func start() state {
	var s state
	s.epoch = 1
	for n := range s.keys {
		s.keys[n] = key{rev: 1, state: member, mine: true}
		s.nodes[n].seen = 0
	}
	s.keys[0].grant = true
	for b := range s.brains {
		s.forget(b)
	}
	return s
}

func (s *state) forget(b int) {
	s.brains[b].views = [nodes]view{}
	for n := range s.brains[b].views {
		s.brains[b].views[n].wait = -1
	}
}

// bad says how the promise is broken, or nothing.
func (s *state) bad() string {
	if s.nodes[0].auth > 0 && s.nodes[1].auth > 0 {
		return "the program may run on both nodes"
	}
	return ""
}

// plain is what others than the node itself see of a key.
func (k key) plain() key {
	k.mine = false
	return k
}

// put writes a key.
func (s *state) put(n int, k key) {
	k.rev = s.keys[n].rev + 1
	s.keys[n] = k
}
