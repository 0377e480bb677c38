package daemon

import (
	"testing"
	"time"

	"gemel/internal/clock"
	"gemel/internal/journal"
)

// The time between two boots ages the budget of reboots. It is only believed of a
// clock that is known to be right, and never of one that went back.
func TestGap(t *testing.T) {
	booted := time.Now().Add(-time.Duration(clock.Now()))
	for _, c := range []struct {
		name string
		past journal.Past
		set  bool
		want time.Duration
	}{
		{"the same boot", journal.Past{Boot: "b", LastWall: booted.Add(-time.Hour)}, true, 0},
		{"nothing recorded", journal.Past{}, true, 0},
		{"a clock that is right", journal.Past{Boot: "a", LastWall: booted.Add(-time.Hour)}, true, time.Hour},
		{"a clock that is a day ahead until it is set", journal.Past{Boot: "a", LastWall: booted.Add(-24 * time.Hour)}, false, 0},
		{"a clock that went back", journal.Past{Boot: "a", LastWall: booted.Add(24 * time.Hour)}, true, 0},
	} {
		if got := gap(c.past, "b", c.set); (got - c.want).Abs() > time.Minute {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
