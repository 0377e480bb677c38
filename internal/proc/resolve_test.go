package proc

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/manifest"
)

// madeUp is a machine with a few users, groups, files and programs.
func madeUp(uid, gid int, files map[string]string, programs ...string) World {
	all := map[string]string{
		"/etc/passwd": "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33:www:/var/www:\nann:x:1000:1000:Ann,,,:/home/ann:/bin/zsh\n+::::::\n",
		"/etc/group":  "root:x:0:\nadm:x:4:ann\nwww-data:x:33:\nvideo:x:44:ann,www-data\nann:x:1000:\n",
	}
	for k, v := range files {
		all[k] = v
	}
	return World{
		UID: uid, GID: gid, Groups: []int{4, 44},
		Environ: []string{"LANG=C.UTF-8", "TZ=UTC", "SECRET=1", "NOTIFY_SOCKET=/run/x", "GEMEL_START=7", "HOME=/elsewhere"},
		ReadFile: func(name string) ([]byte, error) {
			s, ok := all[name]
			if !ok {
				return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
			}
			return []byte(s), nil
		},
		Executable: func(name string) error {
			switch {
			case slices.Contains(programs, name):
				return nil
			case slices.Contains(programs, "!"+name):
				return unix.EACCES
			}
			return unix.ENOENT
		},
	}
}

// sleeper is the least that a process can be, with the defaults of a manifest.
func sleeper() manifest.Process {
	return manifest.Process{
		Name: "web", Command: []string{"sleep", "10"}, Directory: "/", Umask: 0o022,
		Stop:   manifest.Stop{Signal: 15, Grace: 10 * time.Second},
		Output: manifest.Output{Mode: "capture"},
	}
}

func TestResolve(t *testing.T) {
	s, err := Resolve(sleeper(), madeUp(0, 0, nil, "/usr/bin/sleep", "/bin/sleep"))
	if err != nil {
		t.Fatal(err)
	}
	if s.Path != "/usr/bin/sleep" || !slices.Equal(s.Args, []string{"sleep", "10"}) || s.SetIDs || s.UID != -1 || s.GID != -1 {
		t.Errorf("got %+v", s)
	}
	want := []string{
		"HOME=/root", "LANG=C.UTF-8", "LOGNAME=root",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"SHELL=/bin/bash", "TZ=UTC", "USER=root",
	}
	if !slices.Equal(s.Env, want) {
		t.Errorf("environment\n%s\nwant\n%s", strings.Join(s.Env, "\n"), strings.Join(want, "\n"))
	}
}

func TestResolveIdentity(t *testing.T) {
	for _, c := range []struct {
		name         string
		user, group  string
		groups       []string
		uid, gid     int // of Gemel
		want         string
		wantHomeUser string
	}{
		{name: "root, nothing asked", want: "-1 -1 [] false", wantHomeUser: "/root root"},
		{name: "by name", user: "ann", want: "1000 1000 [4 44] true", wantHomeUser: "/home/ann ann"},
		{name: "by number", user: "33", want: "33 33 [44] true", wantHomeUser: "/var/www www-data"},
		{name: "user and group", user: "ann", group: "adm", want: "1000 4 [4 44] true", wantHomeUser: "/home/ann ann"},
		{name: "no supplementary groups", user: "ann", groups: []string{}, want: "1000 1000 [] true", wantHomeUser: "/home/ann ann"},
		{name: "other supplementary groups", user: "ann", groups: []string{"video", "7"}, want: "1000 1000 [44 7] true", wantHomeUser: "/home/ann ann"},
		{name: "group alone", group: "adm", want: "-1 4 [4 44] true", wantHomeUser: "/root root"},
		{name: "a number that nobody has", user: "4711", group: "4712", want: "4711 4712 [] true", wantHomeUser: "/ 4711"},
		{name: "a plain user as itself", user: "ann", uid: 1000, gid: 1000, want: "-1 -1 [] false", wantHomeUser: "/home/ann ann"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := sleeper()
			p.User, p.Group, p.Groups = c.user, c.group, c.groups
			s, err := Resolve(p, madeUp(c.uid, c.gid, nil, "/bin/sleep"))
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(s.UID, s.GID, s.Groups, s.SetIDs); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if got := lookup(s.Env, "HOME") + " " + lookup(s.Env, "USER"); got != c.wantHomeUser {
				t.Errorf("got HOME and USER %s, want %s", got, c.wantHomeUser)
			}
		})
	}
}

