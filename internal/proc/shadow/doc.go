// Package shadow is the half of Gemel that is the parent of every program and of
// the monitor. It decides nothing: it starts, stops and arms what the monitor
// ordered, keeps each exit until the monitor has taken it, and restarts the
// monitor. It is one loop over one epoll set, parses nothing but the protocol,
// and writes nothing to a disk: what survives its own death is the table, the
// control groups, and what the monitor holds.
package shadow
