package place

import (
	"fmt"
	"testing"

	"gemel/internal/ha"
)

// large is 1,000 groups on 16 nodes with a bit of everything; some: how many have
// somebody already.
func large(some int) Problem {
	var p Problem
	for i := range 16 {
		p.Nodes = append(p.Nodes, Node{Name: ha.Node(fmt.Sprintf("node%02d", i)), State: ha.NodeMember, Level: 1, Release: "1.2.3",
			Capacity: []Amount{{"memory", 1000}, {"disk", 4000}}, Reaches: []string{"gateway"}, Health: Health{Critical: i == 3}})
	}
	p.Nodes[5].State, p.Nodes[7].Drained = ha.NodeEvicted, true
	for i := range 1000 {
		g := Group{Name: ha.Group(fmt.Sprintf("group%04d", i)), Active: true}
		r := &g.Rules
		for k := range 16 {
			r.Nodes = append(r.Nodes, p.Nodes[(i+k)%16].Name)
		}
		r.LeastGroups, r.Targets = i%2 == 0, []string{"gateway"}
		r.Weights = []Amount{{"memory", int64(i % 20)}, {"disk", int64(i % 50)}}
		if i%10 == 1 {
			r.With = []ha.Group{ha.Group(fmt.Sprintf("group%04d", i-1))}
		}
		if i%5 == 2 {
			r.Apart, r.After = []ha.Group{ha.Group(fmt.Sprintf("group%04d", i-2))}, []ha.Group{ha.Group(fmt.Sprintf("group%04d", i-1))}
		}
		if i < some {
			g.Now = r.Nodes[0]
			g.Last = g.Now
		}
		p.Groups = append(p.Groups, g)
	}
	return p
}

// BenchmarkPlan is to stay below 100 ms for each.
func BenchmarkPlan(b *testing.B) {
	for _, c := range []struct {
		name string
		p    Problem
	}{{"from-nothing", large(0)}, {"one-lost", large(1000)}, {"settled", follow(large(1000), Plan(large(1000)))}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				Plan(c.p)
			}
		})
	}
}
