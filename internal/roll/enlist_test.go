package roll

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A second node waits until nothing runs on the first by no right, and is refused when
// that does not come about. A third one has nothing to wait for.
func TestSecondNodeWaits(t *testing.T) {
	runs := errors.New("web runs")
	for _, c := range []struct {
		name  string
		roll  Roll
		after time.Duration
		wants string
	}{
		{"free", rollOf("a"), 0, ""},
		{"soon", rollOf("a"), 3 * time.Second, ""},
		{"never", rollOf("a"), time.Hour, "both would run it: web runs"},
		{"third", rollOf("a", "b"), time.Hour, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				k := &Clerk{Free: func(context.Context) error {
					if time.Since(began) < c.after {
						return runs
					}
					return nil
				}}
				err := vacate(t.Context(), k, c.roll)
				if (err != nil) != (c.wants != "") || err != nil && !strings.Contains(err.Error(), c.wants) {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
			})
		})
	}
}
