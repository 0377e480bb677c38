package spawn

import (
	"errors"
	"syscall"
	"time"

	"gemel/internal/ha"
	"gemel/internal/proc"
)

var errStub = errors.New("spawn: not built")

// Tree is where the control groups of programs live on this machine. It is only
// read after Open and may be used by several goroutines.
type Tree struct{}

// Open finds the place for control groups: under the group of the caller in
// cgroup v2 (pure, or hybrid at /sys/fs/cgroup/unified), with the controllers
// memory, pids and cpu taken from v1 where they live there. Name is the directory
// of this instance ("gemel", or "gemel-" and a hash of its run directory), so
// that several live beside each other. A machine without any is no error: the
// Tree then holds programs by session and process group, and Notes says so.
// Open starts and ends one short-lived child; call it before other children are
// waited for by waitid(P_ALL).
func Open(name string) (*Tree, error) { return nil, errStub }

// String prints "v2 DIR", "hybrid DIR; memory, pids, cpu by v1", or
// "process groups: WHY".
func (t *Tree) String() string { return "" }

// Notes lists what is lacking on this machine, one sentence each.
func (t *Tree) Notes() []string { return nil }

// Has reports whether the machine can do one of memory, cpu, pids (limits), kill
// and freeze (of a whole tree at once).
func (t *Tree) Has(resource string) bool { return false }

// Make makes the control group of a start and sets the limits of s. A limit that
// this machine has no controller for is an error, never ignored. On a machine
// without control groups it returns a Cgroup that holds the session of the start.
func (t *Tree) Make(p ha.Process, id ha.StartID, s *proc.Spec) (*Cgroup, error) { return nil, errStub }

// Find lists the starts whose control groups are there, for adoption; the caller
// removes those of dead starts.
func (t *Tree) Find() ([]ha.StartID, error) { return nil, errStub }

// At returns the control group of a start that Find told, or that of a program
// without one: ok is false if there is no group (then the Cgroup works by session;
// see Lead).
func (t *Tree) At(id ha.StartID) (*Cgroup, bool) { return nil, false }

// Cgroup holds all processes of one start: a control group, or on machines
// without one the session of its first process and whatever carries its id in the
// environment. Its methods may be called by several goroutines.
type Cgroup struct{}

// Lead tells the first process of a start that was adopted. Ready.Start and
// Parked.Release tell their own.
func (c *Cgroup) Lead(pid int) {}

// Path is the directory of the group in v2, else the first in v1; empty without.
func (c *Cgroup) Path() string { return "" }

// Kill sends SIGKILL to every process of the group, frozen ones and those being
// forked at this moment as well. It does not wait for their end.
func (c *Cgroup) Kill() error { return errStub }

// Freeze stops or continues every process of the group.
func (c *Cgroup) Freeze(on bool) error { return errStub }

// Procs lists the processes of the group, zombies not counted where the kernel
// can tell.
func (c *Cgroup) Procs() ([]int, error) { return nil, errStub }

// Empty reports whether no process is left in the group.
func (c *Cgroup) Empty() bool { return false }

// OOMKills counts the processes of the group that the out-of-memory killer ended
// because of the group's own limit.
func (c *Cgroup) OOMKills() int { return 0 }

// Usage returns the CPU time used so far, the memory used now in bytes and the
// number of tasks; each is zero where the machine does not account.
func (c *Cgroup) Usage() (cpu time.Duration, memory int64, tasks int) { return 0, 0, 0 }

// Remove removes the group. While processes are left it fails with an error that
// is syscall.EBUSY, and the caller tries again; a group that is gone is no error.
func (c *Cgroup) Remove() error { return errStub }

// Close gives the descriptors of the group back; the group stays.
func (c *Cgroup) Close() {}

// Table is a memory-mapped file in the run directory where each start is written
// by the child itself, before its exec. It survives kill -9 of the writer, and is
// how a new shadow or monitor finds what runs.
type Table struct{}

// Slot is one row of a Table, owned by one start from Claim to Free.
type Slot struct{}

// Entry is one start as the Table knows it.
type Entry struct {
	Start   ha.StartID
	Process ha.Process
	PID     int    // 0: claimed, but no child wrote itself yet
	Ticks   uint64 // start time of the pid in clock ticks since boot; 0 if not known
}

// Alive reports whether the pid of the entry still is that start, and not another
// process that was given the same number.
func (e Entry) Alive() bool { return false }

