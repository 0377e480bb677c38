package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/config"
	"gemel/internal/daemon"
	"gemel/internal/port"
	"gemel/internal/rpc"
)

// waitBound is how long a script may wait for anything. It is generous: a loaded
// machine is slow, and that is no failure.
const waitBound = 60 * time.Second

// TestMain lets the test binary be the program that the scripts call: the tool,
// and the daemon with both its halves.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"gemel": func() { os.Exit(Main(world(os.Args[1:]))) },
	})
}

// world is that of cmd/gemel, with a version that a script can compare.
func world(args []string) World {
	options := func(o RunOptions) daemon.Options {
		return daemon.Options{Places: o.Places, File: o.File, Name: o.Name, Version: "0.0.0-test",
			Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	}
	return World{
		Args: args, In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Version: "0.0.0-test",
		Run: func(ctx context.Context, o RunOptions) (int, error) { return daemon.Shadow(ctx, options(o)) },
		Monitor: func(ctx context.Context, o RunOptions) (int, error) {
			err := daemon.Monitor(ctx, options(o))
			var next *daemon.Replace
			if errors.As(err, &next) {
				return 0, next.Exec()
			}
			return 0, err
		},
		ReadManifest: daemon.ReadManifest,
		Import: func(kind, file string, b []byte) (Imported, error) {
			read := map[string]func(string, []byte) (port.Result, error){"pms": port.PMS, "supervisord": port.Supervisord}[kind]
			r, err := read(file, b)
			if err != nil {
				return Imported{}, err
			}
			out, err := config.Encode(r.Manifest)
			made := Imported{Manifest: out}
			for _, n := range r.Notes {
				made.Notes = append(made.Notes, Note{Line: n.Line, Text: n.Text})
			}
			return made, err
		},
	}
}

// TestScripts runs the tool as users do, most of it against a daemon with real
// programs. The scripts are in testdata/script; what they have besides the usual
// commands is in the functions below.
func TestScripts(t *testing.T) {
	if path, err := exec.LookPath("gemel"); err == nil {
		// Another user must reach it too.
		for dir := filepath.Dir(path); strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	root, err := os.MkdirTemp("/tmp", "cli") // a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", WorkdirRoot: root, RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			if err := os.Chmod(e.WorkDir, 0o755); err != nil {
				return err
			}
			e.Setenv("GEMEL_DATA_DIR", filepath.Join(e.WorkDir, "d"))
			e.Setenv("GEMEL_RUN_DIR", filepath.Join(e.WorkDir, "r"))
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("XDG_CACHE_HOME", "")
			e.Setenv("TZ", "UTC")
			return os.WriteFile(filepath.Join(e.WorkDir, "one.yaml"), []byte(oneManifest), 0o644)
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("there is no condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"daemon": daemonCmd, "exits": exitsCmd, "until": untilCmd, "json": jsonCmd, "interrupt": interruptCmd,
		},
	})
}

// oneManifest is what most scripts run.
const oneManifest = `processes:
  web:
    command: [sleep, "1000"]
    id: 51
    severity: major
    ramp-up: 50ms
  worker:
    command: [sleep, "1001"]
    needs: [web]
    ramp-up: 50ms
  chatter:
    command: [/bin/sh, -c, "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.1; done"]
    ramp-up: 50ms
  crasher:
    command: [/bin/sh, -c, "echo no good; exit 3"]
    restarts: {limit: 1, within: 1m}
    ramp-up: 50ms
    autostart: false
checks:
  alive:
    command: ["true"]
    id: 176
    every: 1s
    covers: [web]
`

// client connects to the daemon of a script, or says why not.
func client(ts *testscript.TestScript) (*rpc.Client, error) {
	return rpc.Dial(filepath.Join(ts.Getenv("GEMEL_RUN_DIR"), "api.sock"))
}

