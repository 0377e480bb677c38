package ladder

import (
	"bufio"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/scenario"
)

var update = flag.Bool("update", false, "rewrite the outcomes of testdata/*.txt")

// TestScenarios plays each file of testdata: manifest lines begin with "|",
// input lines stand at the margin as "INSTANT WORD ...", what comes of them is
// indented. Deadlines between two inputs are kept on the way, and their outcomes
// begin with "@".
func TestScenarios(t *testing.T) { scenario.Play(t, 60, *update, play) }

// theatre plays one file.
type theatre struct {
	t    *testing.T
	m    *Machine
	kept map[string]string
	now  ha.Instant
	next ha.StartID
	out  strings.Builder
	man  []string // lines of the manifest being read
}

func play(t *testing.T, text string) string {
	s := &theatre{t: t, kept: map[string]string{}, next: 1}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "\t") {
			continue
		}
		if rest, ok := strings.CutPrefix(line, "| "); ok {
			s.man = append(s.man, rest)
			fmt.Fprintln(&s.out, line)
			continue
		}
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			fmt.Fprintln(&s.out, line)
			continue
		}
		s.line(line)
	}
	return s.out.String()
}

func (s *theatre) line(line string) {
	if len(s.man) > 0 {
		man := parseManifest(s.t, s.man)
		s.man = nil
		if s.m == nil {
			s.m = New(man, s.kept, s.next)
		} else {
			s.m.Want(man)
		}
	}
	word, rest, _ := strings.Cut(line, " ")
	if word == "restart" { // a new monitor takes over
		fmt.Fprintln(&s.out, line)
		man := s.m.man
		if s.m.next != nil {
			man = s.m.next // it was written down before the monitor could apply it
		}
		s.m = New(man, s.kept, s.next)
		return
	}
	d, err := time.ParseDuration(word)
	if err != nil {
		s.t.Fatalf("%q: %v", line, err)
	}
	at := ha.Instant(d)
	if strings.HasPrefix(rest, "boot") {
		s.now = at
	}
	for s.now < at {
		w, ok := s.m.Wake()
		if !ok || w >= at {
			break
		}
		s.now = w
		for _, a := range s.step(w, ha.Tick{}) {
			fmt.Fprintf(&s.out, "\t@%v %s\n", w, a)
		}
	}
	s.now = at
	fmt.Fprintln(&s.out, line)
	if rest == "status" {
		s.status()
		return
	}
	var in ha.Input = ha.Tick{}
	if rest != "" {
		in = s.input(line, strings.Fields(rest))
	}
	for _, a := range s.step(at, in) {
		fmt.Fprintf(&s.out, "\t%s\n", a)
	}
}

func (s *theatre) step(at ha.Instant, in ha.Input) []string {
	var out []string
	for _, a := range s.m.Step(at, in) {
		if a.Because().Rule == "" || a.Because().Text == "" {
			s.t.Errorf("%s has no reason", a.Name())
		}
		switch a := a.(type) {
		case ha.Keep:
			if a.Value == "" {
				delete(s.kept, a.Key)
			} else {
				s.kept[a.Key] = a.Value
			}
			if !a.Sync {
				continue // the scenarios show what is promised across a crash of the machine
			}
		case ha.Start:
			s.next = max(s.next, a.Start+1)
		case ha.Arm:
			s.next = max(s.next, a.Next+1)
		case ha.Seek:
			s.next = max(s.next, a.Start+1)
		}
		out = append(out, show(a))
	}
	return out
}

func (s *theatre) status() {
	for _, v := range s.m.Processes() {
		var also string
		if v.Locked {
			also += " locked" + lockedSince(v.Lock)
		}
		if v.Disabled {
			also += " disabled"
		}
		if v.Overlay {
			also += " overlay"
		}
		fmt.Fprintf(&s.out, "\t%s %s%s, start %d, restarts %d, %v/%v: %s\n", v.Name, v.State, also, v.Start, v.Window, v.Recovery, v.Escalation, v.Reason)
	}
	for _, c := range s.m.Checks() {
		fmt.Fprintf(&s.out, "\tcheck %s %s, failures %d, locked %v%s: %s\n", c.Name, c.State, c.Failures, c.Locked, lockedSince(c.Lock), c.Detail)
	}
	n := s.m.Node()
	fmt.Fprintf(&s.out, "\tnode locked=%v%s disabled=%v role=%v stopping=%v budget=%v\n", n.Locked, lockedSince(n.Lock), n.Disabled, n.Role, n.Stopping, n.Budget)
}

