package place

import (
	"flag"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"gemel/internal/ha"
	"gemel/internal/scenario"
)

var update = flag.Bool("update", false, "rewrite the answers of testdata/*.txt")

// TestScenarios plays each file of testdata: lines at the margin are the problem
// (node NAME KEY=VALUE..., group ..., at GROUP NODE ...), what is indented is the
// answer to all that stands above it. A node or group that is named again is
// changed, so that a file can tell a story.
func TestScenarios(t *testing.T) { scenario.Play(t, 30, *update, play) }

// play answers at each blank line and at the end. The line "follow" takes the last
// answer as done.
func play(t *testing.T, text string) string {
	var out strings.Builder
	var p Problem
	asked := true
	ask := func() {
		if !asked {
			out.WriteString(show(Plan(p)))
			asked = true
		}
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "\t"):
			continue
		case strings.TrimSpace(line) == "":
			ask()
			fmt.Fprintln(&out)
			continue
		case strings.HasPrefix(line, "#"):
		case line == "follow":
			p = follow(p, Plan(p))
			asked = false
		default:
			if err := read(&p, line); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			asked = false
		}
		fmt.Fprintln(&out, line)
	}
	ask()
	return out.String()
}

func show(a Answer) string {
	var b strings.Builder
	for _, c := range a.Choices {
		fmt.Fprintf(&b, "\t%s: ", c.Group)
		switch {
		case c.Node == "":
			b.WriteString("nowhere")
		case c.Move:
			fmt.Fprintf(&b, "%s -> %s", c.From, c.Node)
		case c.From == "":
			fmt.Fprintf(&b, "start on %s", c.Node)
		default:
			fmt.Fprintf(&b, "%s", c.Node)
		}
		if len(c.Wait) > 0 {
			fmt.Fprintf(&b, ", once %v is done", c.Wait)
		}
		if len(c.Behind) > 0 {
			fmt.Fprintf(&b, ", degraded: %v", c.Behind)
		}
		fmt.Fprintf(&b, ": %s\n", c.Reason)
		for _, r := range c.Refused {
			fmt.Fprintf(&b, "\t\t%s\n", r)
		}
		for _, w := range c.Not {
			fmt.Fprintf(&b, "\t\tnot %s: %s\n", w.Node, w.Reason)
		}
	}
	for _, r := range a.Conflicts {
		fmt.Fprintf(&b, "\tconflict: %s\n", r)
	}
	return b.String()
}

// read takes one line of a problem.
func read(p *Problem, line string) error {
	words := split(line)
	switch words[0] {
	case "node":
		n := find(&p.Nodes, func(n Node) bool { return string(n.Name) == words[1] })
		if n.Name == "" {
			*n = Node{Name: ha.Node(words[1]), State: ha.NodeMember, Level: 1}
		}
		return each(words[2:], n.set)
	case "group":
		g := find(&p.Groups, func(g Group) bool { return string(g.Name) == words[1] })
		g.Name = ha.Group(words[1])
		return each(words[2:], g.set)
	case "at":
		g := find(&p.Groups, func(g Group) bool { return string(g.Name) == words[1] })
		at := find(&g.At, func(a At) bool { return string(a.Node) == words[2] })
		at.Node = ha.Node(words[2])
		return each(words[3:], at.set)
	}
	return fmt.Errorf("unknown word")
}

// split cuts at spaces outside of quotes.
func split(line string) []string {
	quoted := false
	return strings.FieldsFunc(strings.Map(func(r rune) rune {
		if r == '"' {
			quoted = !quoted
			return -1
		}
		if quoted && r == ' ' {
			return '\u00a0'
		}
		return r
	}, line), func(r rune) bool { return r == ' ' })
}

func find[T any](s *[]T, is func(T) bool) *T {
	for i := range *s {
		if is((*s)[i]) {
			return &(*s)[i]
		}
	}
	var zero T
	*s = append(*s, zero)
	return &(*s)[len(*s)-1]
}

func each(words []string, set func(k, v string) error) error {
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		if err := set(k, strings.ReplaceAll(v, "\u00a0", " ")); err != nil {
			return fmt.Errorf("%s: %w", w, err)
		}
	}
	return nil
}

