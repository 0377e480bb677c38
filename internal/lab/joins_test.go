package lab

import (
	"maps"
	"os"
	"strings"
	"testing"

	gemelv1 "gemel/api/gemel/v1"
)

// web is a manifest with the names of the manual.
const web = `processes:
  shop:
    ramp-up: 50ms
` + sleeper + `groups:
  web: {nodes: [alpha, beta], run: [shop], require-level: 0}
`

// shut has the kernel of a machine drop what comes in and matches; "" lets all of it in.
func (b *box) shut(match string) {
	b.tb.Helper()
	rules := "add table inet ports; delete table inet ports"
	if match != "" {
		rules += "; add table inet ports; add chain inet ports in { type filter hook input priority 0; }; add rule inet ports in " + match + " drop"
	}
	b.site.inside(b.holder, "nft '"+rules+"'")
}

// TestJoinsThatAreRefused: what is wrong with a token, a name, a port or a machine is
// refused with its reason and what to do, also when it is tried again; nobody loses anything
// by it, and the machine that was refused joins as soon as it does so rightly.
func TestJoinsThatAreRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, "10.0.0.%d/24", "10.1.0.%d/24")
	alpha, beta, delta := s.box("alpha", 1, web), s.box("beta", 2, ""), s.box("delta", 4, "")
	stray, omega := s.box("stray", 9, ""), s.box("omega", 8, "")
	alpha.Begin()
	first := printed(t, alpha.does("gemel init"), "gemel join")
	foreign := strings.ReplaceAll(printed(t, omega.does("gemel init"), "gemel join"), "10.0.0.8:5314,10.1.0.8:5314", "10.0.0.1:5314,10.1.0.1:5314")
	beta.does(first)
	beta.Begin()
	alpha.Until("both are members", func(s *gemelv1.Snapshot) bool { return nodes(s) == "alpha member, beta member" && active(s, "web") })
	pid, was := Process(alpha.Status(), "shop").GetPid(), beta.keeps()

	good := printed(t, alpha.does("gemel token"), "gemel join")
	spare := printed(t, alpha.does("gemel token"), "gemel join")
	other := printed(t, alpha.does("gemel token"), "gemel join")
	// Who was refused a name gets it by no repetition, and another one by the same token.
	for range 2 {
		delta.deniesAnd("a name that is taken", spare+" --name beta", "there is a node beta already")
	}
	// Where nobody answers it is tried for ten seconds.
	nobody := make(chan struct{})
	go func() {
		defer close(nobody)
		delta.deniesAnd("nobody there", strings.Replace(spare, "10.0.0.1:5314,10.1.0.1:5314", "10.0.0.2:5315", 1), "10.0.0.2:5315")
	}()
	t.Cleanup(func() { <-nobody })
	named := printed(t, alpha.does("gemel token --name delta"), "gemel join")
	for _, c := range []struct{ name, line, words string }{
		{"malformed", good[:len(good)-3], "mistyped"},
		{"no token", "gemel join 10.0.0.1:5314 no-token", "token"},
		{"of another cluster", foreign, "cluster"},
		{"used", first, "was used at"},
		{"for a node", strings.Replace(good, "join", "join --witness", 1), "this token is for a node, and --witness was given"},
		{"for another name", named + " --name epsilon", `this token is for the name "delta", not for "epsilon"`},
		{"no name", other + " --name 'a b'", `the name "a b": 1 to 253 letters`},
		{"a name that is taken", other + " --name beta", "there is a node beta already"},
		{"an address that is not here", good + " --address net1=10.0.0.77", "this machine does not have it"},
		{"one network", good + " --address net1=10.0.0.9", "it has no address in [net2]"},
		{"a network that is not there", good + " --address blue=10.0.0.9 --address red=10.1.0.9", "there is no network blue in the cluster; there are [net1 net2]"},
		{"another name than before", good + " --name beta", "this machine was let in as stray by this token"},
	} {
		stray.deniesAnd(c.name, c.line, c.words)
	}

	// What does not pass is found before anything is changed.
	for _, c := range []struct {
		at          *box
		match, word string
	}{
		{stray, "ip daddr 10.0.0.9 udp dport 5314", "alpha does not reach stray on net1 at 10.0.0.9:5314: UDP: nothing comes back"},
		{stray, "ip daddr 10.1.0.9 tcp dport 5314", "alpha does not reach stray on net2 at 10.1.0.9:5314: TCP: "},
		{beta, "ip daddr 10.0.0.2 tcp dport 5314", "beta is not reached on net1 at 10.0.0.2:5314"},
		{stray, "ip daddr 10.1.0.9 tcp dport 5316", "alpha does not reach stray for the store at 10.1.0.9:5316: TCP: "},
		{alpha, "ip daddr 10.0.0.1 tcp dport 5316", "the member of the store of alpha is not reached on net1 at 10.0.0.1:5316"},
	} {
		c.at.shut(c.match)
		stray.deniesAnd(c.match, good, c.word)
		c.at.shut("")
	}

	// A machine that is something already stays what it is.
	beta.deniesAnd("a member that runs", good, "this machine is in the cluster cluster already")
	beta.Stop()
	beta.deniesAnd("a member that is down", good, "this machine is beta of the cluster cluster")
	beta.deniesAnd("init of a member", "gemel init", "this machine is beta of the cluster cluster")
	if now := beta.keeps(); !maps.Equal(now, was) {
		t.Errorf("what was refused changed the files of beta")
	}
	beta.Begin()
	stray.Write(web)
	stray.Begin()
	stray.deniesAnd("groups run here", good, "groups run here: web")
	stray.Stop()
	if err := os.Remove(stray.Path("gemel.yaml")); err != nil {
		t.Fatal(err)
	}
	sn := alpha.Until("both are still members", func(s *gemelv1.Snapshot) bool { return nodes(s) == "alpha member, beta member" && active(s, "web") })
	if now := Process(sn, "shop").GetPid(); now != pid {
		t.Errorf("shop was pid %d and is %d", pid, now)
	}

	stray.does(good, "stray is in the cluster cluster")
	stray.Begin()
	alpha.Until("it is a member", func(s *gemelv1.Snapshot) bool {
		return nodes(s) == "alpha member, beta member, stray member" && s.GetCluster().GetLacks() == ""
	})
	<-nobody
	delta.does(spare, "delta is in the cluster cluster")
	delta.Begin()
	alpha.Until("the other one is as well", func(s *gemelv1.Snapshot) bool {
		return nodes(s) == "alpha member, beta member, stray member, delta member"
	})
}

// deniesAnd types a line that has to be refused with some words and what to do, and to
// leave nothing of a node behind.
func (b *box) deniesAnd(what, line, words string) {
	b.tb.Helper()
	before, file := exists(b.Path("node.yaml")), exists(b.Path("gemel.yaml"))
	out, code := b.types(line)
	if code != 3 || !strings.Contains(out, words) || !strings.Contains(out, "\n  ") {
		b.tb.Errorf("%s: %s: exit %d, wanted a refusal with %q and what to do: %s", what, line, code, words, out)
	}
	if exists(b.Path("node.yaml")) != before || exists(b.Path("gemel.yaml")) != file {
		b.tb.Errorf("%s: node.yaml or gemel.yaml came to be or went", what)
	}
}
