package lab

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	gemelv1 "gemel/api/gemel/v1"
)

// asked is who answers at an address, as a machine sees it.
func (b *box) asked(address string) string {
	b.tb.Helper()
	out, _ := b.types("timeout 2 bash -c 'exec 3<>/dev/tcp/" + address + "/8080; cat <&3' 2>/dev/null")
	return strings.TrimSpace(out)
}

// heardOn are the networks on which a machine hears another one.
func heardOn(s *gemelv1.Snapshot, name string) int {
	for _, n := range s.GetCluster().GetNodes() {
		if n.GetName() == name {
			return len(n.GetHears())
		}
	}
	return 0
}

// TestNetworksOfIPv6: a cluster whose networks are both of IPv6, and one with a network of
// each version: addresses are found, what init and token print is typed as it stands, all hear each other on both
// networks, and a group with addresses of them is reached where it is after a move and after a
// crash.
func TestNetworksOfIPv6(t *testing.T) {
	for _, c := range []struct{ name, blue, red, addresses, doors string }{
		{"both", "fd77:1::%d/64", "fd77:2::%d/64", "fd77:1::100 fd77:2::100", "[fd77:1::1]:5314,[fd77:2::1]:5314"},
		{"one of each version", "10.0.0.%d/24", "fd77:2::%d/64", "10.0.0.100 fd77:2::100", "10.0.0.1:5314,[fd77:2::1]:5314"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, c.blue, c.red)
			var list []string
			addresses := strings.Fields(c.addresses)
			for _, a := range addresses {
				list = append(list, strconv.Quote(a+map[bool]string{true: "/64", false: "/24"}[strings.Contains(a, ":")]))
			}
			all := s.joined(fmt.Sprintf("processes:\n  shop:\n    ramp-up: 50ms\n%sgroups:\n  web: {nodes: [alpha, beta], run: [shop], addresses: [%s], require-level: 0}\n",
				Helper(t, "answer", ":8080"), strings.Join(list, ", ")), "alpha", "beta", "gamma")
			alpha, beta, gamma := all["alpha"], all["beta"], all["gamma"]
			alpha.does("gemel token", "gemel join '"+c.doors+"' gj1")
			for name, b := range all {
				b.whole("alpha member, beta member, gamma votes", "alpha beta gamma")
				b.Until("it hears the others on both networks", func(s *gemelv1.Snapshot) bool {
					for other := range all {
						if other != name && heardOn(s, other) != 2 {
							return false
						}
					}
					return true
				})
			}
			reached := func(at *box, name string) {
				t.Helper()
				at.Until("web is here", func(s *gemelv1.Snapshot) bool { return active(s, "web") && on(s, "web") == name })
				for _, a := range addresses {
					await(t, a+" is answered by "+name, func() bool { return gamma.asked(a) == name && at.has(a) })
				}
			}
			reached(alpha, "alpha")
			alpha.does("gemel move web beta")
			reached(beta, "beta")
			for _, a := range addresses {
				if alpha.has(a) {
					t.Errorf("alpha has %s still", a)
				}
			}
			beta.crashes()
			reached(alpha, "alpha")
			beta.boots()
			alpha.whole("alpha member, beta member, gamma votes", "alpha beta gamma")
			if now := on(alpha.Status(), "web"); now != "alpha" {
				t.Errorf("web went to %s when beta came back", now)
			}
		})
	}
}
