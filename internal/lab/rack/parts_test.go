package rack

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/need"
)

// dbScript is a script that leaves a daemon behind, outside of its session, which writes
// down when it lives. What is to go wrong is in files named how.ENTRY.
const dbScript = `#!/bin/sh
d=${0%/*}
echo "$GEMEL_NODE $1 $GEMEL_FENCE $GEMEL_ROLE $GEMEL_GROUP $(id -u) $SG_PACKAGE" >>"$d/log"
if [ -e "$d/how.$1" ]; then . "$d/how.$1"; fi
case $1 in
start) ( setsid "$d/live" </dev/null & ) ;;
stop) if [ -e "$d/pid.$GEMEL_NODE" ]; then kill -9 "$(cat "$d/pid.$GEMEL_NODE")"; rm -f "$d/pid.$GEMEL_NODE"; fi ;;
esac
exit 0
`

const dbLive = `#!/bin/sh
d=${0%/*}
echo $$ >"$d/pid.$GEMEL_NODE"
while :; do read up rest </proc/uptime; echo "$up $GEMEL_NODE" >>"$d/alive"; sleep 0.02; done
`

// db is a directory with the script, and what it wrote.
type db string

func newDB(t *testing.T) db {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "rack-db-") // where every user gets
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o777))
	for name, text := range map[string]string{"db": dbScript, "live": dbLive} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755))
	}
	return db(dir)
}

// part is the group's key for the script. More is put among the script's own keys.
func (d db) part(more string) string {
	p := filepath.Join(string(d), "db")
	return fmt.Sprintf("require-level: 1, scripts: [{name: db, start: [%s, start], stop: [%s, stop], validate: [%s, validate], timeouts: {start: 5s, stop: 2s, validate: 5s}%s}]",
		p, p, p, more)
}

// how plants what an entry does before anything else; "" takes that back.
func (d db) how(t *testing.T, entry, shell string) {
	t.Helper()
	path := filepath.Join(string(d), "how."+entry)
	if shell == "" {
		must(t, os.Remove(path))
		return
	}
	must(t, os.WriteFile(path+"~", []byte(shell+"\n"), 0o644))
	must(t, os.Rename(path+"~", path))
}

// calls are the lines of the log that begin so.
func (d db) calls(prefix string) []string {
	b, _ := os.ReadFile(filepath.Join(string(d), "log"))
	var all []string
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, prefix) {
			all = append(all, strings.TrimSpace(line))
		}
	}
	return all
}

// stays are the nodes on which the daemon lived, one after the other. One that lived on
// two at a time is there again and again.
func (d db) stays(t *testing.T) (all []string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(string(d), "alive"))
	must(t, err)
	type beat struct {
		at   float64
		node string
	}
	var beats []beat
	for line := range strings.Lines(string(b)) {
		at, node, _ := strings.Cut(strings.TrimSpace(line), " ")
		f, err := strconv.ParseFloat(at, 64)
		if err != nil || node == "" {
			continue // cut off by its kill
		}
		beats = append(beats, beat{f, node})
	}
	slices.SortStableFunc(beats, func(a, b beat) int { return cmp.Compare(a.at, b.at) })
	for _, x := range beats {
		if len(all) == 0 || all[len(all)-1] != x.node {
			all = append(all, x.node)
		}
	}
	return all
}

// lives waits until the daemon lives on a node, and again after that.
func (d db) lives(t *testing.T, n *Node) {
	t.Helper()
	path := filepath.Join(string(d), "alive")
	b, _ := os.ReadFile(path)
	eventually(t, "the daemon of the script lives on "+string(n.Name), func() bool {
		now, _ := os.ReadFile(path)
		return len(now) > len(b) && strings.Count(string(now[len(b):]), " "+string(n.Name)+"\n") > 2
	})
}

// goes waits until the daemon lives on a node, to which the group was asked to go. On a
// busy machine that node is missed for a moment, and what was asked for is over.
func (d db) goes(t *testing.T, n *Node) {
	t.Helper()
	var asked ha.Instant
	before := len(d.calls(string(n.Name) + " start"))
	eventually(t, "the group comes to "+string(n.Name), func() bool {
		if clock.Now() > asked.Add(5e9) {
			asked = clock.Now()
			n.Tool("move", string(Group), string(n.Name))
		}
		return len(d.calls(string(n.Name)+" start")) > before
	})
	d.lives(t, n)
}

// eventually waits for something.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := clock.Now().Add(bound); !is(); pass(2 * 10e6) {
		if clock.Now() > end {
			t.Fatalf("%s: it is not so after %v", what, bound)
		}
	}
}

