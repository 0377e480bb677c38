package config

import (
	"strings"
	"testing"

	"gemel/internal/ha"
)

// What does not come about on one machine is told with its place, and is no error.
func TestRemarks(t *testing.T) {
	text := `processes:
  db: {command: [/bin/sleep, "1"], on: [alpha, beta]}
  web: {command: [/bin/sleep, "1"], needs: [db]}
  all: {command: [/bin/sleep, "1"]}
files:
  www: {paths: [/srv/www]}
groups:
  g: {nodes: [alpha, beta], run: [web], addresses: [192.0.2.10/24], files: [www]}
`
	for node, want := range map[ha.Node]int{"alpha": 1, "gamma": 2, "": 1} {
		m, remarks, err := Read("gemel.yaml", []byte(text), node)
		if err != nil || m == nil || len(remarks) != want {
			t.Errorf("on %q: %d remarks, want %d: %v %v", node, len(remarks), want, remarks, err)
		}
	}
	_, remarks, _ := Read("gemel.yaml", []byte(text), "gamma")
	for i, want := range []string{
		"gemel.yaml:2:40: processes.db.on: db does not run here: this node is called \"gamma\", and on: names alpha and beta",
		"gemel.yaml:8:3: groups.g: it waits for a cluster; web runs here, without a standby; its addresses and file sets are not served",
	} {
		if got, _, _ := strings.Cut(remarks[i].Error(), "\n"); got != want {
			t.Errorf("remark %d is %q, want %q", i, got, want)
		}
	}
	if _, remarks, err := Read("gemel.yaml", []byte("processes: {a: {}}"), "alpha"); err == nil || len(remarks) > 0 {
		t.Errorf("a wrong manifest: %v %v", remarks, err)
	}
}

// What a change of on: does depends on the node.
func TestDiffOn(t *testing.T) {
	a := parsed(t, "processes:\n  p: {command: [/bin/p], on: [alpha]}\n  q: {command: [/bin/q], on: [beta]}\n  r: {command: [/bin/r]}\n")
	b := parsed(t, "processes:\n  p: {command: [/bin/p], on: [beta]}\n  q: {command: [/bin/q, more], on: [beta, gamma]}\n  s: {command: [/bin/s], on: [alpha]}\n")
	for node, want := range map[ha.Node]string{
		"alpha": "p stop, q in place, r stop, s start",
		"beta":  "p start, q restart, r stop, s in place",
		"delta": "p in place, q in place, r stop, s in place",
		"":      "p in place, q restart, r stop, s start",
	} {
		var got []string
		for _, c := range Diff(a, b, node) {
			got = append(got, c.Name+" "+string(c.Effect))
		}
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("on %q: %s, want %s", node, s, want)
		}
	}
}
