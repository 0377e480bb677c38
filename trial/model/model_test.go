package main

import (
	"slices"
	"strings"
	"testing"
)

// The smallest searches; the campaign makes all of them.
func TestSearch(t *testing.T) {
	quick := []string{"P1", "P3", "P12", "short-wait"}
	for _, v := range variants() {
		if !slices.Contains(quick, v.name) {
			continue
		}
		r := search(&v.rules, most)
		if _, ok := judge(&v, &r); !ok {
			t.Errorf("%s: %+v", v.name, r)
		}
		// The way there is told step by step, and ends where both may run.
		if len(r.run) < 5 || !strings.Contains(r.run[len(r.run)-1], "answer reaches") && !strings.Contains(r.run[len(r.run)-1], "knows after") {
			t.Errorf("%s: %q", v.name, r.run)
		}
	}
}

func TestHolds(t *testing.T) {
	r := with(func(r *rules) { r.authority, r.wait = 1, 1 })
	if got := search(&r, most); !got.complete || got.broken != "" || got.states < 10_000 {
		t.Errorf("%+v", got)
	}
	if got := search(&r, 5000); got.complete || got.states != 5000 {
		t.Errorf("cut: %+v", got)
	}
}

// What must be found out and is not, is a failure; so is what must hold and does not.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		v  variant
		r  result
		ok bool
	}{
		{variant{}, result{complete: true}, true},
		{variant{}, result{}, false},
		{variant{}, result{broken: "x"}, false},
		{variant{broken: true}, result{broken: "x"}, true},
		{variant{broken: true}, result{complete: true}, false},
		{variant{broken: true}, result{}, false},
	} {
		if said, ok := judge(&c.v, &c.r); ok != c.ok {
			t.Errorf("%+v %+v: %s", c.v, c.r, said)
		}
	}
}
