package config

import (
	"strings"
)

// wrap is the hint for a value that stands where a map should: it was most likely
// meant for the key that must be there, else for the first one that takes it.
func (o object[T]) wrap(r *reader, n *tree) string {
	text := flow(n)
	if n.kind == treeNull || len(text) > 60 {
		return "leave the key out, or give it keys of its own"
	}
	needed := ""
	for _, must := range [...]bool{true, false} {
		for i := range o.fields {
			f := &o.fields[i]
			if f.required != must {
				continue
			}
			if f.takes(r, n, o.fresh()) {
				return "write {" + f.key + ": " + text + "}"
			}
			if must && needed == "" {
				needed = "give it keys of its own; it needs " + f.key
			}
		}
		if needed != "" {
			return needed
		}
	}
	return ""
}

// takes reports whether a key can have this value. What is found wrong with it
// on the way is thrown away.
func (f *field[T]) takes(r *reader, n *tree, into T) bool {
	trial := &reader{src: r.src, spots: map[string]spot{}, notMap: map[string]bool{}}
	f.read(trial, f.key, n, &into)
	return len(trial.errs) == 0
}

// otherWords are what other systems call our keys. It is only read.
var otherWords = map[string]string{
	"args": "command", "cmd": "command", "exec": "command", "execstart": "command", "program": "command", "run": "command",
	"cwd": "directory", "workdir": "directory", "working-dir": "directory", "working-directory": "directory", "workingdirectory": "directory",
	"depends": "needs", "depends-on": "needs", "requires": "needs", "wants": "after",
	"log": "output", "logfile": "output", "logs": "output", "stdout": "output", "stderr": "output", "stdout-logfile": "output",
	"memory-limit": "resources", "memory-max": "resources", "mem-limit": "resources",
	"enabled": "autostart", "kill-signal": "stop", "stopsignal": "stop", "stop-signal": "stop", "kill-timeout": "stop", "stopwaitsecs": "stop",
	"autorestart": "recovery", "retries": "restarts", "startretries": "restarts", "startsecs": "ramp-up",
	"interval": "every", "url": "http", "port": "tcp",
	"services": "processes", "programs": "processes", "processes-list": "processes", "healthchecks": "checks", "probes": "checks",
}

// otherKey is the hint for a key that is not one of o: what was meant is spelt
// otherwise, is a key of one of its keys, or has another name here.
func (o object[T]) otherKey(key string) string {
	if hint := didYouMean(key, o.keys()); hint != "" {
		return hint
	}
	for i := range o.fields {
		if below, ok := o.fields[i].schema["properties"].(schema); ok && below[key] != nil {
			return key + " is a key of " + o.fields[i].key + ": write " + o.fields[i].key + ": {" + key + ": ...}"
		}
	}
	if ours := otherWords[strings.ReplaceAll(strings.ToLower(key), "_", "-")]; ours != "" {
		for i := range o.fields {
			if o.fields[i].key == ours {
				return "it is called " + ours + " here: " + o.fields[i].doc
			}
		}
	}
	return "allowed: " + anyOf(o.keys())
}

// asPairs is the hint for an environment that is written as KEY=VALUE.
func asPairs(n *tree) string {
	all := n.items
	if n.kind == treeScalar {
		all = []*tree{n}
	}
	out := &tree{kind: treeMap}
	for _, t := range all {
		key, value, ok := strings.Cut(t.text, "=")
		if t.kind != treeScalar || !ok || key == "" {
			return ""
		}
		out.put(key, word(value))
	}
	if text := flow(out); len(out.pairs) > 0 && len(text) <= 60 {
		return "write " + text
	}
	return "write each as a key with its value: NAME: value"
}

// indentation is the hint for what the YAML library says of a file whose lines
// begin in columns that do not fit together.
func indentation(message string) string {
	if strings.Contains(message, "not allowed in this context") || strings.Contains(message, "non-map value") {
		return "look at the columns: the keys of one map begin in the same one, and a key with keys below it has no value beside it"
	}
	return ""
}
