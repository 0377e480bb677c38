package cli

import (
	"testing"

	gemelv1 "gemel/api/gemel/v1"
)

// TestNotesAreOneLine: what the machine lacks is the same each day and takes one
// line, unless somebody asks for all of it or there is only one.
func TestNotesAreOneLine(t *testing.T) {
	shot := func(notes ...string) *gemelv1.Snapshot {
		return &gemelv1.Snapshot{Node: &gemelv1.NodeStatus{Notes: notes}}
	}
	for _, c := range []struct {
		notes   []string
		verbose bool
		want    []string
	}{
		{nil, false, nil},
		{[]string{"There is no a."}, false, []string{"There is no a."}},
		{[]string{"There is no a.", "There is no b."}, false, []string{"2 things that Gemel would use are not here"}},
		{[]string{"There is no a.", "There is no b."}, true, []string{"There is no a.", "There is no b."}},
	} {
		var got []string
		for _, r := range remarks(shot(c.notes...), "", c.verbose) {
			got = append(got, r.text)
		}
		if len(got) != len(c.want) {
			t.Errorf("%v: %q", c.notes, got)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%v: %q, want %q", c.notes, got[i], c.want[i])
			}
		}
	}
}
