package cluster

import (
	"bufio"
	"cmp"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gemel/internal/decide/place"
	"gemel/internal/ha"
	"gemel/internal/scenario"
)

var update = flag.Bool("update", false, "write what comes out into the scenario files")

// TestScenarios plays the files of testdata: facts at the margin, what follows from
// them indented. A file begins with a line "authority ..." or "brain ...".
func TestScenarios(t *testing.T) { scenario.Play(t, 20, *update, play) }

// theatre is a machine with a small store and a set of nodes that are heard.
type theatre struct {
	t     *testing.T
	out   strings.Builder
	step  func(ha.Instant, ha.Input) []ha.Action
	wake  func() (ha.Instant, bool)
	again func() // a new life
	vouch func(map[ha.Node]ha.Incarnation)
	node  ha.Node
	now   ha.Instant

	around
	inbox []ha.Input
	busy  bool
	held  string // by the rights that were ordered last
	still bool
}

// around is what the machine sees: a store, and who is heard.
type around struct {
	rev   ha.Rev
	keys  map[string]kept
	alive []ha.Node
	gone  map[ha.Node]ha.Heard // what was heard last of those who are not alive any more
	said  map[ha.Node]ha.Said
	hears map[ha.Node][]ha.Node
	hold  bool // answers of the store wait for their own line
	reads []ha.Action
	last  *ha.WriteStore
}

type kept struct {
	rev   ha.Rev
	node  ha.NodeRecord
	group ha.GroupRecord
	brain ha.BrainRecord
}

func play(t *testing.T, text string) string {
	s := &theatre{t: t, around: around{keys: map[string]kept{}, said: map[ha.Node]ha.Said{},
		hears: map[ha.Node][]ha.Node{}, gone: map[ha.Node]ha.Heard{}}}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "\t") {
			continue
		}
		fmt.Fprintln(&s.out, line)
		if words := strings.Fields(line); len(words) > 0 && !strings.HasPrefix(line, "#") {
			s.line(words)
		}
	}
	return s.out.String()
}

var normal = Timers{Silence: 200 * time.Millisecond, Life: 1500 * time.Millisecond, Stop: 150 * time.Millisecond, Drift: 0.01, Settle: 30 * time.Second}

func (s *theatre) line(words []string) {
	switch words[0] {
	case "authority":
		o := options(words[1:])
		self := Self{Node: ha.Node(o["node"]), Boot: "b1", Era: 1, Timers: normal, Incarnation: ha.Incarnation(o["incarnation"])}
		s.node = self.Node
		s.again = func() {
			a := NewAuthority(self)
			s.step, s.wake = a.Step, a.Wake
		}
		s.again()
		return
	case "brain":
		o := options(words[1:])
		m := Mind{Node: ha.Node(o["node"]), Era: 1, Timers: normal, Listed: names[ha.Node](o["listed"]), Voters: names[ha.Node](o["voters"]), Fences: names[ha.Node](o["fences"])}
		s.node = m.Node
		m.Timers.Rest, _ = time.ParseDuration(o["rest"])
		s.again = func() {
			b := NewBrain(m)
			var facts []place.Node
			for _, n := range names[ha.Node](o["drained"]) {
				facts = append(facts, place.Node{Name: n, Drained: true})
			}
			for _, n := range names[ha.Node](o["maintenance"]) {
				facts = append(facts, place.Node{Name: n, Maintenance: true})
			}
			groups := s.groups(o["groups"])
			if sure := names[ha.Group](o["sure"]); len(sure) > 0 { // sure=web: of level 3, which each node offers
				for i := range groups {
					if slices.Contains(sure, groups[i].Name) {
						groups[i].Rules.Level = 3
					}
				}
				for _, n := range m.Listed {
					facts = append(facts, place.Node{Name: n, Level: 1, Fenced: true})
				}
			}
			b.Want(groups, facts)
			s.step, s.wake = b.Step, b.Wake
			s.vouch = func(off map[ha.Node]ha.Incarnation) { Vouch(b, off) }
			s.again = func() { m.Start = s.now; s.line(words) }
		}
		m.Start = s.now
		s.again()
		return
	case "restart":
		s.again()
		return
	}
	d, err := time.ParseDuration(words[0])
	if err != nil {
		s.t.Fatalf("%q: %v", words, err)
	}
	s.until(ha.Instant(d))
	if len(words) > 1 {
		s.fact(words[1], words[2:])
	}
}

