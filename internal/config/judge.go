package config

import (
	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// judge finds what takes more than one key to see, and fills in the defaults
// that depend on other keys.
func judge(r *reader, m *manifest.Manifest) {
	for i := range m.Processes {
		settle(r, sub("processes", string(m.Processes[i].Name)), &m.Processes[i])
	}
	for i := range m.Checks {
		settleCheck(r, sub("checks", string(m.Checks[i].Name)), &m.Checks[i])
	}
	sortAll(m)
}

// settle fills in what a process has for a default because of its other keys.
func settle(r *reader, path string, p *manifest.Process) {
	given := func(key string) bool { return r.given(path + "." + key) }
	if p.Attach.Set() && len(p.Attach.Start) == 0 && !given("recovery") {
		p.Recovery = ha.RecoveryNone
	}
	if !given("restarts.delay-max") && p.Restarts.Delay > p.Restarts.DelayMax {
		p.Restarts.DelayMax = p.Restarts.Delay
	}
	if !given("spare") {
		p.Spare = defaultSpare(p)
	}
}

// settleCheck fills in what a check has for a default because of its other keys.
func settleCheck(r *reader, path string, c *manifest.Check) {
	if c.Once {
		c.Every = 0
	}
	if !checkTimed(r, path) && !c.Once && c.Every < c.Timeout {
		c.Timeout = c.Every
	}
}

// checkTimed reports whether the time-out of a check is written somewhere.
func checkTimed(r *reader, path string) bool {
	for _, key := range []string{"timeout", "http.timeout", "tcp.timeout", "grpc.timeout"} {
		if r.given(path + "." + key) {
			return true
		}
	}
	return false
}
