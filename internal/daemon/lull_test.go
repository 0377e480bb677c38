package daemon

import (
	"testing"
	"time"

	"gemel/internal/ha"
)

// TestLull: a witness looks again in the instant at which somebody would be silent, and
// after half a silence when nobody can be before.
func TestLull(t *testing.T) {
	const silence = 200 * time.Millisecond
	now := ha.Instant(10 * time.Second)
	ago := func(d time.Duration) ha.Heard { return ha.Heard{Node: "n", At: now.Add(-d)} }
	for _, c := range []struct {
		name string
		all  []ha.Heard
		want time.Duration
	}{
		{"nobody", nil, 100 * time.Millisecond},
		{"just heard", []ha.Heard{ago(0)}, 100 * time.Millisecond},
		{"soon silent", []ha.Heard{ago(0), ago(170 * time.Millisecond)}, 30 * time.Millisecond},
		{"silent by now", []ha.Heard{ago(silence)}, 100 * time.Millisecond},
		{"silent for long", []ha.Heard{ago(time.Minute), ago(190 * time.Millisecond)}, 10 * time.Millisecond},
	} {
		if got := lull(c.all, now, silence); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
