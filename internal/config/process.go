package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

const (
	day       = 24 * time.Hour
	year      = 365 * day
	sigTERM   = 15
	unlimited = "unlimited"
)

// processObject is the table of the keys of a process.
func processObject() object[manifest.Process] {
	type P = manifest.Process
	argv := argvKind()
	flag := boolKind()
	fields := []field[P]{
		at("command", argv, func(p *P) *[]string { return &p.Command },
			"The program and its arguments, as a list. No shell: each item is one argument."),
		at("shell", textKind[string]("a line for /bin/sh", schema{"type": "string"}, notBlank), func(p *P) *string { return &p.Shell },
			"A line for /bin/sh -c instead of command. Prefer command: a shell between Gemel and the program hides its exit."),
		at("directory", pathKind("directory"), func(p *P) *string { return &p.Directory }, "The working directory."),
		at("user", accountKind("user"), func(p *P) *string { return &p.User }, "The user, by name or number. Without it: the user that Gemel runs as."),
		at("group", accountKind("group"), func(p *P) *string { return &p.Group }, "The group, by name or number. Without it: the user's."),
		at("groups", listKind("groups", accountKind("group"), listing{unique: true}), func(p *P) *[]string { return &p.Groups },
			"The supplementary groups. Without it: the user's own; [] is none."),
		at("environment", pairsKind("a name of letters, digits and underscores", envRule), func(p *P) *map[string]string { return &p.Environment },
			"Variables of the environment. They win over every other source."),
		at("env-file", listKind("paths", envFileKind(), listing{single: true}), func(p *P) *[]string { return &p.EnvFiles },
			"Files with lines of KEY=value. A hyphen before the path: the file may be missing."),
		at("inherit-environment", flag, func(p *P) *bool { return &p.InheritEnv },
			"Give Gemel's own environment to the program. Without it: only PATH, HOME, USER, LOGNAME, SHELL, LANG and TZ."),
		at("umask", modeKind(), func(p *P) *int { return &p.Umask }, "The file mode creation mask, in octal."),
		at("nice", intKind(-20, 19), func(p *P) *int { return &p.Nice }, "The nice value. Below zero needs root."),
		at("limits", limitsKind(), func(p *P) *[]manifest.Limit { return &p.Limits },
			"Resource limits: nofile: 1024, nofile: [soft, hard], nofile: unlimited."),
		at("capabilities", capsKind(), func(p *P) *manifest.Caps { return &p.Caps },
			"The capabilities that are kept, in lower case without CAP_. [] drops all. Without it: nothing is changed."),
		at("no-new-privileges", flag, func(p *P) *bool { return &p.NoNewPrivs }, "The program and its children gain no privileges by setuid files."),
		at("resources", resourcesObject().kind(), func(p *P) *manifest.Resources { return &p.Resources }, "Limits of the program's cgroup."),
		at("oom-score", intKind(-1000, 1000), func(p *P) *int { return &p.OOMScore }, "oom_score_adj: the higher, the sooner the kernel ends it when memory is short."),
		at("output", outputObject().kind(), func(p *P) *manifest.Output { return &p.Output }, "What becomes of standard output and standard error."),
		at("attach", attachObject().kind(), func(p *P) *manifest.Attach { return &p.Attach }, "How a program is found that Gemel did not start. Excludes command and shell."),
		at("task", flag, func(p *P) *bool { return &p.Task }, "It runs once: exit 0 is success and no fault."),
		at("watchdog", watchdogObject().kind(), func(p *P) *manifest.Watchdog { return &p.Watchdog },
			"Every thread beats within the interval, or it hangs."),
	}
	fields = append(fields, processConduct()...)
	return object[P]{fresh: freshProcess, fields: fields}
}

