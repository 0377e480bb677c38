package proc

import (
	"path/filepath"
	"time"

	"gemel/internal/ha"
)

// Protocol is the version of the messages between the halves. Each half accepts
// its own and the one before: an upgrade replaces the monitor first. A shadow of 1 does
// not know rights, and would start programs of groups without: nothing of a group is
// for it.
const Protocol = 2

// Spec is all that a start needs, resolved beforehand: no look-up of a user, a
// path or a file stands between a death and its successor.
//
//budget:fields a message
type Spec struct {
	Process ha.Process
	Path    string   // absolute path of the program
	Args    []string // argv
	Env     []string // KEY=value; GEMEL_* are added by the shadow
	Dir     string

	UID, GID int // -1: unchanged
	Groups   []int
	SetIDs   bool // UID, GID and Groups are to be set
	Umask    int
	Nice     int
	OOMScore int // oom_score_adj

	Limits     []Rlimit
	Caps       []int // capabilities to keep, when SetCaps
	SetCaps    bool
	NoNewPrivs bool

	Memory int64 // bytes; 0 none
	CPU    float64
	PIDs   int

	Output string // capture, discard, inherit
	Notify bool   // give NOTIFY_SOCKET
	Beats  bool   // give GEMEL_BEAT_PAGE

	StopSignal  int
	StopGrace   time.Duration
	StopCommand []string

	Spare    bool          // keep a parked child ready for the next start
	Watchdog time.Duration // told as WATCHDOG_USEC; 0 none

	// Group: it belongs to a group of a cluster, and is started only by a Right of
	// that group, whose end ends it. A change is for later starts.
	Group ha.Group `json:",omitempty"`
	// Role is the group whose role file it is told: that in which it runs, or waits as
	// a standby.
	Role ha.Group `json:",omitempty"`
}

// RoleDir is where the role files of the groups are.
func RoleDir(run string) string { return filepath.Join(run, "role") }

// Rlimit is one setrlimit; -1 is infinity.
type Rlimit struct {
	Resource   int
	Soft, Hard int64
}

// OrderKind is what an Order asks of the shadow.
type OrderKind string

// The orders.
const (
	OrderSpec   OrderKind = "spec"   // hold this Spec for later starts of the process; a running copy goes on
	OrderForget OrderKind = "forget" // drop the Spec of a process that does not run
	OrderStart  OrderKind = "start"  // start now as Start
	OrderArm    OrderKind = "arm"    // standing order: at the death of Start, start Next at once; Next 0 takes it back
	OrderStop   OrderKind = "stop"   // two-stage stop of Start; Kill skips the first stage. Given again with At, a later end of that stage
	OrderSignal OrderKind = "signal" // send Signal to the main process of Start
	OrderAck    OrderKind = "ack"    // the exit of Start is recorded: reap it, forget it
	OrderBeat   OrderKind = "beat"   // the monitor is well
	OrderKeep   OrderKind = "keep"   // hold the descriptors sent along under Name across monitors
	OrderDrop   OrderKind = "drop"   // close the descriptors held under Name
	OrderExec   OrderKind = "exec"   // replace yourself by Path, in the same pid
	OrderDetach OrderKind = "detach" // end, leave the programs
	OrderQuit   OrderKind = "quit"   // every program has stopped: end with Code
	OrderHello  OrderKind = "hello"  // first word of a monitor, with its Protocol and Version, and a Name that the answer bears: tell everything (the reports "at hello")
	OrderRights OrderKind = "rights" // Rights: all that there are
	OrderThere  OrderKind = "there"  // Groups: all of which something is not seen stopped; to a shadow that keeps a watchdog
	// OrderEntrust: what Start runs by no right runs by that of Group with Fence from now on.
	OrderEntrust OrderKind = "entrust"
	OrderHold    OrderKind = "hold" // to a new shadow: Start of Process runs as PID since At, its pidfd comes along; or it ended with Status
)

// Order is one message from the monitor to the shadow.
//
//budget:fields one message of the wire
type Order struct {
	Kind    OrderKind      `json:"kind"`
	Process ha.Process     `json:"process,omitempty"`
	Start   ha.StartID     `json:"start,omitempty"`
	Next    ha.StartID     `json:"next,omitempty"`
	Spec    *Spec          `json:"spec,omitempty"`
	Signal  int            `json:"signal,omitempty"`
	Kill    bool           `json:"kill,omitempty"`
	Name    string         `json:"name,omitempty"`
	Path    string         `json:"path,omitempty"`
	Code    int            `json:"code,omitempty"`
	PID     int            `json:"pid,omitempty"`
	At      ha.Instant     `json:"at,omitempty"`
	Status  *ha.ExitStatus `json:"status,omitempty"`
	Rights  []Right        `json:"rights,omitempty"`
	Groups  []ha.Group     `json:"groups,omitempty"`
	Group   ha.Group       `json:"group,omitempty"`
	Fence   ha.Fence       `json:"fence,omitzero"`

	Protocol int    `json:"protocol,omitempty"`
	Version  string `json:"version,omitempty"`
}

