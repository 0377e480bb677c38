package ladder

import (
	"strings"
	"testing"
	"time"

	"gemel/internal/manifest"
)

// TestWayToBeat: who never beat is told how to, by the ways that the manifest
// leaves it.
func TestWayToBeat(t *testing.T) {
	for by, want := range map[string]string{
		"":        "each 2s by the SDK's Beat or WATCHDOG=1,",
		"page":    "each 2s by the SDK's Beat,",
		"notify":  "each 2s by WATCHDOG=1 by sd_notify,",
		"command": "/bin/alive now must end with 0 within its interval of 2s",
	} {
		got := wayToBeat(manifest.Watchdog{Interval: 2 * time.Second, By: by, Command: []string{"/bin/alive", "now"}})
		if !strings.Contains(got, want) {
			t.Errorf("by %q: %q", by, got)
		}
	}
}
