package ladder

import (
	"fmt"
	"reflect"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// check is the machine of one check: it counts failures for each process that
// they are laid to.
type check struct {
	m      *Machine
	cfg    manifest.Check
	covers []ha.Process
	mem    keptCheck
	on     bool
	known  bool // a verdict came since it was switched on
	fails  int  // failing verdicts in a row
	counts map[ha.Process]int
	detail string
	last   ha.Instant
}

// keptCheck is the memory of a check.
type keptCheck struct {
	Locked bool `json:"locked,omitempty"`
	Lock   lock `json:"lock,omitzero"`
}

func (c *check) key() string { return "check/" + string(c.cfg.Name) }

// adoptChecks makes the checks of man the ones in force.
func adoptChecks(m *Machine, man *manifest.Manifest) {
	old := map[ha.Check]*check{}
	for _, c := range m.checks {
		old[c.cfg.Name] = c
		if _, ok := man.Check(c.cfg.Name); !ok {
			c.set(false, because(ruleApply, "it is not in the manifest any more"))
			m.forget(c.key())
		}
	}
	m.checks = nil
	for _, cfg := range man.Checks {
		c := old[cfg.Name]
		if c == nil {
			c = &check{m: m}
			c.cfg.Name = cfg.Name
			if err := load(m.kept[c.key()], &c.mem); err != nil {
				c.mem.Locked = true
			}
		}
		if c.counts == nil || !reflect.DeepEqual(c.cfg, cfg) {
			// What failed was another check.
			c.known, c.detail, c.fails, c.counts = false, "", 0, map[ha.Process]int{}
		}
		c.cfg, c.covers = cfg, cfg.Covers
		m.checks = append(m.checks, c)
	}
}

// judge switches the check on while it has something to judge.
func (c *check) judge() {
	switch {
	case c.mem.Locked:
		c.set(false, because(ruleJudge, "it is locked"))
	case !c.m.node.watching():
		c.set(false, because(ruleJudge, "nothing of this node is watched"))
	case c.elsewhere():
		c.set(false, because(ruleNode, "what it covers is not for this node"))
	case len(c.covers) == 0:
		c.set(true, because(ruleJudge, "it covers no process and is always on"))
	default:
		for _, n := range c.covers {
			if p := c.m.procs[n]; p != nil && p.run.phase == up && p.watched() {
				c.set(true, because(ruleJudge, fmt.Sprintf("%s runs", n)))
				return
			}
		}
		c.set(false, because(ruleJudge, "nothing that it covers runs and is watched"))
	}
}

// elsewhere reports whether all that it covers is for other nodes.
func (c *check) elsewhere() bool {
	for _, n := range c.covers {
		if p := c.m.procs[n]; p == nil || !elsewhere(p) {
			return false
		}
	}
	return len(c.covers) > 0
}

// here returns what it covers of what is for this node.
func (c *check) here() []ha.Process {
	var here []ha.Process
	for _, n := range c.covers {
		if p := c.m.procs[n]; p == nil || !elsewhere(p) {
			here = append(here, n)
		}
	}
	return here
}

func (c *check) set(on bool, why ha.Reason) {
	if c.on == on {
		return
	}
	c.on, c.known, c.fails = on, false, 0
	clear(c.counts)
	c.m.do(ha.Judge{Check: c.cfg.Name, On: on, Why: why})
}

// verdict takes the result of a check. A failure counts for those that it
// names; one that names nobody counts only if all that the check covers run and
// are judged, because else it cannot be laid to anybody.
func takeVerdict(m *Machine, in ha.Verdict) {
	c := findCheck(m, in.Check)
	if c == nil || !c.on {
		return
	}
	c.known, c.last, c.detail = true, m.now, in.Detail
	if in.OK {
		c.fails = 0
		clear(c.counts)
		return
	}
	c.fails++
	accused := in.Accused
	if len(accused) == 0 {
		accused = c.here()
		for _, n := range accused {
			if p := m.procs[n]; p == nil || !p.judged() {
				clear(c.counts)
				return
			}
		}
	}
	for _, n := range c.covers {
		p := m.procs[n]
		if p == nil || !has(accused, n) || !p.judged() {
			delete(c.counts, n)
			continue
		}
		c.counts[n]++
		if c.counts[n] < max(c.cfg.Failures, 1) {
			continue
		}
		text := fmt.Sprintf("%s: %s", c.cfg.Name, in.Detail)
		m.touch(p)
		fault(p, ha.FaultIntegrity, p.run.start, text, because(ruleFault, fmt.Sprintf("check %s failed %d times in a row", c.cfg.Name, c.counts[n]),
			"failures", c.cfg.Failures, "said", in.Detail))
		delete(c.counts, n)
	}
}

// check returns the check of that name, or nil.
func findCheck(m *Machine, name ha.Check) *check {
	for _, c := range m.checks {
		if c.cfg.Name == name {
			return c
		}
	}
	return nil
}

// keep has the check know that it is locked, or is not any more, and keeps that.
func (c *check) keep() {
	c.judge()
	value := save(c.mem)
	c.m.kept[c.key()] = value
	c.m.do(ha.Keep{Key: c.key(), Value: value, Sync: true, Why: because(ruleKeep, "the next monitor must know this of check "+string(c.cfg.Name))})
}
