package config

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// unknown keeps that a name stands for nothing.
func (j *judge) unknown(at, what, name string, names []string) {
	hint := ""
	if len(j.errs) < maxErrors {
		hint = didYouMean(name, names)
	}
	j.refuse(at, "there is no "+what+" "+quoted(name), hint)
}

// references: the names of other processes and of checks.
func (j *judge) references(path string, p *manifest.Process) {
	for _, list := range []struct {
		key   string
		names []ha.Process
	}{{"after", p.After}, {"needs", p.Needs}, {"follows", p.Follows}} {
		for i, name := range list.names {
			at := item(path+"."+list.key, i)
			other, ok := j.processes[name]
			switch {
			case name == "":
			case name == p.Name:
				j.refuse(at, "a process cannot name itself in "+list.key, "remove it")
			case !ok:
				j.unknown(at, "process", string(name), j.names)
			case list.key == "needs":
				j.need(at, p, other)
			}
		}
	}
	if c := p.Ready.Check; c != "" && !j.checks[c] {
		var names []string
		for i := range j.m.Checks {
			names = append(names, string(j.m.Checks[i].Name))
		}
		j.unknown(path+".ready.check", "check", string(c), names)
	}
}

// need: whether what is needed can be there.
func (j *judge) need(at string, p, other *manifest.Process) {
	if !other.AutoStart && p.AutoStart {
		j.refuse(at, fmt.Sprintf("%s has autostart: false, so that %s would wait for ever", other.Name, p.Name),
			"remove autostart: false there, or add it here")
	}
	if len(other.On) == 0 {
		return
	}
	on, hint := p.On, "make the two lists in on: agree"
	for i := range j.m.Groups {
		if g := &j.m.Groups[i]; slices.Contains(g.Run, p.Name) || slices.Contains(g.Standby, p.Name) {
			on, hint = g.Nodes, fmt.Sprintf("%s runs where group %s is: make its nodes: and on: of %s agree", p.Name, g.Name, other.Name)
		}
	}
	for _, n := range on {
		if !slices.Contains(other.On, n) {
			j.refuse(at, fmt.Sprintf("%s runs on node %s, where %s does not run", p.Name, n, other.Name), hint)
			return
		}
	}
	if len(on) == 0 {
		j.refuse(at, fmt.Sprintf("%s runs on all nodes, and %s does not", p.Name, other.Name), "add the same on: here")
	}
}

// check: what takes two keys of a check to see.
func (j *judge) check(path string, c *manifest.Check) {
	var ways []string
	for _, key := range []string{"command", "http", "tcp", "grpc"} {
		if j.given(path + "." + key) {
			ways = append(ways, key)
		}
	}
	switch len(ways) {
	case 0:
		if j.notMap[path] {
			return // that is told
		}
		j.refuse(path, "nothing says what is checked; allowed: one of command, http, tcp or grpc", "add command: [/path/of/the/program]")
	case 1:
	default:
		j.refuse(path+"."+ways[1], "found "+anyAnd(ways)+"; allowed: one of command, http, tcp or grpc", "make a check of each")
	}
	j.authority(path, c)
	for i, name := range c.Covers {
		if _, ok := j.processes[name]; !ok && name != "" {
			j.unknown(item(path+".covers", i), "process", string(name), j.names)
		}
	}
	written := timeouts(j.reader, path)
	if len(written) > 1 {
		j.refuse(path+"."+written[1], "the timeout is there twice: "+anyAnd(written), "remove one")
	} else if len(written) == 1 && c.Timeout > c.Every && !c.Once {
		j.refuse(path+"."+written[0], fmt.Sprintf("found %s, which is more than every, %s: runs would overlap", durationText(c.Timeout), durationText(c.Every)), "lower timeout, or raise every")
	}
	if c.Once && j.given(path+".every") {
		j.refuse(path+".every", "every has no effect with once: true", "remove one of the two")
	}
	if c.Once && c.Failures > 1 {
		j.refuse(path+".failures", fmt.Sprintf("found %d; allowed with once: true: 1", c.Failures), "a check that runs once cannot fail more often")
	}
	if c.User != "" && len(c.Command) == 0 {
		j.refuse(path+".user", "user has no effect without command", "remove it")
	}
	if h := c.HTTP; h != nil && h.Method == "HEAD" && h.Body != "" {
		j.refuse(path+".http.body", "the answer to HEAD has no body that could match", "use method: GET, or remove body")
	}
}