// A Right lets the programs of a group run on this node until an instant. It is
// given anew again and again, and ends by itself.
//
// Each OrderRights carries all of them. A group that is missing has no right to
// start anything any more; what of it runs goes on until the deadline that was
// given last, and no longer. What a Right says of a deadline replaces what the one
// before said, also if that was later.
type Right struct {
	Group ha.Group `json:"group"`
	// Fence is told to the programs. A lower one than was given in this incarnation
	// is refused.
	Fence ha.Fence `json:"fence"`
	// Incarnation is that of this node. One of another is refused while anything
	// that was started by the former is there.
	Incarnation ha.Incarnation `json:"incarnation"`
	// Until is the end of the authority: what is then not seen gone is a matter for
	// a reset of the machine. One later than Life from now is refused.
	Until ha.Instant `json:"until"`
	// Kill is when the shadow begins to end what runs.
	Kill ha.Instant    `json:"kill"`
	Life time.Duration `json:"life"`
	// Leaving: nothing of it is started any more.
	Leaving bool `json:"leaving,omitempty"`
	// Withdraw are words for those who take back what no signal ends, as the group's
	// addresses. They mean nothing here.
	Withdraw []string `json:"withdraw,omitempty"`
	// Beyond: the group has parts that neither a signal nor those words end. That they are
	// stopped is known by OrderThere alone.
	Beyond bool `json:"beyond,omitempty"`
}

// ReportKind is what a Report tells.
type ReportKind string

// The reports.
const (
	ReportHello   ReportKind = "hello"   // the shadow is there: PID, Protocol, Version, Cgroup, Name of the hello
	ReportRunning ReportKind = "running" // at hello: Start of Process runs as PID since At, by the right of Group if there is one; Next is its standing order
	ReportKept    ReportKind = "kept"    // at hello: the descriptors held under Name come along
	ReportSynced  ReportKind = "synced"  // at hello: everything was told
	ReportStarted ReportKind = "started"
	ReportFailed  ReportKind = "failed"  // the start came to nothing: Error
	ReportExited  ReportKind = "exited"  // Status; Next is the start that a standing order made, as PID
	ReportStuck   ReportKind = "stuck"   // still there after SIGKILL: Error
	ReportMonitor ReportKind = "monitor" // at hello: the monitor before this one died with Status (Hung if it was killed for silence)
	ReportQuit    ReportKind = "quit"    // the service manager or the user asks for the end: Error names the signal
	ReportReload  ReportKind = "reload"  // SIGHUP
	ReportBeat    ReportKind = "beat"    // answers each OrderBeat: the shadow is well; a Link keeps it for itself

	// ReportLapsed: the kill of all that runs by the right of Group with Fence begins,
	// because its deadline has come. The exits follow. Told at hello again, until the
	// group is given another right.
	ReportLapsed ReportKind = "lapsed"
	// ReportEntrusted answers OrderEntrust. Error: Start goes on as it was.
	ReportEntrusted ReportKind = "entrusted"
	// ReportRefused: a Right of Group with Fence was not taken: Error. Told once for
	// each reason.
	ReportRefused ReportKind = "refused"
	// ReportGuard: the process that holds the deadlines when no shadow does runs as
	// PID, or there is none because of Error; Notes lists what deadlines lack here. At
	// hello, if rights were ever given.
	ReportGuard ReportKind = "guard"
	// ReportWatchdog: the hardware watchdog is armed and resets the machine after Life, or
	// is not because of Error. At hello, if there is to be one.
	ReportWatchdog ReportKind = "watchdog"

	// ReportUpgraded answers OrderExec: the shadow runs as Version in the same
	// PID, or goes on as before because of Error.
	ReportUpgraded ReportKind = "upgraded"
	// ReportShadowDied and ReportShadowBack are told by the Link: the shadow ended
	// with Status (Hung if it was killed for silence); a new one runs as PID.
	// Between the two, exits are told from the kernel's record, and what ought to
	// be sent waits.
	ReportShadowDied ReportKind = "shadow-died"
	ReportShadowBack ReportKind = "shadow-back"
)

// Report is one message from the shadow to the monitor.
//
//budget:fields one message of the wire
type Report struct {
	Kind     ReportKind    `json:"kind"`
	Process  ha.Process    `json:"process,omitempty"`
	Start    ha.StartID    `json:"start,omitempty"`
	Next     ha.StartID    `json:"next,omitempty"`
	PID      int           `json:"pid,omitempty"`
	At       ha.Instant    `json:"at,omitempty"`
	Status   ha.ExitStatus `json:"status,omitzero"`
	Hung     bool          `json:"hung,omitempty"`
	Error    string        `json:"error,omitempty"`
	Name     string        `json:"name,omitempty"`
	Protocol int           `json:"protocol,omitempty"`
	Version  string        `json:"version,omitempty"`
	Cgroup   string        `json:"cgroup,omitempty"` // how processes are held; see status.NodeStatus
	Notes    []string      `json:"notes,omitempty"`
	Group    ha.Group      `json:"group,omitempty"`
	Fence    ha.Fence      `json:"fence,omitzero"`
	Life     time.Duration `json:"life,omitempty"`
	// Unentitled: failed, or not entrusted, because there is no right for its group now.
	Unentitled bool `json:"unentitled,omitempty"`
	// FDs are the descriptors that came along, as numbers of this process; the
	// receiver owns them.
	FDs []int `json:"-"`

	news bool // running: the monitor did not hold it yet
}
