package ladder

import (
	"fmt"
	"strings"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// phase is what is known of the copy of a program.
type phase uint8

const (
	absent   phase = iota // there is none
	seeking               // it is looked for by its attach rule
	starting              // its start was ordered
	up                    // it runs
	stopping              // its stop was ordered
	stuck                 // it is there after SIGKILL
)

// run is the one copy of a program that may be there.
type run struct {
	phase   phase
	start   ha.StartID
	armed   ha.StartID // the successor of the standing order; zero for none
	pid     int
	began   ha.Instant // when it was started
	from    ha.Instant // ramp-up and readiness, then its stop, count from here
	watch   time.Duration
	ready   bool // what needs it may start
	settled bool // past its ramp-up: it is judged
	again   bool // the start was a restart: those who follow it are restarted
	heir    bool // made by the standing order; not yet accepted
	foreign bool // Gemel did not start it
	parting
	taking
}

// parting is the end of a copy.
type parting struct {
	back    bool // its stop is to be followed by a start
	alarmed bool // that it cannot be killed is the alarm that stands
	stop    ha.Reason
	expel   ha.Reason // why it must not run, if so
}

// proc is the machine of one process.
type proc struct {
	m       *Machine
	name    ha.Process
	cfg     *manifest.Process // of the manifest in force: nobody changes it
	mem     memory
	safe    hard // the part of it that is on the disk
	run     run
	plan    plan
	near    []*proc // whose start or stop may wait for this one, and for which this one waits
	checks  []*check
	due     ha.Instant // deadline in the heap; zero for none
	state   State
	since   ha.Instant
	dirty   bool
	rank    int // grows along needs and after
	touched bool
}

// walk is what the last walk along needs found at a process.
type walk struct {
	number uint64 // of the walk; see Machine.visit
	bar    string
	ok     bool
}

// plan is what is wanted of a process beside its memory.
type plan struct {
	gone  bool       // not in the manifest any more
	turn  ha.Reason  // restart once, if the rule is set
	hold  ha.Instant // it is not started, or looked for, before this
	again bool       // its next start is a restart
	told  bool       // that nothing matches was said
	role  ha.Role
	ruled bool // role is its own
	group bool // a group's active set holds it
	bars
	standby bool         // a group's standby set holds it
	sought  ha.StartID   // the id of the search that found nothing
	strays  []ha.StartID // those that the monitor before knew
	broken  string       // why its memory could not be read
	stale   bool         // its copy is being stopped and the manifest changed what it is started as
	walk    walk
}

// bars are whose a program is, and why it does not run here.
type bars struct {
	home ha.Group // that it is active with; empty: none
	bar  string   // its group is not active here
	idle string   // it is a program of standbys, and this is none
}

const processKey = "process/"

func (p *proc) key() string { return processKey + string(p.name) }

// alive reports whether a copy is there, or may be.
func (p *proc) alive() bool { return p.run.phase >= starting }

// watched reports whether faults of the process are recovered.
func (p *proc) watched() bool {
	return p.m.node.watching() && !p.mem.Hard.Locked && !p.mem.Hard.Disabled
}

// judged reports whether a fault of watchdog or integrity of it can be believed.
func (p *proc) judged() bool {
	return p.run.phase == up && p.run.settled && p.watched() && p.mem.Cure.Stage == idle && p.plan.turn.Rule == ""
}

func (p *proc) recovery() ha.Recovery {
	if r := p.mem.Hard.Recovery; r != ha.RecoveryUnset {
		return r
	}
	return p.cfg.Recovery
}

func (p *proc) escalation() ha.Escalation {
	if e := p.mem.Hard.Escalation; e != ha.EscalationUnset {
		return e
	}
	return p.cfg.Restarts.Then
}

// role is the node's role as far as this process is concerned.
func (p *proc) role() ha.Role {
	if p.plan.ruled {
		return p.plan.role
	}
	return p.m.node.role
}

// away reports whether its group is active elsewhere.
func (p *proc) away() bool {
	return p.plan.group && !p.plan.standby && p.plan.ruled && p.plan.role == ha.Standby
}

// elsewhere reports whether the manifest has it run on other nodes only.
func elsewhere(p *proc) bool { return !p.plan.gone && !p.cfg.For(p.m.node.name) }

// depart takes away what was wrong with a process that is not for this node any
// more: nobody could repair it here, so that its alarm would stand for ever.
func depart(p *proc) {
	if p.mem.Cure.Stage == rebooting {
		return
	}
	if p.mem.Cure.Stage != idle {
		cancel(p)
	}
	if p.mem.Cure.Fault != ha.FaultNone || p.mem.Hard.Disabled {
		initialize(p, barElsewhere(p))
	}
}

// barElsewhere says why a process does not run here.
func barElsewhere(p *proc) string {
	on := make([]string, len(p.cfg.On))
	for i, n := range p.cfg.On {
		on[i] = string(n)
	}
	return fmt.Sprintf("it is not for this node (%s): on: names %s", p.m.node.name, strings.Join(on, ", "))
}

// emit tells an event of this process.
func (p *proc) emit(code ha.Code, detail string, why ha.Reason) {
	p.tell(code, detail, func(e *ha.Event) { e.Why = why })
}

func (p *proc) tell(code ha.Code, detail string, more func(*ha.Event)) {
	switch code {
	case ha.ProcessStuck:
		p.run.alarmed = true
	case ha.Initialized, ha.Recovered:
		p.run.alarmed = false
	}
	entry, _ := code.Entry()
	e := ha.Event{At: p.m.now, Code: code, Subject: ha.OfProcess(p.name), UID: p.cfg.UID, Change: entry.Change,
		Severity: p.cfg.Severity, Text: entry.Text, Detail: detail, Start: p.mem.Start, Role: p.role()}
	switch code {
	case ha.Recovered, ha.Initialized, ha.ProcessStarted, ha.ProcessStopped, ha.ProcessExpected, ha.ProcessReady,
		ha.ProcessAdopted, ha.EvidenceTaken:
		e.Severity = ha.OK
	case ha.ExistenceRecovering, ha.ExistenceDisabled:
		e.Fault = ha.FaultExistence
	case ha.IntegrityRecovering, ha.IntegrityDisabled:
		e.Fault = ha.FaultIntegrity
	case ha.WatchdogRecovering, ha.WatchdogDisabled:
		e.Fault = ha.FaultWatchdog
	}
	if e.Fault != ha.FaultNone && p.mem.Cure.Start != 0 {
		e.Start = p.mem.Cure.Start
	}
	more(&e)
	p.m.do(ha.Emit{Event: e})
}

// reconcile brings the process one step nearer to what is wanted: time first,
// then the copy.
func (p *proc) reconcile() {
	clockwork(p)
	if elsewhere(p) {
		depart(p)
	}
	switch p.run.phase {
	case starting, up:
		if why, back, must := mustStop(p); must {
			stop(p, why, back)
			return
		}
		p.watch()
		arm(p)
	case seeking:
		if why, _, must := mustStop(p); must {
			p.run = run{}
			p.m.touch(p)
			_ = why
		}
	case absent:
		if p.plan.gone {
			if len(p.mem.Strays) == 0 {
				remove(p.m, p)
			}
			return
		}
		p.plan.turn = ha.Reason{}
		if _, ok := intended(p); !ok && (p.mem.Cure.Stage == ending || p.mem.Cure.Stage == waiting) {
			p.mem.Cure.Stage = idle // it is not wanted any more; its alarm stands until it works again
		}
		if why, ok := mayStart(p); ok {
			start(p, why)
		}
	}
}

// clockwork does what is due by time alone.
func clockwork(p *proc) {
	now := p.m.now
	if p.mem.Cure.Stage == examining && now >= p.mem.Cure.Due {
		recoverFrom(p, because(ruleEvidence, "the time for evidence is over", "bound", ha.ExamineBound))
	}
	if p.run.phase != up || p.run.settled {
		return
	}
	if p.cfg.Ready.Kind == manifest.ReadyStarted {
		if now >= p.run.from.Add(p.cfg.RampUp) {
			p.settled("nothing failed during its ramp-up of " + ha.Span(p.cfg.RampUp))
		}
		return
	}
	if t := lastCall(p); t > 0 && now >= t && p.watched() && p.mem.Cure.Stage == idle && p.plan.turn.Rule == "" {
		text := fmt.Sprintf("not ready within %s", ha.Span(p.cfg.Ready.Timeout))
		if p.mem.More > p.run.from.Add(p.cfg.Ready.Timeout) {
			text += ", nor in the time that it asked for"
		}
		fault(p, ha.FaultIntegrity, p.run.start, text, because(ruleFault, text, "ready", p.cfg.Ready.Kind, "start", p.run.start))
	}
}

// lastCall returns when a start that is not ready has failed; zero for never.
func lastCall(p *proc) ha.Instant {
	if p.cfg.Ready.Timeout <= 0 {
		return 0
	}
	return max(p.run.from.Add(p.cfg.Ready.Timeout), p.mem.More)
}

// deadline returns when clockwork, or the standing order, has to be looked at
// again; zero for never.
func deadline(p *proc) ha.Instant {
	var at ha.Instant
	first := func(t ha.Instant) {
		if t > p.m.now && (at == 0 || t < at) {
			at = t
		}
	}
	switch p.mem.Cure.Stage {
	case examining:
		first(p.mem.Cure.Due)
	case waiting:
		if p.run.phase == absent {
			first(p.mem.Cure.Due)
		}
	}
	switch p.run.phase {
	case absent:
		first(p.plan.hold)
	case starting, up:
		if p.run.phase == up && !p.run.settled {
			if p.cfg.Ready.Kind == manifest.ReadyStarted {
				first(p.run.from.Add(p.cfg.RampUp))
			} else {
				first(lastCall(p))
			}
		}
		if t, ok := p.mem.Window.easier(p.m.now, p.cfg.Restarts); ok && p.run.armed == 0 && armable(p) {
			first(t)
		}
	}
	return at
}

// settled says that the program works: it is judged from now on.
func (p *proc) settled(how string) {
	p.run.settled = true
	if !p.run.ready {
		p.ready()
	}
	p.m.touch(p)
	if p.watched() && p.mem.Cure.Stage == idle {
		p.recovered(how)
	}
}

// recovered takes the alarm away, if one stands.
func (p *proc) recovered(how string) {
	if p.mem.Cure.Fault == ha.FaultNone {
		return
	}
	p.mem.Cure = cure{}
	why := because(ruleRecovered, how, "start", p.run.start)
	p.emit(ha.Recovered, how, why)
	p.handle("recovered", p.cfg.Handlers.Recovered, why)
}

// ready lets start what needs the program, and restarts what follows it.
func (p *proc) ready() {
	p.run.ready = true
	if p.mem.Stop != p.run.start {
		p.mem.More = 0
	}
	if p.cfg.Ready.Kind != manifest.ReadyStarted {
		p.mem.Ready = p.run.start
	}
	p.m.touch(p)
	if !p.run.again {
		return
	}
	p.run.again = false
	for _, q := range p.near {
		if q.run.phase == up && q.watched() && has(q.cfg.Follows, p.name) && q.mem.Cure.Stage == idle {
			q.plan.turn = because(ruleFollow, fmt.Sprintf("%s follows %s, which was restarted", q.name, p.name), "start", p.run.start)
			p.m.touch(q)
		}
	}
}

// handle orders the handler of a rung, if the manifest has one.
func (p *proc) handle(rung string, h manifest.Handler, why ha.Reason) {
	if len(h.Command) > 0 {
		p.m.do(ha.Handle{Process: p.name, Rung: rung, Why: why})
	}
}

// keep writes the memory down if it changed.
func (p *proc) keep() {
	p.mem.Boot = p.m.node.boot
	value := save(p.mem)
	key := p.key()
	old := p.m.kept[key]
	if value == old || old == "" && value == save(memory{Boot: p.mem.Boot}) {
		return
	}
	sync := p.safe != p.mem.Hard
	p.safe = p.mem.Hard
	p.m.kept[key] = value
	p.m.do(ha.Keep{Key: key, Value: value, Sync: sync,
		Why: because(ruleKeep, "the next monitor must know this of "+string(p.name))})
}

func has(list []ha.Process, name ha.Process) bool {
	for _, n := range list {
		if n == name {
			return true
		}
	}
	return false
}
