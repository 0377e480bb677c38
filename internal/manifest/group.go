package manifest

import (
	"net/netip"
	"strconv"
	"time"

	"gemel/internal/ha"
)

// Group is the unit that moves in a cluster (DESIGN 5.4).
//
//budget:fields one for each key of the manifest
type Group struct {
	Name    ha.Group
	Nodes   []ha.Node // in order of preference
	Policy  string    // configured-node (default) or least-groups
	Run     []ha.Process
	Standby []ha.Process

	Addresses []Address
	Files     []string
	Scripts   []Script
	OCF       []Agent
	Order     []string // as written; nil: the default order. See Parts

	After, With, Apart []ha.Group // as in place.Rules

	Weights       []Amount // sorted by resource
	Priority      int      // who is placed first when room is scarce: the greater
	Stickiness    int
	Failback      string        // manual (default) or automatic
	Windows       []Window      // when an automatic failback may be made; none: always
	FailoverLimit Budget        // Limit 0: no bound; default 3 within 1h
	RequireLevel  int           // 0 to 3; default 1, and 2 with scripts or resource agents
	Targets       []Target      // what should be reached from where it is
	StartTimeout  time.Duration // of the group as a whole; 0: what its parts take
	StopTimeout   time.Duration // the same
}

// Automatic reports whether the group goes back to the first of its nodes by itself.
func (g Group) Automatic() bool { return g.Failback == "automatic" }

// Open reports whether a failback may be made at an instant of wall time. The
// clock and the day of the week are those of now's own location: who decides
// gives its local time.
func (g Group) Open(now time.Time) bool {
	for _, w := range g.Windows {
		if w.Open(now) {
			return true
		}
	}
	return len(g.Windows) == 0
}

// PartKind is the sort of a step in the start of a group.
type PartKind string

// The kinds of parts, in the default order of the start.
const (
	PartOCF       PartKind = "ocf"
	PartScript    PartKind = "script"
	PartAddresses PartKind = "addresses" // all of them
	PartPrograms  PartKind = "programs"  // Run, in the order that their needs and after say
)

// A Part is one step in the start of a group.
type Part struct {
	Kind PartKind
	Name string // of a script or a resource agent; else the kind
}

// Parts returns the steps in which the group is started, one after the other; it
// is stopped in the reverse order. What the group does not have is no step.
//
// Without order: resource agents and scripts come first, each as they are listed,
// since they mount and import what the others need; then the addresses, so that
// programs can bind to them; then the programs.
func (g Group) Parts() []Part {
	var all []Part
	for _, a := range g.OCF {
		all = append(all, Part{PartOCF, a.Name})
	}
	for _, s := range g.Scripts {
		all = append(all, Part{PartScript, s.Name})
	}
	if len(g.Addresses) > 0 {
		all = append(all, Part{PartAddresses, string(PartAddresses)})
	}
	if len(g.Run) > 0 {
		all = append(all, Part{PartPrograms, string(PartPrograms)})
	}
	if g.Order == nil {
		return all
	}
	out := make([]Part, 0, len(all))
	for _, name := range g.Order {
		for _, p := range all {
			if p.Name == name {
				out = append(out, p)
			}
		}
	}
	return out
}

// Address is an address that the active node has.
type Address struct {
	Prefix netip.Prefix // the address itself with the length of its network, not masked
	Device string       // empty: the one that has an address of that network
}

// String prints "192.0.2.10/24", with " dev eth0" if the device is given.
func (a Address) String() string {
	if a.Device == "" {
		return a.Prefix.String()
	}
	return a.Prefix.String() + " dev " + a.Device
}

// Amount is so much of a resource: of what a group weighs, or a node holds.
type Amount struct {
	Resource string
	Value    int64
}

// Window is a time of day, on some days of the week, by the wall clock. One that
// ends before it begins goes on past midnight and belongs to the day on which it
// began.
type Window struct {
	Days     uint8 // a bit for each time.Weekday; 0: every day
	From, To int   // minutes since midnight; To is not within, and may be 1440
}

// Open reports whether now is within the window, by the clock of its location. An
// hour that the clock skips in spring is not there; one that it repeats in autumn
// is there twice.
func (w Window) Open(now time.Time) bool {
	minute, today := now.Hour()*60+now.Minute(), now.Weekday()
	on := func(d time.Weekday) bool { return w.Days == 0 || w.Days&(1<<d) != 0 }
	if w.From < w.To {
		return on(today) && minute >= w.From && minute < w.To
	}
	return on(today) && minute >= w.From || on((today+6)%7) && minute < w.To
}

// Target is something that should be reached. Without a port it is asked by ICMP
// echo; with one a TCP connection is made.
type Target struct {
	Host string // a name, or an address without brackets
	Port int    // 0: none
}

// String is the target as it is written, and its name in place.Rules.
func (t Target) String() string {
	if t.Port == 0 {
		return t.Host
	}
	host := t.Host
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(t.Port)
}

// Probe says how the target is asked: icmp or tcp.
func (t Target) Probe() string {
	if t.Port == 0 {
		return "icmp"
	}
	return "tcp"
}

// Script is a part that is started and stopped by commands. Exit 0 is done, 1 the
// group is stopped and started nowhere, 2 it may be tried on another node; in
// Validate 1 and 2 are the same.
type Script struct {
	Name        string
	Start, Stop []string // argv
	Validate    []string // empty: nothing is asked before
	User        string   // empty: the daemon's own
	Environment map[string]string
	Timeouts    Timeouts // Monitor is not used
}

// Agent is a part that an OCF resource agent starts, stops and monitors.
type Agent struct {
	Name           string
	Provider, Type string            // of ocf:heartbeat:IPaddr2: heartbeat and IPaddr2
	Parameters     map[string]string // without OCF_RESKEY_
	Every          time.Duration     // from one monitor to the next; default 10s
	Timeouts       Timeouts
}

// Timeouts bound the actions of a part.
type Timeouts struct {
	Start    time.Duration // default 1m
	Stop     time.Duration // default 1m
	Monitor  time.Duration // default 20s
	Validate time.Duration // default 20s
}