// until lets time pass up to an instant.
func (s *theatre) until(t ha.Instant) {
	if s.still {
		s.still, s.now = false, t
		s.do(ha.Tick{})
		return
	}
	for i := 0; i < 100000; i++ {
		w, ok := s.wake()
		if !ok || w >= t {
			break
		}
		s.now = max(w, s.now)
		s.do(ha.Tick{})
	}
	s.now = t
}

// do takes a step, and then those that its actions lead to at once.
func (s *theatre) do(in ha.Input) {
	s.inbox = append(s.inbox, in)
	if s.busy {
		return
	}
	s.busy = true
	for len(s.inbox) > 0 {
		in, s.inbox = s.inbox[0], s.inbox[1:]
		for _, a := range s.step(s.now, in) {
			s.act(a)
		}
	}
	s.busy = false
}

func (s *theatre) say(format string, args ...any) {
	fmt.Fprintf(&s.out, "\t@%v %s\n", s.now, fmt.Sprintf(format, args...))
}

func (s *theatre) act(a ha.Action) {
	switch a := a.(type) {
	case ha.ReadNode, ha.ReadStore:
		if s.hold {
			s.reads = append(s.reads, a)
			return
		}
		s.do(s.answer(a))
	case ha.Listen:
		s.do(s.hearing())
	case ha.WriteStore:
		var puts []string
		for _, p := range a.Puts {
			puts = append(puts, p.String())
		}
		s.say("write %s  [%s] %s", strings.Join(puts, " "), a.Why.Rule, a.Why.Text)
		s.last = &a
		if !s.hold {
			s.do(s.commit())
		}
	case ha.Rights:
		if strings.HasSuffix(a.Why.Rule, ".read") && s.renews(a) {
			return
		}
		s.renews(a)
		text := "rights " + strconv.FormatUint(a.Number, 10)
		for _, r := range a.Groups {
			text += fmt.Sprintf(" %s:%s until %v", r.Group, r.Fence, r.Until)
			if r.Leaving {
				text += " leaving"
			}
		}
		s.say("%s  [%s] %s", text, a.Why.Rule, a.Why.Text)
	case ha.Emit:
		s.say("event %s %s %s %s", a.Event.Code.String(), a.Event.Subject, a.Event.Change, a.Event.Detail)
	case ha.Say:
		if len(a.Unproved) > 0 {
			s.say("say %s key %s holds %v unproved %v", a.Incarnation, a.Key, a.Holds, a.Unproved)
			return
		}
		s.say("say %s key %s holds %v%s", a.Incarnation, a.Key, a.Holds, map[bool]string{true: " away"}[a.Away])
	case ha.Keep:
		s.say("keep %s=%s  [%s] %s", a.Key, a.Value, a.Why.Rule, a.Why.Text)
	case ha.TurnOff:
		s.say("turn off %s for r%s  [%s] %s", a.Node, a.Key, a.Why.Rule, a.Why.Text)
	default:
		s.say("%s  [%s] %s", a.Name(), a.Because().Rule, a.Because().Text)
	}
}

// renews reports whether a renewal only moves the end of what is there: it would be
// ten lines a life.
func (s *theatre) renews(a ha.Rights) bool {
	var now []string
	for _, r := range a.Groups {
		now = append(now, fmt.Sprint(r.Group, r.Fence, r.Leaving))
	}
	was := s.held
	s.held = strings.Join(now, ",")
	return was == s.held
}

func (s *theatre) answer(a ha.Action) ha.Input {
	switch a := a.(type) {
	case ha.ReadNode:
		k := s.keys[ha.NodeKey(s.node)]
		return ha.NodeRead{ID: a.ID, At: s.rev, Key: k.rev, Record: k.node}
	case ha.ReadStore:
		r := ha.StoreRead{ID: a.ID, At: s.rev, Epoch: s.keys[ha.BrainKey].rev, Brain: s.keys[ha.BrainKey].brain}
		for _, name := range slices.Sorted(maps.Keys(s.keys)) {
			k := s.keys[name]
			switch {
			case strings.HasPrefix(name, "nodes/"):
				r.Nodes = append(r.Nodes, ha.KeyedNode{NodeRecord: k.node, Key: k.rev})
			case strings.HasPrefix(name, "groups/"):
				r.Groups = append(r.Groups, ha.KeyedGroup{GroupRecord: k.group, Key: k.rev})
			}
		}
		return r
	}
	return nil
}

