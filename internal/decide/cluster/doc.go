// Package cluster decides who may run what. It is two machines.
//
// An Authority is on every node. It knows nothing but this node's own key in the
// store, and from what it read there, and when, follows what the node may run and
// until which instant. It never learns a grant from anybody else.
//
// A Brain is on every node that may decide; one of them holds the epoch. It knows
// all keys and whom the heartbeats were heard of, and writes suspicions,
// evictions and grants, each guarded by the revisions of what it looked at.
//
// That a group is never active on two nodes rests on both: on a node's authority,
// which begins before the question that it was got by and ends by itself; and on
// the brain's wait, which begins after the answer that the suspicion was written
// and is longer. trial/model searches the orders of these steps, package sim plays
// them with clocks, losses and pauses.
package cluster

import (
	"time"

	"gemel/internal/ha"
)

// Timers are the times of a cluster's profile. All nodes have the same.
type Timers struct {
	// Silence is how long a node is missed before it is suspected (S).
	Silence time.Duration
	// Life is how long a read gives authority (L).
	Life time.Duration
	// Stop is how long stopping may take at the end of an authority.
	Stop time.Duration
	// Drift bounds how much the rates of two clocks differ, as 0.01.
	Drift float64
	// Settle is how long nothing is granted when no node is a member yet.
	Settle time.Duration
	// Rest is how long who decides does so before it hands over to a node without groups
	// (at most one such switch in that time); zero: it does not.
	Rest time.Duration
}

// Wait is how long the brain waits before what a node may hold by reads that gave
// it life is over by any clock (W).
func (t Timers) Wait(life time.Duration) time.Duration {
	return time.Duration(float64(life+t.Stop) * (1 + t.Drift) / (1 - t.Drift))
}

// A Flaw leaves a clause of the protocol out. Each of them once let a group run
// twice. Nothing but the simulator plants one, to show that it would be found.
type Flaw string

// Flaws are those that the machines of this package know.
func Flaws() []Flaw {
	return []Flaw{
		flawAnswer, flawOlder, flawClear, flawHold, flawReport, flawResume, flawOther, flawKept,
		flawSend, flawSuspect, flawEvict, flawOwn, flawInherit, flawShort, flawFormer, flawStop, flawFence, flawEpoch, flawOff, flawTime,
	}
}

// The flaws of an Authority.
const (
	flawAnswer Flaw = "authority-from-answer" // counts from the answer, not from before the question
	flawOlder  Flaw = "older-answer"          // an answer is taken although a newer one was
	flawClear  Flaw = "blind-clear"           // a suspicion is cleared whatever became of it
	flawHold   Flaw = "suspect-renews"        // an answer that says suspect gives authority
	flawReport Flaw = "early-report"          // the report does not wait for what is not seen stopped
	flawResume Flaw = "resumed-incarnation"   // an incarnation goes on after a boot
	flawKept   Flaw = "kept-incarnation"      // who leaves goes on as the same one after a restart of the daemon
	flawOther  Flaw = "foreign-incarnation"   // grants of another incarnation count
)

// The flaws of a Brain.
const (
	flawSend    Flaw = "wait-from-send"    // the wait counts from before the suspicion was written
	flawSuspect Flaw = "blind-suspect"     // a suspicion is written whatever became of the node
	flawEvict   Flaw = "blind-evict"       // an eviction is written whatever became of the suspicion
	flawOwn     Flaw = "foreign-suspicion" // a suspicion that another brain wrote needs no wait
	flawInherit Flaw = "wait-outlives-key" // a wait goes on when the key it was for has changed
	flawShort   Flaw = "short-wait"        // the wait is half of what it must be
	flawFormer  Flaw = "no-former-wait"    // what a former incarnation held is granted at once
	flawStop    Flaw = "no-stop-proof"     // a group is granted before its stop was reported
	flawFence   Flaw = "same-fence"        // a fence does not grow
	flawEpoch   Flaw = "no-epoch-guard"    // what a brain writes is not guarded on the epoch, nor on the keys of nodes
	flawOff     Flaw = "any-proof"         // the proof that a node is off ends any later wait as well
	flawTime    Flaw = "sure-by-time"      // a group that needs the proof that a node is off goes on when its authority is over
)

type flaws map[Flaw]bool

func plant(all []Flaw) flaws {
	f := flaws{}
	for _, x := range all {
		f[x] = true
	}
	return f
}

func because(rule, text string, facts ...ha.Fact) ha.Reason {
	return ha.Reason{Rule: "cluster." + rule, Text: text, Facts: facts}
}
