package ha

import (
	"fmt"
	"strconv"
)

// Process is the name of a process in the manifest. The empty name means none.
type Process string

// Check is the name of a check in the manifest.
type Check string

// Group is the name of a group in the manifest.
type Group string

// Node is the name of a machine that runs Gemel.
type Node string

// StartID numbers the starts of all programs of a node. It grows with each
// start, is never given out twice in the life of a data directory, names the
// program's cgroup and is in its environment, so that a program found after a
// crash of Gemel can be told from every other one. Zero means no start.
type StartID uint64

// String prints the id in decimal, as it stands in cgroup names.
func (s StartID) String() string { return strconv.FormatUint(uint64(s), 10) }

// UID is the UniqueID that the CMM's process monitoring service gave to each
// thing that it watched; it survives as the key of the classic surface
// (PmsProc51). Zero means that no number was given.
type UID uint16

// UIDs with a fixed meaning (facts: CMM, 6.6). 10 to 175 are processes,
// 176 to 200 are checks.
const (
	UIDGlobal  UID = 1 // the service as a whole
	UIDShadow  UID = 2 // the shadow
	UIDMonitor UID = 3 // the monitor, as watched by the shadow

	UIDProcessFirst UID = 10
	UIDProcessLast  UID = 175
	UIDCheckFirst   UID = 176
	UIDCheckLast    UID = 200
)

// Fence grows each time a group gets a new active node. Era counts restores of
// the store and is compared first.
type Fence struct {
	Era     uint64 `json:"era"`
	Counter uint64 `json:"counter"`
}

// Less reports whether f is older than g.
func (f Fence) Less(g Fence) bool {
	if f.Era != g.Era {
		return f.Era < g.Era
	}
	return f.Counter < g.Counter
}

func (f Fence) String() string { return fmt.Sprintf("%d.%d", f.Era, f.Counter) }

// Kind tells what sort of thing a Subject is.
type Kind string

// The kinds of subject.
const (
	KindNode    Kind = "node"    // the node; its name may be empty
	KindProcess Kind = "process" // a process of the manifest
	KindCheck   Kind = "check"   // a check of the manifest
	KindGroup   Kind = "group"   // a group of the manifest
	KindShadow  Kind = "shadow"  // the half that is the parent of the programs
	KindMonitor Kind = "monitor" // the half that decides
)

// A Subject is the thing that an event, an order or a question is about.
type Subject struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name,omitempty"`
}

// OfProcess is the subject of a process.
func OfProcess(p Process) Subject { return Subject{KindProcess, string(p)} }

// OfCheck is the subject of a check.
func OfCheck(c Check) Subject { return Subject{KindCheck, string(c)} }

// OfGroup is the subject of a group.
func OfGroup(g Group) Subject { return Subject{KindGroup, string(g)} }

// OfNode is the subject of this node.
func OfNode() Subject { return Subject{Kind: KindNode} }

// String prints "process nginx", or the kind alone when there is no name.
func (s Subject) String() string {
	if s.Name == "" {
		return string(s.Kind)
	}
	return string(s.Kind) + " " + s.Name
}
