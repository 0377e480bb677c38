package port

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// program reads one [program:NAME], which may be several processes.
func (s *supervisord) program(x *section, name string) {
	command, ok := x.take("command")
	if !ok {
		s.add(x.line, "[%s] has no command; left out", clip(x.name))
		return
	}
	count := s.number(x, "numprocs", 1, 1, maxInstances)
	first := s.number(x, "numprocs_start", 0, 0, 1<<30)
	pattern, named := x.take("process_name")
	if !named {
		pattern.key, pattern.value = "process_name", "%(program_name)s"
	}
	if count > 1 && !strings.Contains(pattern.value, "process_num") {
		s.add(x.line, "numprocs is %d, but process_name has no %%(process_num)s, so that all would have one name; the number is added", count)
		pattern.value += "-%(process_num)d"
	}
	rank := [2]int{0, s.number(x, "priority", supPriority, -1<<31, 1<<31-1)}
	rank[0] = rank[1] // a program alone is a group of its own
	group := name
	if g, ok := s.groups[name]; ok {
		rank[0], group = g.priority, g.name
	}
	model := s.fresh.process
	s.lifetime(x, &model)
	s.output(x, &model)
	s.unsupported(x)
	for i := range count {
		vars := map[string]string{
			"here": s.here, "program_name": name, "group_name": group,
			"process_num": strconv.Itoa(first + i), "numprocs": strconv.Itoa(count),
		}
		p := model
		if !s.execution(x, command, vars, &p) {
			break
		}
		p.Name = s.unique(x.line, s.expand(pattern, vars))
		s.programs = append(s.programs, supProgram{Process: p, rank: rank})
	}
	x.rest(&s.notes)
}

// unique makes a name of the manifest that no other program has.
func (s *supervisord) unique(line int, wanted string) ha.Process {
	name := goodName(wanted)
	for i := 2; s.taken[name] != 0; i++ {
		name = goodName(wanted) + "-" + strconv.Itoa(i)
	}
	if name != wanted {
		s.add(line, "the name %q is not allowed or is taken; %s is used", clip(wanted), name)
	}
	s.taken[name] = line
	return ha.Process(name)
}

// execution reads what is run, and as what. False: the command cannot be used.
func (s *supervisord) execution(x *section, command entry, vars map[string]string, p *manifest.Process) bool {
	argv, err := splitShell(s.expand(command, vars))
	if err == nil && (len(argv) == 0 || argv[0] == "") {
		err = fmt.Errorf("it is empty")
	}
	if err != nil {
		s.add(command.line, "command: %v; [%s] is left out", err, clip(x.name))
		return false
	}
	directory := s.directory
	if e, ok := x.take("directory"); ok {
		directory = s.expand(e, vars)
		if !path.IsAbs(directory) {
			s.add(e.line, "directory: %q is not an absolute path; / is used", clip(directory))
			directory = ""
		}
	}
	if path.IsAbs(directory) {
		p.Directory = directory
	}
	p.Command = s.notes.program(command.line, argv, directory)
	p.User = s.user
	if e, ok := x.take("user"); ok {
		p.User = e.value
	}
	p.Umask = s.umask
	if e, ok := x.take("umask"); ok {
		p.Umask = s.octal(e, p.Umask)
	}
	p.Environment = maps.Clone(s.environment)
	if e, ok := x.take("environment"); ok {
		if p.Environment == nil {
			p.Environment = map[string]string{}
		}
		maps.Copy(p.Environment, s.pairs(e, vars))
	}
	if len(p.Environment) == 0 {
		p.Environment = nil
	}
	return true
}

// lifetime reads when it is started again and how it is stopped.
func (s *supervisord) lifetime(x *section, p *manifest.Process) {
	p.AutoStart = s.boolean(x, "autostart", true)
	startsecs := s.number(x, "startsecs", 1, 0, 3600)
	retries := s.number(x, "startretries", 3, 0, 1000)
	p.RampUp = time.Duration(startsecs) * time.Second
	// supervisord gives up after startretries starts in a row that did not last
	// startsecs, with a pause of 1, 2, 3 ... seconds between them. The window is
	// the time that this takes, so that a program that lasts is restarted for ever.
	within := (retries+1)*startsecs + retries*(retries+1)/2
	p.Restarts.Limit = max(retries, 1)
	p.Restarts.Within = time.Duration(min(max(within, 10), 24*3600)) * time.Second
	if retries == 0 {
		s.add(x.line, "startretries 0: no second start at all; Gemel's budget allows at least 1")
	}
	codes := s.codes(x)
	mode := "unexpected"
	e, ok := x.take("autorestart")
	if ok {
		mode = strings.ToLower(e.value)
	}
	switch mode {
	case "true", "yes", "on", "1":
	case "false", "no", "off", "0":
		p.Recovery = ha.RecoveryNone
		p.Exits = []manifest.ExitRule{{Codes: codes, Do: manifest.ExitDone}}
	default:
		if mode != "unexpected" {
			s.add(e.line, "autorestart: found %q; allowed: true, false, unexpected; unexpected is used", clip(e.value))
		}
		p.Exits = []manifest.ExitRule{{Codes: codes, Do: manifest.ExitDone}}
	}
	if e, ok := x.take("stopsignal"); ok {
		if n, known := ha.SignalNumber(e.value); known {
			p.Stop.Signal = n
		} else {
			s.add(e.line, "stopsignal: found %q; allowed: a signal such as TERM or INT; TERM is used", clip(e.value))
		}
	}
	p.Stop.Grace = time.Duration(s.number(x, "stopwaitsecs", 10, 0, 24*3600)) * time.Second
	s.boolean(x, "killasgroup", false) // SIGKILL goes to the whole tree in any case
	if s.boolean(x, "stopasgroup", false) {
		e, _ := x.take("stopasgroup")
		s.add(e.line, "stopasgroup: the stop signal goes to the main process, and what is left of its tree is killed after the grace; with stop: command: another way can be written")
	}
}

