package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/config"
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
	return &cobra.Command{
		Use: "check FILE", GroupID: "file", Args: cobra.ExactArgs(1),
		Short: "say everything that is wrong with a manifest",
		Long: `Reads a manifest and prints every error at once, with line, column, what was found, what
is allowed and a hint. It asks no daemon and changes nothing. The exit status is 7 if
there is an error.`,
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := t.read(args[0])
			if err != nil {
				return err
			}
			m, err := config.Parse(args[0], b)
			var bad config.Errors
			if t.json && errors.As(err, &bad) {
				if err := t.printJSON(map[string]any{"ok": false, "errors": bad}); err != nil {
					return err
				}
				return exitStatus(ExitInvalid)
			}
			if errors.As(err, &bad) {
				fmt.Fprint(t.w.Err, bad.Error())
				fmt.Fprintf(t.w.Err, "%s: %s\n", args[0], plural(len(bad), "error"))
				return exitStatus(ExitInvalid)
			}
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(map[string]any{"ok": true, "processes": len(m.Processes), "checks": len(m.Checks), "groups": len(m.Groups), "digest": m.Digest})
			}
			fmt.Fprintf(t.w.Out, "%s: no errors; %s, %s, %s\n", args[0], plural(len(m.Processes), "process"), plural(len(m.Checks), "check"), plural(len(m.Groups), "group"))
			return nil
		},
	}
}

func plural(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case what == "process":
		return fmt.Sprintf("%d processes", n)
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func schemaCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "schema", GroupID: "file", Args: cobra.NoArgs,
		Short: "print the JSON Schema of the manifest, for editors",
		RunE: func(*cobra.Command, []string) error {
			b, err := config.Schema()
			if err != nil {
				return err
			}
			_, err = t.w.Out.Write(b)
			return err
		},
	}
}

func applyCommand(t *tool) *cobra.Command {
	var dry bool
	c := &cobra.Command{
		Use: "apply FILE", GroupID: "file", Args: cobra.ExactArgs(1),
		Short: "put a manifest into force; only what changed restarts",
		Long: `Puts a manifest into force and prints what changes. A manifest with an error changes
nothing. What is applied is kept and is the truth from then on, also after a restart of
Gemel; the file is not looked at again before the next apply or SIGHUP.`,
		Example: "  gemel apply --dry-run gemel.yaml\n  gemel apply gemel.yaml",
		RunE: func(c *cobra.Command, args []string) error {
			return apply(c.Context(), t, args[0], dry)
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "only say what would change")
	return c
}

func apply(ctx context.Context, t *tool, file string, dry bool) error {
	b, err := t.read(file)
	if err != nil {
		return err
	}
	// Told here already, in full, without asking: the daemon would say the same.
	if _, err := config.Parse(file, b); err != nil {
		return err
	}
	client, err := t.dial(ctx)
	if err != nil {
		return err
	}
	name := file
	if abs, err := filepath.Abs(file); err == nil && file != "-" {
		name = abs
	}
	r, err := client.Apply(ctx, &gemelv1.ApplyRequest{Manifest: b, Name: name, DryRun: dry})
	if err != nil {
		return err
	}
	if t.json {
		if err := t.printJSON(object(r)); err != nil {
			return err
		}
	} else {
		changes(t, r.GetChanges())
		problems(t, r.GetProblems())
	}
	switch {
	case len(r.GetProblems()) > 0 && !r.GetApplied() && !dry:
		return exitStatus(ExitInvalid)
	case t.json:
	case dry:
		fmt.Fprintln(t.w.Out, "nothing was changed (--dry-run)")
	case r.GetUndo() != "":
		fmt.Fprintf(t.w.Out, "applied as version %d; to take it back: %s\n", r.GetVersion(), r.GetUndo())
	default:
		fmt.Fprintf(t.w.Out, "applied as version %d\n", r.GetVersion())
	}
	return nil
}

func changes(t *tool, cs []*gemelv1.ManifestChange) {
	if len(cs) == 0 {
		fmt.Fprintln(t.w.Out, "no difference to the manifest in force")
		return
	}
	for _, c := range cs {
		fmt.Fprintln(t.w.Out, clean(c.GetText()))
	}
}

func problems(t *tool, ps []*gemelv1.Problem) {
	for _, p := range ps {
		fmt.Fprintf(t.w.Err, "%s:%d:%d: %s: %s\n", p.GetFile(), p.GetLine(), p.GetColumn(), p.GetPath(), clean(p.GetText()))
		if p.GetHint() != "" {
			fmt.Fprintln(t.w.Err, "  "+clean(p.GetHint()))
		}
	}
}

func diffCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "diff [FILE]", GroupID: "file", Args: cobra.MaximumNArgs(1),
		Short: "what an apply would change, and what was set by hand",
		Long:  "Compares a file with the manifest in force and lists what was set by hand over it. Without\na file: only the latter.",
		RunE: func(c *cobra.Command, args []string) error {
			q := &gemelv1.DiffRequest{}
			if len(args) == 1 {
				b, err := t.read(args[0])
				if err != nil {
					return err
				}
				q.Name, q.Manifest = args[0], b
			}
			client, err := t.dial(c.Context())
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
			if len(args) == 1 {
				changes(t, r.GetChanges())
				problems(t, r.GetProblems())
			}
			for _, o := range r.GetOverlays() {
				fmt.Fprintf(t.w.Out, "%s: %s is %s by hand, %s in the manifest\n", subject(o.GetSubject()), o.GetItem(), o.GetValue(), o.GetManifestValue())
			}
			if len(args) == 0 && len(r.GetOverlays()) == 0 {
				fmt.Fprintln(t.w.Out, "nothing was set by hand")
			}
			return nil
		},
	}
}

func importCommand(t *tool) *cobra.Command {
	var kind string
	c := &cobra.Command{
		Use: "import FILE", GroupID: "file", Args: cobra.ExactArgs(1),
		Short: "make a manifest from pms.ini or supervisord.conf",
		Long: `Reads the configuration of another system and prints a manifest. What was not understood
is listed on standard error, line by line. Nothing is started.`,
		Example: "  gemel import pms.ini > gemel.yaml\n  gemel import --from supervisord /etc/supervisor/supervisord.conf",
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := t.read(args[0])
			if err != nil {
				return err
			}
			if kind == "" {
				kind = "supervisord"
				if filepath.Ext(args[0]) == ".ini" && filepath.Base(args[0]) != "supervisord.ini" {
					kind = "pms"
				}
			}
			made, err := t.w.Import(kind, args[0], b)
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(map[string]any{"manifest": string(made.Manifest), "notes": made.Notes})
			}
			for _, n := range made.Notes {
				fmt.Fprintf(t.w.Err, "%s:%d: %s\n", args[0], n.Line, n.Text)
			}
			_, err = t.w.Out.Write(made.Manifest)
			return err
		},
	}
	c.Flags().StringVar(&kind, "from", "", "what the file is: pms or supervisord (default: by its name)")
	return c
}
