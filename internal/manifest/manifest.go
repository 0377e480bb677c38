package manifest

import (
	"cmp"
	"slices"
	"sort"
	"time"

	"gemel/internal/ha"
)

// A Manifest is what should run. It is immutable once config returned it.
type Manifest struct {
	Processes []Process // sorted by name
	Checks    []Check   // sorted by name
	Groups    []Group   // sorted by name; on one machine they wait for a cluster and their programs run
	Files     []FileSet // sorted by name; kept for a cluster
	Node      Node
	Digest    string // hex SHA-256 of the bytes that it was read from
}

// Node holds what concerns the node as a whole.
type Node struct {
	Budget       Budget   // reboots and failovers
	Reboot       []string // command; empty means the real reboot
	Access       Access
	Syslog       bool // send events to syslog
	Journald     bool // send events to journald, where it is
	JournalLimit int64
	Handler      Handler // for events of the node as a whole
}

// Budget bounds reboots and failovers of a node; it is checked before acting
// and kept across boots.
type Budget struct {
	Limit  int           // default 3
	Within time.Duration // default 6h
}

// Access maps users and groups of this machine to roles. Root, and the user that
// the daemon runs as, are always admin.
type Access struct {
	Viewers   []string // user names, or group names with a leading %
	Operators []string
	Admins    []string
}

// Process is one program that Gemel starts and watches, or only watches.
//
//budget:fields one for each key of the manifest
type Process struct {
	Name ha.Process
	UID  ha.UID // `id:`; zero if none

	Command     []string // argv; the first is looked up in PATH of Environment unless it has a slash
	Shell       string   // a line for /bin/sh -c; excludes Command
	Directory   string   // default "/"
	User        string   // name or number; empty: the daemon's own
	Group       string   // name or number; empty: the user's
	Groups      []string // supplementary; nil: the user's own
	Environment map[string]string
	EnvFiles    []string // KEY=value lines; a leading - means that it may be missing
	InheritEnv  bool     // `inherit-environment:`; default false: only PATH, HOME, USER, LANG, TZ
	Umask       int      // default 0022
	Nice        int
	Limits      []Limit // resource limits by setrlimit
	Caps        Caps
	NoNewPrivs  bool
	Resources   Resources // cgroup limits
	OOMScore    int       // oom_score_adj

	Stop      Stop
	After     []ha.Process // start order only
	Needs     []ha.Process // start order on readiness, and follows their stop
	Follows   []ha.Process // restarted when one of these was restarted
	Ready     Ready
	Severity  ha.Severity
	Recovery  ha.Recovery
	Restarts  Restarts
	RampUp    time.Duration // default 5s
	Watchdog  Watchdog
	Output    Output
	Attach    Attach
	Task      bool // `task: true`: runs once; exit 0 is success and is not a fault
	Exits     []ExitRule
	Handlers  Handlers
	Spare     bool      // `spare: true`: a parked child waits for the next start; default for severity critical
	AutoStart bool      // `autostart:`; default true. False: only by gemel start
	On        []ha.Node // the nodes that it is for; empty: all. See For
}

// For reports whether the process is for the node of that name. A name that is
// not known, the empty one, says nothing against it.
func (p Process) For(node ha.Node) bool {
	return len(p.On) == 0 || node == "" || slices.Contains(p.On, node)
}

// Limit is one resource limit. Infinity is -1.
type Limit struct {
	Name string // nofile, nproc, core, as, cpu, data, fsize, memlock, stack, ...
	Soft int64
	Hard int64
}

// Caps bounds capabilities. Empty Keep with Set true drops all.
type Caps struct {
	Set  bool     // `capabilities:` was given
	Keep []string // names without CAP_, lower case; bounding, inheritable and ambient set
}

// Resources are limits of the process's cgroup. Zero means none.
type Resources struct {
	Memory int64   // bytes
	CPU    float64 // cores, as 0.5
	PIDs   int
}

// Any reports whether a limit is set.
func (r Resources) Any() bool { return r != Resources{} }

// Stop is the two-stage stop.
type Stop struct {
	Signal  int           // default SIGTERM
	Grace   time.Duration // default 10s; then SIGKILL to the whole tree
	Command []string      // run instead of the signal, with MAINPID in its environment
}

// Ready is how a process says that it can be used.
type Ready struct {
	Kind    ReadyKind
	Address string        // for a port: host:port, or a path of a unix socket
	File    string        // for a file: its path
	Check   ha.Check      // for a check: its name
	Timeout time.Duration // after it the start is a failed one; default 60s; 0 for ReadyRampUp
}

// ReadyKind is the sort of readiness.
type ReadyKind string

// The kinds of readiness.
const (
	ReadyStarted ReadyKind = ""       // as soon as it was started (default)
	ReadyNotify  ReadyKind = "notify" // READY=1 by sd_notify or the SDK
	ReadyPort    ReadyKind = "port"
	ReadyFile    ReadyKind = "file"
	ReadyCheck   ReadyKind = "check"
)

