// Package evidence takes down what a program does before it is killed: what each
// of its threads waits for, its open files, the pressure on the machine, the end
// of its output. A program that hangs hangs for a reason, and the kill destroys it.
//
// It is bounded in time and in size, and never holds up a recovery: a reading that
// the kernel holds up is given up and goes on by itself. What could wait for the
// program's memory (cmdline, maps) is not read at all, and neither is what holds
// secrets (environ).
package evidence
