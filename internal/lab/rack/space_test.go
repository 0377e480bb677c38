package rack

import (
	"strings"
	"testing"

	"gemel/internal/ha"
	"gemel/internal/places"
	"gemel/internal/store"
)

// A store that is full takes nothing: it is told, what runs goes on, and it is tidied up by
// itself, after which groups can move again.
func TestStoreWithoutRoom(t *testing.T) {
	r := begun(t, Options{})
	n := active(t, r, "")
	other := otherOf(r, n)
	c, err := store.Dial(store.Config{Socket: places.Places{Data: n.Path("data"), Run: n.Path("run")}.StoreSocket(), Prefix: "/another/"})
	must(t, err)
	defer c.Close()
	fences := lives(t, r)
	big := &ha.NodeRecord{Node: "big", Boot: strings.Repeat("x", 1200<<10)}
	var last ha.Rev
	for full := false; !full; {
		got := c.Write(t.Context(), ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey("big"), Guard: last, Node: big}}})
		switch {
		case got.OK:
			last = got.At
		case strings.Contains(got.Error, "space exceeded"):
			full = true
		default: // its outcome is unknown: a machine that is busy
			last = c.Node(t.Context(), "big").Key
		}
	}
	eventually(t, "it is told, if it was not over by the first look", func() bool {
		s, err := c.Space(t.Context())
		return err == nil && !s.Full && s.Size < store.Quota/2 || strings.Contains(n.Tool("events", "-n", "50"), "Store takes no writes")
	})
	eventually(t, "it is over by itself", func() bool {
		for _, x := range r.Nodes() {
			if strings.Contains(x.Tool("alarms"), "Store takes no writes") {
				return false
			}
		}
		s, err := c.Space(t.Context())
		return err == nil && !s.Full && s.Size < store.Quota/2
	})
	if now := active(t, r, ""); now != n || lives(t, r) != fences {
		t.Errorf("it did not stay: it is on %s, in life %d after %d", now.Name, lives(t, r), fences)
	}
	eventually(t, "it can be moved", func() bool { return strings.Contains(n.Tool("move", string(Group), string(other.Name)), "goes to") })
	active(t, r, other.Name)
}
