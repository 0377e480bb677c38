package place

import (
	"slices"
	"testing"

	"gemel/internal/ha"
)

// The releases are in order; each is older than all that follow.
func TestReleasesInOrder(t *testing.T) {
	order := []string{"", "1.9", "1.10-rc.1", "1.10-rc.2", "1.10", "1.10.1", "2-beta", "2.0", "10", "next"}
	for i, a := range order {
		for j, b := range order {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := release(a, b); got != want {
				t.Errorf("release(%q, %q) = %d, want %d", a, b, got, want)
			}
		}
	}
	for _, same := range [][2]string{{"v1.2", "1.2"}, {"1.2+build", "1.2"}, {"1", "1.0.0"}} {
		if release(same[0], same[1]) != 0 || release(same[1], same[0]) != 0 {
			t.Errorf("%s and %s differ", same[0], same[1])
		}
	}
}

// Nothing is a problem too.
func TestNothing(t *testing.T) {
	if a := Plan(Problem{}); len(a.Choices) != 0 || len(a.Conflicts) != 0 {
		t.Errorf("%+v", a)
	}
	a := Plan(Problem{Groups: []Group{{Name: "web", Now: "alpha", Request: Request{Node: "beta"}, Rules: Rules{After: []ha.Group{"web"}}}}})
	if c, ok := a.Choice("web"); !ok || c.Node != "" || len(c.Refused) != 1 {
		t.Errorf("%+v", a)
	}
	if _, ok := a.Choice("mail"); ok {
		t.Error("there is no mail")
	}
}

func TestWhyNot(t *testing.T) {
	p := Problem{Nodes: []Node{{Name: "alpha", State: ha.NodeMember}, {Name: "beta", Witness: true, State: ha.NodeMember}}, Groups: []Group{{Name: "web"}}}
	c, _ := Plan(p).Choice("web")
	if r, ok := c.WhyNot("beta"); !ok || r.Rule != "place.witness" {
		t.Errorf("beta: %v", r)
	}
	for _, n := range []ha.Node{"alpha", "gamma"} {
		if r, ok := c.WhyNot(n); ok {
			t.Errorf("%s: %v", n, r)
		}
	}
}

// An answer shares nothing with another one: who keeps it may change it.
func TestAnswersAreApart(t *testing.T) {
	p := Problem{
		Nodes: []Node{{Name: "alpha", State: ha.NodeMember}},
		Groups: []Group{{Name: "web", Last: "beta", At: []At{{Node: "alpha", Behind: []string{"www"}}}},
			{Name: "mail", Rules: Rules{After: []ha.Group{"web"}}}},
	}
	a := Plan(p)
	for i := range a.Choices {
		c := &a.Choices[i]
		clear(c.Behind)
		clear(c.Wait)
		for j := range c.Reason.Facts {
			c.Reason.Facts[j] = ha.Fact{}
		}
	}
	b := Plan(p)
	if c, _ := b.Choice("web"); !slices.Equal(c.Behind, []string{"www"}) || p.Groups[0].At[0].Behind[0] != "www" {
		t.Errorf("%+v", c)
	}
}