func (s *theatre) commit() ha.StoreWritten {
	x := s.last
	s.last = nil
	refused := x.Epoch != 0 && x.Epoch != s.keys[ha.BrainKey].rev
	for _, p := range x.Puts {
		refused = refused || s.keys[p.Key].rev != p.Guard
	}
	if refused {
		s.say("refused")
		return ha.StoreWritten{ID: x.ID, Refused: true}
	}
	s.rev++
	for _, p := range x.Puts {
		k := s.keys[p.Key]
		switch {
		case p.Node != nil:
			k.node = *p.Node
		case p.Group != nil:
			k.group = *p.Group
		case p.Brain != nil:
			k.brain = *p.Brain
		default:
			continue
		}
		k.rev = s.rev
		s.keys[p.Key] = k
	}
	return ha.StoreWritten{ID: x.ID, OK: true, At: s.rev}
}

func (s *theatre) hearing() ha.Hearing {
	in := ha.Hearing{Nodes: []ha.Heard{{Node: s.node, At: s.now, Said: s.said[s.node]}}}
	for _, n := range s.alive {
		hears, told := s.hears[n]
		if !told { // everybody who is alive
			hears = slices.DeleteFunc(append(slices.Clone(s.alive), s.node), func(o ha.Node) bool { return o == n })
		}
		in.Nodes = append(in.Nodes, ha.Heard{Node: n, At: s.now, Said: s.said[n], Hears: hears})
	}
	for _, h := range s.gone {
		in.Nodes = append(in.Nodes, h)
	}
	slices.SortFunc(in.Nodes, func(a, b ha.Heard) int { return cmp.Compare(a.Node, b.Node) })
	return in
}

