package contract

import (
	"fmt"
	"testing"
	"time"
)

// The table of facts/serviceguard.md C.4: 1 halts the package everywhere, 2 lets
// another node try, in validate they are equal.
func TestScript(t *testing.T) {
	for code, kinds := range map[int][4]Kind{ // start, stop, check, validate
		0: {Done, Done, Done, Done},
		1: {Fatal, Fatal, Soft, Hard},
		2: {Hard, Fatal, Soft, Hard},
		3: {Fatal, Fatal, Stopped, Hard},
		9: {Fatal, Fatal, Soft, Hard},
	} {
		s := Script{Path: testdata(t, "script"), Group: "web", Node: "alpha", Checks: true, Env: []string{fmt.Sprintf("CODE=%d", code)}, Run: run}
		ctx := t.Context()
		start, stop, check, validate := s.Start(ctx), s.Stop(ctx), s.Check(ctx), s.Validate(ctx)
		want(t, "start", start, is{kinds[0], code}, "script (start)")
		want(t, "stop", stop, is{kinds[1], code})
		want(t, "check", check, is{kinds[2], code})
		want(t, "validate", validate, is{kinds[3], code})
		if stop.Output != "stop of web|web|alpha|web|alpha" || validate.Output != "validate of |web||web|alpha" {
			t.Errorf("given: %q and %q", stop.Output, validate.Output)
		}
	}
}

func TestScriptThatFails(t *testing.T) {
	ctx := t.Context()
	s := Script{Path: testdata(t, "script"), Group: "web", Env: []string{"HOW=hang"}, Run: run, Timeouts: map[string]time.Duration{
		"start": 300 * time.Millisecond, "stop": 300 * time.Millisecond, "validate": 300 * time.Millisecond, "check": 300 * time.Millisecond,
	}}
	want(t, "no check", s.Check(ctx), is{Unknown, -1}, "has no check")
	s.Checks = true
	want(t, "late start", s.Start(ctx), is{Fatal, -1}, "did not end within 300ms")
	want(t, "late stop", s.Stop(ctx), is{Fatal, -1})
	want(t, "late check", s.Check(ctx), is{Soft, -1})
	want(t, "late validate", s.Validate(ctx), is{Hard, -1})
	s.Path = testdata(t, "nothere")
	want(t, "not there", s.Start(ctx), is{Hard, -1}, "could not be run", "no such file")
	s.Path = "script"
	want(t, "no whole path", s.Start(ctx), is{Fatal, -1}, "whole path")
}
