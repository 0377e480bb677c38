package ha

import (
	"strings"
	"time"
)

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
// takes away: one alarm for each subject and family of faults. A journal that
// cannot be written is a family of its own: that it is written again says nothing
// of the node's budget. So are that a group has no node, which is not about its parts here, that its start
// took too long, that its stop is not proved, that a port of a node is shut, and that the store has no room.
func (e Event) Key() string {
	key := string(e.Subject.Kind) + "/" + e.Subject.Name
	switch e.Code {
	case DiskTrouble:
		key += "/journal"
	case GroupUnplaced:
		key += "/placement"
	case GroupLate:
		key += "/start"
	case GroupUnproved:
		key += "/stop"
	case PortShut:
		key += "/port"
	case StoreFull:
		key += "/room"
	case WatchdogUnarmed:
		key += "/watchdog"
	}
	return key
}

// Dated puts the wall time in the place of the instants between which a program
// ended unseen, in the text of an event for people. now and wall are of one moment.
func (e Event) Dated(now Instant, wall time.Time) Event {
	e.Detail, e.Why.Text = dated(e.Detail, now, wall), dated(e.Why.Text, now, wall)
	return e
}

func dated(text string, now Instant, wall time.Time) string {
	head, rest, ok := strings.Cut(text, diedBetween)
	if !ok {
		return text
	}
	after, rest, ok := strings.Cut(rest, " and ")
	end := strings.IndexFunc(rest, func(r rune) bool { return !strings.ContainsRune("0123456789.hmsµnu-", r) })
	if !ok {
		return text
	}
	if end < 0 {
		end = len(rest)
	}
	from, err1 := time.ParseDuration(after)
	to, err2 := time.ParseDuration(rest[:end])
	if err1 != nil || err2 != nil {
		return text
	}
	show := func(at time.Duration) string {
		if at == 0 {
			return "an unknown time"
		}
		return wall.Add(Instant(at).Sub(now)).UTC().Format("2006-01-02T15:04:05.000Z07:00")
	}
	return head + diedBetween + show(from) + " and " + show(to) + rest[end:]
}

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