// processConduct holds the keys that say how a process is treated while it runs;
// the others say what it is started as.
func processConduct() []field[manifest.Process] {
	type P = manifest.Process
	names := nameList[ha.Process]("process")
	return []field[P]{
		at("stop", stopObject().kind(), func(p *P) *manifest.Stop { return &p.Stop }, "How it is stopped: the signal, the grace, then SIGKILL to the whole tree."),
		at("after", names, func(p *P) *[]ha.Process { return &p.After }, "Start after these are started. Order only."),
		at("needs", names, func(p *P) *[]ha.Process { return &p.Needs }, "Start after these are ready, and stop before they are stopped."),
		at("follows", names, func(p *P) *[]ha.Process { return &p.Follows }, "Restart when one of these was restarted."),
		at("ready", readyKind(), func(p *P) *manifest.Ready { return &p.Ready }, "When it can be used: notify, or {port: 8080}, {file: /run/x}, {check: NAME}."),
		at("severity", severityKind(), func(p *P) *ha.Severity { return &p.Severity }, "The severity of its events. Only critical may reboot a node that is still active."),
		at("recovery", recoveryKind(), func(p *P) *ha.Recovery { return &p.Recovery }, "What is done about a fault."),
		at("restarts", restartsObject().kind(), func(p *P) *manifest.Restarts { return &p.Restarts }, "How many restarts in which time, and what follows."),
		at("ramp-up", durationKind(0, time.Hour), func(p *P) *time.Duration { return &p.RampUp }, "The time after each start in which faults of function do not count."),
		at("exits", exitsKind(), func(p *P) *[]manifest.ExitRule { return &p.Exits }, "What an exit code or a signal means. The first that matches counts."),
		at("handlers", handlersObject().kind(), func(p *P) *manifest.Handlers { return &p.Handlers }, "Commands that run beside each rung of the ladder."),
		at("spare", boolKind(), func(p *P) *bool { return &p.Spare }, "Keep a parked child ready for the next start. Without it: true for severity critical.").
			unless(func(p *P) bool { return p.Spare == defaultSpare(p) }),
		at("autostart", boolKind(), func(p *P) *bool { return &p.AutoStart }, "Start it with Gemel. False: only by gemel start."),
		at("on", nameList[ha.Node]("node"), func(p *P) *[]ha.Node { return &p.On }, "The nodes on which it runs. Without it: all."),
		at("id", uidKind(ha.UIDProcessFirst, ha.UIDProcessLast), func(p *P) *ha.UID { return &p.UID }, "Its number on the classic surface (PmsProc)."),
	}
}

// freshProcess is a process of which nothing is written.
func freshProcess() manifest.Process {
	return manifest.Process{
		Directory: "/", Umask: 0o022,
		Stop:     freshStop(),
		Severity: ha.Minor, Recovery: ha.RecoveryRestart,
		Restarts: freshRestarts(), RampUp: 5 * time.Second,
		Output: freshOutput(), AutoStart: true,
	}
}

// defaultSpare says whether a process has a spare if the manifest is silent.
func defaultSpare(p *manifest.Process) bool {
	return p.Severity == ha.Critical && p.Recovery != ha.RecoveryNone && !p.Task && !p.Attach.Set()
}

func severityKind() kind[ha.Severity] {
	words := []string{"minor", "major", "critical"}
	return classic(words, choiceKind(words, []ha.Severity{ha.Minor, ha.Major, ha.Critical}))
}

func recoveryKind() kind[ha.Recovery] {
	words := []string{"none", "restart", "failover-restart", "failover-reboot"}
	return classic(words, choiceKind(words,
		[]ha.Recovery{ha.RecoveryNone, ha.RecoveryRestart, ha.RecoveryFailoverRestart, ha.RecoveryFailoverReboot}))
}

// classic tells those who write the CMM's number of a word, from 1, the word.
func classic[V any](words []string, k kind[V]) kind[V] {
	read := k.read
	k.read = func(r *reader, path string, t *tree) (V, bool) {
		if n, err := strconv.Atoi(t.text); err == nil && t.kind == treeScalar && n >= 1 && n <= len(words) {
			var none V
			r.wrong(path, t, anyOf(words), "pms.ini has numbers; write "+words[n-1])
			return none, false
		}
		return read(r, path, t)
	}
	return k
}

// uidKind is a number of the classic surface.
func uidKind(first, last ha.UID) kind[ha.UID] {
	n := intKind(int(first), int(last))
	return kind[ha.UID]{
		read: func(r *reader, path string, t *tree) (ha.UID, bool) {
			v, ok := n.read(r, path, t)
			return ha.UID(v), ok
		},
		write:  func(v ha.UID) *tree { return n.write(int(v)) },
		schema: n.schema,
	}
}

