package ask

import (
	"fmt"
	"strings"
	"time"

	"gemel/internal/config"
	"gemel/internal/ha"
	"gemel/internal/status"
)

// known reports whether a subject is one that there is now.
func known(s ha.Subject, now *status.Snapshot, manifest []byte) bool {
	if s.Kind == ha.KindNode {
		return true
	}
	if now != nil {
		_, p := process(now, ha.Process(s.Name))
		_, c := check(now, ha.Check(s.Name))
		return s.Kind == ha.KindProcess && p || s.Kind == ha.KindCheck && c
	}
	m, err := config.Parse("manifest", manifest)
	if err != nil {
		return false // it cannot be told; the caller says that nothing is recorded
	}
	_, p := m.Process(ha.Process(s.Name))
	_, c := m.Check(ha.Check(s.Name))
	return s.Kind == ha.KindProcess && p || s.Kind == ha.KindCheck && c
}

func process(now *status.Snapshot, name ha.Process) (status.ProcessStatus, bool) {
	for _, p := range now.Processes {
		if p.Name == name {
			return p, true
		}
	}
	return status.ProcessStatus{}, false
}

func check(now *status.Snapshot, name ha.Check) (status.CheckStatus, bool) {
	for _, c := range now.Checks {
		if c.Name == name {
			return c, true
		}
	}
	return status.CheckStatus{}, false
}

// explains reports whether what the present picture calls for was found: who
// locked it, who stopped it, when it was given up.
func (c *collector) explains(now *status.Snapshot) bool {
	if now == nil || c.subject.Kind != ha.KindProcess {
		return true
	}
	p, ok := process(now, ha.Process(c.subject.Name))
	if !ok {
		return true
	}
	_, locked := c.last[ha.VerbLock]
	_, stopped := c.last[ha.VerbStop]
	return (p.Admin != status.Locked && now.Node.Admin != status.Locked || locked) &&
		(p.State != "stopped" || stopped) && (p.Op != status.Disabled || c.gaveUp != nil)
}

// present tells how the subject is now, and why it does not run if it does not.
func (c *collector) present(now *status.Snapshot) (state string, because []string) {
	if now == nil {
		return c.remembered()
	}
	switch c.subject.Kind {
	case ha.KindCheck:
		k, ok := check(now, ha.Check(c.subject.Name))
		if !ok {
			return "it is not in the manifest in force", nil
		}
		state = k.State
		if k.Failures > 0 {
			state += fmt.Sprintf(": %d failures in a row, a fault at %d", k.Failures, k.Limit)
		}
		if k.State == "elsewhere" {
			state += ": what it covers is not for this node"
		}
		if k.State == "off" && k.Admin != status.Locked && now.Node.Admin != status.Locked {
			state += ": nothing that it covers runs and is watched"
			if k.Detail != "" {
				state += "; it said last"
			}
		}
		if k.Detail != "" {
			state += ": " + k.Detail
		}
		return state, c.barred(k.Admin, k.Lock, now)
	case ha.KindNode:
		state = fmt.Sprintf("%v, %v", now.Node.Admin, now.Node.Op)
		if n := len(now.Alarms); n > 0 {
			state += fmt.Sprintf("; alarms standing: %d", n)
		}
		return state, c.barred(now.Node.Admin, now.Node.Lock, now)
	}
	p, ok := process(now, ha.Process(c.subject.Name))
	if !ok {
		return "it is not in the manifest in force", nil
	}
	state = p.State
	if p.Reason != "" {
		state += ": " + p.Reason
	}
	if p.Since != 0 {
		state += fmt.Sprintf("; for %s", human(now.At.Sub(p.Since)))
	}
	if p.PID != 0 {
		state += fmt.Sprintf(" (start %d, pid %d)", p.Start, p.PID)
	}
	because = c.barred(p.Admin, p.Lock, now)
	if p.State == "stopped" {
		because = append(because, c.asked(ha.VerbStop, "it was stopped", "gemel start "+c.subject.Name)...)
	}
	if p.Op == status.Disabled {
		because = append(because, c.disabled()...)
	}
	return state, because
}

// barred tells of locks.
func (c *collector) barred(admin status.Admin, lock status.Lock, now *status.Snapshot) (because []string) {
	if admin == status.Locked {
		name := c.subject.Name
		if c.subject.Kind != ha.KindProcess {
			name = strings.Trim(string(c.subject.Kind)+"/"+name, "/")
		}
		because = c.lock("it is locked", "gemel unlock "+name, lock)
	}
	if c.subject.Kind != ha.KindNode && now.Node.Admin == status.Locked {
		because = append(because, c.lock("the node is locked: nothing is watched", "gemel unlock node", now.Node.Lock)...)
	}
	if now.Node.Stopping {
		because = append(because, "Gemel is stopping every program")
	}
	return because
}

// lock tells who locked it: by the journal, and where that does not reach back, by
// the lock itself.
func (c *collector) lock(what, undo string, l status.Lock) []string {
	if _, ok := c.last[ha.VerbLock]; ok || l.Since.IsZero() {
		return c.asked(ha.VerbLock, what, undo)
	}
	by := ""
	if l.By != "" {
		by = " by " + l.By
	}
	return []string{fmt.Sprintf("%s: lock%s at %s; to undo: %s", what, by, clockTime(l.Since), undo)}
}

// asked tells who asked for what holds now, and how to take it back.
func (c *collector) asked(v ha.Verb, what, undo string) []string {
	t, ok := c.last[v]
	if !ok {
		return []string{what + "; the journal does not reach back to who asked for it; to undo: " + undo}
	}
	req := t.Input.(ha.Request)
	return []string{fmt.Sprintf("%s: %s at %s; to undo: %s", what, request(req), clockTime(t.Wall), undo)}
}

func (c *collector) disabled() []string {
	do := fmt.Sprintf("repair the cause, then: gemel lock %s; gemel unlock %s", c.subject.Name, c.subject.Name)
	if c.gaveUp == nil {
		return []string{"it was given up; the journal does not reach back to when; " + do}
	}
	for _, a := range c.gaveUp.Actions {
		if e, ok := a.(ha.Emit); ok && givenUp(e.Event.Code) {
			return []string{fmt.Sprintf("it was given up at %s: event %d, %s (%s); %s", clockTime(e.Event.Wall), e.Event.ID, e.Event.Text, e.Event.Detail, do)}
		}
	}
	return []string{"it was given up; " + do}
}

// remembered tells what the journal alone knows: it may be old.
func (c *collector) remembered() (state string, because []string) {
	if c.subject.Kind != ha.KindProcess {
		return "", nil
	}
	switch {
	case c.alive != 0:
		state = fmt.Sprintf("by the journal start %d runs (pid %d)", c.alive, c.pids[c.alive])
	default:
		state = "by the journal no copy of it is known to run"
	}
	for _, e := range c.standing {
		state += fmt.Sprintf("; alarm since %s: %s", clockTime(e.Wall), e.Text)
	}
	if c.gaveUp != nil {
		because = c.disabled()
	}
	return state, because
}

// clockTime prints a wall time local, with its offset.
func clockTime(t time.Time) string {
	return t.Local().Format("2006-01-02 15:04:05.000 -07:00")
}