// poll calls f until it returns nil and fails the script when that takes too long.
func poll(ts *testscript.TestScript, what string, f func() error) {
	end := time.Now().Add(waitBound)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s: not within %v: %v", what, waitBound, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// daemonCmd is "daemon start FILE", which waits until it answers and every
// process that should run does; "daemon stop"; "daemon kill monitor".
func daemonCmd(ts *testscript.TestScript, _ bool, args []string) {
	switch strings.Join(args[:min(len(args), 2)], " ") {
	case "stop":
		c, err := client(ts)
		ts.Check(err)
		_, err = c.Shutdown(context.Background(), &gemelv1.ShutdownRequest{})
		ts.Check(err)
		poll(ts, "the end of the daemon", func() error {
			if _, err := os.Lstat(filepath.Join(ts.Getenv("GEMEL_RUN_DIR"), "api.sock")); err == nil {
				return errors.New("its socket is still there")
			}
			return nil
		})
	case "kill monitor":
		c, err := client(ts)
		ts.Check(err)
		ts.Check(syscall.Kill(int(c.Daemon.GetMonitor()), syscall.SIGKILL))
	default:
		if len(args) != 2 || args[0] != "start" {
			ts.Fatalf("usage: daemon start FILE | stop | kill monitor")
		}
		startDaemon(ts, args[1])
	}
}

func startDaemon(ts *testscript.TestScript, file string) {
	path, err := exec.LookPath("gemel")
	ts.Check(err)
	log, err := os.Create(ts.MkAbs("daemon.log"))
	ts.Check(err)
	c := exec.Command(path, "run", "--name", "here", ts.MkAbs(file))
	c.Env = append(os.Environ(), "GEMEL_DATA_DIR="+ts.Getenv("GEMEL_DATA_DIR"), "GEMEL_RUN_DIR="+ts.Getenv("GEMEL_RUN_DIR"))
	c.Dir, c.Stdout, c.Stderr = ts.MkAbs("."), log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	ts.Check(c.Start())
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	ts.Defer(func() {
		defer log.Close()
		_ = c.Process.Signal(syscall.SIGTERM) // an error: it ended already
		select {
		case <-ended:
		case <-time.After(waitBound):
			_ = c.Process.Kill()
			ts.Logf("the daemon did not end and was killed")
		}
	})
	poll(ts, "the start of the daemon", func() error {
		select {
		case err := <-ended:
			b, _ := os.ReadFile(ts.MkAbs("daemon.log"))
			ended <- err
			ts.Fatalf("the daemon ended: %v\n%s", err, b)
		default:
		}
		cl, err := client(ts)
		if err != nil {
			return err
		}
		r, err := cl.Status(context.Background(), &gemelv1.StatusRequest{})
		if err != nil {
			return err
		}
		for _, p := range r.GetSnapshot().GetProcesses() {
			if !slices.Contains([]string{"running", "stopped", "done", "elsewhere"}, p.GetState()) {
				return fmt.Errorf("%s is %s", p.GetName(), p.GetState())
			}
		}
		for _, c := range r.GetSnapshot().GetChecks() {
			if c.GetState() == "waiting" {
				return fmt.Errorf("check %s has not run", c.GetName())
			}
		}
		return nil
	})
}

// command makes a command of the script's world; "as daemon" before it runs it
// as that user (the name stands for uid 1 on every Linux).
func command(ts *testscript.TestScript, args []string) *exec.Cmd {
	attr := &syscall.SysProcAttr{}
	if len(args) > 2 && args[0] == "as" && args[1] == "daemon" {
		attr.Credential = &syscall.Credential{Uid: 1, Gid: 1}
		args = args[2:]
	}
	path, err := exec.LookPath(args[0])
	ts.Check(err)
	c := exec.Command(path, args[1:]...)
	c.SysProcAttr, c.Dir = attr, ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "GEMEL_DATA_DIR", "GEMEL_RUN_DIR", "GEMEL_SOCKET", "TZ", "LC_ALL", "NO_COLOR"} {
		if v := ts.Getenv(name); v != "" {
			c.Env = append(c.Env, name+"="+v)
		}
	}
	return c
}

// status is the exit status as a shell sees it.
func status(err error) int {
	var e *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		if w, ok := e.Sys().(syscall.WaitStatus); ok && w.Signaled() {
			return 128 + int(w.Signal())
		}
		return e.ExitCode()
	}
	return -1
}

