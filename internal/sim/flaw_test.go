package sim

import (
	"slices"
	"testing"

	"gemel/internal/decide/cluster"
)

// from is where the search for a flaw begins that few schedules bring to light: near
// one that did. It only makes the test shorter.
var from = map[cluster.Flaw]uint64{
	"wait-from-send": 770, "authority-from-answer": 5610, "blind-suspect": 8920, flawLooseStart: 770,
	"kept-incarnation": 1730, "any-proof": 3570, "stale-read": 350, "older-answer": 100,
}

// TestFlaws: each clause that is left out is found out. The campaign trial-sim does
// the same from the first seed on, and shrinks each schedule.
func TestFlaws(t *testing.T) {
	for _, f := range Plants() {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			for i := range uint64(6000) {
				if r := Run(Planted(from[f]+i, f)); r.Twice() {
					t.Logf("seed %d: %s", from[f]+i, r)
					return
				}
			}
			t.Error("it was not found out")
		})
	}
	if n := len(slices.Compact(slices.Sorted(slices.Values(Plants())))); n < 20 {
		t.Errorf("%d flaws are planted; at least 20", n)
	}
}

// TestShrink: what is left of a schedule is smaller, fails, and fails by the flaw.
func TestShrink(t *testing.T) {
	for _, f := range []cluster.Flaw{flawNoDeadline, "short-wait", "same-fence"} {
		seed := uint64(0)
		for !Run(Planted(seed, f)).Twice() {
			seed++
		}
		c := Planted(seed, f)
		small := Shrink(c)
		if len(small.Faults) >= len(c.Faults) {
			t.Errorf("%s: %d of %d faults are left", f, len(small.Faults), len(c.Faults))
		}
		if !Run(small).Twice() {
			t.Errorf("%s: %v does not fail", f, small.Faults)
		}
		if small.Plant = nil; Run(small).Twice() {
			t.Errorf("%s: %v fails without it", f, small.Faults)
		}
	}
}
