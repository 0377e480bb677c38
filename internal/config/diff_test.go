package config

import (
	"strings"
	"testing"

	"gemel/internal/manifest"
)

func TestDiff(t *testing.T) {
	const before = `
processes:
  gone: {command: [/bin/true]}
  same: {command: [/bin/true], environment: {A: b}}
  argv: {command: [/bin/sleep, 1], environment: {A: b, C: d}}
  tuned: {command: [/bin/true], restarts: {limit: 3}}
  parked: {command: [/bin/true], autostart: false}
  beats: {command: [/bin/true], watchdog: {interval: 1s}}
  looked: {command: [/bin/true], watchdog: {interval: 1s, by: command, command: [/bin/true]}}
checks:
  c: {command: [/bin/true], covers: [same]}
node: {budget: {limit: 3}}
`
	const after = `
processes:
  same: {environment: {A: b}, command: [/bin/true], severity: minor}
  argv: {command: [/bin/sleep, 2], environment: {A: x, E: f}}
  tuned: {command: [/bin/true], restarts: {limit: 4, then: failover}, output: {size: 1MiB}}
  parked: {command: [/bin/true]}
  beats: {command: [/bin/true], watchdog: {interval: 2s}}
  looked: {command: [/bin/true], watchdog: {interval: 2s, by: command, command: [/bin/true]}}
  new: {command: [/bin/true]}
  new.later: {command: [/bin/true], autostart: false}
checks:
  c: {tcp: {address: 80}, covers: [same]}
  d: {command: [/bin/true], covers: []}
groups:
  g: {nodes: [alpha], run: [same]}
node: {budget: {limit: 5}, syslog: true}
`
	const want = `process argv: restart
  command: [/bin/sleep, "1"] -> [/bin/sleep, "2"]
  environment.A: b -> x
  environment.C: d -> (default)
  environment.E: (default) -> f
process beats: restart
  watchdog.interval: 1s -> 2s
process gone: stop
process looked: in place
  watchdog.interval: 1s -> 2s
process new: start
process new.later: in place
process parked: start
  autostart: false -> (default)
process tuned: in place
  restarts.limit: 3 -> 4
  restarts.then: (default) -> failover
  output: (default) -> {size: 1MiB}
check c: in place
  command: [/bin/true] -> (default)
  tcp: (default) -> {address: "127.0.0.1:80"}
check d: start
group g: start
node: in place
  budget: (default) -> {limit: 5}
  syslog: (default) -> true`
	a, b := parsed(t, before), parsed(t, after)
	if got := printed(Diff(a, b, "")); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if c := Diff(a, a, ""); len(c) > 0 {
		t.Errorf("a manifest differs from itself: %v", c)
	}
	for _, c := range Diff(nil, a, "") {
		if c.Effect != EffectStart && c.Name != "parked" {
			t.Errorf("from nothing: %v", c)
		}
	}
	for _, c := range Diff(a, nil, "") {
		if c.Effect != EffectStop {
			t.Errorf("to nothing: %v", c)
		}
	}
}

func parsed(t *testing.T, s string) *manifest.Manifest {
	t.Helper()
	m, err := Parse("gemel.yaml", []byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func printed(changes []Change) string {
	var out []string
	for _, c := range changes {
		out = append(out, c.String())
	}
	return strings.Join(out, "\n")
}

// What changes of a group is told key by key, and of its parts by their names.
func TestDiffGroup(t *testing.T) {
	const processes = "processes: {web: {command: [/bin/web]}}\n"
	const before = processes + `
groups:
  other: {nodes: [alpha]}
  g:
    nodes: [alpha, beta]
    run: [web]
    addresses: [192.0.2.10/24]
    weights: {memory: 4G}
    scripts:
      - {name: one, start: [/bin/one], stop: [/bin/stop]}
      - {name: two, start: [/bin/two], stop: [/bin/stop]}
      - {name: old, start: [/bin/old], stop: [/bin/stop]}
`
	const after = processes + `
groups:
  other: {nodes: [alpha]}
  g:
    nodes: [alpha, beta]
    run: [web]
    addresses: [{address: 192.0.2.10/24, device: eth1}, "2001:db8::10/64"]
    weights: {memory: 8GiB, licences: 1}
    policy: configured-node
    failback: automatic
    failback-window: ["sat,sun 02:00-04:00"]
    after: [other]
    require-level: 1
    failover-limit: {limit: 5}
    scripts:
      - {name: two, start: [/bin/two], stop: [/bin/stop]}
      - {name: one, start: [/bin/one], stop: [/bin/stop], timeouts: {stop: 5s}}
      - {name: new, start: [/bin/new], stop: [/bin/stop]}
`
	const want = `group g: in place
  addresses: ["192.0.2.10/24"] -> [{address: "192.0.2.10/24", device: eth1}, "2001:db8::10/64"]
  scripts.one.timeouts: (default) -> {stop: 5s}
  scripts.old: {name: old, start: [/bin/old], stop: [/bin/stop]} -> (default)
  scripts.new: (default) -> {name: new, start: [/bin/new], stop: [/bin/stop]}
  scripts: [one, two, old] -> [two, one, new]
  weights.memory: 4G -> 8GiB
  weights.licences: (default) -> 1
  require-level: 2 -> 1
  failback: (default) -> automatic
  failback-window: (default) -> ["sat,sun 02:00-04:00"]
  after: (default) -> [other]
  failover-limit: (default) -> {limit: 5}`
	if got := printed(Diff(parsed(t, before), parsed(t, after), "")); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// A part that raises the level that a node must offer says so.
	const bare, more = "groups: {g: {nodes: [alpha]}}", `groups: {g: {nodes: [alpha], ocf: [{name: d, agent: "ocf:a:b"}]}}`
	if got := printed(Diff(parsed(t, bare), parsed(t, more), "")); !strings.Contains(got, "\n  require-level: (default) -> 2") {
		t.Errorf("nothing is said of the level:\n%s", got)
	}
}
