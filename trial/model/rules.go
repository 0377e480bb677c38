package main

// rules are the protocol that is searched, and how much of it.
type rules struct {
	authority int8 // L, in ticks
	wait      int8 // W, in ticks
	reads     int8 // requests of one node that are on their way at one time
	late      int8 // writes that nobody waits for any more, at one time

	crashes bool // of brains, and answers that they give up: a write may commit when its brain is gone
	moves   bool // requested moves
	fences  bool // fence devices, whose proof ends a wait
	reboots bool // of nodes, with a join after each
	leaves  bool // of nodes, with a join after each

	without bug
}

// bug leaves one clause of the protocol out. Each of them once let a program run
// twice; a search that does not find that out is worth nothing.
type bug uint16

const (
	fromAnswer   bug = 1 << iota // authority counts from the answer, not from before the question
	olderAnswer                  // an answer is taken although a newer one was
	blindClear                   // a suspicion is cleared whatever became of it
	blindSuspect                 // a suspicion is written whatever became of the node
	byWatch                      // a grant that was heard of once counts with any answer that says member
	waitFromSend                 // the wait counts from before the suspicion was written
	looseReport                  // the group is not taken from a node before it reports the stop
	anyProof                     // the proof of a fencing ends any later wait as well
	noGuards                     // what a brain writes is guarded neither on its epoch nor on the keys
)

func (r *rules) has(b bug) bool { return r.without&b != 0 }

// variant is one search.
type variant struct {
	name   string
	what   string
	short  bool // part of the short form
	broken bool // it must be found out
	rules
}

// base is the smallest protocol: nodes that are suspected, evicted, or clear it.
var base = rules{authority: 3, wait: 3, reads: 1, late: 1}

func with(change func(*rules)) rules {
	r := base
	change(&r)
	return r
}

func variants() []variant {
	return []variant{
		{name: "suspicion", what: "suspect, clear, evict, grant", short: true, rules: base},
		{name: "brains", what: "and two brains that crash", rules: with(func(r *rules) { r.crashes = true })},
		{name: "moves", what: "and requested moves", rules: with(func(r *rules) { r.moves = true })},
		{name: "fences", what: "and fence devices", rules: with(func(r *rules) { r.fences = true })},
		{name: "reboots", what: "and nodes that reboot and join", rules: with(func(r *rules) { r.reboots = true })},
		{name: "leaves", what: "and nodes that leave and join", rules: with(func(r *rules) { r.leaves = true })},
		{name: "all-short", what: "brains, reboots and leaves, with two ticks", rules: with(func(r *rules) {
			r.authority, r.wait, r.crashes, r.reboots, r.leaves = 2, 2, true, true, true
		})},

		{name: "P1", what: "authority counts from the answer", short: true, broken: true,
			rules: with(func(r *rules) { r.without = fromAnswer })},
		{name: "P2", what: "a suspicion is cleared without a guard, grants are learned by watch", short: true, broken: true,
			rules: with(func(r *rules) { r.without = blindClear | byWatch })},
		{name: "P3", what: "the wait counts from before the commit", short: true, broken: true,
			rules: with(func(r *rules) { r.without = waitFromSend })},
		{name: "P11", what: "a suspicion is written without a guard, grants are learned by watch", short: true, broken: true,
			rules: with(func(r *rules) { r.crashes, r.without = true, blindSuspect|byWatch })},
		{name: "P12", what: "the report of a stop is bound to nothing", short: true, broken: true,
			rules: with(func(r *rules) { r.moves, r.without = true, looseReport })},
		{name: "P13", what: "a fence proof of any age", short: true, broken: true,
			rules: with(func(r *rules) { r.fences, r.without = true, anyProof })},
		{name: "older", what: "an older answer is taken after a newer one", short: true, broken: true,
			rules: with(func(r *rules) { r.moves, r.reads, r.without = true, 2, olderAnswer })},
		{name: "short-wait", what: "W below L", short: true, broken: true, rules: with(func(r *rules) { r.wait = 2 })},
		{name: "no-guards", what: "a brain's writes have no guards", broken: true,
			rules: with(func(r *rules) { r.crashes, r.without = true, noGuards })},
	}
}
