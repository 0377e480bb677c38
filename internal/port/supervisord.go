package port

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// Supervisord reads supervisord.conf. What a program has of supervisord itself
// (user, directory, umask, environment) is written out for it.
func Supervisord(file string, b []byte) (Result, error) {
	fresh, err := newBlank()
	if err != nil {
		return Result{}, err
	}
	s := &supervisord{
		fresh: fresh, m: manifest.Manifest{Node: fresh.node}, here: path.Dir(file), umask: 0o022,
		groups: map[string]supGroup{}, taken: map[string]int{},
	}
	sections, err := parseINI(file, b, dialect{inlineComment: ";#", continued: true, merge: true, colon: true}, &s.notes)
	if err != nil {
		return Result{}, err
	}
	known := false
	// What programs inherit comes first, wherever it stands.
	for _, x := range sections {
		switch kind, name, _ := strings.Cut(x.name, ":"); kind {
		case "supervisord":
			known = true
			s.daemon(x)
		case "group":
			s.group(x, strings.TrimSpace(name))
		}
	}
	for _, x := range sections {
		known = s.section(x) || known
	}
	if !known {
		return Result{}, fmt.Errorf("%s: %w", file, errors.New("no section of it is one of supervisord.conf ([supervisord], [program:NAME])"))
	}
	s.finish()
	if err := s.settle(&s.m, s.fresh, s.taken); err != nil {
		return Result{}, fmt.Errorf("%s: %w", file, err)
	}
	return Result{Manifest: &s.m, Notes: s.sorted()}, nil
}

// supervisord is one import.
type supervisord struct {
	notes
	fresh       blank
	here        string // directory of the file
	m           manifest.Manifest
	user        string
	directory   string
	umask       int
	environment map[string]string
	groups      map[string]supGroup // by the name of a program in it
	programs    []supProgram
	taken       map[string]int // the line of each name
}

type supGroup struct {
	name     string
	priority int
}

// A supProgram is one process with its rank: lower starts earlier.
type supProgram struct {
	manifest.Process
	rank [2]int // priority of the group, then of the program
}

// Defaults of supervisord 4.
const (
	supPriority  = 999
	supLogSize   = 50 << 20
	supLogKept   = 10
	maxInstances = 1000
	minLogSize   = 4 << 10 // of the manifest
)

// section reports whether a section is one of supervisord's.
func (s *supervisord) section(x *section) bool {
	kind, name, named := strings.Cut(x.name, ":")
	switch {
	case x.name == "supervisord" || kind == "group" && named:
		return true // read before
	case kind == "program" && named:
		s.program(x, strings.TrimSpace(name))
	case kind == "eventlistener" && named:
		s.add(x.line, "[%s] listens to supervisord's events in a protocol of its own; left out: gemel events --json and handlers: take its place", clip(x.name))
	case kind == "fcgi-program" && named:
		s.add(x.line, "[%s] shares a FastCGI socket that supervisord opens; left out: let the program or the web server open it", clip(x.name))
	case x.name == "unix_http_server" || x.name == "inet_http_server" || x.name == "supervisorctl" || kind == "rpcinterface":
		s.add(x.line, "[%s] is about supervisord's own interface; left out: gemel listens on a unix socket by itself", clip(x.name))
	case x.name == "include":
		e, _ := x.take("files")
		s.add(e.line, "[include] names other files, which are not read: %s; import each of them", clip(e.value))
	case x.name == "ctlplugin" || kind == "ctlplugin":
		s.add(x.line, "[%s] extends supervisorctl; left out", clip(x.name))
	default:
		s.add(x.line, "the section [%s] is none of supervisord.conf; left out", clip(x.name))
		return false
	}
	return true
}

// daemon reads what programs inherit from supervisord.
func (s *supervisord) daemon(x *section) {
	vars := map[string]string{"here": s.here}
	if e, ok := x.take("user"); ok {
		s.user = e.value
	}
	if e, ok := x.take("directory"); ok {
		s.directory = s.expand(e, vars)
	}
	if e, ok := x.take("umask"); ok {
		s.umask = s.octal(e, s.umask)
	}
	if e, ok := x.take("environment"); ok {
		s.environment = s.pairs(e, vars)
	}
	for _, key := range []string{"minfds", "minprocs"} {
		if e, ok := x.take(key); ok {
			s.add(e.line, "%s %s: supervisord raised its own limit, which programs inherited; write limits: where a program needs it", key, clip(e.value))
		}
	}
	for _, key := range []string{
		"logfile", "logfile_maxbytes", "logfile_backups", "loglevel", "pidfile", "nodaemon", "silent", "nocleanup",
		"childlogdir", "strip_ansi", "identifier",
	} {
		x.take(key) // about supervisord itself: Gemel has no use for it
	}
	x.rest(&s.notes)
}

func (s *supervisord) group(x *section, name string) {
	e, ok := x.take("programs")
	if !ok {
		s.add(x.line, "[%s] names no programs; left out", clip(x.name))
		return
	}
	g := supGroup{name: name, priority: s.number(x, "priority", supPriority, -1<<31, 1<<31-1)}
	for program := range strings.SplitSeq(e.value, ",") {
		if program = strings.TrimSpace(program); program != "" {
			s.groups[program] = g
		}
	}
	s.add(x.line, "[%s]: a group of supervisord is only a name for several programs; its order is kept in after:", clip(x.name))
	x.rest(&s.notes)
}

