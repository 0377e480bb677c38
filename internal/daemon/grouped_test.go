package daemon

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"gemel/internal/addr"
	"gemel/internal/ha"
)

// A part of a kind that this version does not know is refused, and never keeps a group
// from leaving.
func TestUnknownPart(t *testing.T) {
	p := &parts{rights: map[ha.Group]ha.Right{}, owner: map[netip.Addr]ha.Group{}, names: map[netip.Addr]string{}}
	err := p.add(context.Background(), ha.StartPart{Group: "web", Part: "mount srv"})
	if err == nil || !strings.Contains(err.Error(), "no part that this version knows") {
		t.Errorf("add: %v", err)
	}
	if err := p.remove("mount srv"); err != nil {
		t.Errorf("remove: %v", err)
	}
}

// Nothing is added without a right that lives.
func TestAddWithoutRight(t *testing.T) {
	p := &parts{rights: map[ha.Group]ha.Right{}, owner: map[netip.Addr]ha.Group{}, names: map[netip.Addr]string{}}
	err := p.add(context.Background(), ha.StartPart{Group: "web", Part: "address 192.0.2.10/24", Fence: ha.Fence{Era: 1, Counter: 1}})
	if err == nil || !strings.Contains(err.Error(), "no authority for group web") {
		t.Errorf("add: %v", err)
	}
}

func TestAddress(t *testing.T) {
	for text, want := range map[ha.Part]addr.Address{
		"address 192.0.2.10/24":            {Addr: netip.MustParseAddr("192.0.2.10"), Bits: 24},
		"address 2001:db8::10/64 dev eth1": {Addr: netip.MustParseAddr("2001:db8::10"), Bits: 64, Device: "eth1"},
		"script 192.0.2.10/24":             {},
		"address nothing":                  {},
	} {
		got, ok := address(text)
		if got != want || ok != (want != addr.Address{}) {
			t.Errorf("%s: %v %v", text, got, ok)
		}
	}
}
