package ha

import (
	"fmt"
	"strings"
	"time"
)

// ExitStatus is how a program ended: by a code, by a signal, or unknown.
//
// Unknown is said only when the kernel could not be asked any more: the program
// ended while neither half of Gemel lived, or on a kernel before 6.15 while the
// shadow was dead. It is never told as code 0.
type ExitStatus struct {
	Code    int           `json:"code"`              // exit code; -1 if ended by a signal or unknown
	Signal  int           `json:"signal,omitempty"`  // number of the signal; 0 if none
	Core    bool          `json:"core,omitempty"`    // a core was dumped
	OOM     bool          `json:"oom,omitempty"`     // the kernel's out-of-memory killer ended it, or one of its tree
	Unknown bool          `json:"unknown,omitempty"` // see above
	After   Instant       `json:"after,omitempty"`   // if unknown: seen alive at this instant
	Before  Instant       `json:"before,omitempty"`  // if unknown: found dead at this instant
	CPU     time.Duration `json:"cpu,omitempty"`     // user and system time used
	MaxRSS  int64         `json:"max_rss,omitempty"` // bytes; 0 if not known
}

// Success reports whether the program ended with code 0.
func (s ExitStatus) Success() bool { return !s.Unknown && s.Signal == 0 && s.Code == 0 }

// diedBetween stands before the instants of an end that nobody saw.
const diedBetween = ", died between "

// String prints "exit 3", "exit 137; out of memory: ...", "signal 9 (SIGKILL)",
// "signal 9 (SIGKILL), out of memory" or "unknown, died between 1.2s and 1.9s".
func (s ExitStatus) String() string {
	switch {
	case s.Unknown:
		return fmt.Sprintf("unknown%s%v and %v", diedBetween, s.After, s.Before)
	case s.Signal != 0:
		var b strings.Builder
		fmt.Fprintf(&b, "signal %d (%s)", s.Signal, SignalName(s.Signal))
		if s.Core {
			b.WriteString(", core dumped")
		}
		if s.OOM {
			b.WriteString(", out of memory")
		}
		return b.String()
	}
	if s.OOM {
		return fmt.Sprintf("exit %d; out of memory: the kernel ended a process of its tree", s.Code)
	}
	return fmt.Sprintf("exit %d", s.Code)
}

// signalNames holds Linux's names for signals 1 to 31.
var signalNames = [...]string{
	1: "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGUSR1",
	"SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP",
	"SIGTTIN", "SIGTTOU", "SIGURG", "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO", "SIGPWR",
	"SIGSYS",
}

// SignalName returns "SIGTERM" for 15; real-time signals are "SIGRTMIN+n".
func SignalName(n int) string {
	switch {
	case n > 0 && n < len(signalNames):
		return signalNames[n]
	case n >= 34 && n <= 64:
		return fmt.Sprintf("SIGRTMIN+%d", n-34)
	}
	return fmt.Sprintf("SIG%d", n)
}

// SignalNumber reads "TERM", "SIGTERM" or "15"; ok is false if there is none.
func SignalNumber(name string) (n int, ok bool) {
	up := strings.ToUpper(strings.TrimSpace(name))
	if !strings.HasPrefix(up, "SIG") {
		up = "SIG" + up
	}
	for i := 1; i <= 64; i++ {
		if SignalName(i) == up || fmt.Sprintf("SIG%d", i) == up {
			return i, true
		}
	}
	return 0, false
}
