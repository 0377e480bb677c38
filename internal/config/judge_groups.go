package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"gemel/internal/decide/place"
	"gemel/internal/ha"
	"gemel/internal/manifest"
)

const (
	maxGroups = 1000
	maxNodes  = 16 // of one cluster
)

// A census is what may belong to one group only, with the group that has it.
type census struct {
	process, set map[string]string
	address      map[netip.Addr]string
}

// A groupJudge finds what takes more than one key of groups to see.
type groupJudge struct{ *judge }

// run judges all groups.
func (j groupJudge) run() {
	c := census{map[string]string{}, map[string]string{}, map[netip.Addr]string{}}
	files := map[string]bool{}
	var fileNames []string
	for _, f := range j.m.Files {
		files[f.Name] = true
		fileNames = append(fileNames, f.Name)
	}
	for i := range j.m.Groups {
		g := &j.m.Groups[i]
		at := sub("groups", string(g.Name))
		for i, p := range g.Run {
			j.member(item(at+".run", i), p, g, c.process)
		}
		for i, p := range g.Standby {
			j.member(item(at+".standby", i), p, g, c.process)
		}
		for i, f := range g.Files {
			if !files[f] {
				j.unknown(item(at+".files", i), "file set", f, fileNames)
			} else if first, twice := c.set[f]; twice && first != string(g.Name) {
				j.refuse(item(at+".files", i), fmt.Sprintf("file set %s is in group %s already", f, first), "it moves with one group; remove it from the other")
			} else {
				c.set[f] = string(g.Name)
			}
		}
		j.addresses(at, g, c.address)
		j.parts(at, g)
		j.bounds(at, g)
		if len(g.Windows) > 0 && !g.Automatic() {
			j.refuse(at+".failback-window", "failback-window has no effect with failback: manual", "write failback: automatic, or remove it")
		}
		if g.FailoverLimit.Limit == 0 && j.given(at+".failover-limit.within") {
			j.refuse(at+".failover-limit.within", "within has no effect with limit: 0", "remove it")
		}
	}
	for i := range j.m.Groups {
		j.targets(sub("groups", string(j.m.Groups[i].Name)), &j.m.Groups[i], c.address)
	}
	j.relations()
}

// addresses: each on one machine only.
func (j groupJudge) addresses(at string, g *manifest.Group, seen map[netip.Addr]string) {
	for i, a := range g.Addresses {
		ip := a.Prefix.Addr()
		if !ip.IsValid() {
			continue // that is told
		}
		first, twice := seen[ip]
		switch {
		case twice && first == string(g.Name):
			j.refuse(item(at+".addresses", i), fmt.Sprintf("address %s is there twice", ip), "remove one")
		case twice:
			j.refuse(item(at+".addresses", i), fmt.Sprintf("address %s is in group %s already", ip, first), "it moves with one group; remove it from the other")
		default:
			seen[ip] = string(g.Name)
		}
		if ip.Is6() && ip.IsLinkLocalUnicast() && a.Device == "" {
			j.refuse(item(at+".addresses", i), fmt.Sprintf("address %s is on a link of its own on each device; allowed: with a device", ip),
				fmt.Sprintf("write {address: %s, device: eth0}", quoted(a.Prefix.String())))
		}
	}
}

// parts: what the group is made of, and in which order.
func (j groupJudge) parts(at string, g *manifest.Group) {
	seen := map[string]string{}
	name := func(path, n string) {
		first, twice := seen[n]
		switch {
		case n == "":
		case slices.Contains([]string{"addresses", "programs", "run", "standby", "files", "jobs"}, n):
			j.refuse(path, fmt.Sprintf("the name %s is a word of order; allowed: any other name", quoted(n)), "")
		case twice:
			j.refuse(path, fmt.Sprintf("%s is the name of %s already", n, first), "give each its own")
		default:
			seen[n] = path[len(at)+1 : strings.LastIndexByte(path, '.')]
		}
	}
	for i, a := range g.OCF {
		name(item(at+".ocf", i)+".name", a.Name)
	}
	for i, s := range g.Scripts {
		name(item(at+".scripts", i)+".name", s.Name)
	}
	if g.Order == nil || slices.ContainsFunc(j.errs, func(e Error) bool { return strings.HasPrefix(e.Path, at+".") }) {
		return // what is wrong in a part is told, and the part is not there
	}
	all := *g
	all.Order = nil
	there, said := map[string]bool{}, map[string]bool{}
	for _, n := range g.Order {
		said[n] = true
	}
	var names []string
	for _, p := range all.Parts() {
		names = append(names, p.Name)
		there[p.Name] = true
		if p.Name != "" && !said[p.Name] {
			j.refuse(at+".order", "order does not say when "+clip(p.Name)+" starts; allowed: each part of the group once", "add "+clip(p.Name))
		}
	}
	for i, n := range g.Order {
		switch path := item(at+".order", i); {
		case n == "" || there[n]:
		case n == "addresses" || n == "programs":
			j.refuse(path, n+" has no effect: the group has none", "remove it")
		case j.processes[ha.Process(n)] != nil:
			j.refuse(path, "found the process "+quoted(n)+"; allowed: names of ocf and scripts, addresses and programs",
				"the processes of run start together as programs; needs and after say their own order")
		default:
			j.unknown(path, "part", n, names)
		}
	}
}