// A script's part moves with its group, and what it left behind, outside of every
// session, ends with the authority.
func TestScriptOfAGroup(t *testing.T) {
	d := newDB(t)
	r := begun(t, Options{Parts: d.part(", environment: {MORE: x}")})
	n := active(t, r, "")
	d.lives(t, n)
	first := d.calls(string(n.Name) + " start")
	if len(first) != 1 || !strings.HasSuffix(first[0], " active web 0 web") || strings.Contains(first[0], "start  ") {
		t.Errorf("given to start: %q", first)
	}
	if len(d.calls(string(n.Name)+" validate")) == 0 {
		t.Error("it was not asked whether it could run")
	}
	other := otherOf(r, n)
	move(t, r, n, other)
	d.lives(t, other)
	if s := d.calls(string(n.Name) + " stop"); len(s) != 1 {
		t.Errorf("stopped: %q", s)
	}
	// Cut off: nobody tells it anything, and its stop is never run before the deadline.
	must(t, r.Sever(other, Blue, Red))
	back := active(t, r, n.Name)
	d.lives(t, back)
	must(t, r.Heal())
	// It is one of the cluster again when the stop of what was killed is proved.
	must(t, r.Whole(bound))
	eventually(t, "the stop after the kill", func() bool { return len(d.calls(string(other.Name)+" stop")) > 0 })
	for _, s := range d.calls(string(other.Name) + " stop") {
		if !strings.HasSuffix(s, " standby web 0 web") {
			t.Errorf("it was stopped without a right, and told %q", s)
		}
	}
	if s := d.stays(t); len(s) != 3 {
		t.Errorf("the daemon lived on %v", s)
	}
}

// A stop that hangs is no proof: the group stays until it is one.
func TestScriptThatHangsAtStop(t *testing.T) {
	d := newDB(t)
	r := begun(t, Options{Parts: d.part("")})
	n := active(t, r, "")
	d.lives(t, n)
	d.how(t, "stop", "sleep 1000 & wait")
	other := otherOf(r, n)
	asked(t, n, other)
	eventually(t, "the stop is told as failed", func() bool { return strings.Contains(n.Tool("alarms"), "did not end within 2s") })
	eventually(t, "the stop is tried again", func() bool { return len(d.calls(string(n.Name)+" stop")) > 1 })
	if s := d.calls(string(other.Name) + " start"); len(s) != 0 {
		t.Errorf("started without a proof of stop: %q", s)
	}
	d.how(t, "stop", "")
	d.goes(t, other)
	if s := d.stays(t); len(s) != 2 {
		t.Errorf("the daemon lived on %v", s)
	}
	eventually(t, "the alarm is taken away", func() bool { return !strings.Contains(n.Tool("alarms"), "script db") })
}

// asked asks a node to have the group go to another one.
func asked(t *testing.T, n, to *Node) {
	t.Helper()
	if out := n.Tool("move", string(Group), string(to.Name)); !strings.Contains(out, "goes to") {
		t.Fatal(out)
	}
}

func move(t *testing.T, r *Rack, from, to *Node) {
	t.Helper()
	asked(t, from, to)
	active(t, r, to.Name)
}

func otherOf(r *Rack, n *Node) *Node {
	for _, o := range r.Nodes() {
		if o != n && !o.Witness {
			return o
		}
	}
	return nil
}

// Exit 2, and what could not be run at all, lets the other node try; exit 1 and any code
// that the contract does not have nobody, until an operator says so.
func TestScriptThatDoesNotStart(t *testing.T) {
	t.Run("elsewhere", func(t *testing.T) {
		d := newDB(t)
		d.how(t, "start", `case $GEMEL_NODE in a) exit 2;; esac`)
		r := begun(t, Options{Parts: d.part("")})
		d.lives(t, r.Node("b"))
		if s := d.calls("a start"); len(s) != 1 {
			t.Errorf("on the first node: %q", s)
		}
	})
	t.Run("killed", func(t *testing.T) {
		d := newDB(t)
		d.how(t, "start", "kill -9 $$")
		nowhere(t, d, "killed by signal 9")
	})
	t.Run("after 10 MB of output", func(t *testing.T) {
		d := newDB(t)
		d.how(t, "start", "head -c 10000000 /dev/zero | tr '\\0' x; exit 77")
		nowhere(t, d, "exit code 77")
	})
}