func lockedSince(l LockView) string {
	if l == (LockView{}) {
		return ""
	}
	return fmt.Sprintf(" since %s by %s", l.Since.Format(time.RFC3339), l.By)
}

// show prints one action in a line.
func show(a ha.Action) string {
	why := a.Because()
	tail := fmt.Sprintf("  [%s] %s", why.Rule, why.Text)
	switch a := a.(type) {
	case ha.Start:
		return fmt.Sprintf("start %s %d%s", a.Process, a.Start, tail)
	case ha.Arm:
		return fmt.Sprintf("arm %s %d -> %d%s", a.Process, a.Start, a.Next, tail)
	case ha.Stop:
		if a.Kill {
			return fmt.Sprintf("kill %s %d%s", a.Process, a.Start, tail)
		}
		return fmt.Sprintf("stop %s %d%s", a.Process, a.Start, tail)
	case ha.Extend:
		return fmt.Sprintf("extend %s %d until %v%s", a.Process, a.Start, a.Until, tail)
	case ha.Watch:
		return fmt.Sprintf("watch %s %d from %v within %v%s", a.Process, a.Start, a.From, a.Within, tail)
	case ha.Await:
		return fmt.Sprintf("await %s %d%s", a.Process, a.Start, tail)
	case ha.Judge:
		return fmt.Sprintf("judge %s %v%s", a.Check, a.On, tail)
	case ha.Seek:
		return fmt.Sprintf("seek %s %d%s", a.Process, a.Start, tail)
	case ha.Examine:
		return fmt.Sprintf("examine %s %d %v%s", a.Process, a.Start, a.Fault, tail)
	case ha.Handle:
		return fmt.Sprintf("handle %s %s%s", a.Process, a.Rung, tail)
	case ha.Failover:
		if a.Group != "" {
			return fmt.Sprintf("failover group %s nowhere=%v bar=%v%s", a.Group, a.Nowhere, a.Bar, tail)
		}
		return fmt.Sprintf("failover %s all=%v bar=%v%s", a.Process, a.All, a.Bar, tail)
	case ha.Reboot:
		return fmt.Sprintf("reboot for %s%s", a.Process, tail)
	case ha.Keep:
		return fmt.Sprintf("keep %s %s", a.Key, a.Value)
	case ha.Answer:
		if a.Undo != "" {
			tail += "; undo: " + a.Undo
		}
		return fmt.Sprintf("answer %s %v%s", a.ID, a.OK, tail)
	case ha.Done:
		return "done" + tail
	case ha.StartPart:
		again := ""
		if a.Again {
			again = " again"
		}
		return fmt.Sprintf("start-part %s %s fence %s%s%s", a.Group, a.Part, a.Fence, again, tail)
	case ha.StopPart:
		if a.Cut {
			return fmt.Sprintf("cut-part %s %s%s", a.Group, a.Part, tail)
		}
		return fmt.Sprintf("stop-part %s %s fence %s%s", a.Group, a.Part, a.Fence, tail)
	case ha.Entrust:
		return fmt.Sprintf("entrust %s %d to %s fence %s%s", a.Process, a.Start, a.Group, a.Fence, tail)
	case ha.Account:
		if len(a.Unproved) > 0 {
			return fmt.Sprintf("account %d %v unproved %v%s", a.Rights, a.Groups, a.Unproved, tail)
		}
		return fmt.Sprintf("account %d %v%s", a.Rights, a.Groups, tail)
	case ha.Emit:
		e := a.Event
		kind := "own"
		if entry, _ := e.Code.Entry(); entry.Classic {
			kind = "EVENT"
		}
		detail := ""
		if e.Detail != "" {
			detail = " -- " + e.Detail
		}
		if e.Evidence != "" {
			detail += " (evidence " + e.Evidence + ")"
		}
		role := ""
		if e.Role != ha.RoleNone {
			role = " " + e.Role.String()
		}
		return fmt.Sprintf("%s %d %q %v %v (%v uid %d%s)%s  [%s]", kind, e.Code, e.Text, e.Change, e.Severity, e.Subject, e.UID, role, detail, why.Rule)
	}
	return a.Name()
}

