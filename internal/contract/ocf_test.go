package contract

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var _ = []Part{OCF{}, Script{}}

func fake(t testing.TB, parameters ...string) (OCF, string) {
	dir := t.TempDir()
	a := OCF{Class: "ocf:test:fake", Instance: "one", Root: testdata(t, "ocf"), Parameters: map[string]string{"dir": dir}, Run: run}
	for i := 0; i < len(parameters); i += 2 {
		a.Parameters[parameters[i]] = parameters[i+1]
	}
	return a, dir
}

func TestOCF(t *testing.T) {
	a, dir := fake(t)
	ctx := t.Context()
	want(t, "check before", a.Check(ctx), is{Stopped, 7}, "ocf:test:fake: monitor", "does not run")
	want(t, "validate", a.Validate(ctx), is{Done, 0})
	for range 2 {
		want(t, "start", a.Start(ctx), is{Done, 0}, "start succeeded")
	}
	want(t, "check", a.Check(ctx), is{Done, 0})
	for range 2 {
		want(t, "stop", a.Stop(ctx), is{Done, 0})
	}
	want(t, "check after", a.Check(ctx), is{Stopped, 7})
	env := read(t, dir, "env.monitor")
	for _, line := range []string{
		"OCF_ROOT=" + a.Root, "OCF_RESKEY_dir=" + dir, "OCF_RESOURCE_INSTANCE=one", "OCF_RESOURCE_TYPE=fake", "OCF_RESOURCE_PROVIDER=test",
		"OCF_RA_VERSION_MAJOR=1", "OCF_RA_VERSION_MINOR=0", "OCF_CHECK_LEVEL=0", "OCF_RESKEY_CRM_meta_timeout=20000",
	} {
		if !strings.Contains("\n"+env, "\n"+line+"\n") {
			t.Errorf("the agent's environment is without %s:\n%s", line, env)
		}
	}
}

// The table of the contract, for the actions where it differs.
func TestCodes(t *testing.T) {
	for code, kinds := range map[int][2]Kind{ // of start, of monitor
		1: {Soft, Soft}, 2: {Hard, Hard}, 3: {Hard, Hard}, 4: {Hard, Hard}, 5: {Hard, Hard}, 6: {Fatal, Fatal},
		7: {Soft, Stopped}, 8: {Soft, Done}, 9: {Soft, Soft}, 77: {Soft, Soft}, 190: {Soft, Done}, 191: {Soft, Done},
	} {
		a, _ := fake(t, "code", fmt.Sprint(code), "password", "hunter22")
		want(t, "start", a.Start(t.Context()), is{kinds[0], code}, fmt.Sprintf("(exit code %d)", code))
		want(t, "monitor", a.Check(t.Context()), is{kinds[1], code}, "the disk *** is full")
		if o := a.Stop(t.Context()); o.Kind == Done {
			t.Errorf("a stop with code %d is a proof: %v", code, o)
		}
	}
}

// The program that an agent starts lives on when the agent has ended.
func TestWhatIsStartedLives(t *testing.T) {
	a, dir := fake(t, "how", "b")
	want(t, "start", a.Start(t.Context()), is{Done, 0})
	pid, err := strconv.Atoi(strings.TrimSpace(read(t, dir, "pid")))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("what the agent started: %v", err)
	}
	defer unix.Close(fd)
	// A kill at the agent's end would be on its way already.
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 300); n != 0 || err != nil {
		t.Errorf("what the agent started ended with it (%d, %v)", n, err)
	}
	_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
}

func TestOCFThatHangs(t *testing.T) {
	a, _ := fake(t, "how", "hang")
	a.Timeouts = map[string]time.Duration{"start": 300 * time.Millisecond, "stop": time.Hour}
	want(t, "start", a.Start(t.Context()), is{Soft, -1}, "did not end within 300ms and was killed")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	want(t, "interrupted", a.Stop(ctx), is{Unknown, -1}, "was interrupted")
	want(t, "not begun", a.Stop(ctx), is{Unknown, -1}, "was not begun")
	b, _ := fake(t, "how", "die")
	want(t, "killed", b.Start(t.Context()), is{Soft, -1}, "signal 9")
}

