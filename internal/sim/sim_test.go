package sim

import (
	"reflect"
	"testing"
)

// TestNeverTwice: with every clause in its place no group runs twice, and every
// group runs when the faults are over. Each thing that can happen did.
func TestNeverTwice(t *testing.T) {
	var seen Seen
	for seed := range uint64(300) {
		c := Draw(seed)
		r := Run(c)
		seen.Add(r.Seen)
		if len(r.Bad) == 0 {
			continue
		}
		small := Shrink(c)
		small.Trace = true
		for _, l := range Run(small).Trace {
			t.Log(l)
		}
		t.Fatalf("seed %d: %s", seed, r)
	}
	v := reflect.ValueOf(seen)
	for i := range v.NumField() {
		if v.Field(i).Int() == 0 {
			t.Errorf("%s never happened: %+v", v.Type().Field(i).Name, seen)
		}
	}
	t.Logf("%+v", seen)
}

// TestSameSeed: a seed is a run.
func TestSameSeed(t *testing.T) {
	a, b, c := Run(Draw(1)), Run(Draw(1)), Run(Draw(2))
	if a.Hash != b.Hash || !reflect.DeepEqual(a, b) {
		t.Errorf("the same seed gave %x and %x", a.Hash, b.Hash)
	}
	if a.Hash == c.Hash {
		t.Error("two seeds gave the same run")
	}
}
