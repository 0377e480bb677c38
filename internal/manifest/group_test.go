package manifest

import (
	"reflect"
	"testing"
	"time"

	"gemel/internal/ha"
)

func TestWindow(t *testing.T) {
	const sat, sun = 1 << time.Saturday, 1 << time.Sunday
	at := func(s string) time.Time {
		v, err := time.Parse("2006-01-02 15:04:05", s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, c := range []struct {
		w    Window
		now  string
		want bool
	}{
		{Window{From: 120, To: 240}, "2026-11-22 01:59:59", false},
		{Window{From: 120, To: 240}, "2026-11-22 02:00:00", true},
		{Window{From: 120, To: 240}, "2026-11-22 03:59:59", true},
		{Window{From: 120, To: 240}, "2026-11-22 04:00:00", false},
		{Window{From: 0, To: 1440}, "2026-11-22 23:59:59", true},
		{Window{From: 0, To: 1440, Days: sat}, "2026-11-21 00:00:00", true}, // a Saturday
		{Window{From: 0, To: 1440, Days: sat}, "2026-11-22 00:00:00", false},
		{Window{From: 0, To: 1440, Days: sat | sun}, "2026-11-22 12:00:00", true},
		{Window{From: 1320, To: 120, Days: sat}, "2026-11-21 01:00:00", false}, // began on Friday
		{Window{From: 1320, To: 120, Days: sat}, "2026-11-21 22:00:00", true},
		{Window{From: 1320, To: 120, Days: sat}, "2026-11-22 01:59:00", true},
		{Window{From: 1320, To: 120, Days: sat}, "2026-11-22 02:00:00", false},
		{Window{From: 1320, To: 120, Days: sun}, "2026-11-23 00:00:00", true}, // a Monday
		{Window{From: 1320, To: 120}, "2026-11-22 12:00:00", false},
	} {
		if got := c.w.Open(at(c.now)); got != c.want {
			t.Errorf("%+v at %s: open is %v", c.w, c.now, got)
		}
	}
}

// The clock is that of the location that is given, and a day on which it is set
// does not confuse it.
func TestWindowLocation(t *testing.T) {
	w := Window{From: 120, To: 240}
	now := time.Date(2026, 11, 22, 1, 30, 0, 0, time.UTC)
	if w.Open(now) || !w.Open(now.In(time.FixedZone("east", 3600))) {
		t.Error("the location does not count")
	}
}

func TestGroupOpen(t *testing.T) {
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	if !(Group{}).Open(now) {
		t.Error("no window is closed")
	}
	if (Group{Windows: []Window{{From: 0, To: 60}}}).Open(now) || !(Group{Windows: []Window{{From: 0, To: 60}, {From: 180, To: 240}}}).Open(now) {
		t.Error("one of the windows counts")
	}
}

func TestParts(t *testing.T) {
	g := Group{
		Run: []ha.Process{"web"}, Addresses: make([]Address, 2),
		Scripts: []Script{{Name: "export"}, {Name: "tell"}}, OCF: []Agent{{Name: "disk"}},
	}
	names := func() (out []string) {
		for _, p := range g.Parts() {
			out = append(out, p.Name)
		}
		return out
	}
	if got := names(); !reflect.DeepEqual(got, []string{"disk", "export", "tell", "addresses", "programs"}) {
		t.Errorf("by itself: %v", got)
	}
	g.Order = []string{"addresses", "tell", "programs", "disk", "export"}
	if got := names(); !reflect.DeepEqual(got, g.Order) {
		t.Errorf("as written: %v", got)
	}
	if got := (Group{}).Parts(); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func TestTarget(t *testing.T) {
	for want, target := range map[string]Target{
		"192.0.2.1": {Host: "192.0.2.1"}, "2001:db8::1": {Host: "2001:db8::1"},
		"[2001:db8::1]:443": {Host: "2001:db8::1", Port: 443}, "db.example.org:5432": {Host: "db.example.org", Port: 5432},
	} {
		if got := target.String(); got != want {
			t.Errorf("%+v is %s", target, got)
		}
		if probe := target.Probe(); (probe == "tcp") != (target.Port > 0) {
			t.Errorf("%s: %s", want, probe)
		}
	}
}

func TestWaiting(t *testing.T) {
	for want, g := range map[string]Group{
		"it waits for a cluster": {},
		"it waits for a cluster; web runs here, without a standby; its addresses are not served": {Run: []ha.Process{"web"}, Addresses: make([]Address, 1)},
		"it waits for a cluster; its addresses, scripts, resource agents and file sets are not served": {Addresses: make([]Address, 1), Scripts: make([]Script, 1),
			OCF: make([]Agent, 1), Files: []string{"www"}},
	} {
		if got := g.Waiting(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
