package config

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

func freshStop() manifest.Stop { return manifest.Stop{Signal: sigTERM, Grace: 10 * time.Second} }

func stopObject() object[manifest.Stop] {
	type S = manifest.Stop
	return object[S]{fresh: freshStop, fields: []field[S]{
		at("signal", signalKind(), func(s *S) *int { return &s.Signal }, "The signal of the first stage."),
		at("grace", durationKind(10*time.Millisecond, day), func(s *S) *time.Duration { return &s.Grace }, "The time until SIGKILL."),
		at("command", argvKind(), func(s *S) *[]string { return &s.Command }, "Run instead of the signal, with MAINPID in its environment."),
	}}
}

func freshRestarts() manifest.Restarts {
	return manifest.Restarts{
		Limit: 5, Within: 15 * time.Minute, Then: ha.EscalationNone,
		Delay: 500 * time.Millisecond, DelayMax: 30 * time.Second,
	}
}

func restartsObject() object[manifest.Restarts] {
	type R = manifest.Restarts
	return object[R]{fresh: freshRestarts, fields: []field[R]{
		at("limit", intKind(1, 10_000), func(r *R) *int { return &r.Limit }, "Restarts within the window; the next fault is escalated."),
		at("within", durationKind(time.Second, year), func(r *R) *time.Duration { return &r.Within }, "The sliding window."),
		at("then", choiceKind([]string{"none", "failover", "failover-reboot"},
			[]ha.Escalation{ha.EscalationNone, ha.EscalationFailover, ha.EscalationFailoverReboot}),
			func(r *R) *ha.Escalation { return &r.Then }, "What follows when the restarts are used up."),
		at("delay", durationKind(0, day), func(r *R) *time.Duration { return &r.Delay },
			"The pause before the second restart in a row; it doubles. The first restart is at once."),
		at("delay-max", durationKind(0, day), func(r *R) *time.Duration { return &r.DelayMax }, "The longest pause.").
			unless(func(r *R) bool { return r.DelayMax == defaultDelayMax(*r) }),
	}}
}

func resourcesObject() object[manifest.Resources] {
	type R = manifest.Resources
	return object[R]{fresh: func() R { return R{} }, fields: []field[R]{
		at("memory", sizeKind(1<<20, 1<<50), func(r *R) *int64 { return &r.Memory }, "Memory of the whole tree, as 512MiB."),
		at("cpu", floatKind(0.01, 4096), func(r *R) *float64 { return &r.CPU }, "Processors, as 0.5."),
		at("pids", intKind(1, 4_194_304), func(r *R) *int { return &r.PIDs }, "Processes and threads of the whole tree."),
	}}
}

func freshOutput() manifest.Output {
	return manifest.Output{Mode: "capture", Size: 10 << 20, Keep: 5, Rate: 8 << 20, Merge: true}
}

func outputObject() object[manifest.Output] {
	type O = manifest.Output
	modes := []string{"capture", "discard", "inherit"}
	return object[O]{fresh: freshOutput, fields: []field[O]{
		at("mode", choiceKind(modes, modes), func(o *O) *string { return &o.Mode }, "capture to a file, discard, or inherit Gemel's own."),
		at("size", sizeKind(4<<10, 1<<40), func(o *O) *int64 { return &o.Size }, "Bytes of one file before the next is begun."),
		at("keep", intKind(1, 1000), func(o *O) *int { return &o.Keep }, "Files that are kept."),
		at("rate", sizeKind(1<<10, 1<<40), func(o *O) *int64 { return &o.Rate }, "Bytes a second; what comes faster is dropped and counted."),
	}}
}

