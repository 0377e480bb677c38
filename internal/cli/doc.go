// Package cli is the tool: one file for each command. A command asks the daemon
// through internal/rpc and prints; it decides nothing. The few commands that are
// no questions to a daemon (run, the monitor's own start, check, import) are given
// to Main by the program that links them.
//
// Every command prints for people by default and one JSON document (or one for
// each line of a stream) with --json. Every refusal says why and what to do, every
// change how to take it back.
package cli
