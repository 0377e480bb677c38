package manifest

import (
	"slices"
	"strconv"
	"strings"
)

// Line returns the command line of a process for showing (CMM ProcessName):
// arguments with a space or a quote are quoted.
func (p Process) Line() string {
	switch {
	case p.Shell != "":
		return "sh -c " + quote(p.Shell)
	case len(p.Command) > 0:
		return join(p.Command)
	case p.Attach.CommandLine != "":
		return p.Attach.CommandLine
	case p.Attach.Unit != "":
		return "unit " + p.Attach.Unit
	}
	return "pidfile " + p.Attach.PIDFile
}

// Line returns what a check does, for showing.
func (c Check) Line() string {
	switch {
	case c.HTTP != nil:
		return "http " + c.HTTP.URL
	case c.TCP != nil:
		return "tcp " + c.TCP.Address
	case c.GRPC != nil:
		return "grpc " + c.GRPC.Address
	}
	return join(c.Command)
}

// Waiting says what the group waits for where there is no cluster, and what of it
// takes effect all the same.
func (g Group) Waiting() string {
	var runs []string
	for _, p := range slices.Concat(g.Run, g.Standby) {
		runs = append(runs, string(p))
	}
	text := "it waits for a cluster"
	switch len(runs) {
	case 0:
	case 1:
		text += "; " + runs[0] + " runs here, without a standby"
	default:
		text += "; " + strings.Join(runs[:len(runs)-1], ", ") + " and " + runs[len(runs)-1] + " run here, without a standby"
	}
	var idle []string
	for _, part := range []struct {
		name string
		n    int
	}{{"addresses", len(g.Addresses)}, {"scripts", len(g.Scripts)}, {"resource agents", len(g.OCF)}, {"file sets", len(g.Files)}} {
		if part.n > 0 {
			idle = append(idle, part.name)
		}
	}
	if last := len(idle) - 1; last == 0 {
		text += "; its " + idle[0] + " are not served"
	} else if last > 0 {
		text += "; its " + strings.Join(idle[:last], ", ") + " and " + idle[last] + " are not served"
	}
	return text
}

func join(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = quote(a)
	}
	return strings.Join(quoted, " ")
}

func quote(s string) string {
	if s == "" || strings.ContainsAny(s, " \t\n\"'\\$;|&<>()*?") {
		return strconv.Quote(s)
	}
	return s
}