func watchdogObject() object[manifest.Watchdog] {
	type W = manifest.Watchdog
	by := []string{"notify", "page", "command"}
	return object[W]{fresh: func() W { return W{Retries: 3} }, fields: []field[W]{
		at("interval", durationKind(10*time.Millisecond, day), func(w *W) *time.Duration { return &w.Interval }, "How often each thread beats.").must(),
		at("retries", intKind(0, 1000), func(w *W) *int { return &w.Retries }, "Missed beats that are forgiven: a fault after retries + 1 intervals."),
		at("by", choiceKind(by, by), func(w *W) *string { return &w.By }, "How it beats: notify (sd_notify), page (the SDK) or command. Without it: notify and page."),
		at("command", argvKind(), func(w *W) *[]string { return &w.Command }, "For by: command: it is run every interval, and exit 0 is a beat."),
	}}
}

func attachObject() object[manifest.Attach] {
	type A = manifest.Attach
	return object[A]{fresh: func() A { return A{Every: 2 * time.Second} }, fields: []field[A]{
		at("pidfile", pathKind("file that holds the pid"), func(a *A) *string { return &a.PIDFile }, "A file that holds the pid."),
		at("command-line", textKind[string]("a command line", schema{"type": "string"}, notBlank), func(a *A) *string { return &a.CommandLine },
			"The exact command line; arguments with spaces in double quotes."),
		at("unit", textKind[string]("the name of a systemd unit, as ssh.service", schema{"type": "string"}, unitRule),
			func(a *A) *string { return &a.Unit }, "A systemd unit."),
		at("every", durationKind(100*time.Millisecond, time.Hour), func(a *A) *time.Duration { return &a.Every }, "How often to look while it is not found."),
		at("start", argvKind(), func(a *A) *[]string { return &a.Start }, "How it is started again. Without it Gemel only watches."),
	}}
}

func unitRule(s string) (string, bool) {
	i := len(s) - 1
	for i >= 0 && s[i] != '.' {
		i--
	}
	if i < 1 || i == len(s)-1 {
		return "write the whole name, as " + clip(s) + ".service", false
	}
	for _, c := range s {
		if c <= ' ' || c == '/' || c > '~' {
			return "", false
		}
	}
	return "", len(s) < 256
}

func freshReady() manifest.Ready { return manifest.Ready{Timeout: time.Minute} }

// readyKind is the word notify, or a map with one way and a time-out.
func readyKind() kind[manifest.Ready] {
	type R = manifest.Ready
	way := func(key string, as manifest.ReadyKind, of field[R]) field[R] {
		read := of.read
		of.key = key
		of.read = func(r *reader, path string, n *tree, to *R) {
			if to.Kind != manifest.ReadyStarted && to.Kind != as {
				r.add(n.at, Error{Path: path, Text: "found a second way to be ready; allowed: one of notify, port, file or check", Hint: "remove one"})
				return
			}
			to.Kind = as
			read(r, path, n, to)
		}
		of.same = func(a, _ *R) bool { return a.Kind != as }
		return of
	}
	said := boolKind()
	notify := field[R]{doc: "READY=1 by sd_notify or the SDK.", schema: schema{"const": true},
		read: func(r *reader, path string, n *tree, _ *R) {
			if v, ok := said.read(r, path, n); ok && !v {
				r.wrong(path, n, "true", "leave it out")
			}
		},
		write: func(*R) *tree { return plain("true") }}
	o := object[R]{fresh: freshReady, fields: []field[R]{
		way("notify", manifest.ReadyNotify, notify),
		way("port", manifest.ReadyPort, at("", dialKind(), func(r *R) *string { return &r.Address }, "A connection is taken at this port, host:port or socket.")),
		way("file", manifest.ReadyFile, at("", pathKind("file"), func(r *R) *string { return &r.File }, "This file is there.")),
		way("check", manifest.ReadyCheck, at("", nameKind[ha.Check]("check"), func(r *R) *ha.Check { return &r.Check }, "This check is well.")),
		at("timeout", durationKind(10*time.Millisecond, day), func(r *R) *time.Duration { return &r.Timeout }, "After it the start is a failed one."),
	}}
	return kind[R]{
		read: func(r *reader, path string, n *tree) (R, bool) {
			v := o.fresh()
			if n.kind != treeMap {
				if n.kind == treeScalar && n.text == "notify" {
					v.Kind = manifest.ReadyNotify
					return v, true
				}
				hint := didYouMean(n.text, []string{"notify"})
				if hint == "" {
					ways := object[R]{fresh: o.fresh, fields: []field[R]{o.fields[2], o.fields[1]}} // a path, else a port
					hint = ways.wrap(r, n)
				}
				r.wrong(path, n, "notify, or a map with one of port, file or check", hint)
				return v, false
			}
			ok := o.fill(r, path, n, &v)
			if ok && v.Kind == manifest.ReadyStarted {
				r.add(n.at, Error{Path: path, Text: "found no way to be ready; allowed: one of notify, port, file or check"})
				return v, false
			}
			return v, ok
		},
		write: func(v R) *tree {
			if v.Kind == manifest.ReadyNotify && v.Timeout == time.Minute {
				return word("notify")
			}
			return o.tree(&v)
		},
		schema: schema{"oneOf": []schema{{"const": "notify"}, o.describe()}},
	}
}

