package place

import (
	"reflect"
	"testing"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

func TestRulesOf(t *testing.T) {
	g := manifest.Group{
		Name: "g", Nodes: []ha.Node{"b", "a"}, Policy: "least-groups", Failback: "automatic",
		After: []ha.Group{"x"}, With: []ha.Group{"y"}, Apart: []ha.Group{"z"},
		Weights: []manifest.Amount{{Resource: "memory", Value: 4}}, Priority: 3, Stickiness: 2,
		Windows: []manifest.Window{{From: 120, To: 240}}, FailoverLimit: manifest.Budget{Limit: 3, Within: time.Hour},
		RequireLevel: 2, Targets: []manifest.Target{{Host: "2001:db8::1", Port: 80}, {Host: "router"}},
	}
	want := Rules{
		Nodes: []ha.Node{"b", "a"}, LeastGroups: true, Weights: []Amount{{Resource: "memory", Value: 4}}, Priority: 3,
		After: []ha.Group{"x"}, With: []ha.Group{"y"}, Apart: []ha.Group{"z"}, Stickiness: 2,
		Failback: true, Open: true, Level: 2, Targets: []string{"[2001:db8::1]:80", "router"}, Limit: 3,
	}
	open, closed := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC), time.Date(2026, 11, 22, 4, 0, 0, 0, time.UTC)
	if got := RulesOf(g, open); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if RulesOf(g, closed).Open {
		t.Error("open out of its window")
	}
	// Every rule comes from the manifest: one that is added without a line in RulesOf is seen here.
	for v, i := reflect.ValueOf(want), 0; i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("%s is not tried", v.Type().Field(i).Name)
		}
	}
}

// What is wrong everywhere is told in a size that somebody reads.
func TestComplaintsAreBounded(t *testing.T) {
	var p Problem
	for i := range 60 {
		g := Group{Name: ha.Group(rune('A' + i)), Rules: Rules{With: []ha.Group{ha.Group(rune('A'))}}}
		for k := range 60 {
			if k != i {
				g.Rules.After = append(g.Rules.After, ha.Group(rune('A'+k)))
				g.Rules.Apart = append(g.Rules.Apart, ha.Group(rune('A'+k)))
			}
		}
		p.Groups = append(p.Groups, g)
	}
	if n := len(Validate(p)); n < 2 || n > 3*maxKnots {
		t.Errorf("%d complaints", n)
	}
}
