package roll

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// rollOf makes a roll: a name that begins with w is a witness.
func rollOf(names ...string) Roll {
	t, _ := manifest.Profile("normal")
	r := Roll{Cluster: manifest.Cluster{ID: "abc", Name: "lab"}, Era: 1, Profile: "normal", Timers: t, Networks: []network{{Name: "blue", Prefix: netip.MustParsePrefix("10.0.0.0/24")}}}
	for _, n := range names {
		var err error
		if r, err = r.with(nodeOf(n, len(r.Nodes)+1)); err != nil {
			panic(err)
		}
	}
	return r
}

func nodeOf(name string, i int) Node {
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Port)
	return entry(name, name[0] == 'w', []way{{net: network{Name: "blue"}, at: at}}, time.Unix(1e9, 0))
}

// The votes as a cluster grows and shrinks: never two, and nobody gets or loses one
// without need.
func TestVotes(t *testing.T) {
	for _, c := range []struct{ names, leave, want string }{
		{"a", "", "a"},
		{"a b", "", "a"},
		{"a b w", "", "a b w"},
		{"a b c", "", "a b c"},
		{"a b c d", "", "a b c"},
		{"a b c w", "", "a b w"},
		{"a b c d e", "", "a b c d e"},
		{"a b c d w", "", "a b c d w"},
		{"a b c d e f", "f", "a b c d e"},
		{"a b", "a", "b"},
		{"a b w", "b w", "a"},
		{"a b w", "a w", "b"},
		{"a b w", "w", "a"},
		{"a b c", "a", "b"},
		{"a b c d", "a", "b c d"},
		{"a b c d e", "c", "a b d"},
		{"a b c d e", "a b c", "d"},
	} {
		r := rollOf(strings.Fields(c.names)...)
		var gone []ha.Node
		for _, n := range strings.Fields(c.leave) {
			gone = append(gone, ha.Node(n))
		}
		var err error
		if len(gone) > 0 {
			r, err = r.without(gone...)
		}
		if got := strings.Join(r.voters(), " "); err != nil || got != c.want {
			t.Errorf("%s less %s: %q vote, want %q (%v)", c.names, c.leave, got, c.want, err)
		}
	}
}

func TestUnsafeShapes(t *testing.T) {
	if _, err := rollOf("a").with(nodeOf("w", 2)); err == nil || !strings.Contains(err.Error(), "Join the second node first") {
		t.Errorf("a witness beside one node: %v", err)
	}
	if _, err := rollOf("a", "b", "w").without("b"); err == nil || !strings.Contains(err.Error(), "--with-witness") {
		t.Errorf("a node and a witness are left: %v", err)
	}
	if _, err := rollOf("a").without("a"); err == nil || !strings.Contains(err.Error(), "last node") {
		t.Errorf("nobody is left: %v", err)
	}
	if err := rollOf("a").fits(nodeOf("b", 1), false); err == nil || !strings.Contains(err.Error(), "address of a already") {
		t.Errorf("an address of somebody else: %v", err)
	}
	many := rollOf("a")
	for i := 2; i <= maxNodes; i++ {
		many, _ = many.with(nodeOf(fmt.Sprintf("n%d", i), i))
	}
	if _, err := many.with(nodeOf("x", 99)); err == nil {
		t.Errorf("%d nodes and one more", maxNodes)
	}
}

// A machine that is replaced keeps its place and its vote.
func TestReplaced(t *testing.T) {
	r, err := rollOf("a", "b", "w").with(nodeOf("a", 77))
	if err != nil {
		t.Fatal(err)
	}
	if n := r.Nodes[0]; n.Name != "a" || !n.Voter || n.Addresses["blue"].Addr() != netip.MustParseAddr("10.0.0.77") || len(r.Nodes) != 3 {
		t.Errorf("%+v", r.Nodes)
	}
}

// What a person wrote of his machine stays, and what is the cluster's follows it.
func TestIdentityKeeps(t *testing.T) {
	r := rollOf("a", "b", "w")
	id, err := r.Identity("b", nil)
	if err != nil {
		t.Fatal(err)
	}
	mine := *id
	mine.Networks = slices.Clone(id.Networks)
	mine.Networks[0].Device, mine.Release = "eth7", "1.2"
	next, err := r.with(nodeOf("c", 9))
	if err != nil {
		t.Fatal(err)
	}
	got, err := next.Identity("b", &mine)
	if err != nil {
		t.Fatal(err)
	}
	if got.Networks[0].Device != "eth7" || got.Release != "1.2" || len(got.Peers) != 4 || got.Name != "b" {
		t.Errorf("%+v", got)
	}
}

func TestWays(t *testing.T) {
	p := netip.MustParsePrefix
	devs := []device{{"eth0", p("10.0.0.5/24")}, {"eth0", p("10.0.0.6/24")}, {"eth0", p("2001:db8::5/64")}, {"eth1", p("10.1.0.5/24")}, {"eth2", p("2001:db8:1::5/64")}}
	if got := texts(found(devs)); strings.Join(got, "; ") != "net1=10.0.0.5:5314 on eth0; net2=10.1.0.5:5314 on eth1; net3=[2001:db8:1::5]:5314 on eth2" {
		t.Errorf("found %q", got)
	}
	got := texts(matched([]network{{"red", p("10.1.0.0/24")}, {"blue", p("10.0.0.0/24")}, {"far", p("10.9.0.0/24")}}, devs))
	if strings.Join(got, "; ") != "red=10.1.0.5:5314 on eth1; blue=10.0.0.5:5314 on eth0" {
		t.Errorf("matched %q", got)
	}
	for text, want := range map[string]string{"blue=10.0.0.5": "blue=10.0.0.5:5314 on eth0", "10.1.0.5:7000": "net1=10.1.0.5:7000 on eth1", "six=[2001:db8::5]:7000": "six=[2001:db8::5]:7000 on eth0",
		"six=2001:db8::5": "six=[2001:db8::5]:5314 on eth0", "x=127.9.9.9": "x=127.9.9.9:5314 on lo"} {
		w, err := given([]string{text}, devs)
		if err != nil || texts(w)[0] != want {
			t.Errorf("%s: %v %v", text, w, err)
		}
	}
	for text, want := range map[string]string{"blue=10.0.0.77": "does not have it", "blue=host": "is needed", "blue=": "is needed"} {
		if _, err := given([]string{text}, devs); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if w, _ := given([]string{"a=10.0.0.5", "b=10.0.0.6"}, devs); sharing(w) == nil {
		t.Error("two addresses of one network pass for two networks")
	}
}