// bounds: a bound of the whole that is below one that is written for a part.
func (j groupJudge) bounds(at string, g *manifest.Group) {
	for _, b := range []struct {
		key   string
		bound time.Duration
		of    func(manifest.Timeouts) time.Duration
		own   func(*manifest.Process) (time.Duration, string)
	}{
		{"start", g.StartTimeout, func(t manifest.Timeouts) time.Duration { return t.Start },
			func(p *manifest.Process) (time.Duration, string) { return p.Ready.Timeout, ".ready.timeout" }},
		{"stop", g.StopTimeout, func(t manifest.Timeouts) time.Duration { return t.Stop },
			func(p *manifest.Process) (time.Duration, string) { return p.Stop.Grace, ".stop.grace" }},
	} {
		if b.bound == 0 {
			continue
		}
		short := func(key, name string, d time.Duration) {
			if d > b.bound && j.given(key) {
				j.refuse(at+"."+b.key+"-timeout", fmt.Sprintf("found %s, which is less than the %s that %s has for its %s", durationText(b.bound), durationText(d), name, b.key),
					"raise it, or lower that one")
			}
		}
		for i, a := range g.OCF {
			short(item(at+".ocf", i)+".timeouts."+b.key, a.Name, b.of(a.Timeouts))
		}
		for i, s := range g.Scripts {
			short(item(at+".scripts", i)+".timeouts."+b.key, s.Name, b.of(s.Timeouts))
		}
		for _, name := range g.Run {
			if p := j.processes[name]; p != nil {
				d, key := b.own(p)
				short(sub("processes", string(name))+key, string(name), d)
			}
		}
	}
}

// targets: what is where the group is says nothing about the network.
func (j groupJudge) targets(at string, g *manifest.Group, addresses map[netip.Addr]string) {
	for i, t := range g.Targets {
		a, err := netip.ParseAddr(t.Host)
		if owner, ours := addresses[a]; err == nil && ours {
			j.refuse(item(at+".targets", i), fmt.Sprintf("%s is an address of group %s; allowed: what does not move with a group", t.Host, owner),
				"name something outside of the cluster, as a router")
		}
	}
}

// relations: what no placement could keep. It is what package place complains of,
// with the place in the file.
func (j groupJudge) relations() {
	var p place.Problem
	var names []string
	nodes, groups, good := map[ha.Node]bool{}, map[ha.Group]bool{}, true
	for i := range j.m.Groups {
		name := string(j.m.Groups[i].Name)
		names = append(names, name)
		groups[ha.Group(name)] = true
		good = good && nameShape(name)
	}
	for i := range j.m.Groups {
		g := &j.m.Groups[i]
		at := sub("groups", string(g.Name))
		for _, n := range g.Nodes {
			if nameShape(string(n)) && !nodes[n] {
				nodes[n] = true
				p.Nodes = append(p.Nodes, place.Node{Name: n})
			}
		}
		rules := place.RulesOf(*g, time.Time{})
		for _, list := range []struct {
			key string
			of  *[]ha.Group
		}{{"after", &rules.After}, {"with", &rules.With}, {"apart", &rules.Apart}} {
			var known []ha.Group
			for i, name := range *list.of {
				switch path := item(at+"."+list.key, i); {
				case name == "":
				case name == g.Name:
					j.refuse(path, "a group cannot name itself in "+list.key, "remove it")
				case !groups[name]:
					j.unknown(path, "group", string(name), names)
				default:
					known = append(known, name)
				}
			}
			*list.of = known
		}
		p.Groups = append(p.Groups, place.Group{Name: g.Name, Rules: rules})
	}
	switch {
	case len(p.Groups) > maxGroups:
		j.refuse("groups", fmt.Sprintf("found %d groups; allowed: up to %d", len(p.Groups), maxGroups), "put what moves together into one group")
	case len(p.Nodes) > maxNodes:
		j.refuse("groups", fmt.Sprintf("the groups name %d nodes; allowed: up to %d in a cluster", len(p.Nodes), maxNodes), "use a cluster of its own for the others")
	case good:
		for _, r := range place.Validate(p) {
			j.complaint(r)
		}
	}
}

