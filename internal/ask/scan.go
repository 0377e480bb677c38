package ask

import (
	"encoding/json"
	"math"

	"gemel/internal/ha"
	"gemel/internal/journal"
)

// A pass is one reading of the newest part of a journal.
type pass struct {
	take func(journal.Record)
	// enough says after the pass whether the part was large enough; it is given
	// the part's first record. If not, a larger part is read anew.
	enough func(first journal.Record) bool
}

// backward reads the newest part of a journal, and as long as that is not enough
// a larger one, from its beginning, until it is the whole. only is that of
// journal.Read.
func backward(dir string, begin func() pass, only ...string) error {
	newest := uint64(0)
	err := journal.Read(dir, math.MaxUint64, func(r journal.Record) bool {
		newest = r.Seq
		return true
	})
	if err != nil {
		return err
	}
	from, step := max(newest, 1), uint64(0)
	for {
		p := begin()
		var first, last uint64
		var head journal.Record
		err := journal.Read(dir, from, func(r journal.Record) bool {
			if first == 0 {
				first, head = r.Seq, r
			}
			last = r.Seq
			p.take(r)
			return true
		}, only...)
		if err != nil || from <= 1 || first > from || p.enough(head) {
			return err
		}
		step = 2 * max(step, last-min(from, last), 500)
		from -= min(from-1, step)
	}
}

// mentions returns what the JSON of each step that concerns a subject, or who
// locked the node, holds.
func mentions(s ha.Subject) []string {
	node := []string{`"kind":"node"`}
	if s.Kind == ha.KindProcess || s.Kind == ha.KindCheck {
		name, err := json.Marshal(s.Name)
		if err != nil {
			return nil
		}
		return append(node, string(name))
	}
	return nil // facts about the node name nothing
}

// maxTurns bounds what is held of a journal that is full of one subject.
const maxTurns = 2000

// A turn is one record, with only those actions that concern the subject.
type turn struct {
	journal.Record
	of      ha.Subject // the one that is asked about
	started ha.Instant // of the start that the input is about; 0 if not known
}

// A collector picks the turns of one subject.
type collector struct {
	subject  ha.Subject
	keep     uint64 // this event must stay
	held     bool   // and it is there: nothing before it is dropped any more
	turns    []turn
	notes    []string
	manifest []byte
	boot     string
	begun    map[ha.StartID]ha.Instant // of the newest starts
	pids     map[ha.StartID]int
	alive    ha.StartID // 0: none is known to run
	last     map[ha.Verb]turn
	gaveUp   *turn
	standing map[string]ha.Event
}

func newCollector(s ha.Subject) *collector {
	return &collector{subject: s, begun: map[ha.StartID]ha.Instant{}, pids: map[ha.StartID]int{},
		last: map[ha.Verb]turn{}, standing: map[string]ha.Event{}}
}

const maxNotes = 5

func (c *collector) take(r journal.Record) {
	switch r.Kind {
	case journal.KindBase:
		c.manifest = r.Base.Manifest
		return
	case journal.KindManifest:
		c.manifest = r.Bytes
		return
	case journal.KindGap:
		if len(c.notes) < maxNotes {
			c.notes = append(c.notes, "the journal is not whole here: "+r.Note)
		}
		return
	case journal.KindStep:
	default:
		return
	}
	if r.Boot != c.boot { // starts end with the boot
		c.boot, c.alive = r.Boot, 0
		clear(c.begun)
	}
	t := turn{Record: r, of: c.subject}
	t.Actions = nil
	about := isAbout(c.subject, r.Input)
	for _, a := range r.Actions {
		if _, answer := a.(ha.Answer); answer && about || concerns(c.subject, a) || about && found(c.subject, a) {
			t.Actions = append(t.Actions, a)
		}
	}
	if req, ok := r.Input.(ha.Request); ok && granted(r) && (req.Target == c.subject || req.Target.Kind == ha.KindNode) {
		c.last[req.Verb] = turn{Record: r}
	}
	if len(t.Actions) == 0 && !about {
		return
	}
	c.follow(&t)
	if !telling(c.subject, t) {
		return
	}
	c.turns = append(c.turns, t)
	if len(c.turns) > maxTurns && !c.held {
		c.turns = append(c.turns[:0], c.turns[len(c.turns)-maxTurns/2:]...)
	} else if len(c.turns) > 2*maxTurns {
		c.turns = c.turns[:2*maxTurns] // the event is there; what came of it so much later is not told
	}
}

// granted reports whether a request was not refused.
func granted(r journal.Record) bool {
	for _, a := range r.Actions {
		if ans, ok := a.(ha.Answer); ok && !ans.OK {
			return false
		}
	}
	return true
}

