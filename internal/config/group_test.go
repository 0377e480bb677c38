package config

import (
	"net/netip"
	"os"
	"reflect"
	"testing"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// What each key of a group became.
func TestEverythingOfGroups(t *testing.T) {
	b, err := os.ReadFile("testdata/good/everything.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m, err := Parse("everything.yaml", b)
	if err != nil {
		t.Fatal(err)
	}
	const fri, sat, sun, mon, wed = 1 << time.Friday, 1 << time.Saturday, 1 << time.Sunday, 1 << time.Monday, 1 << time.Wednesday
	std := manifest.Timeouts{Start: time.Minute, Stop: time.Minute, Monitor: 20 * time.Second, Validate: 20 * time.Second}
	want := manifest.Group{
		Name: "all", Nodes: []ha.Node{"gamma", "alpha", "beta"}, Policy: "configured-node", Run: []ha.Process{"a.b_c-1"},
		Addresses: []manifest.Address{
			{Prefix: netip.MustParsePrefix("192.0.2.20/24"), Device: "eth1"}, {Prefix: netip.MustParsePrefix("fe80::20/64"), Device: "eth1"},
			{Prefix: netip.MustParsePrefix("2001:db8::20/128")}, {Prefix: netip.MustParsePrefix("198.51.100.0/31")},
		},
		Scripts: []manifest.Script{
			{Name: "export", Start: []string{"/opt/export", "start"}, Stop: []string{"/opt/export", "stop"}, Validate: []string{"/opt/export", "validate"},
				User: "nobody", Environment: map[string]string{"SHARE": "/srv", "SIZE": "10"},
				Timeouts: manifest.Timeouts{Start: 30 * time.Second, Stop: 45 * time.Second, Monitor: 20 * time.Second, Validate: 5 * time.Second}},
			{Name: "tell", Start: []string{"/bin/true"}, Stop: []string{"/bin/true"}, Timeouts: std},
		},
		OCF: []manifest.Agent{
			{Name: "disk", Provider: "heartbeat", Type: "Filesystem", Every: 20 * time.Second,
				Parameters: map[string]string{"device": "/dev/sdb1", "directory": "/srv", "fstype": "xfs", "run_fsck": "no"},
				Timeouts:   manifest.Timeouts{Start: 2 * time.Minute, Stop: 2 * time.Minute, Monitor: 40 * time.Second, Validate: 10 * time.Second}},
			{Name: "pool", Provider: "linbit", Type: "drbd", Every: 10 * time.Second, Timeouts: std},
		},
		Order:        []string{"pool", "disk", "addresses", "export", "programs", "tell"},
		StartTimeout: 10 * time.Minute, StopTimeout: 5 * time.Minute,
		Failback: "automatic",
		Windows: []manifest.Window{{From: 120, To: 240}, {Days: sat | sun, To: 1440},
			{Days: fri | sat | sun | mon | wed, From: 22*60 + 30, To: 75}},
		After: []ha.Group{"web", "unit"}, With: []ha.Group{"web"}, Apart: []ha.Group{"least"},
		Weights:  []manifest.Amount{{Resource: "disk", Value: 2 << 30}, {Resource: "groups"}, {Resource: "licences", Value: 3}, {Resource: "memory", Value: 4e9}, {Resource: "odd", Value: 1000001}},
		Priority: -10, Stickiness: 2, FailoverLimit: manifest.Budget{Limit: 5, Within: 2 * time.Hour}, RequireLevel: 1,
		Targets: []manifest.Target{{Host: "203.0.113.1"}, {Host: "2001:db8:1::1"}, {Host: "2001:db8:1::1", Port: 443}, {Host: "db.example.org", Port: 5432}, {Host: "router"}},
	}
	if got := m.Groups[0]; !reflect.DeepEqual(got, want) {
		t.Errorf("all is\n%+v\nwant\n%+v", got, want)
	}
	for i, c := range []struct {
		name  ha.Group
		level int
	}{{"all", 1}, {"least", 2}, {"unit", 0}, {"web", 1}} {
		if g := m.Groups[i]; g.Name != c.name || g.RequireLevel != c.level {
			t.Errorf("group %d is %s with level %d, want %+v", i, g.Name, g.RequireLevel, c)
		}
	}
}

// A window is written as it is read, and in the shortest form.
func TestWindowText(t *testing.T) {
	for in, want := range map[string]string{
		"02:00-04:00": "02:00-04:00", "mon-sun 22:00-01:00": "22:00-01:00", "sun-sat 00:00-24:00": "00:00-24:00",
		"sun,mon,sat 02:00-04:00": "mon,sat,sun 02:00-04:00", "fri-mon 02:00-04:00": "mon,fri-sun 02:00-04:00",
		"mon,tue,wed,fri 00:00-00:01": "mon-wed,fri 00:00-00:01", "wed 23:59-24:00": "wed 23:59-24:00",
	} {
		w, hint, ok := parseWindow(in)
		if got := windowText(w); !ok || got != want {
			t.Errorf("%s is written %s (%v %s), want %s", in, got, ok, hint, want)
		}
	}
}

// What stands in a manifest of a thousand groups that are wrong in every way is
// found in a bounded time.
func TestManyGroups(t *testing.T) {
	var b []byte
	b = append(b, "groups:\n"...)
	name := func(i int) string { return string(appendInt([]byte("g"), i)) }
	for i := range 400 {
		b = append(b, "  "+name(i)+": {nodes: [a, b], with: ["+name((i+1)%400)+"], after: ["...)
		for k := range 100 {
			b = append(b, name((i+k+1)%400)+", "...)
		}
		b = append(b, "], apart: ["...)
		for k := range 100 {
			b = append(b, name((i+2*k+3)%400)+", "...)
		}
		b = append(b, "]}\n"...)
	}
	start := time.Now()
	if _, err := Parse("many.yaml", b); err == nil {
		t.Error("it is taken")
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	} else {
		t.Log(took)
	}
}