func TestDescribe(t *testing.T) {
	a, _ := fake(t)
	about, o := a.Describe(t.Context())
	if about == nil {
		t.Fatal(o)
	}
	stop, _ := about.Action("stop")
	monitor, _ := about.Action("monitor")
	dir, _ := about.Parameter("dir")
	how, _ := about.Parameter("how")
	if about.Short != "A fake" || stop.Timeout != time.Minute || monitor.Interval != 10*time.Second || !dir.Required || !dir.Unique ||
		dir.HasDefault || how.Default != "a" || len(how.Values) != 2 || dir.Short != "Where it works" {
		t.Errorf("%+v", about)
	}
	delete(a.Parameters, "dir")
	a.Parameters["dri"] = "x"
	want(t, "misspelt", a.Validate(t.Context()), is{Hard, -1}, `has no parameter "dri"`, `requires the parameter "dir" (Where it works)`, "it knows dir, code, password, how")
	a.Class = "ocf:test:nothere"
	want(t, "not there", a.Validate(t.Context()), is{Hard, -1}, "could not be run", "no such file")
	want(t, "not there", a.Start(t.Context()), is{Hard, -1}, "could not be run")
}

func TestBadClass(t *testing.T) {
	for _, class := range []string{"", "ocf", "lsb:heartbeat:Dummy", "ocf:heartbeat", "ocf:..:x", "ocf:a/b:c", "ocf:a:.b", "ocf::x", "ocf:a:b:c", "ocf:a:b\x00"} {
		want(t, class, OCF{Class: class, Run: run}.Start(t.Context()), is{Fatal, -1}, "ocf:heartbeat:Dummy")
	}
	for name, value := range map[string]string{"a b": "", "a=b": "", "": "", "x": "a\x00b", "CRM_meta_interval": "0"} {
		a, _ := fake(t, name, value)
		if o := a.Start(t.Context()); o.Kind != Fatal || o.Code != -1 {
			t.Errorf("parameter %q=%q: %v", name, value, o)
		}
	}
	a, _ := fake(t)
	a.Instance = "../../etc"
	want(t, "instance", a.Start(t.Context()), is{Fatal, -1}, "agents make file names of it")
}

// What is secret stands neither in outcomes nor in any print of the agent.
func TestSecrets(t *testing.T) {
	a, dir := fake(t, "password", "hunter22", "code", "1")
	o := a.Stop(t.Context())
	f := Fence{Agent: "fence_x", Options: map[string]string{"password": "hunter22", "ip": "10.0.0.1"}}
	j, err := json.Marshal([]any{a, f, o})
	if err != nil {
		t.Fatal(err)
	}
	all := string(j)
	for _, v := range []any{a, &a, f, &f, o, []OCF{a}, map[string]Fence{"x": f}} {
		all += fmt.Sprintf("|%v|%+v|%#v|%s|%q|%d|%x", v, v, v, v, v, v, v)
	}
	if strings.Contains(all, "hunter") || strings.Contains(all, "68756e746572") {
		t.Errorf("the secret is printed: %s", all)
	}
	if !strings.Contains(o.Output, "first line with *** in it") {
		t.Errorf("the output is %q", o.Output)
	}
	if !strings.Contains(read(t, dir, "env.stop"), "OCF_RESKEY_password=hunter22") {
		t.Error("the agent was not given it")
	}
	for text, want := range map[string]string{
		"a1b":                "(not shown: it has a secret of fewer than four characters in it)",
		"nothing":            "nothing",
		"longer-secret here": "*** here",
	} {
		if got := scrub(text, []string{"longer-secret", "secret", "1"}); got != want {
			t.Errorf("scrub(%q) is %q; want %q", text, got, want)
		}
	}
}

func TestTail(t *testing.T) {
	var long strings.Builder
	for i := range 100 {
		fmt.Fprintf(&long, "line %d\n", i)
	}
	got := tail(long.String() + "\x1b[31mred\x07\r\n\n")
	if lines := strings.Split(got, "\n"); len(lines) != maxLines || lines[maxLines-1] != "?[31mred?" || lines[0] != "line 91" {
		t.Errorf("%q", got)
	}
	if got := tail(strings.Repeat("ä", 5000)); len(got) > maxTail || !strings.HasPrefix(got, "ä") {
		t.Errorf("%d bytes, %q", len(got), got[:4])
	}
}
