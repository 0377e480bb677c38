package lapse

import (
	"testing"
	"time"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/proc"
)

// TestAllowed: what another process may start is what the shadow itself would start.
func TestAllowed(t *testing.T) {
	dir := t.TempDir()
	fence := ha.Fence{Era: 1, Counter: 2}
	is := func(what string, want bool) {
		t.Helper()
		if got, err := Allowed(dir, "g", fence); err != nil || got != want {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
	is("without a page", false)
	p, err := openPage(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	is("in an empty page", false)
	if err := p.take(3); err != nil {
		t.Fatal(err)
	}
	is("that is in no row", false)
	boot, err := clock.BootID()
	if err != nil {
		t.Fatal(err)
	}
	good := row{boot, held, true, proc.Right{Group: "g", Fence: fence, Kill: clock.Now().Add(time.Hour), Until: clock.Now().Add(time.Hour)}}
	for _, c := range []struct {
		what   string
		change func(*row)
		want   bool
	}{
		{"held", func(*row) {}, true},
		{"of another boot", func(r *row) { r.Boot = "b" }, false},
		{"lapsed", func(r *row) { r.State = lapsed }, false},
		{"not in the last set", func(r *row) { r.Named = false }, false},
		{"of another fence", func(r *row) { r.Right.Fence.Counter++ }, false},
		{"of a group that leaves", func(r *row) { r.Right.Leaving = true }, false},
		{"past its kill", func(r *row) { r.Right.Kill = clock.Now() }, false},
		{"of another group", func(r *row) { r.Right.Group = "h" }, false},
	} {
		r := good
		c.change(&r)
		if err := p.putRow(2, r); err != nil {
			t.Fatal(err)
		}
		is(c.what, c.want)
	}
	if err := p.putRow(3, good); err != nil {
		t.Fatal(err)
	}
	p.slot(2)[20] ^= 1
	is("behind a row that is torn", true)
}