// limitsKind is a map from the name of a resource limit to its value.
func limitsKind() kind[[]manifest.Limit] {
	names := manifest.LimitNames()
	slices.Sort(names)
	one := schema{"oneOf": []schema{{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^unlimited$|" + sizePattern}}}
	both := schema{"oneOf": []schema{one, {"type": "array", "items": one, "minItems": 2, "maxItems": 2}}}
	properties := schema{}
	for _, n := range names {
		properties[n] = both
	}
	return kind[[]manifest.Limit]{
		read: func(r *reader, path string, n *tree) ([]manifest.Limit, bool) {
			if n.kind != treeMap {
				r.wrong(path, n, "a map from the name of a limit to its value, as {nofile: 1024}", "")
				return nil, false
			}
			before := len(r.errs)
			out := make([]manifest.Limit, 0, len(n.pairs))
			for _, p := range n.pairs {
				below := sub(path, p.key)
				r.spots[below] = p.value.at
				if _, ok := manifest.LimitNumber(p.key); !ok {
					r.add(p.at, Error{Path: path, Found: p.key, Allowed: anyOf(names), Hint: didYouMean(p.key, names),
						Text: "found the limit " + quoted(p.key) + "; allowed: " + anyOf(names)})
					continue
				}
				if l, ok := readLimit(r, below, p.value); ok {
					l.Name = p.key
					out = append(out, l)
				}
			}
			slices.SortFunc(out, func(a, b manifest.Limit) int { return cmp.Compare(a.Name, b.Name) })
			return out, len(r.errs) == before
		},
		write: func(limits []manifest.Limit) *tree {
			t := &tree{kind: treeMap}
			for _, l := range limits {
				v := limitTree(l.Soft)
				if l.Soft != l.Hard {
					v = listOf([]int64{l.Soft, l.Hard}, limitTree)
				}
				t.put(l.Name, v)
			}
			return t
		},
		schema: schema{"type": "object", "properties": properties, "additionalProperties": false},
	}
}

// readLimit reads one value, or [soft, hard].
func readLimit(r *reader, path string, n *tree) (manifest.Limit, bool) {
	one := scalarKind("a whole number, a size or unlimited; or [soft, hard]", func(t *tree) (int64, string, bool) {
		if t.text == unlimited {
			return -1, "", true
		}
		v, hint, ok := parseSize(t.text)
		if t.text == "-1" || t.text == "infinity" {
			hint = "write unlimited"
		}
		return v, hint, ok && v >= 0
	}, limitTree, nil)
	if n.kind != treeList {
		v, ok := one.read(r, path, n)
		return manifest.Limit{Soft: v, Hard: v}, ok
	}
	if len(n.items) != 2 {
		r.add(n.at, Error{Path: path, Text: "found a list of " + strconv.Itoa(len(n.items)) + "; allowed: [soft, hard]"})
		return manifest.Limit{}, false
	}
	soft, ok := one.read(r, item(path, 0), n.items[0])
	hard, ok2 := one.read(r, item(path, 1), n.items[1])
	if ok && ok2 && hard >= 0 && (soft > hard || soft < 0) {
		r.add(n.at, Error{Path: path, Text: "the soft limit is above the hard one; allowed: [soft, hard] with soft up to hard", Hint: "swap them"})
		return manifest.Limit{}, false
	}
	return manifest.Limit{Soft: soft, Hard: hard}, ok && ok2
}

func limitTree(n int64) *tree {
	if n < 0 {
		return word(unlimited)
	}
	return plain(strconv.FormatInt(n, 10))
}

// exitsKind is the list of rules for the end of a program.
func exitsKind() kind[[]manifest.ExitRule] {
	type E = manifest.ExitRule
	words := []string{"restart", "fault", "done", "give-up", "again"}
	actions := []manifest.ExitAction{manifest.ExitRestart, manifest.ExitFault, manifest.ExitDone, manifest.ExitGiveUp, manifest.ExitAgain}
	many := listing{least: 1, unique: true, single: true}
	o := object[E]{fresh: func() E { return E{} }, fields: []field[E]{
		at("code", listKind("exit codes", intKind(0, 255), many), func(e *E) *[]int { return &e.Codes }, "Exit codes, 0 to 255."),
		at("signal", listKind("signals", signalKind(), many), func(e *E) *[]int { return &e.Signals }, "Signals by name or number."),
		at("do", choiceKind(words, actions), func(e *E) *manifest.ExitAction { return &e.Do }, "restart, fault, done, give-up or again.").must(),
	}}
	return objectList(o, "rules, as [{code: 3, do: done}]")
}

// objectList is a list of objects.
func objectList[T any](o object[T], what string) kind[[]T] {
	return kind[[]T]{
		read: func(r *reader, path string, n *tree) ([]T, bool) {
			if n.kind != treeList {
				r.wrong(path, n, "a list of "+what, "")
				return nil, false
			}
			out, good := make([]T, 0, len(n.items)), true
			for i, t := range n.items {
				below := item(path, i)
				r.spots[below] = t.at
				v := o.fresh()
				good = o.fill(r, below, t, &v) && good
				out = append(out, v)
			}
			return out, good
		},
		write: func(v []T) *tree {
			return listOf(v, func(e T) *tree { return o.tree(&e) })
		},
		schema: schema{"type": "array", "items": o.describe()},
	}
}

func handlersObject() object[manifest.Handlers] {
	type H = manifest.Handlers
	one := handlerKind()
	return object[H]{fresh: func() H { return H{} }, fields: []field[H]{
		at("restart", one, func(h *H) *manifest.Handler { return &h.Restart }, "Beside a restart."),
		at("failover", one, func(h *H) *manifest.Handler { return &h.Failover }, "Beside a failover."),
		at("reboot", one, func(h *H) *manifest.Handler { return &h.Reboot }, "Beside a reboot."),
		at("give-up", one, func(h *H) *manifest.Handler { return &h.GiveUp }, "When it is given up."),
		at("recovered", one, func(h *H) *manifest.Handler { return &h.Recovered }, "When it works again."),
	}}
}

func handlerKind() kind[manifest.Handler] {
	type H = manifest.Handler
	return object[H]{fresh: func() H { return H{Timeout: 10 * time.Second} }, fields: []field[H]{
		at("command", argvKind(), func(h *H) *[]string { return &h.Command }, "The program and its arguments, as a list.").must(),
		at("timeout", durationKind(10*time.Millisecond, time.Hour), func(h *H) *time.Duration { return &h.Timeout }, "After it the command is killed."),
	}}.kind()
}
