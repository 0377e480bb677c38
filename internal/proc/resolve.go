package proc

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"gemel/internal/manifest"
)

// defaultPATH is the PATH of a program whose manifest names none.
const defaultPATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// passed are the variables of Gemel's own environment that every program gets.
var passed = []string{"LANG", "TZ"}

// own are the variables that say how Gemel itself was started; no program gets
// them from us.
var own = []string{
	"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "MAINPID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES",
	"INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE",
}

// World is what Resolve may know of the machine. Users and groups are read from
// their files and from nowhere else: a directory service that hangs must not
// hang a start (docs/decisions/0033).
type World struct {
	UID, GID int
	Groups   []int    // supplementary groups of Gemel itself
	Environ  []string // Gemel's own environment

	ReadFile   func(name string) ([]byte, error) // of /etc/passwd, /etc/group and env files
	Executable func(name string) error           // nil: a file that may be executed

	known *known // users and groups that were read; nil: read them each time
}

// ThisMachine is the World that Gemel runs in.
func ThisMachine() World {
	groups, err := os.Getgroups()
	if err != nil {
		groups = nil // only told on, never used to grant anything
	}
	return World{
		UID: os.Geteuid(), GID: os.Getegid(), Groups: groups, Environ: os.Environ(),
		ReadFile: readSmall, Executable: executable, known: &known{},
	}
}

// maxFile bounds what is read of a file that the manifest names.
const maxFile = 4 << 20

func readSmall(name string) ([]byte, error) {
	s, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !s.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", name)
	}
	if s.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes; allowed: up to %d", name, s.Size(), maxFile)
	}
	return os.ReadFile(name)
}

func executable(name string) error {
	s, err := os.Stat(name)
	switch {
	case err != nil:
		return err
	case !s.Mode().IsRegular():
		return fmt.Errorf("%s is no regular file", name)
	}
	return unix.Access(name, unix.X_OK)
}

// resolver is one Resolve while it runs.
type resolver struct {
	p    manifest.Process
	w    World
	errs []error
}

func (r *resolver) fail(key, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("%s (processes.%s.%s)", fmt.Sprintf(format, args...), r.p.Name, key))
}

// Resolve looks up everything that a start of p needs, so that no start has to.
// The error names everything that this machine lacks. A process that is only
// watched has a Spec without a Path.
func Resolve(p manifest.Process, w World) (Spec, error) {
	r := &resolver{p: p, w: w}
	beats := p.Watchdog.Interval > 0
	s := Spec{
		Process: p.Name, Dir: p.Directory,
		UID: -1, GID: -1, Umask: p.Umask, Nice: p.Nice, OOMScore: p.OOMScore,
		SetCaps: p.Caps.Set, NoNewPrivs: p.NoNewPrivs,
		Memory: p.Resources.Memory, CPU: p.Resources.CPU, PIDs: p.Resources.PIDs,
		Output:     p.Output.Mode,
		Notify:     p.Ready.Kind == manifest.ReadyNotify || beats && (p.Watchdog.By == "" || p.Watchdog.By == "notify"),
		Beats:      beats && (p.Watchdog.By == "" || p.Watchdog.By == "page"),
		StopSignal: p.Stop.Signal, StopGrace: p.Stop.Grace,
		Spare: p.Spare,
	}
	if beats && p.Watchdog.By != "command" {
		s.Watchdog = p.Watchdog.Silence()
	}
	who := r.identity(&s)
	s.Env = r.environment(who)
	r.limits(&s)
	switch {
	case p.Shell != "":
		s.Path, s.Args = "/bin/sh", []string{"/bin/sh", "-c", p.Shell}
	case len(p.Command) > 0:
		s.Path, s.Args = r.find("command", p.Command[0], s.Env), slices.Clone(p.Command)
	case len(p.Attach.Start) > 0:
		s.Path, s.Args = r.find("attach.start", p.Attach.Start[0], s.Env), slices.Clone(p.Attach.Start)
	}
	if len(p.Stop.Command) > 0 {
		s.StopCommand = slices.Clone(p.Stop.Command)
		s.StopCommand[0] = r.find("stop.command", s.StopCommand[0], s.Env)
	}
	if len(r.errs) > 0 {
		return Spec{}, errors.Join(r.errs...)
	}
	return s, nil
}

// identity resolves user, group and supplementary groups into s and returns the
// account for the environment.
func (r *resolver) identity(s *Spec) account {
	p := &r.p
	accounts := r.accounts()
	who, known := accounts.byID(r.w.UID)
	if !known {
		who = account{name: strconv.Itoa(r.w.UID), uid: r.w.UID, gid: r.w.GID, home: "/", shell: "/bin/sh"}
	}
	if p.User == "" && p.Group == "" && p.Groups == nil {
		return who
	}
	s.GID, s.Groups = r.w.GID, slices.Clone(r.w.Groups)
	if p.User != "" {
		found, err := accounts.user(p.User)
		if err != nil {
			r.fail("user", "%v", err)
			return who
		}
		who = found
		s.UID, s.GID, s.Groups = who.uid, who.gid, accounts.groupsOf(who.name)
	}
	if p.Group != "" {
		gid, err := accounts.group(p.Group)
		if err != nil {
			r.fail("group", "%v", err)
		}
		s.GID = gid
	} else if s.GID < 0 {
		r.fail("user", "user %s is not in /etc/passwd, so that its group is not known: say it by group:", p.User)
	}
	if p.Groups != nil {
		s.Groups = []int{}
		for _, g := range p.Groups {
			gid, err := accounts.group(g)
			if err != nil {
				r.fail("groups", "%v", err)
			}
			s.Groups = append(s.Groups, gid)
		}
	}
	s.SetIDs = true
	r.plainUser(s)
	return who
}