// OpenTable opens or makes the table at path. Boot is the id of this boot: the
// rows of another boot are discarded, and so is a file that is not a table of this
// version.
func OpenTable(path, boot string) (*Table, error) { return nil, errStub }

// Claim takes a free row for a start; the file grows when there is none.
func (t *Table) Claim(id ha.StartID, p ha.Process) (*Slot, error) { return nil, errStub }

// Free gives the row of a start back; an unknown start is ignored.
func (t *Table) Free(id ha.StartID) {}

// Entries lists the rows that are taken.
func (t *Table) Entries() []Entry { return nil }

// Close unmaps the table. Slots must not be used after it.
func (t *Table) Close() error { return errStub }

// Options is what a start needs beside its Spec. Descriptors are numbers of this
// process; they stay the caller's and must stay open until Ready.Close.
//
//budget:fields parameters of one start
type Options struct {
	Start  ha.StartID
	Cgroup *Cgroup // nil: none, and no limit of a group
	Slot   *Slot   // nil: the start is not written down

	Stdin, Stdout, Stderr int // -1: /dev/null

	Env      []string // KEY=value, wins over the same key of the Spec; GEMEL_PROCESS and GEMEL_START are added if missing
	Handover int      // SEQPACKET socket to the monitor; -1: none. See Message.
}

// Ready holds everything one start needs, made beforehand. It starts at most one
// program. It is not safe for use by several goroutines at once.
type Ready struct{}

// Prepare makes a start ready. An error tells what of the Spec cannot be done,
// as a string with a NUL.
func Prepare(s *proc.Spec, o Options) (*Ready, error) { return nil, errStub }

// Start makes the program and returns after its exec. A start that came to
// nothing is a *StartError; no child is left of it then.
func (r *Ready) Start() (Child, error) { return Child{}, errStub }

// Park makes the child ahead of its need: it has done everything except the exec,
// and waits. It ends by itself if this process ends.
func (r *Ready) Park() (*Parked, error) { return nil, errStub }

// Close gives back what Prepare made, apart from the caller's own things. A
// program that was started goes on.
func (r *Ready) Close() {}

// Parked is a child that waits for its exec. It owns nothing of its Ready, which
// must stay open until Release or Discard has returned.
type Parked struct{}

// PID is the number of the waiting child.
func (p *Parked) PID() int { return 0 }

// Release lets the child exec and returns after it. It fails with a *StartError,
// also when the child was killed while it waited; then Start can be tried.
func (p *Parked) Release() (Child, error) { return Child{}, errStub }

// Discard ends the child, and waits for its end.
func (p *Parked) Discard() {}

// Child is a program that was started.
type Child struct {
	PID   int
	PIDFD int // owned by the caller, close-on-exec; -1 if the kernel has none
	Start ha.StartID
}

// StartError tells why a start came to nothing.
type StartError struct {
	Stage string        // what the child was doing: "exec", "setuid", "rlimit nofile", ...
	Errno syscall.Errno // why the kernel refused
	Path  string        // the program, the directory or the file in question; may be empty
}

// Error prints as "exec /usr/bin/nginx: no such file or directory", with a hint
// where the kernel's word is known to mislead.
func (e *StartError) Error() string { return "" }

// Unwrap returns the errno, for errors.Is.
func (e *StartError) Unwrap() error { return e.Errno }

// MessageSize is the length of what a child sends over the handover socket
// before its exec: its start id and its pid, 8 bytes each in the byte order of
// the machine. Its pidfd comes along as SCM_RIGHTS, where the kernel has pidfds.
const MessageSize = 16

// ExitStatus tells how the process of a pidfd ended. Ok is false while it lives.
// For a child of the caller it is what waitid tells, with the CPU time and memory
// used; reap takes the zombie away, else it can be asked again. For others it is
// the kernel's record of the exit (Linux 6.15 and later). A status is Unknown,
// with ok true, if the process is gone and the kernel cannot tell; the caller
// fills in After and Before.
// OOM is not told here: see Cgroup.OOMKills.
func ExitStatus(pidfd int, reap bool) (st ha.ExitStatus, ok bool, err error) {
	return ha.ExitStatus{}, false, errStub
}

// Identify reports whether a pid is that start: by the name of its control group,
// else by GEMEL_START in its environment. Two instances of Gemel number their
// starts independently: where the pid comes from a Table, ask Entry.Alive, which
// compares the time of the start as well.
func Identify(pid int, id ha.StartID) bool { return false }
