package addr

import (
	"errors"
	"fmt"
	"net"

	"gemel/internal/ha"
)

// A Kind is what happened to an address.
type Kind int

// The kinds of events. Numbers are not stored anywhere.
const (
	// Conflict: another machine uses the address; Event.MAC says which. Told once a
	// minute for each MAC while it goes on.
	Conflict Kind = iota + 1
	// Lost: the address is gone from this machine, and Remove was not called. Setting
	// an interface down takes its IPv6 addresses with it.
	Lost
	// LinkDown: the device of the address cannot send: it is down, has no carrier, or
	// is gone.
	LinkDown
	// LinkUp: it can again; the address is announced anew.
	LinkUp
	// Unannounced: an announcement could not be sent; Event.Err says why. The address
	// itself is there. Told when it begins to fail, not at each attempt.
	Unannounced
)

// String is the kind in words.
func (k Kind) String() string {
	switch k {
	case Conflict:
		return "conflict"
	case Lost:
		return "lost"
	case LinkDown:
		return "link down"
	case LinkUp:
		return "link up"
	case Unannounced:
		return "unannounced"
	}
	return fmt.Sprintf("kind %d", int(k))
}

// An Event is a fact about an address that a Keeper holds.
type Event struct {
	Kind    Kind
	Address Address
	At      ha.Instant
	MAC     net.HardwareAddr // of the other machine, for Conflict
	Err     error            // for Unannounced
}

// ErrInUse is in the chain of what Add returns when Config.Probe found another
// machine with the address.
var ErrInUse = errors.New("another machine uses it")
