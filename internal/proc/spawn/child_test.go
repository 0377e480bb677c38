package spawn

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"gemel/internal/proc"
)

const facts = "cd /proc/self; exec cat status limits cgroup oom_score_adj stat"

// TestFields observes every field of a Spec from inside the child.
func TestFields(t *testing.T) {
	root(t)
	tr := tree(t)
	dir := openDir(t)
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			o := quiet()
			o.Env = []string{"GEMEL_BEAT_PAGE=/x", "TWICE=new"}
			s := &proc.Spec{
				Process: "full", Path: "/bin/cat",
				Args: []string{"my cat", "/proc/self/status", "/proc/self/limits", "/proc/self/cgroup", "/proc/self/oom_score_adj", "/proc/self/stat", "/proc/self/environ", "/proc/self/cmdline", "here"},
				Env:  []string{"A=1", "TWICE=old", "senseless"},
				Dir:  dir, UID: 1234, GID: 2345, Groups: []int{3456, 4567}, SetIDs: true,
				Umask: 0o27, Nice: 7, OOMScore: 321,
				Limits:  []proc.Rlimit{{Resource: unix.RLIMIT_NOFILE, Soft: 77, Hard: 88}, {Resource: unix.RLIMIT_CORE, Soft: 0, Hard: -1}},
				SetCaps: true, Caps: []int{unix.CAP_NET_BIND_SERVICE, unix.CAP_WAKE_ALARM}, NoNewPrivs: true,
			}
			file(t, dir, "here", "in the directory\n", 0o644)
			o.Cgroup = group(t, tr, o.Start, s)
			out, st := output(t, way, s, o)
			if !st.Success() {
				t.Fatalf("%v: %s", st, out)
			}
			for key, want := range map[string]string{
				"Uid": "1234 1234 1234 1234", "Gid": "2345 2345 2345 2345", "Groups": "3456 4567", "Umask": "0027",
				"CapInh": "0000000800000400", "CapPrm": "0000000800000400", "CapEff": "0000000800000400",
				"CapBnd": "0000000800000400", "CapAmb": "0000000800000400", "NoNewPrivs": "1",
				"SigBlk": "0000000000000000", "SigIgn": "0000000000000000", "SigCgt": "0000000000000000", "Threads": "1",
			} {
				if got := value(out, key); got != want {
					t.Errorf("%s is %q, want %q", key, got, want)
				}
			}
			for _, want := range []string{"\n321\n", "in the directory\n", "my cat\x00", "\x00GEMEL_BEAT_PAGE=/x\x00", "\x00TWICE=new\x00",
				"\x00GEMEL_PROCESS=full\x00", "\x00GEMEL_START=" + o.Start.String() + "\x00"} {
				if !strings.Contains(out, want) {
					t.Errorf("%q is missing", want)
				}
			}
			for _, not := range []string{"TWICE=old", "senseless"} {
				if strings.Contains(out, not) {
					t.Errorf("%q is there", not)
				}
			}
			if !strings.Contains(squeezed(out), "Max open files 77 88 files") || !strings.Contains(squeezed(out), "Max core file size 0 unlimited bytes") {
				t.Errorf("limits: %s", out)
			}
			checkStat(t, out, 7)
			if tr.v2 != "" && !strings.Contains(out, "/"+tr.name+"/start-"+o.Start.String()+"\n") {
				t.Errorf("not in its control group: %s", out)
			}
		})
	}
}

func squeezed(s string) string { return strings.Join(strings.Fields(s), " ") }

// checkStat reads the line of /proc/PID/stat: own session and group, nice.
func checkStat(t *testing.T, out string, nice int) {
	t.Helper()
	for line := range strings.Lines(out) {
		i := strings.LastIndex(line, ") R ")
		if i < 0 {
			continue
		}
		pid, _, _ := strings.Cut(line, " ")
		f := strings.Fields(line[i+2:])
		if f[2] != pid || f[3] != pid {
			t.Errorf("pid %s has group %s and session %s", pid, f[2], f[3])
		}
		if f[16] != fmt.Sprint(nice) {
			t.Errorf("nice is %s, want %d", f[16], nice)
		}
		return
	}
	t.Error("no line of stat")
}

