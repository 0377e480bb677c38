package daemon

import (
	"strings"
	"testing"

	"gemel/internal/ha"
)

// Holders have names that no process of a manifest has, that differ, and that a row of
// the shadow's table has room for.
func TestHolderName(t *testing.T) {
	long := strings.Repeat("g", 63)
	seen := map[ha.Process]bool{}
	for _, c := range []struct {
		group ha.Group
		part  ha.Part
	}{{"web", "script db"}, {"web", "ocf ip"}, {"web2", "script db"}, {ha.Group(long), "script " + ha.Part(long)}, {ha.Group(long), "ocf x" + ha.Part(long)}} {
		n := holderName(c.group, c.part)
		if !strings.HasPrefix(string(n), holderMark) || len(n) > 90 || seen[n] || strings.ContainsAny(string(n), "/ ") {
			t.Errorf("%s of %s: %q", c.part, c.group, n)
		}
		seen[n] = true
	}
}

// A node learns that a group was cleared by the end of its bar, and by nothing else.
func TestFreed(t *testing.T) {
	barred := groupWish{Barred: map[ha.Node]bar{"a": {}}}
	before := map[ha.Group]groupWish{"x": barred, "y": barred, "z": {Barred: map[ha.Node]bar{"b": {}}}}
	now := wished{groups: map[ha.Group]groupWish{"y": barred, "z": {}, "n": {}}}
	if got := now.freed(before, "a"); len(got) != 1 || got[0] != "x" {
		t.Errorf("freed: %v", got)
	}
	if got := now.freed(nil, "a"); len(got) != 0 {
		t.Errorf("at the first look: %v", got)
	}
}