// follow keeps what is known of the running copy.
func (c *collector) follow(t *turn) {
	switch in := t.Input.(type) {
	case ha.Started:
		c.runs(in.Start, in.PID, t.At)
	case ha.Adopted:
		c.runs(in.Start, in.PID, in.Age)
	case ha.Exited:
		t.started = c.begun[in.Start]
		if c.alive == in.Start {
			c.alive = 0
		}
		delete(c.begun, in.Start)
		delete(c.pids, in.Start)
		if in.Successor != 0 {
			c.runs(in.Successor, in.PID, t.At)
		}
	}
	for _, a := range t.Actions {
		e, ok := a.(ha.Emit)
		if !ok {
			continue
		}
		c.held = c.held || c.keep != 0 && e.Event.ID == c.keep
		if found(c.subject, a) {
			continue // it is a process that it is about
		}
		switch e.Event.Change {
		case ha.Assert:
			c.standing[e.Event.Key()] = e.Event
		case ha.Clear:
			delete(c.standing, e.Event.Key())
		}
		if givenUp(e.Event.Code) {
			c.gaveUp = &turn{Record: t.Record}
		} else if e.Event.Change == ha.Clear {
			c.gaveUp = nil
		}
	}
}

func (c *collector) runs(id ha.StartID, pid int, at ha.Instant) {
	c.alive = id
	c.begun[id], c.pids[id] = at, pid
}

func givenUp(c ha.Code) bool {
	switch c {
	case ha.ExistenceDisabled, ha.IntegrityDisabled, ha.WatchdogDisabled, ha.ExcessiveReboots, ha.InternalFault, ha.MemoryLost:
		return true
	}
	return false
}

// processOf returns the process that an input is about, if it is about one.
func processOf(in ha.Input) ha.Process {
	switch in := in.(type) {
	case ha.Started:
		return in.Process
	case ha.StartFailed:
		return in.Process
	case ha.Exited:
		return in.Process
	case ha.StopFailed:
		return in.Process
	case ha.Ready:
		return in.Process
	case ha.Stopping:
		return in.Process
	case ha.Busy:
		return in.Process
	case ha.Missed:
		return in.Process
	case ha.Examined:
		return in.Process
	case ha.FailedOver:
		return in.Process
	case ha.RebootFailed:
		return in.Process
	case ha.RoleSet:
		return in.Process
	case ha.Adopted:
		return in.Process
	case ha.NotFound:
		return in.Process
	}
	return ""
}

// isAbout reports whether an input is about the subject itself.
func isAbout(s ha.Subject, in ha.Input) bool {
	if req, ok := in.(ha.Request); ok {
		return req.Target == s || s.Kind == ha.KindNode && req.Target.Kind == ha.KindNode
	}
	switch s.Kind {
	case ha.KindProcess:
		return processOf(in) == ha.Process(s.Name)
	case ha.KindCheck:
		v, ok := in.(ha.Verdict)
		return ok && v.Check == ha.Check(s.Name)
	case ha.KindNode:
		switch in := in.(type) {
		case ha.Booted, ha.HalfDied, ha.HalfBack, ha.Applied, ha.Quit, ha.RebootFailed:
			return true
		case ha.RoleSet:
			return in.Process == ""
		}
	}
	return false
}

// concerns reports whether an action is one for, or about, the subject.
func concerns(s ha.Subject, a ha.Action) bool {
	if e, ok := a.(ha.Emit); ok {
		k := e.Event.Subject.Kind
		return e.Event.Subject == s || s.Kind == ha.KindNode && (k == ha.KindNode || k == ha.KindShadow || k == ha.KindMonitor)
	}
	switch s.Kind {
	case ha.KindProcess:
		return orderFor(a) == ha.Process(s.Name)
	case ha.KindCheck:
		j, ok := a.(ha.Judge)
		return ok && j.Check == ha.Check(s.Name)
	case ha.KindNode:
		switch a.(type) {
		case ha.Reboot, ha.Done:
			return true
		}
	}
	return false
}

// found reports whether an action tells the fault that a verdict of the check
// gave a process.
func found(s ha.Subject, a ha.Action) bool {
	e, ok := a.(ha.Emit)
	return ok && s.Kind == ha.KindCheck && e.Event.Change == ha.Assert
}

// orderFor returns the process that an order is for.
func orderFor(a ha.Action) ha.Process {
	switch a := a.(type) {
	case ha.Start:
		return a.Process
	case ha.Arm:
		return a.Process
	case ha.Stop:
		return a.Process
	case ha.Extend:
		return a.Process
	case ha.Watch:
		return a.Process
	case ha.Await:
		return a.Process
	case ha.Seek:
		return a.Process
	case ha.Examine:
		return a.Process
	case ha.Handle:
		return a.Process
	case ha.Failover:
		return a.Process
	case ha.Reboot:
		return a.Process
	}
	return ""
}

// telling reports whether a turn is worth telling: routine orders alone are not,
// nor is a program that asks for more time again and again while it starts: if it
// was not enough, the fault says that it asked.
func telling(s ha.Subject, t turn) bool {
	if _, busy := t.Input.(ha.Busy); !busy && isAbout(s, t.Input) {
		return true
	}
	for _, a := range t.Actions {
		if !routine(a) {
			return true
		}
	}
	return false
}

// routine reports whether an order is part of watching and changes nothing.
func routine(a ha.Action) bool {
	switch a.(type) {
	case ha.Arm, ha.Watch, ha.Await, ha.Judge, ha.Keep:
		return true
	}
	return false
}
