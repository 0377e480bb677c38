package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/config"
	"gemel/internal/ha"
	"gemel/internal/places"
)

// mostManifest is the size of the largest manifest that is read: the parser
// refuses larger ones, and a device or a pipe without end must not fill memory.
const mostManifest = 5 << 20

// read reads a file, or standard input for "-".
func (t *tool) read(name string) ([]byte, error) {
	if name == "-" {
		return bounded("standard input", t.w.In)
	}
	st, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, errors.Unwrap(err))
	}
	if st.IsDir() {
		return nil, fmt.Errorf("reading %s: it is a directory; name a file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, errors.Unwrap(err))
	}
	defer f.Close()
	return bounded(name, f)
}

func bounded(name string, r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, mostManifest+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if len(b) > mostManifest {
		return nil, fmt.Errorf("reading %s: it is larger than %d MiB", name, mostManifest>>20)
	}
	return b, nil
}

func checkCommand(t *tool) *cobra.Command {
	var node string
	c := &cobra.Command{
		Use: "check FILE...", GroupID: "file", Args: args(1, -1),
		Short: "say everything that is wrong with a manifest",
		Long: `Reads manifests and prints every error at once, with line, column, what was found, what
is allowed and a hint. FILE may be - for standard input. It asks no daemon and changes
nothing. The exit status is 7 if there is an error.

What is right and does not come about on this machine is said as a warning: a process
whose on: names other nodes only, a group, which waits for a cluster, and users and groups
that are not here. The name of this node is the host's; --name tells another, as for gemel
run.`,
		Example:           "  gemel check gemel.yaml",
		ValidArgsFunction: manifests,
		RunE: func(_ *cobra.Command, args []string) error {
			return t.each(args, func(name string) error { return check(t, name, places.Node(node)) })
		},
	}
	c.Flags().StringVar(&node, "name", "", "the `NAME` of the node that it is for (default: the host's)")
	return c
}

func check(t *tool, name, node string) error {
	b, err := t.read(name)
	if err != nil {
		return err
	}
	m, warnings, err := config.Read(name, b, ha.Node(node))
	if err == nil {
		warnings = append(warnings, strangers(name, m)...)
	}
	var bad config.Errors
	switch {
	case errors.As(err, &bad) && t.json:
		if err := t.printJSON(map[string]any{"file": name, "ok": false, "errors": mistakes(bad)}); err != nil {
			return err
		}
		return exitStatus(ExitInvalid)
	case errors.As(err, &bad):
		fmt.Fprintf(t.w.Err, "%s\n%s: %s\n", strings.TrimRight(bad.Error(), "\n"), name, plural(len(bad), "error"))
		return exitStatus(ExitInvalid)
	case err != nil:
		return err
	case t.json:
		return t.printJSON(map[string]any{"file": name, "ok": true, "processes": len(m.Processes), "checks": len(m.Checks), "groups": len(m.Groups), "digest": m.Digest,
			"warnings": append([]map[string]any{}, mistakes(warnings)...)})
	}
	for _, w := range warnings {
		w.Text = "warning: " + w.Text
		fmt.Fprintln(t.w.Err, clean(w.Error()))
	}
	fmt.Fprintf(t.out, "%s: no errors; %s, %s, %s\n", name, plural(len(m.Processes), "process"), plural(len(m.Checks), "check"), plural(len(m.Groups), "group"))
	return nil
}

// mistakes are the errors of a manifest as JSON.
func mistakes(bad config.Errors) []map[string]any {
	var out []map[string]any
	for _, e := range bad {
		out = append(out, map[string]any{"line": e.Line, "column": e.Column, "path": e.Path, "text": e.Text, "hint": e.Hint})
	}
	return out
}

func schemaCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "schema [FILE]", GroupID: "file", Args: args(0, 1),
		Short: "print the JSON Schema of the manifest, for editors",
		Long: `Prints the JSON Schema of the manifest, or writes it into FILE. An editor that knows
YAML then completes keys and marks mistakes: write
# yaml-language-server: $schema=FILE at the head of gemel.yaml.`,
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := config.Schema()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				if err := os.WriteFile(args[0], b, 0o644); err != nil {
					return fmt.Errorf("writing the schema: %w", err)
				}
				return nil
			}
			_, err = t.out.Write(b)
			return err
		},
	}
}

