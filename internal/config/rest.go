package config

import (
	"strings"
	"time"

	"gemel/internal/manifest"
)

func filesObject() object[manifest.FileSet] {
	type F = manifest.FileSet
	path := textKind[string]("an absolute path", schema{"type": "string", "pattern": "^/"}, absolute, func(s string) (string, bool) {
		for _, own := range []string{"/etc/gemel", "/var/lib/gemel", "/run/gemel"} {
			if s == own || strings.HasPrefix(s, own+"/") || strings.HasPrefix(own, strings.TrimSuffix(s, "/")+"/") {
				return "a file set must not hold " + own + ": keys and data of Gemel belong to one node", false
			}
		}
		return "", true
	})
	return object[F]{fresh: func() F { return F{Priority: 1} }, fields: []field[F]{
		at("paths", listKind("paths", path, listing{least: 1, unique: true}), func(f *F) *[]string { return &f.Paths }, "Files and directories.").must(),
		at("priority", intKind(1, 2), func(f *F) *int { return &f.Priority }, "1 goes before 2, and a standby without it is not in sync."),
	}}
}

func freshNode() manifest.Node {
	return manifest.Node{
		Budget:   manifest.Budget{Limit: 3, Within: 6 * time.Hour},
		Journald: true, JournalLimit: 256 << 20,
	}
}

func nodeObject() object[manifest.Node] {
	type N = manifest.Node
	type B = manifest.Budget
	type A = manifest.Access
	budget := object[B]{fresh: func() B { return freshNode().Budget }, fields: []field[B]{
		at("limit", intKind(0, 1000), func(b *B) *int { return &b.Limit }, "Reboots and failovers in the window. 0: none at all."),
		at("within", durationKind(time.Minute, year), func(b *B) *time.Duration { return &b.Within }, "The window; it is kept across boots."),
	}}
	who := listKind("users, and of groups as %adm", textKind[string]("the name of a user, or of a group with % before it", schema{"type": []string{"string", "integer"}},
		func(s string) (string, bool) {
			s = strings.TrimPrefix(s, "%")
			return "", s != "" && len(s) < 256 && !strings.ContainsAny(s, ":, /%\t\n") && s[0] != '-'
		}), listing{unique: true})
	access := object[A]{fresh: func() A { return A{} }, fields: []field[A]{
		at("viewers", who, func(a *A) *[]string { return &a.Viewers }, "Who may look."),
		at("operators", who, func(a *A) *[]string { return &a.Operators }, "Who may also start, stop, lock, unlock and move."),
		at("admins", who, func(a *A) *[]string { return &a.Admins }, "Who may also apply. Root and Gemel's own user always may."),
	}}
	return object[N]{fresh: freshNode, fields: []field[N]{
		at("budget", budget.kind(), func(n *N) *manifest.Budget { return &n.Budget }, "How many reboots and failovers in which time."),
		at("reboot", argvKind(), func(n *N) *[]string { return &n.Reboot }, "The command that reboots. Without it: the real reboot."),
		at("access", access.kind(), func(n *N) *manifest.Access { return &n.Access }, "Who may do what, by users and groups of this machine."),
		at("journald", boolKind(), func(n *N) *bool { return &n.Journald }, "Send events to journald, where it is."),
		at("syslog", boolKind(), func(n *N) *bool { return &n.Syslog }, "Send events to syslog."),
		at("journal-limit", sizeKind(1<<20, 1<<40), func(n *N) *int64 { return &n.JournalLimit }, "Bytes of Gemel's own journal in all."),
		at("handler", handlerKind(), func(n *N) *manifest.Handler { return &n.Handler }, "A command for events of the node as a whole."),
	}}
}
