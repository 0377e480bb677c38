// Package register judges what a cluster promises of its manifest: one document with a
// number that grows by one with each write, written and read through every node. It is
// given the history of the calls, as the callers saw them, and finds what no cluster
// that keeps its word could have answered.
//
// The promise has two halves. Writes, and reads that ask the store (Listed), are those of
// one linearizable register: Judge has porcupine look for an order of them in which each
// takes effect between its beginning and its end. What a node has in force (InForce) may be
// old, as the node may be cut off; it is a write of the register all the same, never an
// older one than the node had before, and never one older than what this node acknowledged.
package register

import (
	"fmt"
	"slices"
	"sync"

	"gemel/internal/ha"
)

// An Outcome is what the caller of a write was told.
type Outcome int

// The outcomes of a write.
const (
	Unknown      Outcome = iota // nothing, or that nobody knows: it may be in force now, later or never
	Acknowledged                // it is in force, for good, under the number told
	Refused                     // nothing was changed, and nothing will be
)

// A Version is what one number of the register was said to be.
type Version struct {
	Number uint64 // zero of a node's own view: it does not know the number
	ID     string // of the write
}

// A Write is one call that wants a new version.
type Write struct {
	Node       string
	Start, End ha.Instant
	Outcome    Outcome
	Version    // Number is zero unless it was acknowledged
}

// A Listed is one reading of the store: some of the last versions, oldest first, of which
// the last one is in force.
type Listed struct {
	Node       string
	Start, End ha.Instant
	Versions   []Version
}

// An InForce is one reading of what a node has in force.
type InForce struct {
	Node       string
	Start, End ha.Instant
	Version
}

// A History is what was asked, and what was answered. Its methods are for any goroutine.
type History struct {
	mu     sync.Mutex
	writes []Write
	lists  []Listed
	views  []InForce
}

// Wrote adds a write.
func (h *History) Wrote(w Write) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writes = append(h.writes, w)
}

// Read adds a reading of the store.
func (h *History) Read(l Listed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l.Versions = slices.Clone(l.Versions)
	h.lists = append(h.lists, l)
}

// Saw adds a reading of what a node has in force.
func (h *History) Saw(v InForce) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.views = append(h.views, v)
}

// Tally is how much of what a history has.
type Tally struct{ Acknowledged, Refused, Unknown, Listed, InForce int }

// Tally counts.
func (h *History) Tally() Tally {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := Tally{Listed: len(h.lists), InForce: len(h.views)}
	for _, w := range h.writes {
		switch w.Outcome {
		case Acknowledged:
			t.Acknowledged++
		case Refused:
			t.Refused++
		case Unknown:
			t.Unknown++
		}
	}
	return t
}

// String is a sentence.
func (t Tally) String() string {
	return fmt.Sprintf("%d writes acknowledged, %d refused, %d unknown; %d readings of the store, %d of nodes",
		t.Acknowledged, t.Refused, t.Unknown, t.Listed, t.InForce)
}

// Judge says what of the history breaks the promise; nothing: it may be what a cluster
// that keeps it answers. It fails if that cannot be said of this history.
func (h *History) Judge() ([]string, error) {
	h.mu.Lock()
	j := &judge{writes: slices.Clone(h.writes), lists: slices.Clone(h.lists), views: slices.Clone(h.views)}
	h.mu.Unlock()
	j.number()
	j.nodes()
	if len(j.wrong) > 0 {
		// An order of versions that are not even what they were said to be says nothing more.
		return j.wrong, nil
	}
	err := j.order()
	return j.wrong, err
}
