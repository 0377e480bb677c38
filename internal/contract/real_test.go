package contract

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/contract/metadata"
	"gemel/internal/need"
)

// These tests speak to the agents that Debian ships.

const heartbeat = "/usr/lib/ocf/resource.d/heartbeat/"

func TestRealDummy(t *testing.T) {
	need.Root(t) // it logs and keeps its state where root may
	need.Command(t, heartbeat+"Dummy")
	ctx := t.Context()
	a := OCF{Class: "ocf:heartbeat:Dummy", Instance: "d1", Parameters: map[string]string{"state": filepath.Join(t.TempDir(), "state")}, Run: run}
	want(t, "validate", a.Validate(ctx), is{Done, 0})
	want(t, "check", a.Check(ctx), is{Stopped, 7}, "No process state file found")
	want(t, "start", a.Start(ctx), is{Done, 0})
	want(t, "check", a.Check(ctx), is{Done, 0})
	want(t, "stop", a.Stop(ctx), is{Done, 0})
	want(t, "check", a.Check(ctx), is{Stopped, 7})
	a.Parameters["state"] = "/nonexistent/state"
	want(t, "validate", a.Validate(ctx), is{Hard, 2}, "is not writable")
	a.Parameters = map[string]string{"sate": "x"}
	want(t, "misspelt", a.Validate(ctx), is{Hard, -1}, `has no parameter "sate"`)
}

// inNamespace returns a Runner whose commands are in a network namespace of their
// own, where the given commands of ip(8) were run.
func inNamespace(t *testing.T, commands ...string) Runner {
	t.Helper()
	work, ready := make(chan func()), make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the test
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range work {
			f()
		}
	}()
	err := <-ready
	t.Cleanup(func() { close(work) })
	need.Done(t, err, "a network namespace")
	do := func(f func()) {
		done := make(chan struct{})
		work <- func() { defer close(done); f() }
		<-done
	}
	for _, c := range commands {
		do(func() {
			if out, err := exec.Command(need.Command(t, "ip"), strings.Fields(c)...).CombinedOutput(); err != nil {
				t.Errorf("ip %s: %v: %s", c, err, out)
			}
		})
	}
	return func(ctx context.Context, c Command) (e Ended, err error) {
		do(func() { e, err = run(ctx, c) })
		return e, err
	}
}

func TestRealIPaddr2(t *testing.T) {
	need.Root(t)
	need.Command(t, heartbeat+"IPaddr2")
	need.Command(t, "ip")
	ctx := t.Context()
	a := OCF{
		Class: "ocf:heartbeat:IPaddr2", Instance: "vip", Parameters: map[string]string{"ip": "10.1.0.9", "cidr_netmask": "24"},
		Run: inNamespace(t, "link set lo up", "link add ve0 type veth peer name ve1", "link set ve0 up", "link set ve1 up", "addr add 10.1.0.1/24 dev ve0"),
	}
	about, o := a.Describe(ctx)
	if about == nil {
		t.Fatal(o)
	}
	if ip, ok := about.Parameter("ip"); !ok || !ip.Required {
		t.Errorf("the parameter ip: %+v", ip)
	}
	want(t, "validate", a.Validate(ctx), is{Done, 0})
	want(t, "check", a.Check(ctx), is{Stopped, 7})
	want(t, "start", a.Start(ctx), is{Done, 0})
	want(t, "check", a.Check(ctx), is{Done, 0})
	want(t, "stop", a.Stop(ctx), is{Done, 0})
	want(t, "check", a.Check(ctx), is{Stopped, 7})
	delete(a.Parameters, "ip")
	want(t, "without its parameter", a.Validate(ctx), is{Hard, -1}, `requires the parameter "ip"`)
}

