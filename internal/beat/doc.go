// Package beat hears the signs of life of programs: sd_notify datagrams, and the
// beat pages that threads write to without a system call. It holds the last
// instant of each source, and says Missed when one is silent for longer than the
// core allowed. It decides nothing: how long, and from when on, is the core's
// order (ha.Watch), and what a silence means is the core's business.
//
// A page is written by the program and a datagram by anybody of its user, so that
// nothing in either is trusted: not a count, not a length, not a name.
package beat
