package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	gemelv1 "gemel/api/gemel/v1"
)

// joined are alpha, and what joined it by the page's commands: nodes with these names, and
// gamma, the witness, third. The last of the address of each is its place in the list.
func (s *site) joined(manifest string, names ...string) map[string]*box {
	s.t.Helper()
	all := map[string]*box{}
	for n, name := range names {
		b := s.box(name, n+1, map[bool]string{true: manifest}[n == 0])
		all[name] = b
		if n == 0 {
			b.Begin()
			b.does("gemel init", "this machine, "+name)
			continue
		}
		s.joins(all, b, name)
	}
	return all
}

// joins takes a machine in, by what a node prints.
func (s *site) joins(all map[string]*box, b *box, name string) {
	s.t.Helper()
	token := "gemel token"
	if name == "gamma" {
		token += " --witness"
	}
	b.does(printed(s.t, all["alpha"].does(token), "gemel join"), name+" is in the cluster")
	b.Begin()
	all[name] = b
	all["alpha"].Until(name+" is in", func(s *gemelv1.Snapshot) bool { return stateOf(s, name) != "" })
}

// stateOf is the state of a machine, as another one sees it.
func stateOf(s *gemelv1.Snapshot, name string) string {
	for _, n := range s.GetCluster().GetNodes() {
		if n.GetName() == name {
			return n.GetState()
		}
	}
	return ""
}

// voters are those that are to have a vote, by what a machine has of the list.
func (b *box) voters() string {
	b.tb.Helper()
	var r struct {
		Nodes []struct {
			Name  string
			Voter bool
		}
	}
	raw, err := os.ReadFile(b.Path("data/cluster/roll.json"))
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	if err != nil {
		b.tb.Fatal(err)
	}
	var out []string
	for _, n := range r.Nodes {
		if n.Voter {
			out = append(out, n.Name)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// whole waits until a machine sees all of the cluster, each with its vote.
func (b *box) whole(want, voters string) *gemelv1.Snapshot {
	b.tb.Helper()
	return b.Until("it sees "+want+", of whom vote "+voters, func(s *gemelv1.Snapshot) bool {
		return s.GetCluster().GetStore() && nodes(s) == want && s.GetCluster().GetLacks() == "" && b.voters() == voters
	})
}

// TestFiveMachines: a fourth node has no vote and reaches the store by way of the others; with
// a fifth machine all five vote. The death of any voter takes nothing from the others, and
// who leaves gives its groups and its vote away first.
func TestFiveMachines(t *testing.T) {
	t.Parallel()
	s := newSite(t, "10.0.0.%d/24", "10.1.0.%d/24")
	all := s.joined(strings.Replace(web, "[alpha, beta]", "[alpha, beta, delta]", 1), "alpha", "beta", "gamma", "delta")
	alpha, beta, gamma, delta := all["alpha"], all["beta"], all["gamma"], all["delta"]
	const four = "alpha member, beta member, gamma votes, delta member"
	for _, b := range all {
		b.whole(four, "alpha beta gamma")
		out := b.does("gemel status", "the store answers", "delta  member")
		if strings.Contains(out, "missing") {
			t.Errorf("status says\n%s", out)
		}
	}
	if p := Process(delta.Status(), "gemel-store"); p != nil {
		t.Errorf("a node without a vote has a member of the store: %v", p)
	}

	// The group goes to the node without a vote, and stays there when the one dies by way
	// of whom it reaches the store.
	alpha.does("gemel move web delta")
	pid := Process(delta.Until("web is here", func(s *gemelv1.Snapshot) bool { return active(s, "web") && on(s, "web") == "delta" }), "shop").GetPid()
	by := delta.does("ss -Htn state established dport = :5314", ":5314")
	for _, dies := range []*box{alpha, beta} {
		if !strings.Contains(by, fmt.Sprintf(".0.%d:5314", dies.number)) {
			continue
		}
		dies.crashes()
		name := map[*box]string{alpha: "alpha", beta: "beta"}[dies]
		delta.Until(name+" is known to be dead", func(s *gemelv1.Snapshot) bool { return s.GetCluster().GetStore() && stateOf(s, name) == "evicted" })
		if now := Process(delta.Status(), "shop").GetPid(); now != pid {
			t.Errorf("shop was pid %d and is %d: the death of %s, which had nothing of the group, stopped it", pid, now, name)
			pid = now
		}
		dies.boots()
		for _, b := range all {
			b.whole(four, "alpha beta gamma")
		}
	}

	// With a fifth machine five vote, and two of them may die.
	epsilon := s.box("epsilon", 5, "")
	s.joins(all, epsilon, "epsilon")
	for _, b := range all {
		b.whole(four+", epsilon member", "alpha beta delta epsilon gamma")
	}
	alpha.crashes()
	beta.crashes()
	delta.Until("both are known to be dead", func(s *gemelv1.Snapshot) bool {
		return s.GetCluster().GetStore() && stateOf(s, "alpha") == "evicted" && stateOf(s, "beta") == "evicted" && active(s, "web")
	})
	alpha.boots()
	beta.boots()
	for _, b := range all {
		b.whole(four+", epsilon member", "alpha beta delta epsilon gamma")
	}

	// The fourth leaves, with the group on it.
	delta.does("gemel leave", "this machine has left its cluster")
	delete(all, "delta")
	for _, b := range all {
		b.Until("three of four vote", func(s *gemelv1.Snapshot) bool {
			return nodes(s) == "alpha member, beta member, gamma votes, epsilon member" && b.voters() == "alpha beta gamma" && on(s, "web") == "alpha"
		})
	}
	alpha.Until("web is active here", func(s *gemelv1.Snapshot) bool { return active(s, "web") })
	await(t, "nothing of it runs where it left", func() bool { return len(delta.Programs()) == 0 })
	delta.denies("gemel run /etc/gemel/gemel.yaml", "left the cluster")
	gamma.does("gemel status", "the store answers")
}