// What agents say of themselves is understood; with GEMEL_AGENTS=all of every agent
// that is installed.
func TestRealDescriptions(t *testing.T) {
	need.Command(t, heartbeat+"Dummy")
	need.Command(t, "fence_dummy")
	var resource, fence []string
	for _, name := range []string{"Dummy", "IPaddr2", "Filesystem", "nginx", "pgsql", "VirtualDomain", "mysql", "exportfs", "anything"} {
		resource = append(resource, heartbeat+name)
	}
	for _, name := range []string{"fence_dummy", "fence_ipmilan", "fence_redfish", "fence_virsh"} {
		fence = append(fence, "/usr/sbin/"+name)
	}
	all := os.Getenv("GEMEL_AGENTS") == "all"
	if all {
		var err1, err2 error
		resource, err1 = filepath.Glob(heartbeat + "[^.]*")
		fence, err2 = filepath.Glob("/usr/sbin/fence_*")
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
	}
	t.Logf("%d resource agents, %d fence agents", len(resource), len(fence))
	slots := make(chan struct{}, 2)
	var wait sync.WaitGroup
	check := func(name string, describe func() (*metadata.Agent, Outcome), actions ...string) {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			about, o := describe()
			if about == nil {
				if all {
					t.Logf("%s: %v: %s", name, o, o.Output)
				} else {
					t.Errorf("%s: %v: %s", name, o, o.Output)
				}
				return
			}
			if about.Short == "" || len(about.Parameters) == 0 {
				t.Errorf("%s: %+v", name, about)
			}
			for _, action := range actions {
				if _, ok := about.Action(action); !ok && all {
					t.Logf("%s: no action %s", name, action)
				} else if !ok {
					t.Errorf("%s: no action %s in %v", name, action, about.Actions)
				}
			}
		})
	}
	for _, path := range resource {
		a := OCF{Class: "ocf:heartbeat:" + filepath.Base(path), Run: run}
		check(a.Class, func() (*metadata.Agent, Outcome) { return a.Describe(t.Context()) }, "start", "stop", "monitor")
	}
	for _, path := range fence {
		f := Fence{Agent: path, Run: run}
		c, o, ok := f.call("metadata")
		if !ok {
			t.Fatal(o)
		}
		c.c.Most = metadata.Most
		check(path, func() (*metadata.Agent, Outcome) { return c.describe(t.Context()) }, "off")
	}
	wait.Wait()
}

func TestRealFenceDummy(t *testing.T) {
	need.Command(t, "fence_dummy")
	ctx := t.Context()
	state := filepath.Join(t.TempDir(), "state")
	write(t, "on", state)
	f := Fence{Agent: "fence_dummy", Options: map[string]string{"status_file": state}, Run: run}
	want(t, "validate", f.Validate(ctx), is{Done, 0})
	want(t, "status", f.Status(ctx), is{Done, 0})
	want(t, "check", f.Check(ctx), is{Done, 0})
	want(t, "off", f.Off(ctx), is{Done, 2})
	if got := read(t, state); got != "off" {
		t.Errorf("the node is %q", got)
	}
	want(t, "on", f.On(ctx), is{Done, 0})
	f.Options["type"] = "fail" // an agent whose order has no effect
	f.Options["plug"] = "n1"
	f.Timeout = 2 * time.Second
	if o := f.Off(ctx); o.Kind == Done {
		t.Errorf("confirmed: %v", o)
	}
}

// A real agent against a power controller of ours, with a password that travels by
// standard input only.
func TestRealRedfish(t *testing.T) {
	need.Command(t, "fence_redfish")
	const password = "s3cret pass=word"
	var mu sync.Mutex
	power, stuck := "On", false
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if user, given, _ := r.BasicAuth(); user != "admin" || given != password {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodPost {
			var order struct{ ResetType string }
			body, _ := io.ReadAll(r.Body)
			if json.Unmarshal(body, &order) == nil && !stuck {
				power = map[string]string{"ForceOff": "Off", "On": "On"}[order.ResetType]
			}
			return
		}
		fmt.Fprintf(w, `{"PowerState": %q, "Actions": {"#ComputerSystem.Reset": {"target": "/reset"}}}`, power)
	}))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var seen []Command
	f := Fence{
		Agent: "fence_redfish", Timeout: 30 * time.Second,
		Options: map[string]string{"ip": "127.0.0.1", "ipport": port, "username": "admin", "password": password, "systems_uri": "/sys", "ssl_insecure": "1", "verbose": "1"},
		Run: func(ctx context.Context, c Command) (Ended, error) {
			seen = append(seen, c)
			return run(ctx, c)
		},
	}
	ctx := t.Context()
	want(t, "validate", f.Validate(ctx), is{Done, 0})
	want(t, "status", f.Status(ctx), is{Done, 0})
	o := f.Off(ctx)
	want(t, "off", o, is{Done, 2})
	if power != "Off" {
		t.Errorf("the node is %s", power)
	}
	for _, c := range seen {
		if strings.Contains(fmt.Sprint(c.Args, c.Env), "cret") {
			t.Errorf("the password is in %v %v", c.Args, c.Env)
		}
	}
	mu.Lock()
	power, stuck = "On", true
	mu.Unlock()
	f.Options["power_timeout"] = "1"
	if o := f.Off(ctx); o.Kind == Done || o.Kind == Stopped || strings.Contains(o.Output+o.Reason, "cret") {
		t.Errorf("a node that stays on: %v\n%s", o, o.Output)
	}
	f.Options["password"] = "wrong-word"
	if o := f.Off(ctx); o.Kind == Done || o.Kind == Stopped || strings.Contains(o.Output+o.Reason, "wrong-word") {
		t.Errorf("with a wrong password: %v\n%s", o, o.Output)
	}
}