func manifestCommand(t *tool) *cobra.Command {
	var version uint64
	var list bool
	c := &cobra.Command{
		Use: "manifest", GroupID: "file", Args: args(0, 0),
		Short: "print the manifest in force, or another version of a cluster's",
		Long: `Prints the manifest in force, byte for byte as it was applied. What was set by hand over
it is not in it; gemel diff lists that. It may hold secrets and is for operators. A cluster
keeps the last 20 versions: --versions lists them, and gemel rollback brings one back.`,
		Example: "  gemel manifest > gemel.yaml\n  gemel manifest --versions\n  gemel manifest --version 3 | gemel diff -",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := t.dial()
			if err != nil {
				return err
			}
			r, err := client.Manifest(c.Context(), &gemelv1.ManifestRequest{Version: version, Versions: list})
			if err != nil {
				return err
			}
			if t.json {
				o := object(r)
				o["manifest"] = string(r.GetManifest())
				return t.printJSON(o)
			}
			if list {
				listVersions(t, r.GetVersions())
				return nil
			}
			text := r.GetManifest()
			if t.out.terminal() {
				text = []byte(clean(string(text)))
			}
			_, err = t.out.Write(text)
			return err
		},
	}
	c.Flags().Uint64Var(&version, "version", 0, "this version of the cluster's: `NUMBER`")
	c.Flags().BoolVar(&list, "versions", false, "list the versions that the cluster keeps")
	c.MarkFlagsMutuallyExclusive("version", "versions")
	return c
}

func listVersions(t *tool, all []*gemelv1.ManifestVersion) {
	var rows [][]cell
	for i, v := range all {
		note := ""
		if i == len(all)-1 {
			note = "in force"
		}
		rows = append(rows, []cell{{text: strconv.FormatUint(v.GetVersion(), 10)}, {text: clockTime(v.GetAt().AsTime())}, {text: clean(v.GetName())}, {text: note}})
	}
	t.out.table(t.out, []string{"VERSION", "SINCE", "FROM", ""}, rows)
}

func rollbackCommand(t *tool) *cobra.Command {
	var dry bool
	c := &cobra.Command{
		Use: "rollback [VERSION]", GroupID: "file", Args: args(0, 1),
		Short: "put an earlier version of the cluster's manifest into force again",
		Long: `Puts the version before the one in force, or VERSION, into force on all nodes of the cluster.
It is applied as a new version, as gemel apply would; only what differs restarts. gemel
manifest --versions lists what there is.`,
		Example: "  gemel rollback --dry-run\n  gemel rollback 3",
		RunE: func(c *cobra.Command, args []string) error {
			client, err := t.dial()
			if err != nil {
				return err
			}
			var want uint64
			if len(args) == 1 {
				if want, err = strconv.ParseUint(args[0], 10, 64); err != nil || want == 0 {
					return wrongUsage("%q is no version; gemel manifest --versions lists them", args[0])
				}
			} else {
				r, err := client.Manifest(c.Context(), &gemelv1.ManifestRequest{Versions: true})
				if err != nil {
					return err
				}
				if n := len(r.GetVersions()); n < 2 {
					return &ha.Error{Kind: ha.ErrRefused, Reason: "version", Hint: "gemel apply FILE makes a new one",
						Err: fmt.Errorf("the cluster keeps no version before the one in force")}
				} else {
					want = r.GetVersions()[n-2].GetVersion()
				}
			}
			r, err := client.Manifest(c.Context(), &gemelv1.ManifestRequest{Version: want})
			if err != nil {
				return err
			}
			return put(c.Context(), t, r.GetName(), r.GetManifest(), dry)
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "only say what would change")
	return c
}

func diffCommand(t *tool) *cobra.Command {
	var text bool
	c := &cobra.Command{
		Use: "diff [FILE]", GroupID: "file", Args: args(0, 1),
		Short: "what an apply would change, and what was set by hand",
		Long: `Compares a file with the manifest in force, and lists what was set by hand over that.
Without a file: only the latter. --text shows the difference of the lines instead of what
they mean. FILE may be - for standard input.`,
		Example:           "  gemel diff gemel.yaml\n  gemel diff",
		ValidArgsFunction: manifests,
		RunE: func(c *cobra.Command, args []string) error {
			q := &gemelv1.DiffRequest{}
			if len(args) == 1 {
				b, err := t.read(args[0])
				if err != nil {
					return err
				}
				if _, err := config.Parse(args[0], b); err != nil {
					return err
				}
				q.Name, q.Manifest = args[0], b
			}
			client, err := t.dial()
			if err != nil {
				return err
			}
			r, err := client.Diff(c.Context(), q)
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(object(r))
			}
			showDiff(t, r, len(args) == 1, text)
			return nil
		},
	}
	c.Flags().BoolVar(&text, "text", false, "show the difference of the lines")
	return c
}