// input reads one fact. A start that is not named is the present one.
func (s *theatre) input(line string, words []string) ha.Input {
	kind, args := words[0], words[1:]
	name := ""
	if len(args) > 0 && !strings.Contains(args[0], "=") {
		name, args = args[0], args[1:]
	}
	opt := map[string]string{}
	for _, a := range args {
		k, v, ok := strings.Cut(a, "=")
		if !ok {
			v = "true"
		}
		opt[k] = strings.ReplaceAll(v, "_", " ")
	}
	num := func(k string) int {
		n, err := strconv.Atoi(opt[k])
		if err != nil && opt[k] != "" {
			s.t.Fatalf("%q: %v", line, err)
		}
		return n
	}
	id := ha.StartID(num("start"))
	if id == 0 {
		for _, v := range s.m.Processes() {
			if v.Name == ha.Process(name) {
				id = v.Start
			}
		}
		if p := s.m.procs[ha.Process(name)]; id == 0 && p != nil {
			id = p.run.start
		}
	}
	p := ha.Process(name)
	switch kind {
	case "boot":
		return ha.Booted{Boot: "boot-" + opt["id"], NewBoot: opt["new"] != "", Gap: dur(s.t, opt["gap"]), Node: ha.Node(opt["node"]), Cluster: opt["cluster"] != "", Alone: opt["alone"] != ""}
	case "entrusted":
		in := ha.Entrusted{Process: p, Start: id, Group: ha.Group(opt["group"]), Error: opt["error"], Unentitled: opt["unentitled"] != ""}
		if _, err := fmt.Sscanf(opt["fence"], "%d.%d", &in.Fence.Era, &in.Fence.Counter); err != nil {
			s.t.Fatalf("%q: %v", line, err)
		}
		return in
	case "may-run": // may-run 3 web=1.2 db=1.1,leaving
		in := ha.MayRun{}
		n, err := strconv.ParseUint(name, 10, 64)
		if err != nil {
			s.t.Fatalf("%q: %v", line, err)
		}
		in.Rights = n
		for _, g := range slices.Sorted(maps.Keys(opt)) {
			var r ha.Right
			r.Group = ha.Group(g)
			value, leaving := strings.CutSuffix(opt[g], ",leaving")
			r.Leaving = leaving
			if _, err := fmt.Sscanf(value, "%d.%d", &r.Fence.Era, &r.Fence.Counter); err != nil {
				s.t.Fatalf("%q: %v", line, err)
			}
			in.Groups = append(in.Groups, r)
		}
		return in
	case "lapsed":
		in := ha.Lapsed{Group: ha.Group(name)}
		if _, err := fmt.Sscanf(opt["fence"], "%d.%d", &in.Fence.Era, &in.Fence.Counter); err != nil {
			s.t.Fatalf("%q: %v", line, err)
		}
		return in
	case "part-done":
		return ha.PartDone{Group: ha.Group(name), Part: partOf(opt), On: opt["on"] != "", OK: opt["ok"] != "", Detail: opt["detail"],
			Gone: opt["gone"] != "", Hard: opt["hard"] != "", Fatal: opt["fatal"] != ""}
	case "group-freed":
		return ha.GroupFreed{Group: ha.Group(name)}
	case "part-lost":
		return ha.PartLost{Group: ha.Group(name), Part: partOf(opt), Detail: opt["detail"]}
	case "settled":
		return ha.Settled{}
	case "started":
		return ha.Started{Process: p, Start: id, PID: 1000 + int(id)}
	case "start-failed":
		return ha.StartFailed{Process: p, Start: id, Error: opt["error"], Unentitled: opt["unentitled"] != ""}
	case "exited":
		st := ha.ExitStatus{Code: num("exit")}
		if opt["signal"] != "" {
			st = ha.ExitStatus{Code: -1, Signal: num("signal")}
		}
		if opt["unknown"] != "" {
			st = ha.ExitStatus{Code: -1, Unknown: true}
		}
		in := ha.Exited{Process: p, Start: id, Status: st}
		if opt["heir"] != "" {
			in.Successor = ha.StartID(num("heir"))
			in.PID = 1000 + num("heir")
		}
		return in
	case "stop-failed":
		return ha.StopFailed{Process: p, Start: id, Detail: "in state D"}
	case "ready":
		return ha.Ready{Process: p, Start: id, How: "notify"}
	case "stopping":
		return ha.Stopping{Process: p, Start: id}
	case "busy":
		return ha.Busy{Process: p, Start: id, For: dur(s.t, opt["for"])}
	case "missed":
		return ha.Missed{Process: p, Start: id, Thread: opt["thread"], Last: s.now.Add(-4 * time.Second), Missing: 1}
	case "verdict":
		v := ha.Verdict{Check: ha.Check(name), OK: opt["ok"] != "", Detail: opt["says"]}
		if opt["accused"] != "" {
			for _, n := range strings.Split(opt["accused"], ",") {
				v.Accused = append(v.Accused, ha.Process(n))
			}
		}
		return v
	case "examined":
		return ha.Examined{Process: p, Start: id, Ref: opt["ref"]}
	case "failed-over":
		var o ha.Outcome
		if err := o.UnmarshalText([]byte(opt["outcome"])); err != nil {
			s.t.Fatalf("%q: %v", line, err)
		}
		return ha.FailedOver{Process: p, Group: ha.Group(opt["group"]), Outcome: o, Detail: opt["detail"], StillActive: opt["active"] != ""}
	case "reboot-failed":
		return ha.RebootFailed{Process: p, Detail: opt["detail"]}
	case "role":
		var r ha.Role
		if err := r.UnmarshalText([]byte(opt["is"])); err != nil {
			s.t.Fatalf("%q: %v", line, err)
		}
		return ha.RoleSet{Process: p, Role: r}
	case "half-died":
		return ha.HalfDied{Half: ha.Kind(name), Status: ha.ExitStatus{Code: -1, Signal: 9}, Hung: opt["hung"] != ""}
	case "half-back":
		return ha.HalfBack{Half: ha.Kind(name), PID: 77}
	case "adopted":
		return ha.Adopted{Process: p, Start: id, PID: 1000 + int(id), Age: ha.Instant(dur(s.t, opt["since"])), Foreign: opt["foreign"] != "", Armed: ha.StartID(num("armed")), Of: ha.Group(opt["of"])}
	case "not-found":
		return ha.NotFound{Process: p, Detail: "no such pid"}
	case "applied":
		return ha.Applied{Version: 2}
	case "quit":
		return ha.Quit{Why: "SIGTERM"}
	case "ask":
		r := ha.Request{ID: "r", Verb: ha.Verb(name), Value: opt["value"], By: "root"}
		if at := dur(s.t, opt["wall"]); at != 0 {
			r.Wall = time.Unix(1_700_000_000, 0).Add(at)
		}
		switch {
		case opt["node"] != "":
			r.Target = ha.OfNode()
		case opt["check"] != "":
			r.Target = ha.OfCheck(ha.Check(opt["check"]))
		case opt["group"] != "":
			r.Target = ha.Subject{Kind: ha.KindGroup, Name: opt["group"]}
		default:
			r.Target = ha.OfProcess(ha.Process(opt["process"]))
		}
		return r
	}
	s.t.Fatalf("%q: unknown input", line)
	return nil
}

