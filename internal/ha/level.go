package ha

import "fmt"

// Severity ranks events. For a process it is also a control input: a node that
// is still active after a failed failover reboots only for Critical (CMM 6.7.6).
type Severity uint8

// The severities, in growing order. OK goes with events that clear a fault.
const (
	OK Severity = iota
	Minor
	Major
	Critical
)

var severityNames = [...]string{"ok", "minor", "major", "critical"}

func (s Severity) String() string { return nameOf(severityNames[:], int(s)) }

// MarshalText and UnmarshalText use the lower-case names.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads one of ok, minor, major, critical.
func (s *Severity) UnmarshalText(b []byte) error { return parseName(severityNames[:], b, s) }

// Role is what a node is in a group.
type Role uint8

// The roles. RoleNone is that of a node of no group.
const (
	RoleNone Role = iota
	Active
	Standby
)

var roleNames = [...]string{"none", "active", "standby"}

func (r Role) String() string { return nameOf(roleNames[:], int(r)) }

// MarshalText uses the lower-case names.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads one of none, active, standby.
func (r *Role) UnmarshalText(b []byte) error { return parseName(roleNames[:], b, r) }

// Recovery is what is done about a fault of a process.
type Recovery uint8

// The recovery actions with the CMM's numbers (facts: CMM, 6.5). The zero value is no
// action at all and stands for "not set".
const (
	RecoveryUnset           Recovery = iota
	RecoveryNone                     // 1: take no action, stop monitoring
	RecoveryRestart                  // 2: restart the process
	RecoveryFailoverRestart          // 3: fail over, then restart even if that failed
	RecoveryFailoverReboot           // 4: fail over, then reboot
)

var recoveryNames = [...]string{"", "none", "restart", "failover-restart", "failover-reboot"}

func (r Recovery) String() string { return nameOf(recoveryNames[:], int(r)) }

// MarshalText uses the words of the manifest.
func (r Recovery) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads one of none, restart, failover-restart, failover-reboot.
func (r *Recovery) UnmarshalText(b []byte) error { return parseName(recoveryNames[:], b, r) }

// Escalation is what is done when the restarts of a process are used up.
type Escalation uint8

// The escalation actions. The CMM knows 1 (none) and 2 (failover-reboot);
// failover is Gemel's own and has no number on the classic surface.
const (
	EscalationUnset          Escalation = iota
	EscalationNone                      // CMM 1: give up, stop monitoring
	EscalationFailoverReboot            // CMM 2: fail over, then reboot
	EscalationFailover                  // the groups move; this node is barred for them
)

var escalationNames = [...]string{"", "none", "failover-reboot", "failover"}

func (e Escalation) String() string { return nameOf(escalationNames[:], int(e)) }

// MarshalText uses the words of the manifest.
func (e Escalation) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText reads one of none, failover, failover-reboot.
func (e *Escalation) UnmarshalText(b []byte) error { return parseName(escalationNames[:], b, e) }

// Fault is the kind of detector that found a fault: the CMM's three families.
type Fault uint8

// The faults.
const (
	FaultNone      Fault = iota
	FaultExistence       // the process is gone
	FaultWatchdog        // a thread stopped beating
	FaultIntegrity       // a check of its function failed
)

var faultNames = [...]string{"none", "existence", "watchdog", "integrity"}

func (f Fault) String() string { return nameOf(faultNames[:], int(f)) }

// MarshalText uses the lower-case names.
func (f Fault) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads one of none, existence, watchdog, integrity.
func (f *Fault) UnmarshalText(b []byte) error { return parseName(faultNames[:], b, f) }

// Outcome is the answer to a failover.
type Outcome uint8

// The outcomes of a failover. Unknown is settled only by a linearizable read.
const (
	OutcomeUnknown Outcome = iota
	Moved                  // no group that was asked about is active here any more
	Refused                // nothing moved; the detail says why
)

var outcomeNames = [...]string{"unknown", "moved", "refused"}

func (o Outcome) String() string { return nameOf(outcomeNames[:], int(o)) }

// MarshalText uses the lower-case names.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads one of unknown, moved, refused.
func (o *Outcome) UnmarshalText(b []byte) error { return parseName(outcomeNames[:], b, o) }

func nameOf(names []string, i int) string {
	if i < 0 || i >= len(names) {
		return fmt.Sprintf("unknown(%d)", i)
	}
	return names[i]
}

func parseName[T ~uint8](names []string, b []byte, to *T) error {
	for i, n := range names {
		if n == string(b) {
			*to = T(i)
			return nil
		}
	}
	return fmt.Errorf("%q is none of %q", b, names)
}
