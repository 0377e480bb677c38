// Package proc holds the processes of this machine, and is the only one that
// forks. The shadow half (proc/shadow) is the parent of every program; the
// monitor half talks to it through a Client. proc/spawn makes one program out of
// a Spec; proc/output reads what programs print.
package proc