func partOf(opt map[string]string) ha.Part {
	if opt["script"] != "" {
		return ha.Part("script " + opt["script"])
	}
	if opt["ocf"] != "" {
		return ha.Part("ocf " + opt["ocf"])
	}
	return ha.Part("address " + opt["address"])
}

func dur(t *testing.T, s string) time.Duration {
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// parseManifest reads "process NAME key=value ...", "check ...", "group ..." and
// "node ..." lines, with the manifest's defaults.
func parseManifest(t *testing.T, lines []string) *manifest.Manifest {
	m := &manifest.Manifest{Node: manifest.Node{Budget: manifest.Budget{Limit: 3, Within: 6 * time.Hour}}}
	for _, line := range lines {
		words := strings.Fields(line)
		opt := map[string]string{}
		name := ""
		for i, w := range words[1:] {
			k, v, ok := strings.Cut(w, "=")
			if i == 0 && !ok {
				name = w
				continue
			}
			opt[k] = v
		}
		switch words[0] {
		case "process":
			m.Processes = append(m.Processes, parseProcess(t, name, opt))
		case "check":
			c := manifest.Check{Name: ha.Check(name), UID: 176, Failures: 3, Covers: processes(opt["covers"])}
			if opt["failures"] != "" {
				c.Failures, _ = strconv.Atoi(opt["failures"])
			}
			m.Checks = append(m.Checks, c)
		case "group":
			g := manifest.Group{Name: ha.Group(name), Run: processes(opt["run"]), Standby: processes(opt["standby"]),
				StartTimeout: dur(t, opt["start-timeout"]), StopTimeout: dur(t, opt["stop-timeout"])}
			for _, n := range processes(opt["nodes"]) {
				g.Nodes = append(g.Nodes, ha.Node(n))
			}
			if opt["address"] != "" {
				for a := range strings.SplitSeq(opt["address"], ",") {
					g.Addresses = append(g.Addresses, manifest.Address{Prefix: netip.MustParsePrefix(a)})
				}
			}
			for n := range strings.SplitSeq(opt["script"], ",") {
				if n != "" {
					g.Scripts = append(g.Scripts, manifest.Script{Name: n})
				}
			}
			if opt["order"] != "" {
				g.Order = strings.Split(opt["order"], ",")
			}
			m.Groups = append(m.Groups, g)
		case "node":
			m.Node.Budget.Limit, _ = strconv.Atoi(opt["budget"])
		default:
			t.Fatalf("manifest: %q", line)
		}
	}
	return m
}

func processes(s string) []ha.Process {
	var list []ha.Process
	for n := range strings.SplitSeq(s, ",") {
		if n != "" {
			list = append(list, ha.Process(n))
		}
	}
	return list
}

func parseProcess(t *testing.T, name string, opt map[string]string) manifest.Process {
	p := manifest.Process{Name: ha.Process(name), UID: 51, Command: []string{"/bin/" + name}, Severity: ha.Minor, Recovery: ha.RecoveryRestart,
		Restarts: manifest.Restarts{Limit: 5, Within: 15 * time.Minute, Then: ha.EscalationNone, Delay: 500 * time.Millisecond, DelayMax: 30 * time.Second},
		RampUp:   5 * time.Second, AutoStart: true}
	var err error
	for _, k := range slices.Backward(slices.Sorted(maps.Keys(opt))) { // watchdog before retries, by before attach
		v := opt[k]
		switch k {
		case "uid":
			var n int
			n, err = strconv.Atoi(v)
			p.UID = ha.UID(n)
		case "command":
			p.Command = []string{v}
		case "severity":
			err = p.Severity.UnmarshalText([]byte(v))
		case "recovery":
			err = p.Recovery.UnmarshalText([]byte(v))
		case "then":
			err = p.Restarts.Then.UnmarshalText([]byte(v))
		case "limit":
			p.Restarts.Limit, err = strconv.Atoi(v)
		case "within":
			p.Restarts.Within = dur(t, v)
		case "delay":
			p.Restarts.Delay = dur(t, v)
		case "ramp":
			p.RampUp = dur(t, v)
		case "needs":
			p.Needs = processes(v)
		case "after":
			p.After = processes(v)
		case "follows":
			p.Follows = processes(v)
		case "ready":
			p.Ready = manifest.Ready{Kind: manifest.ReadyKind(v), Timeout: time.Minute}
		case "grace":
			p.Stop.Grace = dur(t, v)
		case "watchdog":
			p.Watchdog = manifest.Watchdog{Interval: dur(t, v), Retries: 3}
		case "retries":
			p.Watchdog.Retries, err = strconv.Atoi(v)
		case "beats": // who tells them: page, notify, command
			p.Watchdog.By = v
		case "task":
			p.Task = true
		case "on":
			for n := range strings.SplitSeq(v, ",") {
				p.On = append(p.On, ha.Node(n))
			}
		case "autostart":
			p.AutoStart = v == "true"
		case "attach":
			p.Attach = manifest.Attach{PIDFile: v, Every: 2 * time.Second, Start: p.Attach.Start}
		case "by":
			p.Attach.Start = []string{v}
		case "handlers":
			h := manifest.Handler{Command: []string{v}}
			p.Handlers = manifest.Handlers{Restart: h, Failover: h, Reboot: h, GiveUp: h, Recovered: h}
		case "exit": // exit=3:done,7:give-up
			for r := range strings.SplitSeq(v, ",") {
				code, do, _ := strings.Cut(r, ":")
				var n int
				n, err = strconv.Atoi(code)
				rule := manifest.ExitRule{Codes: []int{n}, Do: manifest.ExitAction(do)}
				if n > 200 {
					rule = manifest.ExitRule{Signals: []int{n - 200}, Do: manifest.ExitAction(do)}
				}
				p.Exits = append(p.Exits, rule)
			}
		default:
			t.Fatalf("process %s: unknown key %q", name, k)
		}
		if err != nil {
			t.Fatalf("process %s: %s: %v", name, k, err)
		}
	}
	if p.Attach.Start != nil && opt["attach"] != "" {
		p.Attach = manifest.Attach{PIDFile: opt["attach"], Every: 2 * time.Second, Start: []string{opt["by"]}}
	}
	return p
}