// ids: the numbers of the classic surface are given once.
func (j *judge) ids() {
	seen := map[ha.UID]string{}
	claim := func(path string, id ha.UID) {
		if id == 0 {
			return
		}
		if first, twice := seen[id]; twice {
			j.refuse(path+".id", fmt.Sprintf("found %d, which is the id of %s already", id, first), "give each its own")
			return
		}
		seen[id] = path
	}
	for i := range j.m.Processes {
		claim(sub("processes", string(j.m.Processes[i].Name)), j.m.Processes[i].UID)
	}
	for i := range j.m.Checks {
		claim(sub("checks", string(j.m.Checks[i].Name)), j.m.Checks[i].UID)
	}
}

// circles: an order that has no beginning, and restarts without an end.
func (j *judge) circles() {
	type edges = func(*manifest.Process) [][]ha.Process
	for _, c := range []struct {
		of   edges
		keys []string
		text string
	}{
		{func(p *manifest.Process) [][]ha.Process { return [][]ha.Process{p.After, p.Needs} }, []string{"after", "needs"},
			"processes wait for each other in a circle: "},
		{func(p *manifest.Process) [][]ha.Process { return [][]ha.Process{p.Follows, p.Needs} }, []string{"follows", "needs"},
			"a restart would go round in a circle: "},
	} {
		s := search{j: j, of: c.of, state: map[ha.Process]int{}}
		for i := range j.m.Processes {
			s.visit(&j.m.Processes[i])
		}
		for _, f := range s.found {
			// The circle of needs alone is told once, as one of waiting.
			if c.keys[0] == "follows" && f.key == 1 && !strings.Contains(f.kinds, "0") {
				continue
			}
			j.refuse(item(sub("processes", string(f.from))+"."+c.keys[f.key], f.index), c.text+f.circle, "remove one of these")
		}
	}
}

// search is a walk along references that finds circles.
type search struct {
	j     *judge
	of    func(*manifest.Process) [][]ha.Process
	state map[ha.Process]int // 1: being visited, 2: done
	stack []ha.Process
	kinds []byte // for each of the stack but the last: the list that led on
	found []circle
}

type circle struct {
	from       ha.Process
	key, index int
	circle     string
	kinds      string
}

func (s *search) visit(p *manifest.Process) {
	if s.state[p.Name] != 0 {
		return
	}
	s.state[p.Name] = 1
	s.stack = append(s.stack, p.Name)
	for k, list := range s.of(p) {
		for i, name := range list {
			next, ok := s.j.processes[name]
			if !ok || name == p.Name {
				continue
			}
			s.kinds = append(s.kinds, byte('0'+k))
			if s.state[name] == 1 {
				s.found = append(s.found, s.close(p.Name, name, k, i))
			} else {
				s.visit(next)
			}
			s.kinds = s.kinds[:len(s.kinds)-1]
		}
	}
	s.stack = s.stack[:len(s.stack)-1]
	s.state[p.Name] = 2
}

// close prints the circle that the step from -> to closes.
func (s *search) close(from, to ha.Process, key, index int) circle {
	at := slices.Index(s.stack, to)
	var names []string
	for _, n := range s.stack[at:] {
		names = append(names, string(n))
	}
	if len(names) > 12 {
		names = append(append(slices.Clone(names[:6]), "..."), names[len(names)-5:]...)
	}
	names = append(names, string(to))
	return circle{from: from, key: key, index: index, circle: strings.Join(names, " -> "), kinds: string(s.kinds[at:])}
}

// files: sets that would write over each other.
func (j *judge) files() {
	type place struct{ path, set, at string }
	var all []place
	for _, f := range j.m.Files {
		at := sub("files", f.Name) + ".paths"
		for i, p := range f.Paths {
			if p != "/" && path.Clean(p) != strings.TrimSuffix(p, "/") {
				j.refuse(item(at, i), "found "+quoted(p)+"; allowed: a path without .. and double slashes", "write "+path.Clean(p))
			}
			all = append(all, place{strings.TrimSuffix(path.Clean(p), "/") + "/", f.Name, item(at, i)})
		}
	}
	slices.SortStableFunc(all, func(a, b place) int { return strings.Compare(a.path, b.path) })
	for i := 1; i < len(all); i++ {
		if strings.HasPrefix(all[i].path, all[i-1].path) {
			j.refuse(all[i].at, fmt.Sprintf("found %s, which file set %s has already", strings.TrimSuffix(all[i].path, "/"), all[i-1].set), "a path belongs to one file set, once")
			all[i] = all[i-1]
		}
	}
}