func showDiff(t *tool, r *gemelv1.DiffResponse, file, text bool) {
	switch {
	case file && text:
		fmt.Fprint(t.out, clean(r.GetText()))
	case file:
		showChanges(t, r.GetChanges())
		showProblems(t, r.GetProblems())
	}
	for _, o := range r.GetOverlays() {
		who := ""
		if o.GetBy() != "" {
			who = fmt.Sprintf(" (%s, %s)", clean(o.GetBy()), clockTime(o.GetAt().AsTime()))
		}
		fmt.Fprintf(t.out, "%s: %s is %s by hand%s, %s in the manifest\n  to take it back: %s\n", subject(o.GetSubject()), o.GetItem(), o.GetValue(),
			who, o.GetManifestValue(), t.command(fmt.Sprintf("gemel set %s %s %s", subject(o.GetSubject()), o.GetItem(), o.GetManifestValue())))
	}
	if !file && len(r.GetOverlays()) == 0 {
		fmt.Fprintln(t.out, "nothing was set by hand")
	}
}

// importKinds are the systems whose configuration can be imported.
var importKinds = []string{"pms", "supervisord"}

func importCommand(t *tool) *cobra.Command {
	var kind string
	c := &cobra.Command{
		Use: "import FILE", GroupID: "file", Args: args(1, 1),
		Short: "make a manifest from pms.ini or supervisord.conf",
		Long: `Reads the configuration of another system and prints a manifest. What was not understood
is listed on standard error, line by line. FILE may be - for standard input. Nothing is
started.`,
		Example: "  gemel import pms.ini > gemel.yaml\n  gemel import --from supervisord /etc/supervisor/supervisord.conf",
		RunE: func(c *cobra.Command, args []string) error {
			b, err := t.read(args[0])
			if err != nil {
				return err
			}
			if kind == "" {
				kind = importKind(b)
			}
			if !slices.Contains(importKinds, kind) {
				return wrongUsage("gemel import cannot read %q; --from takes %s", kind, strings.Join(importKinds, ", "))
			}
			made, err := t.w.Import(kind, args[0], b)
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(map[string]any{"from": kind, "manifest": string(made.Manifest), "notes": append([]Note{}, made.Notes...)})
			}
			for _, n := range made.Notes {
				fmt.Fprintf(t.w.Err, "%s:%d: %s\n", args[0], n.Line, clean(n.Text))
			}
			_, err = t.out.Write(made.Manifest)
			return err
		},
	}
	c.Flags().StringVar(&kind, "from", "", "what the file is: `KIND` is pms or supervisord (default: by what is in it)")
	_ = c.RegisterFlagCompletionFunc("from", cobra.FixedCompletions(importKinds, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// importKind tells the files apart by their sections.
func importKind(b []byte) string {
	for _, section := range [...]string{"[program:", "[supervisord]", "[group:", "[include]", "[eventlistener:"} {
		if bytes.Contains(b, []byte(section)) {
			return "supervisord"
		}
	}
	return "pms"
}
