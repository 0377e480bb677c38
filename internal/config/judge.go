package config

import (
	"fmt"
	"strings"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// A judge finds what takes more than one key to see.
type judge struct {
	*reader
	m         *manifest.Manifest
	processes map[ha.Process]*manifest.Process
	checks    map[ha.Check]bool
	names     []string // of the processes, for hints
}

// settleAll brings the manifest into order and fills in the defaults that depend
// on other keys.
func settleAll(r *reader, m *manifest.Manifest) {
	for i := range m.Processes {
		settle(r, sub("processes", string(m.Processes[i].Name)), &m.Processes[i])
	}
	for i := range m.Checks {
		settleCheck(r, sub("checks", string(m.Checks[i].Name)), &m.Checks[i])
	}
	for i := range m.Groups {
		if g := &m.Groups[i]; !r.given(sub("groups", string(g.Name)) + ".require-level") {
			g.RequireLevel = defaultLevel(g)
		}
	}
	sortAll(m)
}

// settle fills in what a process has for a default because of its other keys.
func settle(r *reader, path string, p *manifest.Process) {
	given := func(key string) bool { return r.given(path + "." + key) }
	if !given("restarts.delay-max") {
		p.Restarts.DelayMax = defaultDelayMax(p.Restarts)
	}
	if !given("spare") {
		p.Spare = defaultSpare(p)
	}
}

func defaultDelayMax(r manifest.Restarts) time.Duration {
	return max(freshRestarts().DelayMax, r.Delay)
}

// settleCheck fills in what a check has for a default because of its other keys.
func settleCheck(r *reader, path string, c *manifest.Check) {
	if c.Once && !r.given(path+".every") {
		c.Every = 0
	}
	if len(timeouts(r, path)) == 0 {
		c.Timeout = defaultTimeout(c)
	}
	if !r.given(path + ".failures") {
		c.Failures = defaultFailures(c)
	}
}

func defaultTimeout(c *manifest.Check) time.Duration {
	if c.Once {
		return checkTimeout
	}
	return min(checkTimeout, c.Every)
}

func defaultFailures(c *manifest.Check) int {
	if c.Once {
		return 1
	}
	return 3
}

// timeouts returns the keys by which the time-out of a check is written.
func timeouts(r *reader, path string) []string {
	var out []string
	for _, key := range []string{"timeout", "http.timeout", "tcp.timeout", "grpc.timeout"} {
		if r.given(path + "." + key) {
			out = append(out, key)
		}
	}
	return out
}

// run judges the whole manifest.
func (j *judge) run() {
	j.processes, j.checks = map[ha.Process]*manifest.Process{}, map[ha.Check]bool{}
	for i := range j.m.Processes {
		p := &j.m.Processes[i]
		j.processes[p.Name] = p
		j.names = append(j.names, string(p.Name))
	}
	for i := range j.m.Checks {
		j.checks[j.m.Checks[i].Name] = true
	}
	for i := range j.m.Processes {
		p := &j.m.Processes[i]
		path := sub("processes", string(p.Name))
		j.source(path, p)
		j.attached(path, p)
		j.timing(path, p)
		j.effects(path, p)
		j.exits(path, p)
		j.references(path, p)
	}
	for i := range j.m.Checks {
		j.check(sub("checks", string(j.m.Checks[i].Name)), &j.m.Checks[i])
	}
	j.ids()
	j.circles()
	groupJudge{j}.run()
	j.files()
}

// source: where the program comes from.
func (j *judge) source(path string, p *manifest.Process) {
	var ways []string
	for _, key := range []string{"command", "shell", "attach"} {
		if j.given(path + "." + key) {
			ways = append(ways, key)
		}
	}
	switch len(ways) {
	case 0:
		if j.notMap[path] {
			return // that is told
		}
		j.refuse(path, "nothing says which program it is; allowed: one of command, shell or attach",
			"add command: [/path/of/the/program, argument]")
	case 1:
	default:
		j.refuse(path+"."+ways[1], "found "+anyAnd(ways)+"; allowed: one of command, shell or attach", "remove all but one")
	}
}

// attached: what holds for a program that Gemel did not start.
func (j *judge) attached(path string, p *manifest.Process) {
	if !j.given(path + ".attach") {
		return
	}
	var ways []string
	for _, key := range []string{"pidfile", "command-line", "unit"} {
		if j.given(path + ".attach." + key) {
			ways = append(ways, key)
		}
	}
	if len(ways) != 1 {
		found := "nothing of these"
		if len(ways) > 0 {
			found = anyAnd(ways)
		}
		j.refuse(path+".attach", "found "+found+"; allowed: exactly one of pidfile, command-line or unit", "")
	}
	for _, key := range []string{"directory", "umask", "nice", "limits", "capabilities", "no-new-privileges", "resources",
		"oom-score", "output", "spare", "task", "user", "group", "groups", "environment", "env-file", "inherit-environment"} {
		if j.given(path + "." + key) {
			j.refuse(path+"."+key, key+" has no effect with attach: Gemel does not start this program", "remove it, or use command instead of attach")
		}
	}
	if p.Ready.Kind == manifest.ReadyNotify {
		j.refuse(path+".ready", "found notify; allowed with attach: port, file or check", "a program that Gemel did not start has no socket to say READY=1")
	}
	if p.Watchdog.Interval > 0 && p.Watchdog.By != "command" {
		j.refuse(path+".watchdog", "allowed with attach: by: command", "a program that Gemel did not start has no beat page and no notify socket")
	}
}

// timing: durations that contradict each other.
func (j *judge) timing(path string, p *manifest.Process) {
	r, w := p.Restarts, p.Watchdog
	if r.DelayMax < r.Delay {
		j.refuse(path+".restarts.delay-max", fmt.Sprintf("found %s, which is less than the delay of %s", durationText(r.DelayMax), durationText(r.Delay)), "raise delay-max, or lower delay")
	}
	if w.Interval > 0 && w.Silence() > r.Within && p.Recovery != ha.RecoveryNone {
		j.refuse(path+".watchdog", fmt.Sprintf("a fault is seen after %s of silence, which is more than restarts.within, %s: the limit could never be reached",
			durationText(w.Silence()), durationText(r.Within)), "lower interval or retries, or raise restarts.within")
	}
	if pause := pauses(r); pause > r.Within && j.given(path+".restarts.then") && r.Then != ha.EscalationNone {
		j.refuse(path+".restarts", fmt.Sprintf("the pauses between %d restarts take %s, which is more than within, %s: the limit could never be reached, and %s never happen",
			r.Limit, durationText(pause.Round(time.Millisecond)), durationText(r.Within), r.Then), "lower limit or delay-max, or raise within")
	}
	if j.given(path+".ready.timeout") && j.given(path+".ramp-up") && p.Ready.Timeout < p.RampUp {
		j.refuse(path+".ready.timeout", fmt.Sprintf("found %s, which is less than the ramp-up of %s: the start would have failed before it is over",
			durationText(p.Ready.Timeout), durationText(p.RampUp)), "raise timeout, or lower ramp-up")
	}
	switch {
	case w.By == "command" && len(w.Command) == 0:
		j.refuse(path+".watchdog", "found by: command without a command", "add command: [/path/of/the/program]")
	case w.By != "command" && len(w.Command) > 0:
		j.refuse(path+".watchdog.command", "found a command without by: command", "add by: command, or remove it")
	}
}

// pauses is the time that the restarts of one window wait at least.
func pauses(r manifest.Restarts) time.Duration {
	var sum time.Duration
	d := r.Delay
	for n := 2; n <= r.Limit; n++ {
		if sum += min(d, r.DelayMax); sum > r.Within || sum < 0 {
			return sum + time.Duration(r.Limit-n)*min(d, r.DelayMax)
		}
		if d == 0 {
			return 0 // and so are all that follow
		}
		if d < r.DelayMax {
			d *= 2
		}
	}
	return sum
}

// effects: keys that cannot do anything beside others.
func (j *judge) effects(path string, p *manifest.Process) {
	none := func(key, why, hint string) {
		if j.given(path + "." + key) {
			j.refuse(path+"."+key, key+" has no effect "+why, hint)
		}
	}
	if p.Spare {
		switch {
		case p.Recovery == ha.RecoveryNone:
			none("spare", "with recovery: none, because it is never started again", "remove it, or use recovery: restart")
		case p.Task:
			none("spare", "with task: true, because a task runs once", "remove it")
		}
	}
	if p.Output.Mode != "capture" {
		for _, key := range []string{"size", "keep", "rate"} {
			none("output."+key, "with mode: "+p.Output.Mode, "remove it, or use mode: capture")
		}
	}
	if p.Ready.Kind == manifest.ReadyNotify && p.Task {
		none("task", "with ready: notify, because a task is ready when it is done", "remove one of the two")
	}
}

// exits: rules that can never match.
func (j *judge) exits(path string, p *manifest.Process) {
	codes, signals := map[int]int{}, map[int]int{}
	for i, e := range p.Exits {
		at := item(path+".exits", i)
		if len(e.Codes) == 0 && len(e.Signals) == 0 {
			j.refuse(at, "the rule matches nothing; allowed: code, signal or both", "add code: [0, 3] or signal: [TERM]")
		}
		for _, c := range e.Codes {
			if first, ok := codes[c]; ok && first != i {
				j.refuse(at+".code", fmt.Sprintf("exit code %d is matched by exits[%d] already", c, first), "the first rule that matches counts; remove one of the two")
				continue
			}
			codes[c] = i
		}
		for _, s := range e.Signals {
			if first, ok := signals[s]; ok && first != i {
				j.refuse(at+".signal", fmt.Sprintf("signal %s is matched by exits[%d] already", ha.SignalName(s), first), "the first rule that matches counts; remove one of the two")
				continue
			}
			signals[s] = i
		}
	}
}

// anyAnd prints "a, b and c".
func anyAnd(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
