package config

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// Each good node.yaml is taken, and its canonical form is the same identity.
func TestGoodNode(t *testing.T) {
	for _, file := range glob(t, "testdata/node/good/*.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) { nodeRoundTrip(t, identity(t, file)) })
	}
}

func identity(t *testing.T, file string) *manifest.Identity {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	id, err := ParseNode(file, b)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func nodeRoundTrip(t *testing.T, id *manifest.Identity) {
	t.Helper()
	out, err := EncodeNode(id)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	again, err := ParseNode("canonical", out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !reflect.DeepEqual(id, again) {
		t.Fatalf("not the same identity:\n%s\nbefore %+v\nafter  %+v", out, id, again)
	}
	if twice, err := EncodeNode(again); err != nil || !bytes.Equal(out, twice) {
		t.Fatalf("the canonical form is not canonical (%v):\n%s\n%s", err, out, twice)
	}
}

// What each key became.
func TestEverythingOfANode(t *testing.T) {
	at, ap := netip.MustParseAddr, netip.MustParseAddrPort
	const ms = time.Millisecond
	want := &manifest.Identity{
		Name: "alpha", Cluster: manifest.Cluster{ID: "7f3c9a", Name: "shop", Token: "7f3c9a-2"}, Release: "1.10",
		Networks: []manifest.Network{{Name: "red", Address: at("10.0.0.1"), Port: 5414, Device: "eth0"},
			{Name: "blue", Address: at("2001:db8::1"), Port: 5314}, {Name: "link", Address: at("fe80::1%eth2"), Port: 5314}},
		Peers: []manifest.Peer{
			{Name: "beta", Voter: true, Addresses: []manifest.PeerAddress{{Network: "blue", At: ap("[2001:db8::2]:5314")}, {Network: "link", At: ap("[fe80::2%eth2]:6000")}, {Network: "red", At: ap("10.0.0.2:5414")}},
				Store: []netip.AddrPort{ap("10.0.0.2:7000"), ap("[2001:db8::2]:5316")}},
			{Name: "alpha", Voter: true, Addresses: []manifest.PeerAddress{{Network: "blue", At: ap("[2001:db8::1]:5314")}, {Network: "link", At: ap("[fe80::1%eth2]:5314")}, {Network: "red", At: ap("10.0.0.1:5414")}},
				Store: []netip.AddrPort{ap("[2001:db8::1]:5316"), ap("[fe80::1%eth2]:5316"), ap("10.0.0.1:5316")}},
			{Name: "gamma", Addresses: []manifest.PeerAddress{{Network: "red", At: ap("10.0.0.3:5314")}}},
			{Name: "tiny", Witness: true, Voter: true, Addresses: []manifest.PeerAddress{{Network: "blue", At: ap("[2001:db8::9]:5314")}}, Store: []netip.AddrPort{ap("[2001:db8::9]:5316")}},
		},
		Profile: "guarded",
		Timers: manifest.Timers{Heartbeat: 100 * ms, Silence: 500 * ms, Life: 7000 * ms, Stop: 1000 * ms, Settle: time.Minute,
			Election: 2000 * ms, Tick: 150 * ms, Drift: 0.005},
		Capacities: []manifest.Amount{{Resource: "groups", Value: 20}, {Resource: "licences", Value: 4}, {Resource: "memory", Value: 8e9}},
		Level: manifest.Level{Guard: true, Reset: manifest.ResetSysrq, Watchdog: "/dev/watchdog1", WatchdogTime: 3 * time.Second, Fence: &manifest.Fence{Agent: "fence_ipmilan",
			Parameters: map[string]string{"ip": "10.9.0.1", "username": "gemel", "password": "s e c r e t", "lanplus": "1"}, Timeout: 20 * time.Second}},
		DataDir: "/srv/gemel",
	}
	if got := identity(t, "testdata/node/good/everything.yaml"); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

// What nobody wrote follows from the rest.
func TestNodeDefaults(t *testing.T) {
	normal, _ := manifest.Profile("normal")
	least := identity(t, "testdata/node/good/least.yaml")
	if least.Timers != normal || least.Profile != "normal" || !least.Level.Guard || least.Store.External() || len(least.Peers) != 1 || !least.Peers[0].Voter ||
		least.Peers[0].Store[0] != netip.MustParseAddrPort("10.0.0.1:5316") || least.Networks[0].Port != 5314 {
		t.Errorf("least is %+v", least)
	}
	voters := func(id *manifest.Identity) (out []ha.Node) {
		for _, p := range id.Peers {
			if p.Voter {
				out = append(out, p.Name)
			}
		}
		return out
	}
	if got := voters(identity(t, "testdata/node/good/six.yaml")); !slices.Equal(got, []ha.Node{"n1", "n2", "n3", "n4", "w"}) {
		t.Errorf("the voters of six are %v", got)
	}
	if got := identity(t, "testdata/node/good/witness.yaml"); !got.Witness || len(voters(got)) != 3 {
		t.Errorf("witness is %+v", got)
	}
	ext := identity(t, "testdata/node/good/external.yaml")
	if ext.Timers.Election != 300*time.Millisecond || ext.Timers.Tick != 0 || ext.Timers.Life != 3*time.Second || ext.Timers.Stop != 300*time.Millisecond ||
		len(voters(ext)) != 0 || len(ext.Peers[1].Store) != 0 {
		t.Errorf("external is %+v", ext)
	}
}

// What is less than a cluster should have is told, and is no error.
func TestNodeRemarks(t *testing.T) {
	for file, want := range map[string][]string{
		"least": nil, "witness": {"one network"}, "everything": {"gamma is on 1 of 3", "tiny is on 1 of 3"}, "external": {"level 0"},
	} {
		b, err := os.ReadFile("testdata/node/good/" + file + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		_, remarks, err := ReadNode("node.yaml", b)
		if err != nil || len(remarks) != len(want) {
			t.Errorf("%s: %v %v", file, remarks, err)
			continue
		}
		for i, w := range want {
			if !strings.Contains(remarks[i].Text, w) || remarks[i].Line == 0 {
				t.Errorf("%s: remark %d is %v", file, i, remarks[i])
			}
		}
	}
}

// Every key of every table of node.yaml is in the one that the test above reads,
// but those of an external store.
func TestEverythingOfANodeHasEveryKey(t *testing.T) {
	var all []byte
	for _, name := range []string{"everything", "external"} {
		b, err := os.ReadFile("testdata/node/good/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	for _, keys := range [][]string{identityObject().keys(), clusterObject().keys(), networkObject().keys(), peerObject().keys(),
		storeObject().keys(), timersObject().keys(), levelObject().keys()} {
		for _, k := range keys {
			if !strings.Contains(string(all), k+":") {
				t.Errorf("%s is missing", k)
			}
		}
	}
}

// What cannot be read back is not written.
func TestEncodeNodeRefuses(t *testing.T) {
	if out, err := EncodeNode(&manifest.Identity{Name: "alpha"}); err == nil {
		t.Errorf("written as %s", out)
	}
}

// A node.yaml that names a whole town is refused soon.
func TestManyPeers(t *testing.T) {
	b := []byte("name: a\ncluster: {id: a, name: b}\nnetworks: [{name: r, address: 10.0.0.1}]\npeers:\n")
	for i := range 20_000 {
		b = append(appendInt(append(b, "  - {witness: true, voter: false, name: n"...), i), "}\n"...)
	}
	start := time.Now()
	if _, err := ParseNode("node.yaml", b); err == nil || !strings.Contains(err.Error(), "found 20000 peers") {
		t.Errorf("the error is %v", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}

// Whatever the bytes are: an answer, never a panic; and what is taken is the
// same after it was written and read again.
func FuzzParseNode(f *testing.F) {
	for _, pattern := range []string{"testdata/node/good/*.yaml", "testdata/node/bad/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 16<<10 {
			return
		}
		id, err := ParseNode("fuzz.yaml", b)
		if err == nil {
			nodeRoundTrip(t, id)
			return
		}
		var errs Errors
		if id != nil || !errors.As(err, &errs) || len(errs) == 0 {
			t.Fatalf("got %v beside %v", id, err)
		}
	})
}
