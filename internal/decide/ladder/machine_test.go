package ladder

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// A memory that cannot be read must not look like a process without a past: it
// might have been locked, or given up.
func TestDamagedMemory(t *testing.T) {
	man := parseManifest(t, []string{"process a severity=major", "process b"})
	m := New(man, map[string]string{"process/a": "{", nodeKey: `{"budget":"x"}`}, 5)
	var codes []string
	for _, in := range []ha.Input{ha.Booted{Boot: "x"}, ha.Adopted{Process: "a", Start: 3, PID: 9}, ha.Settled{}} {
		for _, a := range m.Step(0, in) {
			if e, ok := a.(ha.Emit); ok {
				codes = append(codes, fmt.Sprintf("%v %d", e.Event.Subject, e.Event.Code))
			}
			if s, ok := a.(ha.Stop); ok {
				t.Errorf("stop %v", s)
			}
		}
	}
	want := "node 387, node 2031, process a 2025, process a 387, process a 2031"
	if got := strings.Join(codes, ", "); got != want {
		t.Errorf("events %s, want %s", got, want)
	}
	if !m.Node().Disabled || !m.Processes()[0].Disabled || m.Processes()[0].State != stateGivenUp {
		t.Errorf("node %+v, process %+v", m.Node(), m.Processes()[0])
	}
}

// The same facts give the same orders, whatever order a map has.
func TestDeterministic(t *testing.T) {
	run := func() []string {
		w := newWorld(t, 4711)
		for range 200 {
			w.turn()
		}
		return w.log
	}
	if a, b := run(), run(); !reflect.DeepEqual(a, b) {
		t.Error("two runs of one world differ")
	}
}

// Step must not keep what it returned: the engine writes it down and passes it on.
func TestOrdersAreTheCallers(t *testing.T) {
	m := New(parseManifest(t, []string{"process a"}), nil, 1)
	m.Step(0, ha.Booted{Boot: "x", NewBoot: true})
	first := m.Step(0, ha.Settled{})
	before := fmt.Sprint(first)
	m.Step(1, ha.Started{Process: "a", Start: 1, PID: 2})
	if fmt.Sprint(first) != before {
		t.Error("an answer of Step changed afterwards")
	}
}

// The instants of a budget entry of this boot that lie in the future, as after a
// wrong boot id, count as just made: never as old.
func TestBudgetNeverForgotten(t *testing.T) {
	man := parseManifest(t, []string{"node budget=1", "process a recovery=failover-reboot"})
	kept := map[string]string{nodeKey: `{"boot":"x","at":900000000000,"budget":[900000000000]}`}
	m := New(man, kept, 1)
	m.Step(0, ha.Booted{Boot: "x"})
	if n := len(m.Node().Budget); n != 1 {
		t.Errorf("%d entries, want 1", n)
	}
}

// many is a machine with n programs that run.
func many(n int) *Machine {
	man := &manifest.Manifest{Node: manifest.Node{Budget: manifest.Budget{Limit: 3, Within: 6 * time.Hour}}}
	for i := range n {
		man.Processes = append(man.Processes, manifest.Process{Name: ha.Process(fmt.Sprintf("p%05d", i)), Recovery: ha.RecoveryRestart,
			Restarts: manifest.Restarts{Limit: 1 << 30, Within: time.Second}, RampUp: time.Second, AutoStart: true})
	}
	m := New(man, nil, 1)
	m.Step(0, ha.Booted{Boot: "x", NewBoot: true})
	m.Step(0, ha.Settled{})
	for _, p := range m.list {
		m.Step(0, ha.Started{Process: p.name, Start: p.run.start, PID: 1})
	}
	return m
}

// BenchmarkExit is one death with a successor, among 5,000 programs.
func BenchmarkExit(b *testing.B) {
	m := many(5000)
	b.ReportAllocs()
	now := ha.Instant(0)
	i := 0
	for b.Loop() {
		p := m.list[i%len(m.list)]
		i++
		now += ha.Instant(time.Millisecond)
		m.Step(now, ha.Exited{Process: p.name, Start: p.run.start, Successor: p.run.armed, PID: 2, Status: ha.ExitStatus{Code: 1}})
		for {
			at, ok := m.Wake()
			if !ok || at > now {
				break
			}
			m.Step(now, ha.Tick{})
		}
	}
}

