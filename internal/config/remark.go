package config

import (
	"fmt"

	"gemel/internal/ha"
)

// remark tells what of a manifest does not come about on one machine: processes
// that are for other nodes, and what of a group needs a cluster. A node without a
// name is not asked about.
func (j *judge) remark(node ha.Node) {
	for i := range j.m.Processes {
		p := &j.m.Processes[i]
		if !p.For(node) {
			j.refuse(sub("processes", string(p.Name))+".on",
				fmt.Sprintf("%s does not run here: this node is called %s, and on: names %s", p.Name, quoted(string(node)), anyAnd(texts(p.On))),
				"leave it so if it is for another machine; the name of this one is the host's, or that of gemel run --name")
		}
	}
	for i := range j.m.Groups {
		g := &j.m.Groups[i]
		j.refuse(sub("groups", string(g.Name)), g.Waiting(), "it takes effect on a node of a cluster")
	}
}

// texts makes words of names.
func texts[T ~string](names []T) []string {
	all := make([]string, len(names))
	for i, n := range names {
		all[i] = string(n)
	}
	return all
}