// exitsCmd is "exits STATUS COMMAND...": the command must end with that status.
// What it printed is there for stdout, stderr and cmp.
func exitsCmd(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	var out, say bytes.Buffer
	c := command(ts, args[1:])
	c.Stdout, c.Stderr = &out, &say
	got := status(c.Run())
	_, _ = ts.Stdout().Write(out.Bytes())
	_, _ = ts.Stderr().Write(say.Bytes())
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// untilCmd is "until PATTERN COMMAND...": the command is repeated until what it
// prints matches.
func untilCmd(ts *testscript.TestScript, _ bool, args []string) {
	want := regexp.MustCompile("(?m)" + args[0])
	var out []byte
	poll(ts, "what should match "+args[0], func() error {
		var err error
		if out, err = command(ts, args[1:]).Output(); !want.Match(out) {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
	_, _ = ts.Stdout().Write(out)
}

// interruptCmd is "interrupt SIGNAL STATUS PATTERN COMMAND...": when the command
// has printed what matches it gets the signal and must end with the status. With
// SIGNAL "monitor" the daemon's monitor is killed instead and the command must
// print the pattern once more before it is interrupted; with "daemon" the daemon
// is stopped and the command must end by itself.
func interruptCmd(ts *testscript.TestScript, _ bool, args []string) {
	sig, pattern := args[0], regexp.MustCompile("(?m)"+args[2])
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	c := command(ts, args[3:])
	var say bytes.Buffer
	c.Stderr = &say
	pipe, err := c.StdoutPipe()
	ts.Check(err)
	ts.Check(c.Start())
	killed := time.AfterFunc(waitBound, func() { _ = c.Process.Kill() })
	defer killed.Stop()
	var out bytes.Buffer
	seen := func(from int) {
		b := make([]byte, 4096)
		for !pattern.Match(out.Bytes()[from:]) {
			n, err := pipe.Read(b)
			out.Write(b[:n])
			if err != nil {
				ts.Fatalf("it ended before it printed %s\n%s%s", pattern, out.String(), say.String())
			}
		}
	}
	seen(0)
	switch sig {
	case "INT":
		ts.Check(c.Process.Signal(syscall.SIGINT))
	case "TERM":
		ts.Check(c.Process.Signal(syscall.SIGTERM))
	case "monitor":
		daemonCmd(ts, false, []string{"kill", "monitor"})
		seen(out.Len())
		ts.Check(c.Process.Signal(syscall.SIGINT))
	case "daemon":
		daemonCmd(ts, false, []string{"stop"})
	}
	_, _ = io.Copy(&out, pipe)
	got := status(c.Wait())
	_, _ = ts.Stdout().Write(out.Bytes())
	_, _ = ts.Stderr().Write(say.Bytes())
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// jsonCmd is "json PATH is VALUE" or "json PATH has TYPE" about the first
// document on standard output; PATH is like .processes[0].name, TYPE one of
// string, number, boolean, array, object, time, none.
func jsonCmd(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: json PATH is|has WHAT")
	}
	var doc any
	if err := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout"))).Decode(&doc); err != nil {
		ts.Fatalf("standard output is no JSON: %v", err)
	}
	v, ok := at(doc, args[0])
	switch {
	case !ok && args[1] == "has" && args[2] == "none":
	case !ok:
		ts.Fatalf("there is no %s", args[0])
	case args[1] == "is":
		if got := fmt.Sprint(v); got != args[2] {
			ts.Fatalf("%s is %s, want %s", args[0], got, args[2])
		}
	case typeOf(v) != args[2] && !(args[2] == "string" && typeOf(v) == "time"):
		ts.Fatalf("%s has type %s, want %s", args[0], typeOf(v), args[2])
	}
}

// at walks into a document.
func at(v any, path string) (any, bool) {
	for _, step := range regexp.MustCompile(`\.[a-z_]+|\[\d+\]`).FindAllString(path, -1) {
		switch here := v.(type) {
		case map[string]any:
			next, ok := here[strings.TrimPrefix(step, ".")]
			if !ok {
				return nil, false
			}
			v = next
		case []any:
			i, err := strconv.Atoi(strings.Trim(step, "[]"))
			if err != nil || i >= len(here) {
				return nil, false
			}
			v = here[i]
		default:
			return nil, false
		}
	}
	return v, true
}

func typeOf(v any) string {
	switch x := v.(type) {
	case string:
		if _, err := time.Parse(time.RFC3339Nano, x); err == nil && strings.HasSuffix(x, "Z") {
			return "time"
		}
		return "string"
	case float64:
		return "number"
	case bool:
		return "boolean"
	case []any:
		return "array"
	case map[string]any:
		return "object"
	}
	return "null"
}