// plainUser refuses what only root can do, and asks for nothing where nothing
// would change.
func (r *resolver) plainUser(s *Spec) {
	if r.w.UID == 0 {
		return
	}
	p := &r.p
	switch {
	case s.UID >= 0 && s.UID != r.w.UID:
		r.fail("user", "only root can start a program as user %q; Gemel runs as uid %d", p.User, r.w.UID)
	case p.Group != "" && s.GID != r.w.GID:
		r.fail("group", "only root can start a program as group %q; Gemel runs as gid %d", p.Group, r.w.GID)
	case p.Groups != nil:
		r.fail("groups", "only root can change the supplementary groups of a program; Gemel runs as uid %d", r.w.UID)
	}
	s.UID, s.GID, s.Groups, s.SetIDs = -1, -1, nil, false
}

// limits turns names into the kernel's numbers.
func (r *resolver) limits(s *Spec) {
	for _, l := range r.p.Limits {
		n, ok := manifest.LimitNumber(l.Name)
		if !ok {
			r.fail("limits", "no such limit: %q", l.Name)
			continue
		}
		s.Limits = append(s.Limits, Rlimit{Resource: n, Soft: l.Soft, Hard: l.Hard})
	}
	for _, c := range r.p.Caps.Keep {
		n, ok := manifest.CapNumber(c)
		if !ok {
			r.fail("capabilities", "no such capability: %q", c)
			continue
		}
		s.Caps = append(s.Caps, n)
	}
}

// find returns the absolute path of a program. One that is written with a slash
// is not looked at: that it is missing is an end of that start, and counted.
func (r *resolver) find(key, name string, env []string) string {
	if strings.Contains(name, "/") {
		return name
	}
	search := lookup(env, "PATH")
	denied := ""
	for _, dir := range strings.Split(search, ":") {
		if !strings.HasPrefix(dir, "/") {
			continue // the working directory of Gemel is not where anybody means
		}
		full := path.Join(dir, name)
		err := r.w.Executable(full)
		if err == nil {
			return full
		}
		if errors.Is(err, unix.EACCES) {
			denied = full
		}
	}
	if denied != "" {
		r.fail(key, "program %q is %s, which is not executable for Gemel", name, denied)
		return ""
	}
	r.fail(key, "no program %q in PATH, which is %s", name, search)
	return ""
}

// environment makes the variables in order of their right: what every program
// gets, or all of Gemel's own; who the program is; files; the manifest.
func (r *resolver) environment(who account) []string {
	env := map[string]string{"PATH": defaultPATH}
	for _, kv := range r.w.Environ {
		key, value, ok := strings.Cut(kv, "=")
		if !ok || key == "" || slices.Contains(own, key) || strings.HasPrefix(key, "GEMEL_") {
			continue
		}
		if r.p.InheritEnv || slices.Contains(passed, key) {
			env[key] = value
		}
	}
	env["HOME"], env["USER"], env["LOGNAME"], env["SHELL"] = who.home, who.name, who.name, who.shell
	for _, f := range r.p.EnvFiles {
		r.envFile(f, env)
	}
	for k, v := range r.p.Environment {
		env[k] = v
	}
	out := make([]string, 0, len(env))
	for k, v := range env {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out
}

func lookup(env []string, key string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, key+"="); ok {
			return v
		}
	}
	return ""
}

// envFile adds the lines of one file to env.
func (r *resolver) envFile(name string, env map[string]string) {
	name, optional := strings.CutPrefix(name, "-")
	b, err := r.w.ReadFile(name)
	if err != nil {
		if !optional || !errors.Is(err, os.ErrNotExist) {
			r.fail("env-file", "read the environment: %v", err)
		}
		return
	}
	for i, line := range strings.Split(string(b), "\n") {
		key, value, err := envLine(line)
		switch {
		case err != nil:
			r.fail("env-file", "%s:%d: %v", name, i+1, err)
		case key == "":
		case slices.Contains(own, key), strings.HasPrefix(key, "GEMEL_"):
			r.fail("env-file", "%s:%d: %s is set by Gemel itself; remove it", name, i+1, key)
		default:
			env[key] = value
		}
	}
}

// envLine reads KEY=value. A value may stand in quotes of either kind; nothing
// in it is replaced. An empty key is a line without a variable.
func envLine(line string) (key, value string, err error) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' || line[0] == ';' {
		return "", "", nil
	}
	key, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
	key = strings.TrimSpace(key)
	good := ok && key != "" && (key[0] < '0' || key[0] > '9')
	for _, c := range key {
		good = good && (c == '_' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9')
	}
	if !good {
		return "", "", fmt.Errorf("found %.40q; allowed: KEY=value", line)
	}
	value = strings.TrimSpace(value)
	if strings.ContainsRune(value, 0) {
		return "", "", fmt.Errorf("the value of %s holds a NUL", key)
	}
	if value == "" || value[0] != '"' && value[0] != '\'' {
		return key, value, nil
	}
	if len(value) < 2 || value[len(value)-1] != value[0] {
		return "", "", fmt.Errorf("the value of %s begins with a quote and does not end with it", key)
	}
	inner := value[1 : len(value)-1]
	if value[0] == '"' {
		inner = strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\$`, `$`).Replace(inner)
	}
	return key, inner, nil
}
