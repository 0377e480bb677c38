package contract

import (
	"context"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func fenced(t *testing.T, how string) (Fence, string) {
	t.Helper()
	dir := t.TempDir()
	write(t, "on\n", dir, "state")
	write(t, how, dir, "how")
	return Fence{
		Agent: testdata(t, "fence"), Options: map[string]string{"ip": "10.0.0.9", "password": "hunter 22=x"},
		Env: []string{"DIR=" + dir}, Timeout: 10 * time.Second, Run: run,
	}, dir
}

func TestFence(t *testing.T) {
	f, dir := fenced(t, "")
	ctx := t.Context()
	want(t, "validate", f.Validate(ctx), is{Done, 0})
	if in := read(t, dir, "in"); in != "action=metadata\n" {
		t.Errorf("a description was asked for with %q", in)
	}
	want(t, "status", f.Status(ctx), is{Done, 0}, "says on")
	want(t, "check", f.Check(ctx), is{Done, 0})
	want(t, "off", f.Off(ctx), is{Done, 2}, "was ordered off, and its status says off")
	want(t, "status", f.Status(ctx), is{Stopped, 2}, "says off")
	if in := read(t, dir, "in"); in != "action=status\nip=10.0.0.9\npassword=hunter 22=x\n" {
		t.Errorf("the agent was given %q", in)
	}
	for _, name := range []string{"args", "env"} {
		if text := read(t, dir, name); strings.Contains(text, "hunter") || strings.Contains(text, "10.0.0.9") {
			t.Errorf("an option stands in its %s: %s", name, text)
		}
	}
	want(t, "off again", f.Off(ctx), is{Done, 2})
	want(t, "on", f.On(ctx), is{Done, 0})
	if o := f.Status(ctx); o.Kind != Done || !strings.Contains(o.Output, "logging in with ***") {
		t.Errorf("%+v", o)
	}
}

// Whatever is wrong, it is no confirmation.
func TestFenceThatFails(t *testing.T) {
	ctx := t.Context()
	f, dir := fenced(t, "fails")
	want(t, "refused", f.Off(ctx), is{Soft, 5}, "its time was up", "afterwards", "says on")
	want(t, "check", f.Check(ctx), is{Soft, 3}, "the login was denied")
	write(t, "failsoff", dir, "how")
	want(t, "off although it failed", f.Off(ctx), is{Soft, 7}, "afterwards", "says off")

	f, _ = fenced(t, "hang")
	f.Timeout = 50 * time.Millisecond
	if o := f.Off(ctx); o.Kind == Done || o.Kind == Stopped {
		t.Errorf("it hung: %v", o)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	want(t, "interrupted", f.Off(gone), is{Unknown, -1})
	f.Agent = "/nonexistent/fence"
	want(t, "not there", f.Off(ctx), is{Hard, -1}, "could not be run")
	want(t, "not there", f.Validate(ctx), is{Hard, -1})
}

// The answers of agents, with and without words.
func TestStatus(t *testing.T) {
	for _, c := range []struct {
		code  int
		out   string
		terse bool
		want  Kind
	}{
		{0, "Status: ON\n", false, Done},
		{0, "", false, Done},
		{0, "Status: OFF\n", false, Soft},
		{2, "Status: OFF\n", false, Stopped},
		{2, "WARNING: x\n  status : Off \n", false, Stopped},
		{2, "Status: OFF\nStatus: ON\n", false, Soft},
		{2, "Status: ON\n", true, Soft},
		{2, "Status: UNKNOWN\n", true, Soft},
		{2, "", true, Stopped},
		{2, "", false, Soft},
		{2, "python3: can't open file '/usr/sbin/fence_x': Status: OFF", false, Soft},
		{1, "Status: OFF\n", true, Soft},
		{8, "Status: OFF\n", true, Soft},
		{137, "Status: OFF\n", true, Soft},
	} {
		f := Fence{Agent: "fence_x", Terse: c.terse, Run: func(context.Context, Command) (Ended, error) { return Ended{Code: c.code, Output: c.out}, nil }}
		if o := f.Status(t.Context()); o.Kind != c.want || o.Code != c.code {
			t.Errorf("%d %q (terse %v): %v; want %v", c.code, c.out, c.terse, o, c.want)
		}
	}
}

// A device that needs a while to be off is asked again, until the time is up; and
// the status must have been asked for after the order.
func TestOffIsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin, delay, orders := time.Now(), 20*time.Second, 0
		f := Fence{Agent: "fence_x", Run: func(_ context.Context, c Command) (Ended, error) {
			time.Sleep(100 * time.Millisecond)
			switch {
			case strings.HasPrefix(string(c.In), "action=off\n"):
				orders++
				return Ended{}, nil
			case time.Since(begin) > delay && orders > 0:
				return Ended{Code: 2, Output: "Status: OFF"}, nil
			}
			return Ended{Output: "Status: ON"}, nil
		}}
		want(t, "off", f.Off(t.Context()), is{Done, 2})
		if took := time.Since(begin); took < delay || took > delay+2*time.Second || orders != 1 {
			t.Errorf("it took %v and %d orders", took, orders)
		}
		begin, delay = time.Now(), time.Hour
		want(t, "never", f.Off(t.Context()), is{Soft, 0}, "not confirmed")
		if took := time.Since(begin); took > fenceTimeout+slack {
			t.Errorf("it took %v", took)
		}
	})
}

