package config

import (
	"strings"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

const (
	leastLevel = 0
	mostLevel  = 3
)

// groupObject is the table of the keys of a group.
func groupObject() object[manifest.Group] {
	type G = manifest.Group
	files := nameList[string]("file set")
	fields := []field[G]{
		at("nodes", listKind("names", nameKind[ha.Node]("node"), listing{least: 1, unique: true}), func(g *G) *[]ha.Node { return &g.Nodes },
			"The nodes in the order of preference.").must(),
		at("run", nameList[ha.Process]("process"), func(g *G) *[]ha.Process { return &g.Run }, "What runs on the active node."),
		at("standby", nameList[ha.Process]("process"), func(g *G) *[]ha.Process { return &g.Standby }, "What runs on the standby nodes."),
		at("addresses", listKind("addresses", addressKind(), listing{unique: true}), func(g *G) *[]manifest.Address { return &g.Addresses },
			"Addresses of the active node. {address: 192.0.2.10/24, device: eth1} says on which device; without it: the one with an address of that network."),
		at("files", files, func(g *G) *[]string { return &g.Files }, "File sets that the standbys get from the active node."),
		at("scripts", objectList(scriptObject(), "scripts, as [{name: export, start: [/x/export, start], stop: [/x/export, stop]}]"),
			func(g *G) *[]manifest.Script { return &g.Scripts }, "Parts that commands start and stop."),
		at("ocf", objectList(agentObject(), "resource agents, as [{name: disk, agent: \"ocf:heartbeat:Filesystem\"}]"),
			func(g *G) *[]manifest.Agent { return &g.OCF }, "Parts that OCF resource agents start, stop and monitor."),
		at("order", listKind("parts", nameKind[string]("part"), listing{least: 1, unique: true}), func(g *G) *[]string { return &g.Order },
			"The order of the start: names of ocf and scripts, and the words addresses and programs. It is stopped in reverse. "+
				"Without it: ocf and scripts as they are listed, addresses, programs."),
		at("start-timeout", durationKind(time.Second, day), func(g *G) *time.Duration { return &g.StartTimeout },
			"Bounds the start as a whole. One that takes longer has failed: it is undone, and another node is asked for. Without it: the bounds of its parts."),
		at("stop-timeout", durationKind(time.Second, day), func(g *G) *time.Duration { return &g.StopTimeout },
			"Bounds the stop as a whole. After it the programs are killed; what is not proved stopped then is an alarm. Without it: the bounds of its parts."),
	}
	return object[G]{fresh: freshGroup, fields: append(fields, groupPlacement()...)}
}

// groupPlacement holds the keys that say where a group belongs; the others say
// what it is.
func groupPlacement() []field[manifest.Group] {
	type G = manifest.Group
	type B = manifest.Budget
	groups := nameList[ha.Group]("group")
	policy, failback := []string{"configured-node", "least-groups"}, []string{"manual", "automatic"}
	limit := object[B]{fresh: func() B { return freshGroup().FailoverLimit }, fields: []field[B]{
		at("limit", intKind(0, 1000), func(b *B) *int { return &b.Limit },
			"Failovers in the window, after which it is moved only by the loss of its node or by an operator. 0: no bound."),
		at("within", durationKind(time.Minute, year), func(b *B) *time.Duration { return &b.Within }, "The sliding window."),
	}}
	return []field[G]{
		at("policy", choiceKind(policy, policy), func(g *G) *string { return &g.Policy },
			"Which node it gets when nobody has it: the first of nodes, or the one with the fewest groups."),
		at("failback", choiceKind(failback, failback), func(g *G) *string { return &g.Failback },
			"Whether it goes back to the first of nodes by itself."),
		at("failback-window", listKind("windows", windowKind(), listing{least: 1, unique: true, single: true}), func(g *G) *[]manifest.Window { return &g.Windows },
			`When an automatic failback may be made, by the local time of the node that decides: "02:00-04:00", "sat,sun 00:00-06:00", "mon-fri 22:00-02:00". Without it: always.`),
		at("after", groups, func(g *G) *[]ha.Group { return &g.After }, "Start after these groups are active, on whatever node."),
		at("with", groups, func(g *G) *[]ha.Group { return &g.With }, "Only on the node where these groups are. It counts in both directions."),
		at("apart", groups, func(g *G) *[]ha.Group { return &g.Apart }, "Never on a node where one of these groups is. It counts in both directions."),
		at("weights", amountsKind(0), func(g *G) *[]manifest.Amount { return &g.Weights },
			"What it takes of the capacities of a node (node.yaml), by the name of the resource. Of groups it takes 1 without being asked."),
		at("priority", intKind(-1000, 1000), func(g *G) *int { return &g.Priority }, "Who gets a node first when room is scarce: the greater."),
		at("stickiness", intKind(0, 1000), func(g *G) *int { return &g.Stickiness },
			"By how many alarms the other node must be better to move it, where both have a critical one."),
		at("failover-limit", limit.kind(), func(g *G) *manifest.Budget { return &g.FailoverLimit }, "How many failovers in which time."),
		at("require-level", intKind(leastLevel, mostLevel), func(g *G) *int { return &g.RequireLevel },
			"The exclusivity that a node must offer: 0 it stops itself, 1 shadow and guard, 2 a hardware watchdog, 3 an external fence. Without it: 1, with scripts or ocf 2.").
			unless(func(g *G) bool { return g.RequireLevel == 1 && defaultLevel(g) == 1 }), // a level that parts raise is told by Diff
		at("targets", listKind("targets", targetKind(), listing{unique: true}), func(g *G) *[]manifest.Target { return &g.Targets },
			"What should be reached from where it is: a name or an address is asked by ICMP echo, host:port by a TCP connection."),
	}
}

// freshGroup is a group of which nothing is written.
func freshGroup() manifest.Group {
	return manifest.Group{
		Policy: "configured-node", Failback: "manual", RequireLevel: 1,
		FailoverLimit: manifest.Budget{Limit: 3, Within: time.Hour},
	}
}

// defaultLevel is the exclusivity that a group needs if the manifest is silent.
// What a script or an agent started is neither a process nor an address of
// Gemel's, which the shadow and the guard could take away (DESIGN 5.3.5).
func defaultLevel(g *manifest.Group) int {
	if len(g.Scripts) > 0 || len(g.OCF) > 0 {
		return 2
	}
	return 1
}

func freshTimeouts() manifest.Timeouts {
	return manifest.Timeouts{Start: time.Minute, Stop: time.Minute, Monitor: 20 * time.Second, Validate: 20 * time.Second}
}

// timeoutsObject bounds the actions of a part; only an agent is monitored.
func timeoutsObject(monitored bool) object[manifest.Timeouts] {
	type T = manifest.Timeouts
	bound := durationKind(100*time.Millisecond, day)
	fields := []field[T]{
		at("start", bound, func(t *T) *time.Duration { return &t.Start }, "Of the start."),
		at("stop", bound, func(t *T) *time.Duration { return &t.Stop }, "Of the stop. A stop that takes longer is not proved."),
		at("validate", bound, func(t *T) *time.Duration { return &t.Validate }, "Of the validation."),
	}
	if monitored {
		fields = append(fields, at("monitor", bound, func(t *T) *time.Duration { return &t.Monitor }, "Of one monitor."))
	}
	return object[T]{fresh: freshTimeouts, fields: fields}
}

func scriptObject() object[manifest.Script] {
	type S = manifest.Script
	return object[S]{fresh: func() S { return S{Timeouts: freshTimeouts()} }, fields: []field[S]{
		at("name", nameKind[string]("script"), func(s *S) *string { return &s.Name }, "Its name, for order and for events.").must(),
		at("start", argvKind(), func(s *S) *[]string { return &s.Start },
			"Starts it. Exit 0 is done; 1: the group is stopped and started nowhere; 2: it may be tried on another node.").must(),
		at("stop", argvKind(), func(s *S) *[]string { return &s.Stop }, "Stops it. Exit 0 is the proof that it is stopped.").must(),
		at("validate", argvKind(), func(s *S) *[]string { return &s.Validate }, "Says beforehand, on each node, whether the start could work: exit 0."),
		at("user", accountKind("user"), func(s *S) *string { return &s.User }, "The user of the commands. Without it: the user that Gemel runs as."),
		at("environment", pairsKind("a name of letters, digits and underscores", envRule), func(s *S) *map[string]string { return &s.Environment },
			"Variables for the commands."),
		at("timeouts", timeoutsObject(false).kind(), func(s *S) *manifest.Timeouts { return &s.Timeouts }, "After which its commands are killed."),
	}}
}

func agentObject() object[manifest.Agent] {
	type A = manifest.Agent
	kind := agentKind()
	agent := field[A]{
		key: "agent", doc: "The resource agent, as ocf:heartbeat:IPaddr2.", required: true, schema: kind.schema,
		read: func(r *reader, path string, n *tree, to *A) {
			if v, ok := kind.read(r, path, n); ok {
				to.Provider, to.Type, _ = strings.Cut(v, ":")
			}
		},
		write: func(a *A) *tree { return kind.write(a.Provider + ":" + a.Type) },
		same:  func(a, b *A) bool { return a.Provider == b.Provider && a.Type == b.Type },
	}
	fresh := func() A { return A{Every: 10 * time.Second, Timeouts: freshTimeouts()} }
	return object[A]{fresh: fresh, fields: []field[A]{
		at("name", nameKind[string]("resource"), func(a *A) *string { return &a.Name }, "Its name, for order and for events.").must(),
		agent,
		at("parameters", pairsKind("a name of letters, digits and underscores", resourceRule), func(a *A) *map[string]string { return &a.Parameters },
			"What the agent is told, by the names of its own description."),
		at("every", durationKind(time.Second, day), func(a *A) *time.Duration { return &a.Every }, "The time from one monitor to the next."),
		at("timeouts", timeoutsObject(true).kind(), func(a *A) *manifest.Timeouts { return &a.Timeouts }, "After which its actions are killed."),
	}}
}

// resourceRule is the rule for those of a resource agent: they become variables of a
// shell.
func resourceRule(key string) (string, bool) {
	if hint, ok := parameterRule(key); !ok {
		return hint, false
	}
	return "no variable of a shell can have a - in its name", !strings.Contains(key, "-")
}

// parameterRule is the rule for the names of an agent's parameters.
func parameterRule(key string) (string, bool) {
	if own, ok := strings.CutPrefix(key, "OCF_RESKEY_"); ok {
		return "Gemel adds OCF_RESKEY_ itself: write " + clip(own), false
	}
	for i, c := range key {
		if !(c == '_' || c == '-' && i > 0 || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || i > 0 && c >= '0' && c <= '9') {
			return "", false
		}
	}
	return "", key != ""
}
