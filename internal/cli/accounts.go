package cli

import (
	"errors"
	"os/user"
	"strconv"
	"strings"

	"gemel/internal/config"
	"gemel/internal/manifest"
)

// strangers are the users and groups of a manifest that this machine does not
// have. That is no error of the manifest: it may be for another machine.
func strangers(file string, m *manifest.Manifest) config.Errors {
	var out config.Errors
	warn := func(path, what, name, effect string) {
		out = append(out, config.Error{File: file, Path: path, Text: "this machine has no " + what + " " + strconv.Quote(name) + ": " + effect})
	}
	const refused = "gemel run and gemel apply refuse it here"
	account := func(path, what, name string) {
		if name != "" && absent(what, name) {
			warn(path, what, name, refused)
		}
	}
	for _, p := range m.Processes {
		at := "processes." + string(p.Name) + "."
		account(at+"user", "user", p.User)
		account(at+"group", "group", p.Group)
		for _, g := range p.Groups {
			account(at+"groups", "group", g)
		}
	}
	for _, c := range m.Checks {
		if c.User != "" && absent("user", c.User) {
			warn("checks."+string(c.Name)+".user", "user", c.User, "the check cannot be run here")
		}
	}
	for _, l := range []struct {
		list  string
		names []string
	}{{"viewers", m.Node.Access.Viewers}, {"operators", m.Node.Access.Operators}, {"admins", m.Node.Access.Admins}} {
		for _, name := range l.names {
			what, bare := "user", name
			if g, ok := strings.CutPrefix(name, "%"); ok {
				what, bare = "group", g
			}
			if absent(what, bare) {
				warn("node.access."+l.list, what, bare, "it lets nobody in")
			}
		}
	}
	return out
}

// absent reports whether it is certain that nobody has a name; a number is
// somebody.
func absent(what, name string) bool {
	if _, err := strconv.ParseUint(name, 10, 32); err == nil {
		return false
	}
	if what == "group" {
		_, err := user.LookupGroup(name)
		var unknown user.UnknownGroupError
		return errors.As(err, &unknown)
	}
	_, err := user.Lookup(name)
	var unknown user.UnknownUserError
	return errors.As(err, &unknown)
}
