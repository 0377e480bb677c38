package daemon

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gemel/internal/ha"
	"gemel/internal/netpath"
)

// much is what a node with many groups of long names says, and a cluster of long names.
func much(groups int) (ha.Said, []ha.Node) {
	s := ha.Said{Incarnation: ha.Incarnation(strings.Repeat("I", 26)), Key: 1 << 40}
	for i := range groups {
		g := ha.Group(fmt.Sprintf("%03d-%s", i, strings.Repeat("g", 60)))
		if i%3 == 0 {
			g = ha.Group(fmt.Sprintf("%03d", i))
		}
		s.Holds = append(s.Holds, g)
		if i%50 == 0 {
			s.Unproved = append(s.Unproved, g)
		}
	}
	var peers []ha.Node
	for i := range 16 {
		peers = append(peers, ha.Node(fmt.Sprintf("%02d-%s", i, strings.Repeat("n", 61))))
	}
	return s, peers
}

// Whatever a node has to say fits into its heartbeats, and arrives whole: also when
// heartbeats are lost, of however many groups.
func TestPages(t *testing.T) {
	for _, groups := range []int{0, 1, 5, 12, 13, 100, 300, 1000} {
		s, peers := much(groups)
		var p pages
		p.set(s, peers)
		k := &hearing{}
		for i := range 8 * len(p.all) {
			b := p.next(2)
			if len(b) == 0 || len(b) > netpath.MaxPayload {
				t.Fatalf("%d groups: a payload of %d bytes", groups, len(b))
			}
			if i%3 == 1 { // lost
				continue
			}
			k.take(7, b, peers)
			if !reflect.DeepEqual(k.said, s) && !reflect.DeepEqual(k.said, ha.Said{}) && !reflect.DeepEqual(k.said, ha.Said{Incarnation: s.Incarnation}) {
				t.Fatalf("%d groups: half of it counted: key %d, %d groups", groups, k.said.Key, len(k.said.Holds))
			}
			if !slices.Equal(k.hears, peers) {
				t.Fatalf("%d groups: it hears %q", groups, k.hears)
			}
		}
		if !reflect.DeepEqual(k.said, s) {
			t.Errorf("%d groups in %d pages: %d arrived with key %d", groups, len(p.all), len(k.said.Holds), k.said.Key)
		}
	}
}

// Small ones are what they were before there were pages, and no page says a thing to who
// does not know them.
func TestPagesOfOtherVersions(t *testing.T) {
	s := ha.Said{Incarnation: "i", Key: 7, Holds: []ha.Group{"web"}}
	if all := encode(s, []ha.Node{"b"}, 1); len(all) != 1 || string(all[0]) != `{"i":"i","k":7,"g":["web"],"h":["b"]}` {
		t.Errorf("%q", all)
	}
	s, peers := much(300)
	for _, b := range encode(s, peers, 1) {
		if strings.Contains(string(b), `"k":`) || strings.Contains(string(b), `"g":`) {
			t.Errorf("a version before takes this for all there is: %s", b)
		}
	}
}

// Pages of two statements make no third one; what was said before counts until the new one
// is there; another life of the node begins with nothing.
func TestPagesThatChange(t *testing.T) {
	one, peers := much(60)
	two := one
	two.Key, two.Holds, two.Unproved = one.Key+1, one.Holds[1:], nil
	var p pages
	collect := func(s ha.Said) (all [][]byte) {
		p.set(s, peers)
		return p.all
	}
	first, second := collect(one), collect(two)
	if len(first) < 3 || len(first) != len(second) {
		t.Fatalf("%d and %d pages", len(first), len(second))
	}
	k := &hearing{}
	for i := range first { // the last page of the first one never comes
		if i < len(first)-1 {
			k.take(7, first[i], peers)
		}
	}
	if !reflect.DeepEqual(k.said, ha.Said{Incarnation: one.Incarnation}) {
		t.Fatalf("without its last page: %d groups, key %d", len(k.said.Holds), k.said.Key)
	}
	k.take(7, first[len(first)-1], peers)
	for i, b := range second {
		k.take(7, b, peers)
		k.take(7, first[i], peers) // late, from another network
		if want := one; i < len(second)-1 && !reflect.DeepEqual(k.said, want) {
			t.Fatalf("page %d of the second: key %d", i, k.said.Key)
		}
	}
	if !reflect.DeepEqual(k.said, two) {
		t.Errorf("all of the second: key %d, %d groups", k.said.Key, len(k.said.Holds))
	}
	k.take(8, first[0], peers)
	if k.said.Key != 0 || k.said.Holds != nil {
		t.Errorf("another life: key %d, %d groups", k.said.Key, len(k.said.Holds))
	}
	k.take(8, []byte("{"), peers)
	if !reflect.DeepEqual(k.said, ha.Said{}) || k.hears != nil {
		t.Errorf("nonsense: %+v", k.said)
	}
	for _, b := range []string{`{"i":"x","ps":1,"pn":-1}`, `{"i":"x","ps":1,"pn":1000000000,"pp":1}`, `{"i":"x","ps":1,"pn":2,"pp":2}`} {
		if k.take(8, []byte(b), peers); k.said.Key != 0 || len(k.pages) > 1<<12 {
			t.Errorf("%s: %+v", b, k.said)
		}
	}
}

// A network of which nothing arrives does not take pages with it; each comes once in as
// many heartbeats, and seldom when all have had them.
func TestPagesOverNetworks(t *testing.T) {
	s, peers := much(30)
	for _, networks := range []int{1, 2, 3} {
		var p pages
		p.set(s, peers)
		n := len(p.all)
		seen := map[string]bool{}
		for range n {
			for net := range networks {
				if b := p.next(networks); net == 0 {
					seen[string(b)] = true
				}
			}
		}
		if len(seen) != n {
			t.Errorf("%d networks: %d of %d pages", networks, len(seen), n)
		}
		for range pageEager * n * networks {
			p.next(networks)
		}
		last, changes := "", 0
		for range 10 * pageRest * networks {
			if b := string(p.next(networks)); b != last {
				last = b
				changes++
			}
		}
		if changes > 12 {
			t.Errorf("%d networks: %d changes in %d heartbeats", networks, changes, 10*pageRest)
		}
		p.set(s, peers)
		p.set(s, peers[:3])
		if p.statement != 1 {
			t.Errorf("whom it hears made it another statement")
		}
	}
}