// nowhere is a group whose script may be started nowhere, until it is cleared.
func nowhere(t *testing.T, d db, reason string) {
	t.Helper()
	r := racked(t, Options{Parts: d.part("")})
	for _, n := range r.Nodes() {
		must(t, n.Start())
	}
	a, b := r.Node("a"), r.Node("b")
	eventually(t, "it is told why", func() bool { return strings.Contains(a.Tool("alarms"), reason) })
	pass(1e9) // asked sooner it would be a request that the other node could fulfil
	eventually(t, "it is barred everywhere", func() bool { return strings.Contains(b.Tool("move", string(Group), "b"), "started nowhere") })
	must(t, a.Crash())
	eventually(t, "the node is evicted", func() bool { return strings.Contains(b.Tool("status"), "evicted") })
	if s := append(d.calls("a start"), d.calls("b start")...); len(s) != 1 {
		t.Errorf("started: %q", s)
	}
	d.how(t, "start", "")
	if out := b.Tool("clear", "group/"+string(Group)); !strings.Contains(out, "may go to") {
		t.Error(out)
	}
	d.lives(t, b)
}

// As another user, and with a program that is not there or may not be executed.
func TestScriptOfAnotherUser(t *testing.T) {
	d := newDB(t)
	r := begun(t, Options{Parts: d.part(", user: nobody")})
	n := active(t, r, "")
	d.lives(t, n)
	if s := d.calls(string(n.Name) + " start"); len(s) != 1 || strings.Contains(s[0], " 0 web") {
		t.Errorf("run as %q", s)
	}
	must(t, os.Chmod(filepath.Join(string(d), "db"), 0o644))
	asked(t, n, otherOf(r, n))
	// Its stop cannot be executed, which proves nothing.
	eventually(t, "it is told", func() bool { return strings.Contains(n.Tool("alarms"), "permission denied") })
	must(t, os.Chmod(filepath.Join(string(d), "db"), 0o755))
	d.goes(t, otherOf(r, n))
	if s := d.stays(t); len(s) != 2 {
		t.Errorf("the daemon lived on %v", s)
	}
}

// Resource agents of Debian: one that only remembers, and one that adds an address.
func TestAgentsOfAGroup(t *testing.T) {
	need.Command(t, "/usr/lib/ocf/resource.d/heartbeat/Dummy")
	need.Command(t, "/usr/lib/ocf/resource.d/heartbeat/IPaddr2")
	dir := t.TempDir()
	state := func(n *Node) string { return filepath.Join(dir, "state") }
	r := begun(t, Options{Parts: `require-level: 1, ocf: [` +
		`{name: d, agent: "ocf:heartbeat:Dummy", every: 1s, parameters: {state: ` + filepath.Join(dir, "state") + `}}, ` +
		`{name: ip, agent: "ocf:heartbeat:IPaddr2", every: 1s, parameters: {ip: 10.77.3.101, cidr_netmask: "24"}}]`})
	n := active(t, r, "")
	must(t, there(state(n)))
	// The monitor finds that it is gone: everything of the group begins anew, here.
	must(t, os.Remove(state(n)))
	eventually(t, "the agent was started again", func() bool { return there(state(n)) == nil })
	if out := n.Tool("events", "-n", "50"); !strings.Contains(out, "existence: ocf:heartbeat:Dummy") {
		t.Errorf("its loss was told as\n%s", out)
	}
	active(t, r, n.Name)
	other := otherOf(r, n)
	move(t, r, n, other)
	must(t, there(state(other)))
}

func there(path string) error { _, err := os.Stat(path); return err }

// What is asked for in the same instant in which the group became active is not
// forgotten: the node that is asked may not have heard of the grant yet.
func TestAskedAtOnce(t *testing.T) {
	r := racked(t, Options{})
	for _, n := range r.Nodes() {
		must(t, n.Start())
	}
	n := active(t, r, "")
	to := otherOf(r, n)
	for !strings.Contains(n.Tool("move", string(Group), string(to.Name)), "goes to") {
		pass(10e6) // it may not know the other one yet
	}
	eventually(t, "it is done, or over", func() bool {
		return strings.Contains(to.Tool("status"), "active  "+string(to.Name)) || !strings.Contains(to.Tool("status"), "asked for on")
	})
}

// The monitor's death is nothing to a part; its holder's is the loss of it, and what it
// held is stopped before it is started again.
func TestScriptWithoutMonitorOrHolder(t *testing.T) {
	d := newDB(t)
	r := begun(t, Options{Parts: d.part("")})
	n := active(t, r, "")
	d.lives(t, n)
	must(t, n.Signal(unix.SIGKILL, "monitor"))
	must(t, r.Whole(bound))
	d.lives(t, n)
	if s := d.calls(string(n.Name) + " st"); len(s) != 1 {
		t.Errorf("the death of the monitor: %q", s)
	}
	must(t, n.killHolder())
	eventually(t, "it is stopped and started again", func() bool { return len(d.calls(string(n.Name)+" st")) >= 3 })
	if s := d.calls(string(n.Name) + " st"); len(s) != 3 || !strings.Contains(s[1], " stop ") {
		t.Errorf("the death of the holder: %q", s)
	}
	d.lives(t, n)
	if s := d.stays(t); len(s) != 1 {
		t.Errorf("the daemon lived on %v", s)
	}
}

