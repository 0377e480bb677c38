package daemon

import (
	"testing"
	"time"
)

// What ends one wish about a node leaves the others: a resume is no end of its maintenance,
// and takes back no word that its machine is off.
func TestNodeWishKept(t *testing.T) {
	for what, c := range map[string]struct {
		wish nodeWish
		kept bool
	}{
		"nothing":       {nodeWish{By: "root", At: time.Now()}, false},
		"drained":       {nodeWish{Drained: true}, true},
		"maintenance":   {nodeWish{Until: time.Now()}, true},
		"confirmed off": {nodeWish{Off: "i1"}, true},
	} {
		if got := c.wish.kept() != nil; got != c.kept {
			t.Errorf("%s: kept %v, want %v", what, got, c.kept)
		}
	}
}