// TestUnchanged: without SetIDs and SetCaps nothing is taken away.
func TestUnchanged(t *testing.T) {
	own, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range ways {
		s := shell(facts)
		s.UID, s.GID = -1, -1
		out, st := output(t, way, s, quiet())
		if !st.Success() {
			t.Fatalf("%s: %v: %s", way, st, out)
		}
		for _, key := range []string{"Uid", "Gid", "Groups", "CapBnd", "CapAmb", "NoNewPrivs"} {
			if got, want := value(out, key), value(string(own), key); got != want {
				t.Errorf("%s: %s is %q, want %q", way, key, got, want)
			}
		}
	}
}

// TestOwnIDs: naming the ids that one has anyway needs no privilege.
func TestOwnIDs(t *testing.T) {
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	s := shell("true")
	s.SetIDs, s.UID, s.GID, s.Groups = true, os.Getuid(), os.Getgid(), groups
	if out, st := output(t, "start", s, quiet()); !st.Success() {
		t.Fatal(out, st)
	}
}

func TestEmptyCapabilities(t *testing.T) {
	s := shell(facts)
	s.SetCaps, s.NoNewPrivs = true, true
	out, st := output(t, "start", s, quiet())
	if !st.Success() || value(out, "CapEff") != "0000000000000000" || value(out, "CapPrm") != "0000000000000000" {
		t.Fatalf("%v: %s", st, out)
	}
}

// TestSignalsDefault: what this process ignores, and Go's own handlers, do not
// reach the child.
func TestSignalsDefault(t *testing.T) {
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP, syscall.SIGUSR1, syscall.Signal(40))
	defer signal.Reset()
	for _, way := range ways {
		s := &proc.Spec{Process: "cat", Path: "/bin/cat", Args: []string{"cat", "/proc/self/status"}}
		out, _ := output(t, way, s, quiet())
		for _, key := range []string{"SigIgn", "SigBlk", "SigCgt"} {
			if got := value(out, key); got != "0000000000000000" {
				t.Errorf("%s: %s is %s", way, key, got)
			}
		}
	}
}

func TestDescriptorsClosed(t *testing.T) {
	fd, err := unix.Open("/dev/null", unix.O_RDONLY, 0) // not close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	high := 900
	if err := unix.Dup2(fd, high); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(high)
	for _, way := range ways {
		s := &proc.Spec{Process: "ls", Path: "/bin/ls", Args: []string{"ls", "/proc/self/fd"}, Env: []string{"LC_ALL=C"}}
		out, st := output(t, way, s, quiet())
		if squeezed(out) != "0 1 2 3" || !st.Success() { // 3 is the directory that ls reads
			t.Errorf("%s: %v, open are %s", way, st, squeezed(out))
		}
	}
}

// TestStdioCrossed: out goes to 2 and err to 1 of the helper.
func TestStdioCrossed(t *testing.T) {
	for _, way := range ways {
		r1, w1, _ := os.Pipe()
		r2, w2, _ := os.Pipe()
		o := quiet()
		o.Stdout, o.Stderr = int(w1.Fd()), int(w2.Fd())
		c, err := begin(t, way, helper(t, "crossed", way), o)
		w1.Close()
		w2.Close()
		if err != nil {
			t.Fatal(err)
		}
		var a, b [100]byte
		n, _ := r1.Read(a[:])
		m, _ := r2.Read(b[:])
		if st := await(t, c); string(a[:n]) != "err\n" || string(b[:m]) != "out\n" || !st.Success() {
			t.Errorf("%s: %v, 1 got %q, 2 got %q", way, st, a[:n], b[:m])
		}
		r1.Close()
		r2.Close()
	}
}

// TestDescriptorLimit: the Go runtime raised our own limit; the program gets what
// we were started with.
func TestDescriptorLimit(t *testing.T) {
	s := shell(`ulimit -Sn 500; ulimit -Hn 2000; export ` + helperEnv + `=limit; exec "$0"`)
	s.Args = append(s.Args, self(t))
	out, st := output(t, "start", s, quiet())
	if !st.Success() || out != "500 2000\n" {
		t.Fatalf("%v: %s", st, out)
	}
}

func TestZeroBytes(t *testing.T) {
	for what, s := range map[string]*proc.Spec{
		"path":        {Path: "/bin/\x00sh"},
		"directory":   {Path: "/bin/sh", Dir: "/\x00"},
		"arguments":   {Path: "/bin/sh", Args: []string{"a\x00b"}},
		"environment": {Path: "/bin/sh", Env: []string{"A=a\x00b"}},
		"no path":     {},
		"capability":  {Path: "/bin/sh", SetCaps: true, Caps: []int{99}},
	} {
		r, err := Prepare(s, quiet())
		if err == nil {
			r.Close()
			t.Errorf("%s: no error", what)
		} else if !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