// killHolder kills the program that holds the script's part.
func (n *Node) killHolder() error {
	for _, p := range n.Processes() {
		if w := words(p.PID, "cmdline"); len(w) == 2 && w[1] == "part" {
			return unix.Kill(p.PID, unix.SIGKILL)
		}
	}
	return fmt.Errorf("no holder among %v", n.Processes())
}

// An agent that is not there: every node says so, and the group runs nowhere.
func TestAgentThatIsMissing(t *testing.T) {
	r := racked(t, Options{Parts: `require-level: 1, ocf: [{name: d, agent: "ocf:heartbeat:NoSuchAgent"}]`})
	for _, n := range r.Nodes() {
		must(t, n.Start())
	}
	for _, n := range []*Node{r.Node("a"), r.Node("b")} {
		eventually(t, "it is told before it matters", func() bool { return strings.Contains(n.Tool("events"), "ocf d could not run on "+string(n.Name)) })
	}
	for _, on := range []string{"a", "b"} {
		eventually(t, "each node knows why it is for neither", func() bool {
			return strings.Contains(r.Node("b").Tool("why", "not", string(Group), "on", on), "it could not run on "+on+": ocf d:")
		})
	}
}

// A node on which validate says no gets the group by nothing, and says why; when the cause
// is gone it may have it again.
func TestValidateSaysNo(t *testing.T) {
	d := newDB(t)
	d.how(t, "validate", "case $GEMEL_NODE in a) echo there is no disk; exit 1;; esac")
	r := begun(t, Options{Parts: d.part("")})
	a, b := r.Node("a"), r.Node("b")
	d.lives(t, b)
	if s := d.calls("a start"); len(s) != 0 {
		t.Errorf("on the node that it could not run on: %q", s)
	}
	eventually(t, "the others know why", func() bool {
		return strings.Contains(b.Tool("why", "not", string(Group), "on", "a"), "it could not run on a: script db:")
	})
	if out := b.Tool("plan"); !strings.Contains(out, "it could not run on a: script db:") {
		t.Errorf("plan:\n%s", out)
	}
	if out := b.Tool("plan", "--if", "node b lost"); strings.Contains(out, "b -> a") || !strings.Contains(out, "it could not run on a") {
		t.Errorf("plan, if b is lost:\n%s", out)
	}
	for _, args := range [][]string{{"move", string(Group), "a"}, {"move", string(Group), "a", "--forced"}} {
		if out := b.Tool(args...); !strings.Contains(out, "could not run on a") {
			t.Errorf("%q: %s", args, out)
		}
	}
	// On the node that has it validate counts for nothing.
	d.how(t, "validate", "exit 2")
	must(t, b.Signal(unix.SIGKILL, "monitor"))
	must(t, r.Whole(bound))
	d.lives(t, b)
	d.how(t, "validate", "")
	must(t, a.Signal(unix.SIGKILL, "monitor"))
	must(t, r.Whole(bound))
	d.goes(t, a)
	if s := d.stays(t); len(s) != 2 {
		t.Errorf("the daemon lived on %v", s)
	}
}

// A stop that hangs when the group's deadline comes is killed with what it was to stop,
// and the other node begins.
func TestScriptThatHangsAtTheDeadline(t *testing.T) {
	d := newDB(t)
	r := begun(t, Options{Parts: strings.ReplaceAll(d.part(""), "stop: 2s", "stop: 1m")})
	n := active(t, r, "")
	other := otherOf(r, n)
	d.lives(t, n)
	d.how(t, "stop", `if [ "$GEMEL_ROLE" = active ]; then echo $$ >"$d/hangs"; setsid sleep 1000 & wait; fi`)
	hangs := filepath.Join(string(d), "hangs")
	var asked ha.Instant
	eventually(t, "its stop hangs", func() bool {
		if clock.Now() > asked.Add(5e9) {
			asked = clock.Now()
			n.Tool("move", string(Group), string(other.Name))
		}
		return there(hangs) == nil
	})
	must(t, r.Sever(n, Blue, Red))
	d.lives(t, other)
	b, err := os.ReadFile(hangs)
	must(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	must(t, err)
	if s := state(pid); s != 0 && s != 'Z' { // who inherits it may be slow to reap
		t.Errorf("the stop still runs as %d", pid)
	}
	for _, p := range n.Processes() {
		if w := words(p.PID, "cmdline"); len(w) > 0 && w[0] == "sleep" {
			t.Errorf("what it started still runs as %d", p.PID)
		}
	}
	if s := d.stays(t); len(s) != 2 {
		t.Errorf("the daemon lived on %v", s)
	}
	must(t, r.Heal())
	must(t, r.Whole(bound))
}
