package ha

// A Code numbers an entry of the event catalogue. Codes are for ever: they are
// used in scripts, traps and logs. 368 to 387, 1024 to 1028 and 1056 are the
// CMM's (0x0170 to 0x0183, 0x400 to 0x404, 0x420); Gemel's own begin at 2000.
type Code uint16

// The CMM's process monitoring events: faults (an alarm stands until cleared).
const (
	ExistenceRecovering Code = 0x0170 + iota // 368
	IntegrityRecovering
	WatchdogRecovering
	ExistenceDisabled
	IntegrityDisabled
	WatchdogDisabled
	ExcessiveReboots
	Recovered
	Initialized // 376
)

// The CMM's process monitoring events: steps of a recovery (to the log alone).
const (
	NoActionRecovery   Code = 0x0179 + iota // 377
	AttemptRestart                          // 378
	AttemptFailover                         // 379: failover & restart
	AttemptReboot                           // 380: failover & reboot
	NoActionEscalation                      // 381
	AttemptEscalation                       // 382: failover & reboot, escalated
	RestartFailure                          // 383
	RebootFailure                           // 384
	ExcessiveRestarts                       // 385
	EscalationFailure                       // 386
	InternalFault                           // 387
)

// Gemel's own events.
const (
	AttemptEscalatedFailover Code = 2001 + iota // our escalation "failover"
	EscalatedFailoverFailure
	EscalatedFailoverDone
)

// Gemel's own events about a process, for the log.
const (
	ProcessStarted Code = 2020 + iota
	ProcessStopped
	ProcessExpected
	ProcessReady
	ProcessStuck
	ProcessAdopted
	ExitUnknown
	StartRefused
	OutputDropped
	Unmatched
	ProcessEnded
	MemoryLost // of a process, or of the node as a whole
)

// Gemel's own events about the node and its own parts.
const (
	MonitorStarted Code = 2040 + iota
	JournalRepaired
	DiskTrouble
	ManifestApplied
	ManifestRefused
	Upgraded
	Detached
	ShuttingDown
	EvidenceTaken
	HandlerFailed
	LimitUnavailable
	Crashed
	UpgradeFailed
)

// Gemel's own events about groups, and about the nodes of a cluster.
const (
	GroupActive Code = 2060 + iota
	GroupStopped
	GroupLapsed
	GroupPart // a part of it cannot be started or stopped
	GroupGranted
	GroupMoving
	GroupUnplaced
	MemberJoined
	MemberSuspected
	MemberEvicted
	MemberLeft
	BrainHere
	StoreAway
	Stalled
	AddressConflict
	StoreLed
	PartUnfit // a part of a group could not run on this node
	NodeFenced
	FenceFailed
	FenceWorks
	GroupRefused
	GroupLate     // it was not started within its start-timeout
	GroupUnproved // its stop is not proved
	PortShut      // heartbeats pass between two nodes and connections do not, or the reverse
	BrainSwitched
	StoreFull // it takes no writes
	CertificateEnds
	WatchdogUnarmed // a hardware watchdog is to be there, and is not armed
)

// An Entry of the catalogue says what a code means to a person.
type Entry struct {
	Code    Code
	Word    string // stable short name, for filters and metrics
	Text    string // the string shown; the CMM's to the letter where it exists
	Change  Change // what it does to the alarm of its subject
	Means   string // what it means
	Effect  string // what it does to the service
	Do      string // what to do
	Classic bool   // a code of the CMM
}

// Catalogue returns every entry in order of code.
func Catalogue() []Entry { return append([]Entry(nil), catalogue[:]...) }

// Entry returns the catalogue's entry of a code; ok is false for an unknown one.
func (c Code) Entry() (e Entry, ok bool) {
	for _, e := range catalogue {
		if e.Code == c {
			return e, true
		}
	}
	return Entry{}, false
}

// String returns the text of the catalogue.
func (c Code) String() string {
	if e, ok := c.Entry(); ok {
		return e.Text
	}
	return "unknown event"
}