// argvKind is a program and its arguments.
func argvKind() kind[[]string] {
	list := listKind("a program and its arguments", textKind[string]("an argument", looseText(), func(s string) (string, bool) {
		return fmt.Sprintf("an argument has at most %d bytes", maxArgument), len(s) <= maxArgument
	}), listing{least: 1})
	read := list.read
	list.read = func(r *reader, path string, n *tree) ([]string, bool) {
		if n.kind == treeScalar {
			r.wrong(path, n, "a list with the program and its arguments, as [/usr/bin/sleep, 10]",
				"write "+flow(listOf(fields(n.text), word))+", or use shell: for a line of shell")
			return nil, false
		}
		argv, ok := read(r, path, n)
		if !ok {
			return nil, false
		}
		switch name := argv[0]; {
		case name == "":
			r.refuse(item(path, 0), "the program is empty; allowed: an absolute path, or a name to be found in PATH", "")
		case strings.Contains(name, "/") && !strings.HasPrefix(name, "/"):
			r.refuse(item(path, 0), "found the relative path "+quoted(name)+"; allowed: an absolute path, or a name without a slash to be found in PATH",
				"a relative path would depend on where Gemel was started; write it from the root")
		default:
			return argv, true
		}
		return nil, false
	}
	return list
}

// fields cuts a command line as a person meant it: at spaces outside quotes.
func fields(s string) []string {
	var (
		out   []string
		b     strings.Builder
		quote rune
		open  bool
	)
	for _, c := range s {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, open = c, true
		case quote == 0 && (c == ' ' || c == '\t' || c == '\n'):
			if open {
				out = append(out, b.String())
			}
			b.Reset()
			open = false
		default:
			b.WriteRune(c)
			open = true
		}
	}
	if open {
		out = append(out, b.String())
	}
	return out
}

func notBlank(s string) (string, bool) { return "", strings.TrimSpace(s) != "" }

// accountKind is a user or a group by name or number.
func accountKind(what string) kind[string] {
	return textKind[string]("a "+what+" by name or number", schema{"type": []string{"string", "integer"}}, func(s string) (string, bool) {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return "", n >= 0 && n < 1<<32-1
		}
		if user, group, ok := strings.Cut(s, ":"); ok && what == "user" {
			return fmt.Sprintf("write user: %s and group: %s", clip(user), clip(group)), false
		}
		return "", s != "" && len(s) < 256 && !strings.ContainsAny(s, ":, /\t\n") && s[0] != '-' && s[0] != '+' && s[0] != '%'
	})
}

func envRule(key string) (string, bool) {
	for i, c := range key {
		if !(c == '_' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || i > 0 && c >= '0' && c <= '9') {
			return "", false
		}
	}
	if strings.HasPrefix(key, "GEMEL_") || slices.Contains([]string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "MAINPID"}, key) {
		return "this one is set by Gemel itself; remove it", false
	}
	return "", key != ""
}

func envFileKind() kind[string] {
	return textKind[string]("the absolute path of a file, with a hyphen before it if it may be missing",
		schema{"type": "string", "pattern": "^-?/"}, func(s string) (string, bool) { return absolute(strings.TrimPrefix(s, "-")) })
}

// capsKind is the list of capabilities that are kept.
func capsKind() kind[manifest.Caps] {
	names := manifest.CapNames()
	list := listKind("capabilities", scalarKind("a capability in lower case without CAP_, as net_bind_service", func(t *tree) (string, string, bool) {
		if _, ok := manifest.CapNumber(t.text); ok {
			return t.text, "", true
		}
		low := strings.TrimPrefix(strings.ToLower(t.text), "cap_")
		if _, ok := manifest.CapNumber(low); ok {
			return "", "write " + low, false
		}
		if w := nearest(strings.ReplaceAll(low, "-", "_"), names); w != "" {
			return "", "did you mean " + w + "?", false
		}
		return "", "man 7 capabilities lists them", false
	}, word, schema{"enum": names}), listing{unique: true})
	return kind[manifest.Caps]{
		read: func(r *reader, path string, n *tree) (manifest.Caps, bool) {
			keep, ok := list.read(r, path, n)
			slices.Sort(keep)
			return manifest.Caps{Set: true, Keep: keep}, ok
		},
		write:  func(c manifest.Caps) *tree { return list.write(c.Keep) },
		schema: list.schema,
	}
}
