package ha

import "time"

// An Event is a numbered fact for people and for other systems. A fault event
// asserts an alarm that stands until an event clears it; an info event goes to
// the log alone (CMM: SEL only).
type Event struct {
	ID       uint64    `json:"id"`      // grows by one; never given twice on a node. Zero until the journal numbered it
	At       Instant   `json:"at"`      // instant of the decision
	Wall     time.Time `json:"wall"`    // wall time for showing, set by the edge
	Code     Code      `json:"code"`    // entry of the catalogue
	Subject  Subject   `json:"subject"` // what it is about
	UID      UID       `json:"uid,omitempty"`
	Change   Change    `json:"change"`
	Severity Severity  `json:"severity"`
	Text     string    `json:"text"`             // the catalogue's text
	Detail   string    `json:"detail,omitempty"` // this case: exit status, thread, check's output
	Why      Reason    `json:"why"`
	Fault    Fault     `json:"fault,omitempty"`    // for fault events: which detector
	Start    StartID   `json:"start,omitempty"`    // which start of the process it is about
	Evidence string    `json:"evidence,omitempty"` // name of the evidence kept with it, if any
	Role     Role      `json:"role,omitempty"`
}

// Key names the alarm that an asserting event raises and that a clearing event
// takes away: one alarm for each subject and family of faults.
func (e Event) Key() string { return string(e.Subject.Kind) + "/" + e.Subject.Name }

// Change tells what an event does to the standing alarm of its subject.
type Change uint8

// The changes.
const (
	Info   Change = iota // nothing; to the log alone
	Assert               // raises the alarm, or changes its text
	Clear                // takes it away
)

var changeNames = [...]string{"info", "assert", "clear"}

func (c Change) String() string { return nameOf(changeNames[:], int(c)) }

// MarshalText uses the lower-case names.
func (c Change) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads one of info, assert, clear.
func (c *Change) UnmarshalText(b []byte) error { return parseName(changeNames[:], b, c) }
