package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
	"gemel/internal/places"
)

func runCommand(t *tool) *cobra.Command {
	var o RunOptions
	c := &cobra.Command{
		Use: "run [FILE]", GroupID: "daemon", Args: cobra.MaximumNArgs(1),
		Short: "the daemon: start the programs of a manifest and keep them up",
		Long: `Runs Gemel in the foreground: starts the programs of FILE and keeps them up. Ctrl-C or
SIGTERM stops them all in reverse order; gemel detach leaves them running for the next
gemel run. SIGHUP applies FILE again.

The manifest that was applied last is in force; FILE is the first one. If both are the
same, or nothing was applied here before, FILE is what runs.`,
		Example: "  gemel run gemel.yaml\n  gemel run --data-dir ./data --run-dir ./run examples/one-machine.yaml",
		RunE: func(c *cobra.Command, args []string) error {
			// The shadow takes the signals itself and counts them: the end of this
			// context would look like a second SIGTERM to it, which spares nothing.
			return runHalf(context.WithoutCancel(c.Context()), t, t.w.Run, o, args)
		},
	}
	c.Flags().StringVar(&o.Name, "name", "", "name of this node (default: the host's)")
	c.Flags().BoolVarP(&o.Verbose, "verbose", "v", false, "log what is done, not only what fails")
	return c
}

// monitorCommand is how the shadow starts the other half; nobody types it.
func monitorCommand(t *tool) *cobra.Command {
	var o RunOptions
	c := &cobra.Command{
		Use: "monitor [FILE]", Hidden: true, Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return runHalf(c.Context(), t, t.w.Monitor, o, args)
		},
	}
	c.Flags().StringVar(&o.Name, "name", "", "")
	c.Flags().BoolVarP(&o.Verbose, "verbose", "v", false, "")
	return c
}

func runHalf(ctx context.Context, t *tool, half func(context.Context, RunOptions) (int, error), o RunOptions, args []string) error {
	p, err := places.Find(t.given)
	if err != nil {
		return err
	}
	o.Places = p
	if len(args) == 1 {
		if o.File, err = filepath.Abs(args[0]); err != nil {
			return fmt.Errorf("finding %s: %w", args[0], err)
		}
	}
	status, err := half(ctx, o)
	if err != nil {
		return err
	}
	if status != 0 {
		return exitStatus(status)
	}
	return nil
}

func detachCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "detach", GroupID: "daemon", Args: cobra.NoArgs,
		Short: "end the daemon and leave the programs running",
		Long:  "Ends both halves of Gemel. The programs run on, unwatched; the next gemel run finds them.",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := t.dial(c.Context())
			if err != nil {
				return err
			}
			r, err := client.Detach(c.Context(), &gemelv1.DetachRequest{})
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(object(r))
			}
			fmt.Fprintf(t.w.Out, "detached; %s run on; to take them back: gemel run\n", plural(int(r.GetRunning()), "process"))
			return nil
		},
	}
}

func upgradeCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "upgrade [BINARY]", GroupID: "daemon", Args: cobra.MaximumNArgs(1),
		Short: "replace the running daemon by another binary; no program is touched",
		Long: `Replaces the monitor, then the shadow, by exec in the same pids. Without an argument the
path that runs now is read again (after a package update). A binary that does not run is
refused before anything is done.`,
		RunE: func(c *cobra.Command, args []string) error {
			q := &gemelv1.UpgradeRequest{}
			if len(args) == 1 {
				abs, err := filepath.Abs(args[0])
				if err != nil {
					return fmt.Errorf("finding %s: %w", args[0], err)
				}
				q.Binary = abs
			}
			client, err := t.dial(c.Context())
			if err != nil {
				return err
			}
			r, err := client.Upgrade(c.Context(), q)
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(object(r))
			}
			fmt.Fprintf(t.w.Out, "upgrading from %s to %s; gemel status shows the version that runs\n", r.GetFrom(), r.GetTo())
			return nil
		},
	}
}

func shutdownCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "shutdown", GroupID: "daemon", Args: cobra.NoArgs,
		Short: "stop every program in reverse order, then end",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := t.dial(c.Context())
			if err != nil {
				return err
			}
			r, err := client.Shutdown(c.Context(), &gemelv1.ShutdownRequest{Reason: "gemel shutdown"})
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(object(r))
			}
			fmt.Fprintf(t.w.Out, "stopping %s\n", plural(int(r.GetRunning()), "process"))
			return nil
		},
	}
}

// manCommand writes the man pages; make install and packagers call it.
func manCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Hidden: true, Args: cobra.ExactArgs(1),
		Short: "write the man pages into a directory",
		RunE: func(c *cobra.Command, args []string) error {
			root := c.Root()
			root.DisableAutoGenTag = true
			head := &doc.GenManHeader{Title: "GEMEL", Section: "1", Source: "gemel " + strings.TrimSpace(t.w.Version), Manual: "Gemel"}
			if err := doc.GenManTree(root, head, args[0]); err != nil {
				return fmt.Errorf("writing the man pages: %w", err)
			}
			return nil
		},
	}
}

func catalogueCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "catalogue [CODE|WORD]", Aliases: []string{"catalog"}, GroupID: "look", Args: cobra.MaximumNArgs(1),
		Short: "what each event code means, does, and asks of you",
		RunE: func(_ *cobra.Command, args []string) error {
			found := false
			for _, e := range ha.Catalogue() {
				if len(args) == 1 && args[0] != fmt.Sprint(uint16(e.Code)) && args[0] != fmt.Sprintf("0x%04x", uint16(e.Code)) && args[0] != e.Word {
					continue
				}
				found = true
				if t.json {
					if err := t.printJSON(map[string]any{"code": e.Code, "word": e.Word, "text": e.Text, "change": e.Change, "means": e.Means, "effect": e.Effect, "do": e.Do, "classic": e.Classic}); err != nil {
						return err
					}
					continue
				}
				fmt.Fprintf(t.w.Out, "%d (0x%04X) %s: %s\n  means:  %s\n  effect: %s\n  do:     %s\n", e.Code, uint16(e.Code), e.Word, e.Text, e.Means, e.Effect, e.Do)
			}
			if !found {
				return errors.Join(notFound{fmt.Sprintf("there is no event %q", args[0]), "gemel catalogue lists them"})
			}
			return nil
		},
	}
}
