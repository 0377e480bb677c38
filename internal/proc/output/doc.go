// Package output keeps what programs print: a named pipe for each process in the
// run directory, one reader for all of them, and log files of bounded size in the
// data directory. Everybody who needs a pipe opens it for reading and writing, so
// that the death of no half of Gemel is ever a SIGPIPE to a program, and a program
// only waits while nobody reads for as long as the pipe has room.
package output
