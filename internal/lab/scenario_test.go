package lab

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/need"
)

const (
	aProcess = gemelv1.Kind_KIND_PROCESS
	aCheck   = gemelv1.Kind_KIND_CHECK
	theNode  = gemelv1.Kind_KIND_NODE
)

// emitted finds the CMM's events of a scenario file of the ladder.
var emitted = regexp.MustCompile(`EVENT (\d+ ".*" \w+ \w+) \((process snmpd|node) `)

// scenario reads what a scenario file says of the process and of the node.
func scenario(t *testing.T, name string) (process, node []string) {
	t.Helper()
	b, err := os.ReadFile("../decide/ladder/testdata/" + name + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range emitted.FindAllStringSubmatch(string(b), -1) {
		if m[2] == "node" {
			node = append(node, m[1])
		} else {
			process = append(process, m[1])
		}
	}
	if len(process) == 0 {
		t.Fatalf("no events in %s", name)
	}
	return process, node
}

func compare(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: the events are\n  %s\nand should be\n  %s", what, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// machineOf is an instance with that one program, and can be booted.
type machineOf struct{ *Instance }

// machine is a manifest with one program, snmpd of the scenario files. Reboot
// makes a file instead.
func machine(t *testing.T, policy string) *machineOf {
	t.Helper()
	i := New(t, "")
	i.Write(fmt.Sprintf("node: {reboot: [touch, %s], budget: {limit: 3, within: 6h}}\nprocesses:\n  snmpd:\n    id: 51\n    ramp-up: 50ms\n    spare: false\n    %s\n%s",
		i.Path("rebooted"), strings.ReplaceAll(policy, "\n", "\n    "), sleeper))
	return &machineOf{i}
}

// wreck kills the program n times, each time after it had recovered, and
// returns the mark before the first.
func (i *machineOf) wreck(n int) (mark uint64) {
	i.tb.Helper()
	p := i.Running("snmpd")
	mark = i.Mark()
	for last := mark; n > 0; n-- {
		i.Signal(int(p.GetPid()), unix.SIGKILL)
		if n > 1 {
			last = i.Await(last, ha.Recovered, "snmpd").GetId()
			p = i.Running("snmpd")
		}
	}
	return mark
}

// boots lets the instance live in name spaces where the boot id is ours and the
// instants begin at zero, so that a boot of the machine can be played.
func (i *machineOf) boots(id string) {
	i.tb.Helper()
	i.put("boot", id+"\n")
	_, err := os.Stat("/proc/self/ns/time")
	need.That(i.tb, err == nil, "a kernel with time name spaces")
	since := fmt.Sprintf("-%d", time.Duration(clock.Now())/time.Second)
	i.Wrap = []string{"unshare", "--mount", "--time", "--boottime", since, "--fork", "sh", "-c", `mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"`, i.Path("boot")}
}

// boot ends everything as a reboot does, and begins again in the next boot.
func (i *machineOf) boot(id string) {
	i.tb.Helper()
	i.Kill()
	i.sweep()
	if err := os.RemoveAll(i.Path("run")); err != nil {
		i.tb.Fatal(err)
	}
	_ = os.Remove(i.Path("rebooted"))
	i.boots(id)
	i.Begin()
}

// rebooting waits until the command that reboots was run.
func (i *machineOf) rebooting() {
	i.tb.Helper()
	i.State("snmpd", "rebooting")
	if !poll(func() bool { _, err := os.Stat(i.Path("rebooted")); return err == nil }) {
		i.tb.Fatal("the command that reboots was not run")
	}
}

// TestScenarioWithoutReboot runs the CMM's scenarios 1, 3, 5, 7 and 9 end to
// end: the events are those of the ladder's own scenario files, string, code,
// order, change and severity. No standby answers, and the severity is not
// critical, so that nothing reboots.
func TestScenarioWithoutReboot(t *testing.T) {
	for _, s := range []struct {
		file, policy string
		kills        int
		last         ha.Code
	}{
		{"cmm-01-active", "severity: major\nrecovery: none", 1, ha.ExistenceDisabled},
		{"cmm-03-active", "severity: major\nrecovery: failover-restart", 1, ha.Recovered},
		{"cmm-05-active", "severity: major\nrecovery: failover-reboot", 1, ha.ExistenceDisabled},
		{"cmm-07-active", "severity: major\nrestarts: {limit: 2, delay: 10ms}", 3, ha.ExistenceDisabled},
		{"cmm-09-active", "severity: major\nrestarts: {limit: 2, delay: 10ms, then: failover-reboot}", 3, ha.ExistenceDisabled},
	} {
		t.Run(s.file, func(t *testing.T) {
			t.Parallel()
			i := machine(t, s.policy)
			i.Begin()
			mark := i.wreck(s.kills)
			i.Await(mark, s.last, "snmpd")
			want, _ := scenario(t, s.file)
			compare(t, s.file, i.Classic(mark, "snmpd"), want)
			if _, err := os.Stat(i.Path("rebooted")); err == nil {
				t.Error("the node was rebooted")
			}
			if s.last == ha.ExistenceDisabled {
				p := i.State("snmpd", "given-up")
				if p.GetOp() != gemelv1.Op_OP_DISABLED || p.GetPid() != 0 {
					t.Errorf("given up: %v, pid %d", p.GetOp(), p.GetPid())
				}
			}
		})
	}
}

// TestScenarioWithReboot runs the scenarios 6 and 10: the failover is refused,
// the severity is critical, the node reboots although it is still active, and
// watching begins anew in the next boot.
func TestScenarioWithReboot(t *testing.T) {
	need.Root(t)
	for _, s := range []struct {
		file, policy string
		kills        int
	}{
		{"cmm-06-active", "severity: critical\nrecovery: failover-reboot", 1},
		{"cmm-10-active", "severity: critical\nrestarts: {limit: 2, delay: 10ms, then: failover-reboot}", 3},
	} {
		t.Run(s.file, func(t *testing.T) {
			t.Parallel()
			i := machine(t, s.policy)
			i.boots("11111111-2222-4333-8444-000000000001")
			i.Begin()
			mark := i.wreck(s.kills)
			i.rebooting()
			i.boot("11111111-2222-4333-8444-000000000002")
			i.Await(mark, ha.Initialized, "snmpd")
			i.Running("snmpd")
			want, _ := scenario(t, s.file)
			compare(t, s.file, i.Classic(mark, "snmpd"), want)
		})
	}
}

// TestScenarioOperator runs scenario 11, and on the way shows what persists: a
// process that was given up, and one that is locked, stay so when the monitor is
// killed and when Gemel ends and begins again.
func TestScenarioOperator(t *testing.T) {
	i := machine(t, "severity: major\nrecovery: none")
	i.Begin()
	mark := i.wreck(1)
	i.Await(mark, ha.ExistenceDisabled, "snmpd")
	same := func(what string, holds func(*gemelv1.ProcessStatus) bool) {
		t.Helper()
		before := i.Mark()
		_, monitor := i.halves()
		i.Signal(monitor, unix.SIGKILL)
		i.Await(before, ha.MonitorStarted, "node")
		check := func(how string) {
			t.Helper()
			if p := Process(i.Status(), "snmpd"); !holds(p) || p.GetPid() != 0 {
				t.Errorf("%s, after %s: %s, %v, %v, pid %d", what, how, p.GetState(), p.GetAdmin(), p.GetOp(), p.GetPid())
			}
		}
		i.Await(before, ha.Recovered, "monitor")
		check("a kill of the monitor")
		before = i.Mark()
		i.Stop()
		i.Begin()
		i.Await(before, ha.MonitorStarted, "node")
		check("an end and a new beginning")
	}
	same("given up", func(p *gemelv1.ProcessStatus) bool {
		return p.GetState() == "given-up" && p.GetOp() == gemelv1.Op_OP_DISABLED && p.GetAdmin() == gemelv1.Admin_ADMIN_UNLOCKED
	})
	i.Ask(gemelv1.Verb_VERB_LOCK, aProcess, "snmpd")
	same("locked", func(p *gemelv1.ProcessStatus) bool { return p.GetAdmin() == gemelv1.Admin_ADMIN_LOCKED })
	i.Ask(gemelv1.Verb_VERB_UNLOCK, aProcess, "snmpd")
	i.Await(mark, ha.Initialized, "snmpd")
	i.Running("snmpd")
	want, _ := scenario(t, "cmm-11-active")
	compare(t, "scenario 11", i.Classic(mark, "snmpd"), want)
}

// TestScenarioBudget runs scenario 12: three reboots are in the budget of six
// hours, which is kept across boots; the fourth ends all monitoring before
// anything is done, until the node is locked and unlocked.
func TestScenarioBudget(t *testing.T) {
	need.Root(t)
	i := machine(t, "severity: critical\nrecovery: failover-reboot")
	id := func(n int) string { return fmt.Sprintf("11111111-2222-4333-8444-%012d", n) }
	i.boots(id(0))
	i.Begin()
	for n := range 3 {
		i.wreck(1)
		i.rebooting()
		before := i.Mark()
		i.boot(id(n + 1))
		i.Await(before, ha.Initialized, "snmpd")
	}
	mark := i.wreck(1)
	i.Await(mark, ha.ExcessiveReboots, "node")
	i.Await(mark, ha.ExistenceDisabled, "snmpd")
	s := i.Until("the node is disabled", func(s *gemelv1.Snapshot) bool { return s.GetNode().GetOp() == gemelv1.Op_OP_DISABLED })
	if n := len(s.GetNode().GetBudget()); n != 3 {
		t.Errorf("%d entries in the budget; want 3", n)
	}
	i.Ask(gemelv1.Verb_VERB_LOCK, theNode, "")
	i.Ask(gemelv1.Verb_VERB_UNLOCK, theNode, "")
	i.Running("snmpd")
	// The severity is the culprit's: critical here, major in the file.
	compare(t, "the process", i.Classic(mark, "snmpd"), []string{
		`368 "Process existence fault; attempting recovery" assert critical`,
		`380 "Attempting process failover & reboot recovery action" info critical`,
		`371 "Process existence fault; monitoring disabled" assert critical`,
		`376 "Monitoring initialized" clear ok`,
	})
	compare(t, "the node", i.Classic(mark, "node"), []string{
		`374 "Excessive reboots/failovers; all process monitoring disabled" assert critical`,
		`376 "Monitoring initialized" clear ok`,
	})
}
