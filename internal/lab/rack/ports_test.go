package rack

import (
	"fmt"
	"strings"
	"testing"
)

// block has the kernel of a node drop what comes in and matches; "" lets all of it in.
func block(t *testing.T, n *Node, match string) {
	t.Helper()
	rules := "table inet ports {}\ndelete table inet ports\n"
	if match != "" {
		rules += fmt.Sprintf("table inet ports { chain in { type filter hook input priority 0; %s drop; }; }\n", match)
	}
	must(t, run(rules, "ip", "netns", "exec", n.rack.prefix+"-"+string(n.Name), "nft", "-f", "-"))
}

// A firewall that lets heartbeats through and connections not, or the reverse: it is told
// on both sides who cannot reach whom, where and how, and nothing moves.
func TestPortsThatAreShut(t *testing.T) {
	r := begun(t, Options{})
	a, b := r.Node("a"), r.Node("b")
	n := active(t, r, "")
	block(t, b, "ip saddr "+address(Blue, a.number)+" tcp dport 5316 ct state new")
	eventually(t, "it is told that connections do not pass", func() bool {
		return strings.Contains(a.Tool("alarms"), "TCP 5316 from a to b does not pass over blue ("+address(Blue, b.number)+":5316: no answer within 1s), and heartbeats of b do")
	})
	if out := b.Tool("alarms") + r.Node("w").Tool("alarms"); strings.Contains(out, "does not pass") {
		t.Errorf("whose way is open says\n%s", out)
	}
	block(t, b, "udp dport 5314 ip6 saddr "+address(Red, a.number))
	eventually(t, "the alarm is about the other network, and the other direction", func() bool {
		out := b.Tool("alarms")
		return strings.Contains(out, "UDP from a to b does not pass over red, and TCP from b to a does") && !strings.Contains(a.Tool("alarms"), "TCP 5316 from")
	})
	eventually(t, "who is not heard says so as well", func() bool { return strings.Contains(a.Tool("alarms"), "UDP from a to b does not pass over red") })
	block(t, b, "")
	eventually(t, "the alarms are taken away", func() bool { return !strings.Contains(a.Tool("alarms")+b.Tool("alarms"), "does not pass") })
	if now := active(t, r, ""); now != n {
		t.Errorf("the group went from %s to %s", n.Name, now.Name)
	}
}

// TestForsaken: heartbeats of the active node pass, and nothing else: no member of the store
// answers it, and its voter nobody. It is heard all the time; its group goes elsewhere all the same.
func TestForsaken(t *testing.T) {
	r := begun(t, Options{})
	n := active(t, r, "")
	other := otherOf(r, n)
	block(t, n, "meta l4proto tcp")
	active(t, r, other.Name)
	if out := other.Tool("why", "node/"+string(n.Name)) + other.Tool("events", "-n", "100", "--json"); !strings.Contains(out, "says that the store does not answer it") {
		t.Errorf("why it was suspected is not told:\n%s", out)
	}
	block(t, n, "")
	must(t, r.Whole(bound))
}