// An order that succeeded is no confirmation, and neither is a status that exits with
// 2 as a shell does that cannot read its script.
func TestOffIsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		status := Ended{Output: "Status: ON"}
		f := Fence{Agent: "fence_x", Timeout: 3 * time.Second, Run: func(ctx context.Context, c Command) (Ended, error) {
			time.Sleep(300 * time.Millisecond)
			if ctx.Err() != nil {
				return Ended{Code: -1, Late: true}, nil
			}
			if strings.HasPrefix(string(c.In), "action=status\n") {
				return status, nil
			}
			return Ended{Output: "Success: Powered OFF"}, nil
		}}
		want(t, "it stays on", f.Off(t.Context()), is{Soft, 0}, "not confirmed", "says on")
		status = Ended{Code: 2}
		want(t, "a broken status", f.Off(t.Context()), is{Soft, 2}, "not confirmed", "does not say so in words")
		f.Terse = true
		want(t, "an agent without words", f.Off(t.Context()), is{Done, 2})
	})
}

func TestFenceOptions(t *testing.T) {
	for name, value := range map[string]string{
		"password": "x\naction=on", "pass": "x\r", "action": "on", "option": "on", "o": "on", "a=b": "x", "": "x", "a b": "x", "ip": " 10.0.0.1", "plug": "1 ", "n": "\x00",
	} {
		f, dir := fenced(t, "")
		f.Options = map[string]string{name: value}
		o := f.Off(t.Context())
		if o.Kind != Fatal || o.Code != -1 || strings.Contains(o.Reason, value) && len(value) > 2 {
			t.Errorf("%q=%q: %v", name, value, o)
		}
		if _, err := os.Stat(dir + "/in"); err == nil {
			t.Errorf("%q=%q: the agent was run", name, value)
		}
	}
	f, _ := fenced(t, "")
	f.Options = map[string]string{"ipaddr": "10.0.0.1"} // the old name
	want(t, "old name", f.Validate(t.Context()), is{Done, 0})
	f.Options = map[string]string{"ip_address": "10.0.0.1"}
	want(t, "wrong name", f.Validate(t.Context()), is{Hard, -1}, `no parameter "ip_address"`, `requires the parameter "ip" (IP address)`)
	f.Agent = "../fence"
	want(t, "path", f.Off(t.Context()), is{Fatal, -1}, "fence_ipmilan")
}

// FuzzStatus: an output confirms only by a line of its own, and is always shown
// without what a terminal obeys.
func FuzzStatus(f *testing.F) {
	f.Add(2, "Status: OFF\n", "secret")
	f.Add(2, "status:off\nStatus: ON", "")
	f.Fuzz(func(t *testing.T, code int, out, secret string) {
		fence := Fence{Agent: "fence_x", Options: map[string]string{"password": strings.TrimSpace(secret)},
			Run: func(context.Context, Command) (Ended, error) { return Ended{Code: code, Output: out}, nil }}
		o := fence.Status(t.Context())
		if o.Kind == Stopped && (code != 2 || !strings.Contains(strings.ToLower(out), "off")) {
			t.Errorf("%d %q is off", code, out)
		}
		if strings.ContainsAny(o.Output, "\x1b\x00\a\r") || len(o.Output) > maxTail || strings.Contains(o.Reason, "\n") {
			t.Errorf("shown: %q, %q", o.Output, o.Reason)
		}
	})
}