// finish sorts, and turns priorities into an order of starts: each rank starts
// after the one before it of which something is started by itself.
func (s *supervisord) finish() {
	ranks := map[[2]int][]ha.Process{}
	for _, p := range s.programs {
		if p.AutoStart {
			ranks[p.rank] = append(ranks[p.rank], p.Name)
		}
	}
	before := func(a, b [2]int) int { return slices.Compare(a[:], b[:]) }
	order := slices.SortedFunc(maps.Keys(ranks), before)
	for _, p := range s.programs {
		if i, _ := slices.BinarySearchFunc(order, p.rank, before); i > 0 {
			p.After = slices.Sorted(slices.Values(ranks[order[i-1]]))
		}
		s.m.Processes = append(s.m.Processes, p.Process)
	}
	slices.SortFunc(s.m.Processes, func(a, b manifest.Process) int { return strings.Compare(string(a.Name), string(b.Name)) })
}

// expand replaces %(name)s and its kin as supervisord does.
func (s *supervisord) expand(e entry, vars map[string]string) string {
	var b strings.Builder
	rest := e.value
	for {
		before, after, ok := strings.Cut(rest, "%")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		if strings.HasPrefix(after, "%") {
			b.WriteByte('%')
			rest = after[1:]
			continue
		}
		text, left, ok := expandOne(after, vars)
		if !ok {
			why := "is not an expansion that is known"
			if strings.HasPrefix(after, "(ENV_") {
				why = "is a variable of supervisord's own environment, which is not known here"
			}
			word := after[:min(len(after), 1+strings.IndexByte(after+")", ')'))]
			s.add(e.line, "%s: %%%s %s; it stands in the manifest as it was: write its value", e.key, clip(word), why)
			b.WriteByte('%')
			rest = after
			continue
		}
		b.WriteString(text)
		rest = left
	}
}

// expandOne reads what follows a percent sign: (name)s, (name)d, (name)02d.
func expandOne(s string, vars map[string]string) (text, rest string, ok bool) {
	if !strings.HasPrefix(s, "(") {
		return "", "", false
	}
	name, after, ok := strings.Cut(s[1:], ")")
	if !ok {
		return "", "", false
	}
	value, known := vars[name]
	end := strings.IndexAny(after, "sd")
	if !known || end < 0 || end > 4 || strings.Trim(after[:end], "0123456789") != "" {
		return "", "", false
	}
	if after[end] == 'd' {
		n, err := strconv.Atoi(value)
		if err != nil {
			return "", "", false
		}
		width, fill := after[:end], " "
		if strings.HasPrefix(width, "0") {
			fill = "0"
		}
		value = strconv.Itoa(n)
		if w, err := strconv.Atoi(width); err == nil && w <= 64 {
			value = strings.Repeat(fill, max(0, w-len(value))) + value
		}
	}
	return value, after[end+1:], true
}

func (s *supervisord) pairs(e entry, vars map[string]string) map[string]string {
	out, err := splitPairs(s.expand(e, vars))
	if err != nil {
		s.add(e.line, "environment: %v; left out", err)
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(out)) {
		if !variable(key) {
			s.add(e.line, "environment: %s is not a name that a variable can have; left out", clip(key))
			delete(out, key)
		}
	}
	return out
}

// variable reports whether a manifest allows a variable of that name. Those that
// Gemel sets for each program are its own.
func variable(key string) bool {
	if strings.HasPrefix(key, "GEMEL_") || slices.Contains([]string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "MAINPID"}, key) {
		return false
	}
	for i, c := range key {
		if !(c == '_' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || i > 0 && c >= '0' && c <= '9') {
			return false
		}
	}
	return key != ""
}

func (s *supervisord) octal(e entry, fallback int) int {
	n, err := strconv.ParseUint(e.value, 8, 16)
	if err != nil || n > 0o777 {
		s.add(e.line, "%s: found %q; allowed: an octal number up to 777; %#o is used", e.key, clip(e.value), fallback)
		return fallback
	}
	return int(n)
}

func (s *supervisord) number(x *section, key string, fallback, least, most int) int {
	e, ok := x.take(key)
	if !ok {
		return fallback
	}
	n, err := strconv.Atoi(e.value)
	if err != nil || n < least || n > most {
		s.add(e.line, "%s: found %q; allowed: a number from %d to %d; %d is used", key, clip(e.value), least, most, fallback)
		return fallback
	}
	return n
}

func (s *supervisord) boolean(x *section, key string, fallback bool) bool {
	e, ok := x.take(key)
	if !ok {
		return fallback
	}
	switch strings.ToLower(e.value) {
	case "true", "yes", "on", "1":
		return true
	case "false", "no", "off", "0":
		return false
	}
	s.add(e.line, "%s: found %q; allowed: true or false; %t is used", key, clip(e.value), fallback)
	return fallback
}
