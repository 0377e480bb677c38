package spawn

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"gemel/internal/need"
	"gemel/internal/proc"
)

// TestExecFailures: each failure names its stage, its errno and the path, and says
// what the errno leaves out. No child is left.
func TestExecFailures(t *testing.T) {
	dir := openDir(t)
	loop := dir + "/loop"
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	busy := file(t, dir, "busy", "#!/bin/sh\n", 0o755)
	w, err := os.OpenFile(busy, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	locked := openDir(t)
	file(t, locked, "program", "#!/bin/sh\n", 0o755)
	if err := os.Chmod(locked, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		path  string
		errno syscall.Errno
		hint  string
		edit  func(*proc.Spec)
	}{
		{name: "missing", path: dir + "/missing", errno: unix.ENOENT, hint: "missing: no such file or directory"},
		{name: "part of path is a file", path: busy + "/x", errno: unix.ENOTDIR, hint: "not a directory"},
		{name: "not executable", path: file(t, dir, "plain", "#!/bin/sh\n", 0o644), errno: unix.EACCES, hint: "chmod +x"},
		{name: "directory", path: dir, errno: unix.EACCES, hint: "it is a directory"},
		{name: "bad interpreter", path: file(t, dir, "bad", "#!/no/such/shell -x\n", 0o755), errno: unix.ENOENT, hint: "its interpreter /no/such/shell is not"},
		{name: "interpreter not executable", path: file(t, dir, "bad2", "#!"+dir+"/plain\n", 0o755), errno: unix.EACCES, hint: "its interpreter " + dir + "/plain is not executable"},
		{name: "no #!", path: file(t, dir, "text", "echo hello\n", 0o755), errno: unix.ENOEXEC, hint: "neither a binary of this machine nor a script"},
		{name: "empty", path: file(t, dir, "empty", "", 0o755), errno: unix.ENOEXEC, hint: "neither a binary"},
		{name: "loop", path: loop, errno: unix.ELOOP, hint: "too many levels of symbolic links"},
		{name: "busy", path: busy, errno: unix.ETXTBSY, hint: "being written"},
		{name: "too long", path: "/bin/true", errno: unix.E2BIG, hint: "too long", edit: func(s *proc.Spec) {
			s.Args = []string{"true", strings.Repeat("x", 200_000)}
		}},
		{name: "name too long", path: "/" + strings.Repeat("x", 300), errno: unix.ENAMETOOLONG, hint: "file name too long"},
		{name: "out of reach", path: locked + "/program", errno: unix.EACCES, hint: "not reach its directory", edit: func(s *proc.Spec) {
			s.SetIDs, s.UID, s.GID = true, 65534, 65534
		}},
	} {
		if c.edit != nil && c.name == "out of reach" && os.Geteuid() != 0 {
			continue
		}
		for _, way := range ways {
			s := &proc.Spec{Process: "bad", Path: c.path, UID: -1, GID: -1}
			if c.edit != nil {
				c.edit(s)
			}
			wantFailure(t, c.name+" by "+way, way, s, StartError{"exec", c.errno, c.path, c.hint})
		}
	}
	noChildren(t)
}

// wantFailure starts what cannot start. The hint may be any part of the text.
func wantFailure(t *testing.T, name, way string, s *proc.Spec, want StartError) {
	t.Helper()
	child, err := begin(t, way, s, quiet())
	var e *StartError
	switch {
	case err == nil:
		t.Errorf("%s: it was started: %v", name, await(t, child))
	case !errors.As(err, &e):
		t.Errorf("%s: not a StartError: %v", name, err)
	case e.Stage != want.Stage || e.Errno != want.Errno || e.Path != want.Path || !errors.Is(err, want.Errno):
		t.Errorf("%s: stage %q, errno %v, path %q; want %q, %v, %q", name, e.Stage, e.Errno, e.Path, want.Stage, want.Errno, want.Path)
	case !strings.Contains(e.Error(), want.hint):
		t.Errorf("%s: %q does not contain %q", name, e.Error(), want.hint)
	}
}

// noChildren checks that this process has none, zombies included. Tests here do
// not run in parallel.
func noChildren(t *testing.T) {
	t.Helper()
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("a child is left: %d, %v", pid, err)
	}
}

func TestNoExec(t *testing.T) {
	root(t)
	dir := openDir(t)
	need.Done(t, unix.Mount("none", dir, "tmpfs", unix.MS_NOEXEC, ""), "mounting a tmpfs")
	defer unix.Unmount(dir, unix.MNT_DETACH)
	path := file(t, dir, "program", "#!/bin/sh\n", 0o755)
	for _, way := range ways {
		wantFailure(t, way, way, &proc.Spec{Path: path}, StartError{"exec", unix.EACCES, path, "mounted noexec"})
	}
}

