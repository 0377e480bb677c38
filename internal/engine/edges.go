package engine

import (
	"reflect"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/proc"
	"gemel/internal/status"
)

// Shadow is the half that holds the programs.
type Shadow interface {
	Send(o proc.Order, fds ...int) error
	Reports() <-chan proc.Report
}

// Edges are the hands of the engine. Each function returns at once; what comes
// of it is told to the engine as an input. A nil function means that this node
// has no such edge: its orders are answered as refused where an answer is due, and
// nothing is done else.
//
//budget:fields one function for each kind of order; it is wiring
type Edges struct {
	Shadow Shadow

	// Open makes the names that a process has in the file system (output, beat
	// page, notify socket) before its first start; Close removes them.
	Open  func(manifest.Process, proc.Spec) error
	Close func(ha.Process)
	// Check makes a check known, or changes it; Uncheck forgets it.
	Check   func(manifest.Check)
	Uncheck func(ha.Check)

	Watch    func(ha.Watch, manifest.Watchdog)
	Await    func(ha.Await, manifest.Ready)
	Judge    func(ha.Judge)
	Seek     func(ha.Seek, manifest.Process)
	Halt     func(ha.Stop, manifest.Process)             // stops a program that Seek found
	Examine  func(ha.Examine, int)                       // with the pid of the program
	Handle   func(ha.Handle, manifest.Handler, ha.Event) // with the process's last event
	Launch   func(ha.Start, manifest.Process)            // starts a program that is attached to, and seeks it
	Failover func(ha.Failover)
	// StartPart and StopPart make a part of a group active, or take it away.
	StartPart func(ha.StartPart)
	StopPart  func(ha.StopPart)
	Account   func(ha.Holds) // tells the authority what of the groups is here
	// Cluster returns how this node sees its cluster; nil: it is of none.
	Cluster func() *status.ClusterStatus
	// Depart has this node leave its cluster in order, before every program is stopped,
	// and calls then when that is done or takes too long. Nil: there is nothing to leave.
	Depart func(then func())
	// Lapsed hears that the shadow has killed a group; Want, what a manifest that comes
	// into force asks for.
	Lapsed func()
	Want   func(*manifest.Manifest)
	Reboot func(ha.Reboot, []string)        // with the node's command; empty: the real one
	Notify func(ha.Event, manifest.Handler) // with the node's handler
	Admit  func(manifest.Access)            // who may do what, at an apply
	// Runs and Gone tell the edges which start of a process runs.
	Runs func(p ha.Process, s ha.StartID, pid int)
	Gone func(p ha.Process, s ha.StartID)
	// Kept hands over descriptors that the shadow held across monitors.
	Kept func(name string, fds []int)
	// Synced is called once, when the shadow has told everything and the programs
	// were started.
	Synced func()
	// Made takes what concerns the programs that hold parts of groups, and answers
	// whether a report did; nil: there are none.
	Made func(proc.Report) bool
	// Half is told what concerns the halves of Gemel, after the engine took it.
	Half func(proc.Report)
	// Reload reads the manifest's file again (SIGHUP).
	Reload func()
	// Beating returns how many threads beat and the STATUS= text of a process.
	Beating func(ha.Process) (threads int, text string)
}

// whole puts a function in the place of each that is nil.
func (e Edges) whole(tell func(ha.Input)) Edges {
	const none = "this node cannot do that"
	or(&e.Open, func(manifest.Process, proc.Spec) error { return nil })
	or(&e.Close, func(ha.Process) {})
	or(&e.Check, func(manifest.Check) {})
	or(&e.Uncheck, func(ha.Check) {})
	or(&e.Watch, func(ha.Watch, manifest.Watchdog) {})
	or(&e.Await, func(ha.Await, manifest.Ready) {})
	or(&e.Judge, func(ha.Judge) {})
	or(&e.Seek, func(a ha.Seek, _ manifest.Process) { tell(ha.NotFound{Process: a.Process, Detail: none}) })
	or(&e.Halt, func(a ha.Stop, _ manifest.Process) {
		tell(ha.StopFailed{Process: a.Process, Start: a.Start, Detail: none})
	})
	or(&e.Examine, func(a ha.Examine, _ int) { tell(ha.Examined{Process: a.Process, Start: a.Start}) })
	or(&e.Handle, func(ha.Handle, manifest.Handler, ha.Event) {})
	or(&e.Launch, func(a ha.Start, _ manifest.Process) {
		tell(ha.StartFailed{Process: a.Process, Start: a.Start, Error: none})
	})
	or(&e.Failover, func(a ha.Failover) {
		tell(ha.FailedOver{Process: a.Process, Group: a.Group, Outcome: ha.Refused, StillActive: true, Detail: none})
	})
	or(&e.StartPart, func(a ha.StartPart) {
		tell(ha.PartDone{Group: a.Group, Part: a.Part, On: true, Detail: none})
	})
	or(&e.StopPart, func(a ha.StopPart) { tell(ha.PartDone{Group: a.Group, Part: a.Part, OK: true}) })
	or(&e.Account, func(ha.Holds) {})
	or(&e.Cluster, func() *status.ClusterStatus { return nil })
	or(&e.Depart, func(then func()) { then() })
	or(&e.Lapsed, func() {})
	or(&e.Want, func(*manifest.Manifest) {})
	or(&e.Reboot, func(a ha.Reboot, _ []string) { tell(ha.RebootFailed{Process: a.Process, Detail: none}) })
	or(&e.Notify, func(ha.Event, manifest.Handler) {})
	or(&e.Admit, func(manifest.Access) {})
	or(&e.Runs, func(ha.Process, ha.StartID, int) {})
	or(&e.Gone, func(ha.Process, ha.StartID) {})
	or(&e.Kept, func(_ string, fds []int) {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	})
	or(&e.Synced, func() {})
	or(&e.Made, func(proc.Report) bool { return false })
	or(&e.Half, func(proc.Report) {})
	or(&e.Reload, func() {})
	or(&e.Beating, func(ha.Process) (int, string) { return 0, "" })
	return e
}

// or sets a function that is nil.
func or[F any](to *F, f F) {
	if reflect.ValueOf(to).Elem().IsNil() {
		*to = f
	}
}
