// Package ask answers questions from the journal alone: why a process, a check
// or the node is as it is, why an event was told, and whether the core, given the
// recorded facts again, gives the recorded orders again. It reads; it changes
// nothing, needs no running daemon, and holds a bounded part of the journal in
// memory however large that is.
package ask