func TestResolveRefusals(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*manifest.Process)
		uid  int
		want string
	}{
		{"no such user", func(p *manifest.Process) { p.User = "x" }, 0,
			`user "x" does not exist on this machine; one that is not in /etc/passwd is given by its number (processes.web.user)`},
		{"no such group", func(p *manifest.Process) { p.Group = "x" }, 0,
			`group "x" does not exist on this machine; one that is not in /etc/group is given by its number (processes.web.group)`},
		{"no such supplementary group", func(p *manifest.Process) { p.Groups = []string{"x"} }, 0,
			`group "x" does not exist on this machine; one that is not in /etc/group is given by its number (processes.web.groups)`},
		{"group of a number", func(p *manifest.Process) { p.User = "4711" }, 0,
			`user 4711 is not in /etc/passwd, so that its group is not known: say it by group: (processes.web.user)`},
		{"plain user asks for another", func(p *manifest.Process) { p.User = "www-data" }, 1000,
			`only root can start a program as user "www-data"; Gemel runs as uid 1000 (processes.web.user)`},
		{"plain user asks for another group", func(p *manifest.Process) { p.Group = "adm" }, 1000,
			`only root can start a program as group "adm"; Gemel runs as gid 1000 (processes.web.group)`},
		{"plain user asks for groups", func(p *manifest.Process) { p.Groups = []string{} }, 1000,
			`only root can change the supplementary groups of a program; Gemel runs as uid 1000 (processes.web.groups)`},
		{"not in PATH", func(p *manifest.Process) { p.Command = []string{"nope"} }, 0,
			`no program "nope" in PATH, which is /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin (processes.web.command)`},
		{"own PATH", func(p *manifest.Process) { p.Environment = map[string]string{"PATH": "/opt:relative"} }, 0,
			`no program "sleep" in PATH, which is /opt:relative (processes.web.command)`},
		{"not executable", func(p *manifest.Process) { p.Command = []string{"locked"} }, 0,
			`program "locked" is /usr/bin/locked, which is not executable for Gemel (processes.web.command)`},
		{"stop command", func(p *manifest.Process) { p.Stop.Command = []string{"nope"} }, 0,
			`no program "nope" in PATH, which is /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin (processes.web.stop.command)`},
		{"env file missing", func(p *manifest.Process) { p.EnvFiles = []string{"/etc/none"} }, 0,
			`read the environment: open /etc/none: file does not exist (processes.web.env-file)`},
		{"env file wrong", func(p *manifest.Process) { p.EnvFiles = []string{"/etc/bad"} }, 0,
			`/etc/bad:2: found "1A=x"; allowed: KEY=value (processes.web.env-file)` + "\n" +
				`/etc/bad:3: the value of B begins with a quote and does not end with it (processes.web.env-file)` + "\n" +
				`/etc/bad:4: NOTIFY_SOCKET is set by Gemel itself; remove it (processes.web.env-file)`},
		{"two at once", func(p *manifest.Process) { p.User, p.Command = "x", []string{"nope"} }, 0,
			`user "x" does not exist on this machine; one that is not in /etc/passwd is given by its number (processes.web.user)` + "\n" +
				`no program "nope" in PATH, which is /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin (processes.web.command)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := sleeper()
			c.edit(&p)
			w := madeUp(c.uid, c.uid, map[string]string{"/etc/bad": "# one\n1A=x\nB=\"y\nNOTIFY_SOCKET=z\n"}, "/bin/sleep", "!/usr/bin/locked")
			_, err := Resolve(p, w)
			if err == nil || err.Error() != c.want {
				t.Errorf("got\n%v\nwant\n%s", err, c.want)
			}
		})
	}
}

// The manifest wins over files, files over what every program gets.
func TestResolveEnvironment(t *testing.T) {
	p := sleeper()
	p.EnvFiles = []string{"/etc/web", "-/etc/none"}
	p.Environment = map[string]string{"A": "manifest", "LANG": "de_DE.UTF-8"}
	files := map[string]string{"/etc/web": "\n# text\nA=file\nexport B = \"x \\\"y\\\" \\$z\"\nC='a b'\n D=plain text \nE=\nHOME=/srv\n"}
	s, err := Resolve(p, madeUp(0, 0, files, "/bin/sleep"))
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]string{
		"A": "manifest", "B": `x "y" $z`, "C": "a b", "D": "plain text", "E": "", "HOME": "/srv", "LANG": "de_DE.UTF-8", "SECRET": "",
	} {
		if got := lookup(s.Env, k); got != want {
			t.Errorf("%s is %q, want %q", k, got, want)
		}
	}
	p.InheritEnv = true
	if s, err = Resolve(p, madeUp(0, 0, files, "/bin/sleep")); err != nil {
		t.Fatal(err)
	}
	if lookup(s.Env, "SECRET") != "1" || lookup(s.Env, "NOTIFY_SOCKET") != "" || lookup(s.Env, "GEMEL_START") != "" {
		t.Errorf("inherited %q", s.Env)
	}
}

func TestResolveFlags(t *testing.T) {
	for _, c := range []struct {
		by, ready     string
		interval      time.Duration
		notify, beats bool
		silence       time.Duration
	}{
		{},
		{ready: "notify", notify: true},
		{ready: "port"},
		{interval: time.Second, notify: true, beats: true, silence: 4 * time.Second},
		{interval: time.Second, by: "notify", notify: true, silence: 4 * time.Second},
		{interval: time.Second, by: "page", beats: true, silence: 4 * time.Second},
		{interval: time.Second, by: "page", ready: "notify", notify: true, beats: true, silence: 4 * time.Second},
		{interval: time.Second, by: "command"},
	} {
		p := sleeper()
		p.Ready.Kind = manifest.ReadyKind(c.ready)
		p.Watchdog = manifest.Watchdog{Interval: c.interval, Retries: 3, By: c.by}
		s, err := Resolve(p, madeUp(0, 0, nil, "/bin/sleep"))
		if err != nil {
			t.Fatal(err)
		}
		if s.Notify != c.notify || s.Beats != c.beats || s.Watchdog != c.silence {
			t.Errorf("%+v: got notify %v, beats %v, silence %v", c, s.Notify, s.Beats, s.Watchdog)
		}
	}
}

func TestResolveNumbersAndForms(t *testing.T) {
	p := sleeper()
	p.Limits = []manifest.Limit{{Name: "core", Soft: 0, Hard: 0}, {Name: "nofile", Soft: 1024, Hard: -1}}
	p.Caps = manifest.Caps{Set: true, Keep: []string{"net_bind_service", "checkpoint_restore"}}
	p.Command, p.Shell = nil, "exec sleep 1"
	p.Resources = manifest.Resources{Memory: 1 << 20, CPU: 0.5, PIDs: 10}
	s, err := Resolve(p, madeUp(0, 0, nil))
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(s.Path, s.Args, s.Limits, s.Caps, s.SetCaps, s.Memory, s.CPU, s.PIDs)
	want := fmt.Sprint("/bin/sh", []string{"/bin/sh", "-c", "exec sleep 1"},
		[]Rlimit{{unix.RLIMIT_CORE, 0, 0}, {unix.RLIMIT_NOFILE, 1024, -1}},
		[]int{unix.CAP_NET_BIND_SERVICE, unix.CAP_CHECKPOINT_RESTORE}, true, 1<<20, 0.5, 10)
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}

	p = sleeper()
	p.Command, p.Attach = nil, manifest.Attach{PIDFile: "/run/x.pid"}
	if s, err = Resolve(p, madeUp(0, 0, nil)); err != nil || s.Path != "" {
		t.Errorf("only watched: got %+v, %v", s, err)
	}
	p.Attach.Start = []string{"/usr/sbin/service", "x", "start"}
	if s, err = Resolve(p, madeUp(0, 0, nil)); err != nil || s.Path != "/usr/sbin/service" || len(s.Args) != 3 {
		t.Errorf("attached and started: got %+v, %v", s, err)
	}
}

// The names of limits and capabilities have the numbers of the kernel.
func TestNumbers(t *testing.T) {
	for name, want := range map[string]int{
		"cpu": unix.RLIMIT_CPU, "fsize": unix.RLIMIT_FSIZE, "data": unix.RLIMIT_DATA, "stack": unix.RLIMIT_STACK,
		"core": unix.RLIMIT_CORE, "rss": unix.RLIMIT_RSS, "nproc": unix.RLIMIT_NPROC, "nofile": unix.RLIMIT_NOFILE,
		"memlock": unix.RLIMIT_MEMLOCK, "as": unix.RLIMIT_AS, "locks": unix.RLIMIT_LOCKS, "sigpending": unix.RLIMIT_SIGPENDING,
		"msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "rtprio": unix.RLIMIT_RTPRIO, "rttime": unix.RLIMIT_RTTIME,
	} {
		if got, ok := manifest.LimitNumber(name); !ok || got != want {
			t.Errorf("limit %s is %d, want %d", name, got, want)
		}
	}
	for name, want := range map[string]int{
		"chown": unix.CAP_CHOWN, "net_bind_service": unix.CAP_NET_BIND_SERVICE, "sys_admin": unix.CAP_SYS_ADMIN,
		"audit_write": unix.CAP_AUDIT_WRITE, "bpf": unix.CAP_BPF, "checkpoint_restore": unix.CAP_CHECKPOINT_RESTORE,
	} {
		if got, ok := manifest.CapNumber(name); !ok || got != want {
			t.Errorf("capability %s is %d, want %d", name, got, want)
		}
	}
	if len(manifest.CapNames()) != unix.CAP_LAST_CAP+1 {
		t.Errorf("%d capabilities, the kernel knows %d", len(manifest.CapNames()), unix.CAP_LAST_CAP+1)
	}
}

// What this machine says of itself is what the files of this machine say.
func TestThisMachine(t *testing.T) {
	p := sleeper()
	p.Command = []string{"sh"}
	s, err := Resolve(p, ThisMachine())
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(s.Path) != "sh" || !filepath.IsAbs(s.Path) {
		t.Errorf("found %q", s.Path)
	}
	if err := executable("/etc"); err == nil {
		t.Error("a directory is taken for a program")
	}
	if _, err := readSmall("/dev/zero"); err == nil {
		t.Error("a device is read as a file")
	}
}

func BenchmarkResolve(b *testing.B) {
	p, w := sleeper(), ThisMachine()
	p.Command = []string{"/bin/sleep"}
	for b.Loop() {
		if _, err := Resolve(p, w); err != nil {
			b.Fatal(err)
		}
	}
}
