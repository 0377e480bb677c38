// Package daemon wires Gemel's two halves together out of the packages below
// it: the shadow (Shadow), which is the parent of every program, and the monitor
// (Monitor), which does everything else. It decides nothing.
package daemon

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/places"
	"gemel/internal/rpc"
)

// Options are what both halves of one instance are started with.
type Options struct {
	Places  places.Places
	File    string // the manifest to begin with; may be empty when one was applied before
	Name    string // of the node; empty: the host's name
	Version string
	Form    string // how the binary is built: slim or whole
	Verbose bool
	Exe     string // the binary that the monitor is started from; empty: this one
	Log     *slog.Logger
	// Identity makes this machine a node of a cluster; nil: it is of none.
	Identity *manifest.Identity

	// Withdraw and Reset are what the shadow and the guard do at a deadline beside the
	// kill; see shadow.Config. Nil: nothing.
	Withdraw func(words []string) error
	Reset    func(g ha.Group, what string)

	// Journald and Syslog are the sockets of the two; empty: where they are usually.
	Journald, Syslog string

	handed *rpc.Handed // the socket of the API that the monitor before this one left open
}

// args are the flags that hand the options on to the other half.
func (o Options) args() []string {
	a := []string{"--data-dir", o.Places.Data, "--run-dir", o.Places.Run, "--socket", o.Places.Socket}
	if o.Name != "" {
		a = append(a, "--name", o.Name)
	}
	if o.File != "" {
		a = append(a, o.File)
	}
	return a
}

// monitorArgs are the arguments of the monitor.
func (o Options) monitorArgs() []string {
	a := o.args()
	if o.Verbose {
		a = append([]string{"--verbose"}, a...)
	}
	return a
}

// exe is the path under which this program can be started again. After an
// upgrade in place /proc/self/exe names the deleted old file, and the path on
// disk is the new one.
func (o Options) exe() (string, error) {
	if o.Exe != "" {
		return o.Exe, nil
	}
	p, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding this program: %w", err)
	}
	return strings.TrimSuffix(p, " (deleted)"), nil
}

// node is the name of this node.
func (o Options) node() string {
	if o.Identity != nil {
		return string(o.Identity.Name)
	}
	return places.Node(o.Name)
}

// The times of the two halves. A service manager that watches us (WatchdogSec=)
// wants to hear of us more often than it asks for, and is to find a new monitor
// in the place of one that hangs before it loses its own patience.
const (
	beatEvery   = time.Second
	longSilence = 10 * time.Second
	leastSilent = 5 * time.Second // a monitor that begins reads its journal first
)

// watchdog is the time within which the service manager wants to hear of us; zero:
// it does not.
func watchdog() time.Duration {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 || usec > int64(time.Hour/time.Microsecond) {
		return 0
	}
	return time.Duration(usec) * time.Microsecond
}

// pace is how often the monitor beats, and how long it may be silent.
func pace(watchdog time.Duration) (beat, silence time.Duration) {
	if watchdog == 0 {
		return beatEvery, longSilence
	}
	return min(beatEvery, watchdog/8), min(max(watchdog/3, leastSilent), longSilence)
}

// instance names this instance among several of a machine, for its cgroups.
func instance(p places.Places) string {
	if p.Run == "/run/gemel" {
		return "gemel"
	}
	var h uint64 = 14695981039346656037 // FNV-1a
	for _, b := range []byte(p.Run) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return "gemel-" + strconv.FormatUint(h>>16, 36)
}