func (n *Node) set(k, v string) (err error) {
	switch k {
	case "state":
		n.State = ha.NodeState(v)
	case "witness":
		n.Witness = v == ""
	case "drained":
		n.Drained = v == ""
	case "maintenance":
		n.Maintenance = v == ""
	case "room":
		n.Capacity, err = amounts(v)
	case "else":
		n.Else, err = strconv.ParseInt(v, 10, 64)
	case "health":
		n.Health, err = health(v)
	case "reaches":
		n.Reaches = words(v)
	case "misses":
		n.Misses = words(v)
	case "release":
		n.Release = v
	case "level":
		n.Level, err = strconv.Atoi(v)
	default:
		err = fmt.Errorf("unknown")
	}
	return err
}

func (g *Group) set(k, v string) (err error) {
	r := &g.Rules
	switch k {
	case "nodes":
		r.Nodes = names[ha.Node](v)
	case "least":
		r.LeastGroups = true
	case "weighs":
		r.Weights, err = amounts(v)
	case "priority":
		r.Priority, err = strconv.Atoi(v)
	case "after":
		r.After = names[ha.Group](v)
	case "with":
		r.With = names[ha.Group](v)
	case "apart":
		r.Apart = names[ha.Group](v)
	case "sticky":
		r.Stickiness, err = strconv.Atoi(v)
	case "failback":
		r.Failback, r.Open = true, v != "closed"
	case "level":
		r.Level, err = strconv.Atoi(v)
	case "targets":
		r.Targets = words(v)
	case "limit":
		r.Limit, err = strconv.Atoi(v)
	default:
		return g.setNow(k, v)
	}
	return err
}

func (g *Group) setNow(k, v string) (err error) {
	switch k {
	case "now":
		g.Now = ha.Node(v)
	case "last":
		g.Last = ha.Node(v)
	case "active":
		g.Active = v == ""
	case "locked":
		g.Locked = v == ""
	case "maintenance":
		g.Maintenance = v == ""
	case "move":
		g.Request = Request{Node: ha.Node(v)}
	case "force":
		g.Request = Request{Node: ha.Node(v), Forced: true}
	case "move-any":
		g.Request = Request{Node: ha.Node(v), Any: true}
	case "failovers":
		g.Failovers, err = strconv.Atoi(v)
	default:
		err = fmt.Errorf("unknown")
	}
	return err
}

func (a *At) set(k, v string) error {
	switch k {
	case "health":
		h, err := health(v)
		a.Health = &h
		return err
	case "behind":
		a.Behind = words(v)
	case "on-loss":
		a.OnLoss = v
	case "barred":
		a.Barred = v
	case "unasked":
		a.Unasked = true
	case "unfit":
		a.Unfit = v
	default:
		return fmt.Errorf("unknown")
	}
	return nil
}

func words(v string) []string { return names[string](v) }

func names[T ~string](v string) []T {
	var out []T
	for w := range strings.SplitSeq(v, ",") {
		if w != "" {
			out = append(out, T(w))
		}
	}
	return out
}

// amounts reads "memory:64,disk:10".
func amounts(v string) ([]Amount, error) {
	var out []Amount
	for _, w := range words(v) {
		name, value, _ := strings.Cut(w, ":")
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return nil, err
		}
		out = append(out, Amount{name, n})
	}
	return out, nil
}

// health reads "critical,2,1" or "2,1": majors and minors.
func health(v string) (h Health, err error) {
	ws := words(v)
	if len(ws) > 0 && ws[0] == "critical" {
		h.Critical = true
		ws = ws[1:]
	}
	for i, to := range []*int{&h.Majors, &h.Minors} {
		if i < len(ws) {
			if *to, err = strconv.Atoi(ws[i]); err != nil {
				return h, err
			}
		}
	}
	return h, nil
}

// follow is the problem after its answer was carried out.
func follow(p Problem, a Answer) Problem {
	q := Problem{Nodes: p.Nodes, Groups: append([]Group(nil), p.Groups...)}
	for i := range q.Groups {
		g := &q.Groups[i]
		if c, ok := a.Choice(g.Name); ok && c.Node != "" {
			g.Now, g.Last, g.Active = c.Node, c.Node, true
		} else if ok {
			if g.Now != "" {
				g.Last = g.Now
			}
			g.Now, g.Active = "", false
		}
	}
	return q
}