// fact is one line: what becomes known, or what others do to the store.
func (s *theatre) fact(word string, rest []string) {
	switch word {
	case "alive":
		s.alive, s.gone = nil, map[ha.Node]ha.Heard{}
		for _, n := range rest {
			s.alive = append(s.alive, ha.Node(n))
		}
	case "away", "served": // away a: the store does not answer it, as it says from now on
		said := s.said[ha.Node(rest[0])]
		said.Away = word == "away"
		s.said[ha.Node(rest[0])] = said
	case "silent": // from now on; what they said last is known
		for _, h := range s.hearing().Nodes {
			if slices.Contains(rest, string(h.Node)) {
				s.gone[h.Node] = h
			}
		}
		s.alive = slices.DeleteFunc(s.alive, func(n ha.Node) bool { return slices.Contains(rest, string(n)) })
	case "hears": // hears b: c
		s.hears[ha.Node(rest[0])] = names[ha.Node](strings.Join(rest[1:], ","))
	case "unproved": // unproved a web: beside what it says
		said := s.said[ha.Node(rest[0])]
		said.Unproved = names[ha.Group](strings.Join(rest[1:], ","))
		s.said[ha.Node(rest[0])] = said
	case "says": // says a i1@5 web
		inc, key, _ := strings.Cut(rest[1], "@")
		s.said[ha.Node(rest[0])] = ha.Said{Incarnation: ha.Incarnation(inc), Key: ha.Rev(number(s.t, key)), Holds: names[ha.Group](strings.Join(rest[2:], ","))}
	case "put": // put a member i1 web:1.2
		s.rev++
		k := kept{rev: s.rev, node: ha.NodeRecord{Node: ha.Node(rest[0]), State: ha.NodeState(rest[1]), Incarnation: ha.Incarnation(rest[2]), Boot: "b1", Era: 1, Life: normal.Life}}
		for _, g := range rest[3:] {
			name, fence, _ := strings.Cut(g, ":")
			k.node.Grants = append(k.node.Grants, ha.Grant{Group: ha.Group(name), Fence: fenceOf(s.t, fence)})
		}
		if rest[1] == "off" { // put a off i1: evicted, and confirmed off
			k.node.State, k.node.Off = ha.NodeEvicted, true
		}
		s.keys[ha.NodeKey(k.node.Node)] = k
	case "group": // group web 1.2 a i1
		s.rev++
		g := ha.GroupRecord{Group: ha.Group(rest[0]), Fence: fenceOf(s.t, rest[1])}
		if len(rest) > 3 {
			g.Node, g.Incarnation = ha.Node(rest[2]), ha.Incarnation(rest[3])
		}
		s.keys[ha.GroupKey(g.Group)] = kept{rev: s.rev, group: g}
	case "epoch":
		s.rev++
		s.keys[ha.BrainKey] = kept{rev: s.rev, brain: ha.BrainRecord{Node: ha.Node(rest[0])}}
	case "stir": // the watch says that something has changed
		s.do(ha.Stirred{At: s.rev})
	case "vouch": // vouch a i1
		s.vouch(map[ha.Node]ha.Incarnation{ha.Node(rest[0]): ha.Incarnation(rest[1])})
	case "still": // nothing runs until the next line
		s.still = true
	case "hold": // from now on answers come by lines
		s.hold = true
	case "flow":
		s.hold = false
	case "answer": // the oldest read that waits is answered as things are now
		a := s.reads[0]
		s.reads = s.reads[1:]
		s.do(s.answer(a))
	case "failed": // so is the oldest read that waits
		a := s.reads[0].(ha.ReadStore)
		s.reads = s.reads[1:]
		s.do(ha.StoreRead{ID: a.ID, Error: "leader changed"})
	case "newest": // the newest read that waits
		if len(s.reads) == 0 {
			s.t.Fatalf("%v: no read waits", s.now)
		}
		a := s.reads[len(s.reads)-1]
		s.reads = s.reads[:len(s.reads)-1]
		s.do(s.answer(a))
	case "old": // old at=3 key=2 STATE INC groups: an answer from before, to the oldest read
		o := options(rest)
		a := s.reads[0].(ha.ReadNode)
		s.reads = s.reads[1:]
		keep := s.keys[ha.NodeKey(s.node)]
		r := keep.node
		r.Grants = nil
		for _, g := range strings.Split(o["grants"], ",") {
			if name, fence, ok := strings.Cut(g, ":"); ok {
				r.Grants = append(r.Grants, ha.Grant{Group: ha.Group(name), Fence: fenceOf(s.t, fence)})
			}
		}
		s.do(ha.NodeRead{ID: a.ID, At: ha.Rev(number(s.t, o["at"])), Key: ha.Rev(number(s.t, o["key"])), Record: r})
	case "commit":
		s.do(s.commit())
	case "lose": // committed, and its answer is lost
		s.commit()
	case "unknown":
		x := s.last
		s.last = nil
		s.do(ha.StoreWritten{ID: x.ID, Error: "no answer"})
	case "holds":
		var unproved []ha.Group
		if i := slices.Index(rest, "unproved"); i >= 0 {
			unproved, rest = names[ha.Group](strings.Join(rest[i+1:], ",")), rest[:i]
		}
		s.do(ha.Holds{Rights: uint64(number(s.t, rest[0])), Groups: names[ha.Group](strings.Join(rest[1:], ",")), Unproved: unproved})
	case "drawn":
		s.do(ha.Drawn{Incarnation: ha.Incarnation(rest[0])})
	case "departs":
		s.do(ha.Departs{})
	case "off":
		s.do(ha.Off{Node: ha.Node(rest[0]), Key: ha.Rev(number(s.t, rest[1]))})
	case "store":
		for _, name := range slices.Sorted(maps.Keys(s.keys)) {
			k := s.keys[name]
			switch {
			case k.node.Node != "":
				s.say("%s@%s %s", name, k.rev, k.node)
			case k.group.Group != "":
				s.say("%s@%s %s %s", name, k.rev, k.group.Fence, k.group.Node)
			default:
				s.say("%s@%s %s", name, k.rev, k.brain.Node)
			}
		}
	default:
		s.t.Fatalf("unknown word %q", word)
	}
}

// groups reads "web=a+b,db=b+a>a": the nodes of each, and where it is asked to be.
func (s *theatre) groups(text string) []place.Group {
	var all []place.Group
	for _, g := range strings.Split(text, ",") {
		name, nodes, ok := strings.Cut(g, "=")
		if !ok {
			continue
		}
		nodes, to, _ := strings.Cut(nodes, ">")
		x := place.Group{Name: ha.Group(name)}
		x.Request.Node = ha.Node(to)
		for _, n := range strings.Split(nodes, "+") {
			x.Rules.Nodes = append(x.Rules.Nodes, ha.Node(n))
		}
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b place.Group) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

func options(words []string) map[string]string {
	o := map[string]string{}
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		o[k] = v
	}
	return o
}

func names[T ~string](text string) []T {
	var all []T
	for _, n := range strings.Split(text, ",") {
		if n != "" {
			all = append(all, T(n))
		}
	}
	return all
}

func number(t *testing.T, text string) int64 {
	if text == "" {
		return 0
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("%q is no number", text)
	}
	return v
}

func fenceOf(t *testing.T, text string) ha.Fence {
	era, counter, _ := strings.Cut(text, ".")
	return ha.Fence{Era: uint64(number(t, era)), Counter: uint64(number(t, counter))}
}
