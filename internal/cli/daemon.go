package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"gemel/internal/ha"
	"gemel/internal/places"
	"gemel/internal/rpc"
)

func runCommand(t *tool) *cobra.Command {
	var o RunOptions
	c := &cobra.Command{
		Use: "run [FILE]", GroupID: "daemon", Args: args(0, 1),
		Short: "the daemon: start the programs of a manifest and keep them up",
		Long: `Runs Gemel in the foreground: starts the programs of FILE and keeps them up. Ctrl-C or
SIGTERM stops them all in reverse order; gemel detach leaves them running for the next
gemel run. SIGHUP applies FILE again.

The manifest that was applied last is in force; FILE is the first one. If both are the
same, or nothing was applied here before, FILE is what runs.`,
		Example:           "  gemel run gemel.yaml\n  gemel run --data-dir ./data --run-dir ./run examples/one-machine.yaml",
		ValidArgsFunction: manifests,
		RunE: func(c *cobra.Command, args []string) error {
			// The shadow takes the signals itself and counts them: the end of this
			// context would look like a second SIGTERM to it, which spares nothing.
			ctx := context.WithoutCancel(c.Context())
			defer announce(ctx, t)()
			return runHalf(ctx, t, t.w.Run, o, args)
		},
	}
	c.Flags().StringVar(&o.Name, "name", "", "`NAME` of this node (default: the host's)")
	c.Flags().BoolVarP(&o.Verbose, "verbose", "v", false, "log what is done, not only what fails")
	return c
}

// monitorCommand is how the shadow starts the other half; nobody types it.
func monitorCommand(t *tool) *cobra.Command {
	var o RunOptions
	c := &cobra.Command{
		Use: "monitor [FILE]", Hidden: true, Args: args(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			return runHalf(c.Context(), t, t.w.Monitor, o, args)
		},
	}
	c.Flags().StringVar(&o.Name, "name", "", "")
	c.Flags().BoolVarP(&o.Verbose, "verbose", "v", false, "")
	return c
}

// storeCommand is how the member of the cluster's store is run; nobody types it.
func storeCommand(t *tool) *cobra.Command {
	var o RunOptions
	return &cobra.Command{
		Use: "store [FILE]", Hidden: true, Args: args(0, 1), // FILE says what to do with a backup
		RunE: func(c *cobra.Command, args []string) error { return runHalf(c.Context(), t, t.w.Store, o, args) },
	}
}

// partCommand is how a part of a group that commands make is held; nobody types it.
func partCommand(t *tool) *cobra.Command {
	var o RunOptions
	return &cobra.Command{
		Use: "part", Hidden: true, Args: args(0, 0),
		RunE: func(c *cobra.Command, args []string) error { return runHalf(c.Context(), t, t.w.Part, o, args) },
	}
}

// guardCommand is how the shadow starts the process that keeps the deadlines of
// groups beside it; nobody types it.
func guardCommand(t *tool) *cobra.Command {
	var o RunOptions
	c := &cobra.Command{
		Use: "guard", Hidden: true, Args: args(0, 0),
		RunE: func(c *cobra.Command, args []string) error {
			return runHalf(context.WithoutCancel(c.Context()), t, t.w.Guard, o, args)
		},
	}
	c.Flags().BoolVarP(&o.Verbose, "verbose", "v", false, "")
	return c
}

// readCommand is how the monitor has a large manifest read; nobody types it.
func readCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "read-manifest NAME", Hidden: true, Args: args(1, 1),
		RunE: func(_ *cobra.Command, args []string) error { return t.w.ReadManifest(args[0], t.w.In, t.out) },
	}
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
	// Whoever reads the log may go away ("gemel run | head"): that is no reason for
	// either half to die.
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	defer signal.Stop(pipe)
	status, err := half(ctx, o)
	if err != nil {
		return err
	}
	if status != 0 {
		return exitStatus(status)
	}
	return nil
}

// announceTime bounds the wait for the daemon to answer.
const announceTime = time.Minute

// announce tells somebody at a terminal what to do next, once the daemon answers.
// What it returns ends it and waits for it.
func announce(ctx context.Context, t *tool) func() {
	p, err := places.Find(t.given)
	if err != nil || !newScreen(t.w.Err).terminal() {
		return func() {}
	}
	ctx, cancel := context.WithTimeout(ctx, announceTime)
	done := make(chan struct{})
	go func() {
		defer close(done)
		again := time.NewTicker(100 * time.Millisecond)
		defer again.Stop()
		for {
			if client, err := rpc.Dial(p.Socket); err == nil {
				client.Close()
				fmt.Fprintf(t.w.Err, "gemel runs. In a second terminal: %s. Ctrl-C here stops all.\n", t.command("gemel status"))
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-again.C:
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func inBrackets(form string) string {
	if form == "" {
		return ""
	}
	return " (" + form + ")"
}

func versionCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "version", GroupID: "more", Args: args(0, 0),
		Short: "the version of this tool, and of the daemon if one answers",
		Long: `Prints the version of this tool and of the daemon, and how each is built: slim, as make build does, with the
member of the store as a program of its own inside, or whole, as go build does, where every process carries that.`,
		RunE: func(*cobra.Command, []string) error {
			client, err := t.dial()
			var known *ha.Error
			if err != nil && !(errors.As(err, &known) && (known.Kind == ha.ErrUnavailable || known.Kind == ha.ErrDenied)) {
				return err
			}
			if t.json {
				o := map[string]any{"tool": t.w.Version, "form": t.w.Form}
				if client != nil {
					o["daemon"] = object(client.Daemon)
				}
				return t.printJSON(o)
			}
			fmt.Fprintf(t.out, "gemel version %s%s\n", t.w.Version, inBrackets(t.w.Form))
			if client != nil {
				d := client.Daemon
				form := ""
				if d.GetForm() != "" {
					form = ", " + d.GetForm()
				}
				fmt.Fprintf(t.out, "daemon version %s (monitor %d, %s%s)\n", d.GetVersion(), d.GetMonitor(), d.GetGoVersion(), form)
			}
			return nil
		},
	}
}