// complaint finds the key that package place complains of.
func (j groupJudge) complaint(r ha.Reason) {
	fact := func(name string) []string {
		for _, f := range r.Facts {
			if f.Name == name {
				return strings.Fields(f.Value)
			}
		}
		return nil
	}
	switch r.Rule {
	case "place.no-home":
		at := sub("groups", fact("group")[0])
		j.refuse(at+".failback", "found automatic with policy: least-groups, which knows no first node to go back to", "use policy: configured-node, or failback: manual")
	case "place.circle":
		way := fact("circle") // a after b after a
		j.refuse(j.relation("after", way[0], way[2]), "groups wait for each other in a circle: "+strings.Join(way, " "), "remove one of these")
	case "place.conflict":
		apart := fact("apart") // a apart b
		j.refuse(j.relation("apart", apart[0], apart[2]), r.Text, "remove one of these")
	case "place.no-common-node":
		with := fact("with") // a with b
		j.refuse(j.relation("with", with[0], with[2]), r.Text, "give them a node that is in nodes: of each")
	case "place.no-two-nodes":
		apart := fact("apart")
		j.refuse(j.relation("apart", apart[0], apart[2]), r.Text, "give one of them another node")
	default: // names, which are told; what cannot be written needs no place
	}
}

// relation is the path of the name by which one of two groups names the other.
func (j groupJudge) relation(key, a, b string) string {
	for _, pair := range [][2]string{{a, b}, {b, a}} {
		for i := range j.m.Groups {
			g := &j.m.Groups[i]
			if string(g.Name) != pair[0] {
				continue
			}
			list := map[string][]ha.Group{"after": g.After, "with": g.With, "apart": g.Apart}[key]
			if k := slices.Index(list, ha.Group(pair[1])); k >= 0 {
				return item(sub("groups", pair[0])+"."+key, k)
			}
		}
	}
	return sub("groups", a)
}

// member: a process that belongs to a group.
func (j groupJudge) member(at string, name ha.Process, g *manifest.Group, seen map[string]string) {
	p, ok := j.processes[name]
	if name == "" {
		return
	}
	if !ok {
		j.unknown(at, "process", string(name), j.names)
		return
	}
	if first, twice := seen[string(name)]; twice {
		if first == string(g.Name) {
			j.refuse(at, fmt.Sprintf("%s is in run and in standby of the same group", name), "a program that runs in both roles belongs to no group; on: says on which nodes it runs")
		} else {
			j.refuse(at, fmt.Sprintf("process %s is in group %s already", name, first), "it moves with one group; remove it from the other")
		}
		return
	}
	seen[string(name)] = string(g.Name)
	switch {
	case !p.Attach.Set():
	case g.RequireLevel > 0:
		j.refuse(at, fmt.Sprintf("%s is attached, and nothing proves that it is started by nobody else; allowed in a group: a program that Gemel starts, or require-level: 0 in the group", name),
			"let Gemel start it by command; or write require-level: 0 into the group, and turn off whatever restarts the program by itself")
	case len(p.Attach.Start) == 0 && slices.Contains(g.Run, name):
		j.refuse(at, fmt.Sprintf("%s is attached without start, so that nobody starts it where the group goes", name),
			"add start: [COMMAND] to attach there, or remove it from run")
	}
	if len(p.On) > 0 {
		j.refuse(at, fmt.Sprintf("%s has on:, but a process of a group runs where the group is", name), "remove on: there; nodes: of the group says where")
	}
}