// codes reads exitcodes.
func (s *supervisord) codes(x *section) []int {
	e, ok := x.take("exitcodes")
	if !ok {
		return []int{0}
	}
	var out []int
	for word := range strings.SplitSeq(e.value, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil || n < 0 || n > 255 {
			s.add(e.line, "exitcodes: found %q; allowed: numbers from 0 to 255 with commas between them; it is left out", clip(strings.TrimSpace(word)))
			continue
		}
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	if len(out) == 0 {
		return []int{0}
	}
	return out
}

// output reads where the two streams go. Gemel keeps both in one file of its own.
func (s *supervisord) output(x *section, p *manifest.Process) {
	p.Output.Size, p.Output.Keep = supLogSize, supLogKept+1
	out, hasOut := x.take("stdout_logfile")
	err, hasErr := x.take("stderr_logfile")
	merged := s.boolean(x, "redirect_stderr", false)
	silent := func(e entry) bool {
		return strings.EqualFold(e.value, "NONE") || e.value == "/dev/null" || strings.EqualFold(e.value, "off")
	}
	outSilent := hasOut && silent(out)
	errSilent := hasErr && silent(err) || merged && outSilent
	switch {
	case hasOut && (out.value == "/dev/stdout" || out.value == "/dev/fd/1"):
		p.Output.Mode = "inherit"
	case outSilent && errSilent:
		p.Output.Mode = "discard"
	case outSilent || hasErr && silent(err):
		s.add(x.line, "one of standard output and standard error was thrown away; Gemel keeps both in one file, or none")
	case hasOut && !strings.EqualFold(out.value, "AUTO"):
		s.add(out.line, "stdout_logfile %s: output goes to a file of Gemel's own; gemel logs shows it", clip(out.value))
	}
	if hasErr && !merged && !silent(err) && !strings.EqualFold(err.value, "AUTO") && p.Output.Mode == "capture" {
		s.add(err.line, "stderr_logfile %s: both streams go to one file of Gemel's own", clip(err.value))
	}
	s.size(x, "stderr_logfile_maxbytes", 0) // there is one file: that of stdout counts
	s.number(x, "stderr_logfile_backups", 0, 0, 1<<20)
	p.Output.Size = s.size(x, "stdout_logfile_maxbytes", supLogSize)
	p.Output.Keep = s.number(x, "stdout_logfile_backups", supLogKept, 0, 999) + 1
	if p.Output.Mode != "capture" {
		mode := p.Output.Mode
		p.Output = s.fresh.process.Output
		p.Output.Mode = mode
	}
}

// size reads bytes with supervisord's units KB, MB and GB, which are of 1024.
func (s *supervisord) size(x *section, key string, fallback int64) int64 {
	e, ok := x.take(key)
	if !ok {
		return fallback
	}
	text, unit := strings.ToUpper(e.value), int64(1)
	for suffix, u := range map[string]int64{"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30} {
		if rest, ok := strings.CutSuffix(text, suffix); ok {
			text, unit = strings.TrimSpace(rest), u
		}
	}
	n, err := strconv.ParseInt(text, 10, 32)
	switch {
	case err != nil || n < 0:
		s.add(e.line, "%s: found %q; allowed: a number of bytes, or with KB, MB, GB; %d is used", key, clip(e.value), fallback)
		return fallback
	case n == 0 && fallback != 0:
		s.add(e.line, "%s 0: a log without bound; Gemel's has one: %d bytes for each file", key, fallback)
		return fallback
	case n*unit < minLogSize && fallback != 0:
		s.add(e.line, "%s: %s is less than Gemel's least, %d; that is used", key, clip(e.value), minLogSize)
		return minLogSize
	}
	return n * unit
}

// unsupported takes the keys that have a meaning that Gemel does not have, and
// says so where they were switched on.
func (s *supervisord) unsupported(x *section) {
	for _, key := range []string{"stdout_events_enabled", "stderr_events_enabled", "stdout_syslog", "stderr_syslog"} {
		if s.boolean(x, key, false) {
			e, _ := x.take(key)
			s.add(e.line, "%s: left out; gemel logs -f and gemel events -f show what comes", key)
		}
	}
	for _, key := range []string{"stdout_capture_maxbytes", "stderr_capture_maxbytes"} {
		if e, ok := x.take(key); ok && strings.Trim(e.value, "0") != "" {
			s.add(e.line, "%s: supervisord's communication mode is left out", key)
		}
	}
	if e, ok := x.take("serverurl"); ok && !strings.EqualFold(e.value, "AUTO") {
		s.add(e.line, "serverurl: left out; a program finds Gemel by GEMEL_SOCKET")
	}
}
