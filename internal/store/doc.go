// Package store is the truth of a cluster: etcd, in a process of our own (package
// member) or somebody else's. Nothing else in Gemel knows etcd, and nothing here
// links it.
//
// A Client reads and writes, with the semantics that the machines of
// internal/decide/cluster were checked against: reads are linearizable and may be
// repeated, a write is one transaction under guards and is sent once. DESIGN.md says
// why it is built as it is.
package store

import "errors"

// What a caller tells apart with errors.Is.
var (
	// ErrForeign says that a member may not go on as who it was: its data is
	// missing, damaged, somebody else's or older than its mark, it was removed, or
	// the store that answers is not the one that was asked. A member gets rid of
	// it by Wipe and by being added anew.
	ErrForeign = errors.New("not the store that it was")
	// ErrRefused says that nothing was written and never will be.
	ErrRefused = errors.New("refused")
	// ErrUnknown says that a write was sent and no answer came: it may be committed
	// still, at any later time. Only a read tells.
	ErrUnknown = errors.New("outcome unknown")
	// ErrVersion says that the other side is an etcd that must not be trusted.
	ErrVersion = errors.New("etcd is too old")
)
