// Package access says who may do what: it turns the peer of a connection, as the
// kernel told it, into one of the roles viewer, operator and admin, and it keeps
// the record of who changed what.
//
// A name service is asked only when the policy is set or refreshed, never while
// somebody waits for an answer: a name service that hangs must not hang Gemel.
package access

import "fmt"

// Role is what a caller may do. Each role includes those before it. It is not to
// be confused with ha.Role, the role of a node in a group.
type Role uint8

// The roles.
const (
	None     Role = iota // may ask who it is, and no more
	Viewer               // sees status, events, alarms and reasons
	Operator             // also changes processes and checks, and sees output and the manifest
	Admin                // also applies manifests and ends or upgrades Gemel
)

// String returns none, viewer, operator or admin.
func (r Role) String() string {
	switch r {
	case None:
		return "none"
	case Viewer:
		return "viewer"
	case Operator:
		return "operator"
	case Admin:
		return "admin"
	}
	return fmt.Sprintf("unknown(%d)", uint8(r))
}

// A Peer is the other end of a connection, as the kernel recorded it when the
// connection was made. PID is for showing only: it may have been reused since.
type Peer struct {
	UID, GID uint32
	Groups   []uint32 // supplementary groups
	PID      int32
}
