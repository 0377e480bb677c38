package manifest

import (
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
