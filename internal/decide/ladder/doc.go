// Package ladder decides what becomes of the programs of one machine: when each
// is started and stopped, what a fault of it means, and which rung of recovery
// comes next. It is the CMM's process monitoring service as a pure function.
//
// One Machine holds the small machines: one for each process, one for the node
// with its budget, one for each check, one for each half of Gemel. Facts come in
// by Step, orders come out; an order is never taken as done before the fact that
// says so. What must be known by the next monitor, or after the next boot, goes
// out as ha.Keep and comes back by New. DESIGN.md in the folder above lists every
// rule that a reason can name.
package ladder
