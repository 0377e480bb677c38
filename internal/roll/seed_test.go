package roll

import (
	"slices"
	"testing"

	"gemel/internal/ha"
	"gemel/internal/store"
)

// TestSeed: a token that was made before the store was told what it begins with stays
// good; those of a former era do not.
func TestSeed(t *testing.T) {
	there := []store.Doc{{Key: ticketKey + "1", Rev: 7, Value: []byte("{}")}, {Key: rollKey, Rev: 5, Value: []byte("{}")}}
	for _, restored := range []bool{false, true} {
		docs, err := seed{Restored: restored, CRL: []byte("x")}.docs(there)
		if err != nil {
			t.Fatal(err)
		}
		gone := slices.ContainsFunc(docs, func(d store.Doc) bool { return d.Key == ticketKey+"1" && d.Value == nil })
		if gone != restored {
			t.Errorf("restored %v: the token of before is taken away: %v", restored, gone)
		}
		i := slices.IndexFunc(docs, func(d store.Doc) bool { return d.Key == rollKey })
		if want := map[bool]ha.Rev{false: 0, true: 5}[restored]; i < 0 || docs[i].Rev != want || docs[i].Value == nil {
			t.Errorf("restored %v: the roll is written as %+v, want it guarded on %d", restored, docs, want)
		}
	}
}
