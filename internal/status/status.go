// Package status holds the last published picture of the node: what runs, in
// which state and why, and the alarms that stand. The engine publishes; everybody
// else reads. A slow reader never holds up the engine: it gets the newest picture
// when it comes back, not each one in between.
package status

import (
	"time"

	"gemel/internal/ha"
)

// Snapshot is one picture of the node. It is immutable once published.
type Snapshot struct {
	Revision  uint64 // grows with each publication
	At        ha.Instant
	Wall      time.Time
	Node      NodeStatus
	Processes []ProcessStatus // sorted by name
	Checks    []CheckStatus   // sorted by name
	Groups    []GroupStatus   // sorted by name
	Alarms    []ha.Event      // standing, oldest first
	Cluster   *ClusterStatus  // nil: this machine is of none
}

// ClusterStatus is the cluster as this node sees it.
type ClusterStatus struct {
	ID, Name string
	Profile  string
	Brain    ha.Node
	Lacks    string         // what it needs before it bears a failure; empty: nothing
	Until    time.Time      // the end of the maintenance of all of it; zero: none
	Away     ha.Instant     // since when the store does not answer; zero: it does
	Nodes    []MemberStatus // in the order in which they decide
	Groups   []Placed       // sorted by name
}

// MemberStatus is a node of the cluster as this one sees it.
type MemberStatus struct {
	Name          ha.Node
	State         string // a word of ha.NodeState, or unknown
	Witness, Self bool
	Drained       bool
	Until         time.Time  // the end of its maintenance; zero: none
	Hears, Misses []string   // networks
	Heard         ha.Instant // zero: never
	Groups        []ha.Group
	Level         int    // the exclusivity that it offers; less than zero: it has not said
	Lacks         string // why it is no more
}

// Placed says where a group is.
type Placed struct {
	Name   ha.Group
	Node   ha.Node // empty: nobody has it
	Fence  ha.Fence
	Wanted ha.Node // where an operator asked for it to be
	Locked bool
	Until  time.Time // the end of its maintenance; zero: none
	Reason string    // why it is as it is
	Level  int       // the exclusivity in force, as the node that has it offers it; less than zero: not known
	Needs  int       // the exclusivity that it needs
	Next   string    // what the loss of the node that has it would do; empty: not known
}

// NodeStatus is the state of the node and of Gemel itself.
//
//budget:fields a message
type NodeStatus struct {
	Name      string
	Version   string
	Role      ha.Role
	Admin     Admin
	Op        Op
	Monitor   int // pid
	Shadow    int // pid; 0 while there is none
	Since     ha.Instant
	Manifest  string   // where it was first read from
	Digest    string   // of the manifest in force
	Differs   bool     // the file holds another manifest than the one in force
	Cgroup    string   // how processes are held: "v2 PATH", "hybrid PATH", "process groups: WHY"
	Notes     []string // what this machine lacks, one sentence each
	Budget    []ha.Instant
	BudgetMax int
	Stopping  bool
	Lock      Lock
}

// Lock is since when something is locked, and by whom; zero if it is not, or if it
// was by a version that did not note it.
type Lock struct {
	Since time.Time // wall time
	By    string
}

// Admin is the administrative state (CMM AdminState).
type Admin uint8

// The administrative states, with the CMM's numbers.
const (
	Unlocked Admin = 1
	Locked   Admin = 2
)

// String returns the CMM's text.
func (a Admin) String() string {
	if a == Locked {
		return "Locked"
	}
	return "Unlocked"
}

// Op is the operational state (CMM OpState): Disabled means failed and given up.
type Op uint8

// The operational states, with the CMM's numbers.
const (
	Enabled  Op = 1
	Disabled Op = 2
)

// String returns the CMM's text.
func (o Op) String() string {
	if o == Disabled {
		return "Disabled"
	}
	return "Enabled"
}

// ProcessStatus is the state of one process.
//
//budget:fields a message
type ProcessStatus struct {
	Name         ha.Process
	UID          ha.UID
	Line         string // command line for showing (CMM ProcessName)
	State        string // word of ladder.State
	Reason       string // why it is in this state, one sentence
	Admin        Admin
	Op           Op
	Severity     ha.Severity
	Recovery     ha.Recovery   // in force
	Escalation   ha.Escalation // in force
	Overlay      bool          // recovery or escalation was set by hand over the manifest's
	Start        ha.StartID
	PID          int
	Since        ha.Instant // of the state
	Started      ha.Instant // of the running start
	Starts       uint64     // counted since Gemel's first start
	Window       int        // restarts counted in the window now
	Limit        int
	Last         *ha.ExitStatus // of the start before this one
	Status       string         // STATUS= text of the program
	Threads      int            // threads that beat
	Usage        Usage
	Cgroup       string
	Group        string // group of the manifest that runs it
	RecoveryBy   Lock   // who set it by hand; empty: nobody, or it is not known
	EscalationBy Lock
	Unready      bool // it runs, and its condition of readiness does not hold yet
	Lock         Lock
}

// Usage is what a process and its tree use; all zero when it is not known.
type Usage struct {
	CPU     time.Duration // used in all since the start
	Percent float64       // of one core, over the last sample
	Memory  int64         // bytes
	Tasks   int
}

// CheckStatus is the state of one check.
type CheckStatus struct {
	Name     ha.Check
	UID      ha.UID
	Line     string
	Admin    Admin
	Op       Op
	State    string // passing, failing, waiting, off, elsewhere
	Failures int    // in a row
	Limit    int
	Last     ha.Instant
	Detail   string
	Covers   []ha.Process
	Lock     Lock
}

// GroupStatus is the state of one group.
type GroupStatus struct {
	Placed
	// State is waiting (for a cluster); in one: active, starting or stopping here,
	// halted (on this node: to be started nowhere until it is cleared), standby, elsewhere (this node is none of its own), unplaced.
	State   string
	Nodes   []ha.Node
	Run     []ha.Process
	Standby []ha.Process
}