// BenchmarkApply is a new manifest with one change among 5,000 programs.
func BenchmarkApply(b *testing.B) {
	m := many(5000)
	b.ReportAllocs()
	for b.Loop() {
		next := *m.man
		m.Want(&next)
		m.Step(1, ha.Applied{})
	}
}

// The ways from a process to what it needs grow with each layer of needs: 3^40
// here. None of what asks about them may walk each way.
func TestLayersOfNeeds(t *testing.T) {
	var lines []string
	below := ""
	for layer := range 40 {
		var names []string
		for _, s := range []string{"a", "b", "c"} {
			names = append(names, fmt.Sprintf("l%02d%s", layer, s))
			lines = append(lines, "process "+names[len(names)-1]+below)
		}
		below = " needs=" + strings.Join(names, ",")
	}
	m := New(parseManifest(t, lines), nil, 1)
	m.Step(0, ha.Booted{Boot: "x", NewBoot: true})
	started := 0
	for orders := m.Step(0, ha.Settled{}); len(orders) > 0; {
		var next []ha.Action
		for _, a := range orders {
			if s, ok := a.(ha.Start); ok {
				started++
				next = append(next, m.Step(0, ha.Started{Process: s.Process, Start: s.Start, PID: 1})...)
			}
		}
		orders = next
	}
	if started != 120 {
		t.Errorf("%d started, want 120", started)
	}
	m.Step(0, ha.Request{ID: "r", Verb: ha.VerbStop, Target: ha.OfProcess("l00a")})
	m.Step(0, ha.Request{ID: "r", Verb: ha.VerbStart, Target: ha.OfProcess("l39a")})
	if s := m.Processes()[119].State; s != stateStopping && s != stateRampUp && s != stateRunning {
		t.Errorf("l39c is %s", s)
	}
}

// BenchmarkLeave is a manifest that none of 5,000 programs is in any more, and
// their ends.
func BenchmarkLeave(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		m := many(5000)
		b.StartTimer()
		m.Want(&manifest.Manifest{})
		m.Step(1, ha.Applied{})
		for _, p := range slices.Clone(m.list) {
			m.Step(1, ha.Exited{Process: p.name, Start: p.run.start})
		}
		if len(m.list) > 0 {
			b.Fatalf("%d are left", len(m.list))
		}
	}
}

// BenchmarkRequest is a request about one of 5,000 programs.
func BenchmarkRequest(b *testing.B) {
	m := many(5000)
	verbs := []ha.Verb{ha.VerbLock, ha.VerbUnlock}
	i := 0
	for b.Loop() {
		m.Step(1, ha.Request{ID: "r", Verb: verbs[i%2], Target: ha.OfProcess("p00100")})
		i++
	}
}

// A new monitor of the same boot knows since when a process rests.
func TestSinceOutlivesTheMonitor(t *testing.T) {
	man := parseManifest(t, []string{"process a recovery=none"})
	kept := map[string]string{}
	step := func(m *Machine, at ha.Instant, in ha.Input) {
		for _, a := range m.Step(at, in) {
			if k, ok := a.(ha.Keep); ok {
				kept[k.Key] = k.Value
			}
		}
	}
	m := New(man, nil, 1)
	step(m, 1, ha.Booted{Boot: "x", NewBoot: true})
	step(m, 2, ha.Settled{})
	step(m, 3, ha.Started{Process: "a", Start: 1, PID: 7})
	step(m, 40, ha.Exited{Process: "a", Start: 1, Status: ha.ExitStatus{Code: 1}})
	for i := range 2 { // the second one reads what the first one kept
		m = New(man, kept, 2)
		step(m, ha.Instant(100+i), ha.Booted{Boot: "x"})
		step(m, ha.Instant(110+i), ha.Settled{})
		if v := m.Processes()[0]; v.State != stateGivenUp || v.Since != 40 {
			t.Errorf("monitor %d: %s since %d, want given-up since 40", i, v.State, v.Since)
		}
	}
}
