package roll

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gemel/internal/secret"
)

// What may be alive is refused: who answers and is not named, and who is silent and is
// not named, unless it is a witness.
func TestRestoreBesideOthers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // answers, and proves nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	none, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent := none.Addr().String()
	none.Close()
	r := rollOf("a", "b")
	for i, at := range []string{silent, l.Addr().String()} {
		r.Nodes[i].Addresses, r.Nodes[i].Store = map[string]netip.AddrPort{"blue": netip.MustParseAddrPort(at)}, nil
	}
	quiet := rollOf("a", "b", "w")
	for i := range quiet.Nodes {
		quiet.Nodes[i].Addresses, quiet.Nodes[i].Store = map[string]netip.AddrPort{"blue": netip.MustParseAddrPort(silent)}, nil
	}
	quiet.Nodes[2].Witness = true
	for _, c := range []struct {
		name  string
		roll  Roll
		off   []string
		wants string
	}{
		{"answers", r, nil, "something answers at"},
		{"answers and is said to be off", r, []string{"b"}, ""},
		{"silent", quiet, nil, "not the same as off"},
		{"silent and off", quiet, []string{"b"}, ""},
		{"stranger", quiet, []string{"b", "x"}, "no other machine x"},
		{"itself", quiet, []string{"a", "b"}, "no other machine a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Backup{Off: c.off}.others(t.Context(), Setup{Name: "a"}, c.roll)
			var no *Refused
			if (err != nil) != (c.wants != "") || err != nil && (!errors.As(err, &no) || !strings.Contains(err.Error(), c.wants)) {
				t.Errorf("%v", err)
			}
		})
	}
}

// The next era is above each that is known, and the others are those of both lists.
func TestRollOfRestore(t *testing.T) {
	h := Home{Data: t.TempDir(), Node: filepath.Join(t.TempDir(), "node.yaml")}
	inBackup, onDisk := rollOf("a", "b"), rollOf("a", "c")
	onDisk.Era = 4
	raw, err := json.Marshal(inBackup)
	if err != nil {
		t.Fatal(err)
	}
	from := Backup{File: "x", Ask: func(_ context.Context, c Copy) ([]byte, error) {
		if c.Key != "/gemel/*/docs/cluster/roll" {
			t.Errorf("asked for %q", c.Key)
		}
		return raw, nil
	}}
	if h.Unfinished() {
		t.Error("a restore is under way that was never begun")
	}
	cut, err := json.Marshal(unfinished{onDisk})
	if err != nil {
		t.Fatal(err)
	}
	if err := secret.Write(filepath.Join(h.Data, restoring), cut); err != nil {
		t.Fatal(err)
	}
	if !h.Unfinished() {
		t.Error("a restore that was begun is not seen")
	}
	r, err := from.roll(t.Context(), h)
	if err != nil || r.Era != 4 || names(r.Nodes) != "a, b, c" {
		t.Fatalf("era %d of %s: %v", r.Era, names(r.Nodes), err)
	}
	next, err := renewed(r, r.Nodes[0], []string{"b", "c"})
	if err != nil || next.Era != 5 || names(next.Nodes) != "a" || next.Cluster.Token == "" || next.Cluster.Token == r.Cluster.ID || len(next.Restored.Off) != 2 {
		t.Errorf("%+v: %v", next, err)
	}
	if err := os.WriteFile(filepath.Join(h.Data, restoring), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := from.roll(t.Context(), h); err == nil || !h.Unfinished() {
		t.Errorf("a damaged note was passed over: %v", err)
	}
}

// The wait is for the whole of what a node may hold by every clock.
func TestRestoreWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		r := rollOf("a")
		if err := (Setup{}).outlast(t.Context(), r.Timers, began); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d <= r.Timers.Life+r.Timers.Stop {
			t.Errorf("it waited %v; L is %v and the stop budget %v", d, r.Timers.Life, r.Timers.Stop)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := (Setup{}).outlast(ctx, r.Timers, time.Now()); err == nil {
			t.Error("an interrupted wait was taken for a whole one")
		}
	})
}
