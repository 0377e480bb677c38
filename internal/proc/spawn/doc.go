// Package spawn makes one program out of a proc.Spec, holds its control group
// and knows its exit.
//
// Everything that a start needs (strings, descriptors, limits) is made by
// Prepare, long before it is wanted: between the death of a program and the exec
// of its successor stand one clone and a fixed row of system calls, without an
// allocation in the child and without a lock. The child reports itself to the
// monitor before it execs, so that no death of the shadow can lose it.
package spawn