// TestForeignBinary: a binary whose loader is missing.
func TestMissingLoader(t *testing.T) {
	b, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	in := interpreter("/bin/true")
	if in == "" {
		t.Skip("/bin/true is static")
	}
	other := "/x" + in[2:]
	path := file(t, openDir(t), "program", strings.Replace(string(b), in+"\x00", other+"\x00", 1), 0o755)
	wantFailure(t, "loader", "start", &proc.Spec{Path: path}, StartError{"exec", unix.ENOENT, path, "its interpreter " + other + " is not"})
}

// TestStages: refusals before the exec.
func TestStages(t *testing.T) {
	for _, way := range ways {
		s := shell("true")
		s.Dir = "/no/such/directory"
		wantFailure(t, "chdir by "+way, way, s, StartError{"chdir", unix.ENOENT, s.Dir, "chdir /no/such/directory: no such file or directory"})
		s = shell("true")
		s.Limits = []proc.Rlimit{{Resource: unix.RLIMIT_CORE}, {Resource: unix.RLIMIT_NOFILE, Soft: 10, Hard: 5}}
		wantFailure(t, "rlimit by "+way, way, s, StartError{"rlimit nofile", unix.EINVAL, "", "rlimit nofile: invalid argument"})
		s = shell("true")
		s.OOMScore = 5000
		wantFailure(t, "oom by "+way, way, s, StartError{"oom_score_adj", unix.EINVAL, "", ""})
		o := quiet()
		o.Stdout = 987
		if _, err := begin(t, way, shell("true"), o); err == nil || !strings.Contains(err.Error(), "standard descriptor 1: bad file descriptor") {
			t.Errorf("stdio by %s: %v", way, err)
		}
	}
	noChildren(t)
}

// TestPlainUser runs the tests of this package again as a plain user.
func TestPlainUser(t *testing.T) {
	root(t)
	dir := openDir(t)
	b, err := os.ReadFile(self(t))
	if err != nil {
		t.Fatal(err)
	}
	path := dir + "/test"
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(path, "-test.run=Plain|Exec|Loader|Stages|Unchanged|OwnIDs|Signals|Closed|Crossed|DescriptorLimit|Fallback|Foreign|Handover|Table|Parked|Many|Exit", "-test.v")
	c.Dir = dir
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("as uid 65534: %v\n%s", err, out)
	}
	for _, name := range []string{"TestPlainRefusals", "TestExecFailures", "TestFallbackKill"} {
		if !strings.Contains(string(out), "--- PASS: "+name) {
			t.Errorf("%s did not pass as a plain user:\n%s", name, out)
		}
	}
}

// TestPlainRefusals: what only root may ask for is refused, with the stage.
func TestPlainRefusals(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("as a plain user: see TestPlainUser")
	}
	for _, way := range ways {
		s := shell("true")
		s.SetIDs, s.UID, s.GID = true, 0, -1
		groups, err := os.Getgroups()
		if err != nil {
			t.Fatal(err)
		}
		s.Groups = groups
		wantFailure(t, "uid by "+way, way, s, StartError{"setuid", unix.EPERM, "", "only root can start programs as another user"})
		s.UID, s.GID = -1, 0
		wantFailure(t, "gid by "+way, way, s, StartError{"setgid", unix.EPERM, "", "only root"})
		s.GID, s.Groups = -1, []int{0, 4242}
		wantFailure(t, "groups by "+way, way, s, StartError{"setgroups", unix.EPERM, "", "only root"})
		s = shell("true")
		s.Nice = -5
		wantFailure(t, "nice by "+way, way, s, StartError{"nice", unix.EACCES, "", "nice: permission denied"})
		s = shell("true")
		s.OOMScore = -500
		wantFailure(t, "oom by "+way, way, s, StartError{"oom_score_adj", unix.EACCES, "", ""})
		s = shell("true")
		s.SetCaps = true
		wantFailure(t, "bounding by "+way, way, s, StartError{"capability bounding set 0", unix.EPERM, "", "no-new-privileges"})
		s.NoNewPrivs, s.Caps = true, []int{unix.CAP_NET_ADMIN}
		wantFailure(t, "capset by "+way, way, s, StartError{"capset", unix.EPERM, "", ""})
	}
}
