package ladder

import (
	"maps"
	"testing"
	"time"

	"gemel/internal/ha"
)

// What rests does so since the monitor that saw it come to rest, whatever monitors
// came after that one; what a boot ended does so since the boot.
func TestSinceOfWhatRests(t *testing.T) {
	man := parseManifest(t, []string{"process alive recovery=none", "process done task=true", "process fell", "process given recovery=none",
		"process halted", "process hand autostart=false", "process idle needs=halted", "process there on=other"})
	kept := map[string]string{}
	m, next := New(man, kept, 1), ha.StartID(1)
	step := func(at time.Duration, in ha.Input) {
		for _, a := range m.Step(ha.Instant(at), in) {
			switch a := a.(type) {
			case ha.Keep:
				kept[a.Key] = a.Value
			case ha.Start:
				next = max(next, a.Start+1)
			}
		}
	}
	ask := func(at time.Duration, verb ha.Verb, name ha.Process) {
		step(at, ha.Request{Verb: verb, Target: ha.OfProcess(name)})
	}
	start := map[ha.Process]ha.StartID{}
	step(time.Second, ha.Booted{Boot: "x", NewBoot: true, Node: "here"})
	step(time.Second, ha.Settled{})
	for _, v := range m.Processes() {
		if v.Start != 0 {
			start[v.Name] = v.Start
			step(time.Second, ha.Started{Process: v.Name, Start: v.Start, PID: int(v.Start)})
		}
	}
	for _, v := range m.Processes() { // idle came after halted
		if v.Start != 0 && start[v.Name] == 0 {
			start[v.Name] = v.Start
			step(time.Second, ha.Started{Process: v.Name, Start: v.Start, PID: int(v.Start)})
		}
	}
	exited := func(at time.Duration, name ha.Process, code int) {
		step(at, ha.Exited{Process: name, Start: start[name], Status: ha.ExitStatus{Code: code}})
	}
	exited(10*time.Second, "done", 0)
	exited(11*time.Second, "given", 1)
	ask(12*time.Second, ha.VerbLock, "fell")
	exited(13*time.Second, "fell", 1)
	ask(14*time.Second, ha.VerbStop, "halted")
	exited(15*time.Second, "idle", 0)
	exited(16*time.Second, "halted", 0)
	step(20*time.Second, ha.Missed{Process: "alive", Start: start["alive"]})
	step(21*time.Second, ha.Examined{Process: "alive", Start: start["alive"]})

	want := map[ha.Process]struct {
		State
		time.Duration
	}{
		"alive": {stateGivenUp, 21 * time.Second}, "done": {stateDone, 10 * time.Second}, "fell": {stateDown, 13 * time.Second},
		"given": {stateGivenUp, 11 * time.Second}, "halted": {stateStopped, 16 * time.Second}, "hand": {stateStopped, time.Second},
		"idle": {stateStopped, 15 * time.Second}, "there": {stateElsewhere, time.Second},
	}
	check := func(when string) {
		t.Helper()
		for _, v := range m.Processes() {
			if w := want[v.Name]; v.State != w.State || v.Since != ha.Instant(w.Duration) {
				t.Errorf("%s: %s is %s since %v, want %s since %v", when, v.Name, v.State, v.Since, w.State, w.Duration)
			}
		}
	}
	check("first monitor")
	for _, at := range []time.Duration{time.Minute, time.Hour} {
		m = New(man, maps.Clone(kept), next)
		step(at, ha.Booted{Boot: "x", Node: "here"})
		step(at, ha.Adopted{Process: "alive", Start: start["alive"], PID: 1})
		step(at, ha.Settled{})
		check("monitor after " + at.String())
	}
}