// Restarts bounds restarts in a sliding window and says what follows.
type Restarts struct {
	Limit  int           // default 5
	Within time.Duration // default 15m
	Then   ha.Escalation // default none
	// Delay is the pause before the second restart in a row; it doubles up to
	// DelayMax. The first restart is always immediate, and one window without a
	// restart begins anew. Zero means no pause at all.
	Delay    time.Duration // default 500ms
	DelayMax time.Duration // default 30s
}

// Watchdog is the thread watchdog. Interval zero means none.
type Watchdog struct {
	Interval time.Duration
	Retries  int      // default 3: a fault after retries + 1 intervals
	By       string   // notify, page, command, or "" for notify and page
	Command  []string // for By command: exit 0 is a beat
}

// Silence is the time without a beat that is a fault.
func (w Watchdog) Silence() time.Duration { return w.Interval * time.Duration(w.Retries+1) }

// Output is what becomes of standard output and standard error.
type Output struct {
	Mode  string // capture (default), discard, inherit
	Size  int64  // bytes of one file; default 10 MiB
	Keep  int    // files kept; default 5
	Rate  int64  // bytes a second above which output is dropped; default 8 MiB
	Merge bool   // always true now: one file for both streams
}

// Attach says how a program that Gemel did not start is found. All empty means
// that Gemel starts it.
type Attach struct {
	PIDFile     string
	CommandLine string        // exact command line; arguments with spaces in double quotes
	Unit        string        // systemd unit
	Every       time.Duration // how often to look while it is not found; default 2s
	Start       []string      // how to start it; empty: it cannot be restarted by Gemel
}

// Set reports whether the process is attached to and not started.
func (a Attach) Set() bool { return a.PIDFile != "" || a.CommandLine != "" || a.Unit != "" }

// ExitRule matches an end of the program and says what it means. The first
// that matches counts.
type ExitRule struct {
	Codes   []int // exit codes
	Signals []int // signal numbers
	Do      ExitAction
}

// ExitAction is what an end of a program means.
type ExitAction string

// The exit actions.
const (
	ExitRestart ExitAction = "restart" // a fault of existence, recovered by restart whatever recovery says
	ExitFault   ExitAction = "fault"   // a fault of existence: the ladder (default)
	ExitDone    ExitAction = "done"    // well: it is not started again
	ExitGiveUp  ExitAction = "give-up" // a fault, without any further attempt
	ExitAgain   ExitAction = "again"   // well: it is started again, and no restart is counted
)

// Handlers are commands run beside each rung.
type Handlers struct {
	Restart, Failover, Reboot, GiveUp, Recovered Handler
}

// Handler is one command. It never holds up a recovery.
type Handler struct {
	Command []string
	Timeout time.Duration // default 10s
}

// Check is a probe of function. Exactly one of Command, HTTP, TCP and GRPC is set.
type Check struct {
	Name     ha.Check
	UID      ha.UID
	Command  []string // exit 0 is well; may print "accuse: NAME" lines to name the bad process
	User     string
	HTTP     *HTTP
	TCP      *TCP
	GRPC     *GRPC
	Every    time.Duration // default 10s; 0 with Once
	Once     bool
	Timeout  time.Duration // default 2s
	Failures int           // successive failures that are a fault; default 3
	Covers   []ha.Process
	Severity ha.Severity // of the check's own events
}

// HTTP is a request that must be answered.
type HTTP struct {
	URL     string
	Method  string // default GET
	Headers map[string]string
	Status  []int  // accepted; default 200 to 399
	Body    string // regular expression that must match; empty: any
	Verify  bool   // check the certificate; default true
	CA      string // file of certificates (PEM) that vouch for it; empty: the machine's
}

// TCP is a connection that must be made.
type TCP struct {
	Address string // host:port, or a path of a unix socket
	Send    string
	Expect  string // regular expression that must match within the time-out
}

// GRPC is a grpc.health.v1 question.
type GRPC struct {
	Address string
	Service string // empty: the server as a whole
	TLS     bool
	CA      string // as for HTTP
}

// FileSet is a replicated set of paths (DESIGN 6).
type FileSet struct {
	Name     string
	Paths    []string
	Priority int
}

// Process returns the process of that name.
func (m *Manifest) Process(name ha.Process) (Process, bool) {
	// By index: a comparison of values would copy each Process on the way.
	i := sort.Search(len(m.Processes), func(i int) bool { return m.Processes[i].Name >= name })
	if i == len(m.Processes) || m.Processes[i].Name != name {
		return Process{}, false
	}
	return m.Processes[i], true
}

// Check returns the check of that name.
func (m *Manifest) Check(name ha.Check) (Check, bool) {
	i, ok := slices.BinarySearchFunc(m.Checks, name, func(c Check, n ha.Check) int {
		return cmp.Compare(c.Name, n)
	})
	if !ok {
		return Check{}, false
	}
	return m.Checks[i], true
}
