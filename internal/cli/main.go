package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"gemel/internal/places"
	"gemel/internal/rpc"
)

// World is everything outside of the tool that a command may touch, as values,
// so that a test can give its own.
type World struct {
	Args    []string // without the program's name
	In      io.Reader
	Out     io.Writer
	Err     io.Writer
	Version string
	// Run runs the shadow, Monitor the other half; both return the exit status.
	Run, Monitor func(ctx context.Context, o RunOptions) (int, error)
	// Import turns the configuration of another system into a manifest.
	Import func(kind, file string, b []byte) (Imported, error)
}

// RunOptions are the flags of run.
type RunOptions struct {
	Places  places.Places
	File    string
	Name    string
	Verbose bool
}

// Imported is what an importer made.
type Imported struct {
	Manifest []byte
	Notes    []Note
}

// Note is one line of the file that was not understood, or was changed.
type Note struct {
	Line int
	Text string
}

// Exit statuses of the tool; they are documented and never change.
const (
	ExitOK          = 0
	ExitFailed      = 1 // something went wrong; stderr says what
	ExitUsage       = 2 // the command line is wrong
	ExitRefused     = 3 // understood and not done: the reason is said
	ExitNotFound    = 4 // no such process, check, event
	ExitDenied      = 5 // the caller's role does not allow it
	ExitUnavailable = 6 // no daemon answers, or it is just starting or ending
	ExitInvalid     = 7 // a manifest has errors
)

// tool is one run of the tool.
type tool struct {
	w      World
	given  places.Places
	json   bool
	colour bool
	client *rpc.Client
}

// Main runs the tool and returns its exit status.
func Main(w World) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	t := &tool{w: w}
	root := root(t)
	root.SetArgs(w.Args)
	root.SetIn(w.In)
	root.SetOut(w.Out)
	root.SetErr(w.Err)
	err := root.ExecuteContext(ctx)
	var st exitStatus
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &st):
		return int(st)
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return 128 + int(syscall.SIGINT)
	}
	return t.fail(err)
}

// exitStatus is an error that was told already: only the status is left.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// usageError is a wrong command line.
type usageError struct{ error }

// root is the command that all others hang on.
func root(t *tool) *cobra.Command {
	root := &cobra.Command{
		Use:   "gemel",
		Short: "keeps the programs of this machine running, with a reason for everything",
		Long: `gemel keeps a machine's programs running. "gemel run FILE" is the daemon; every
other command asks it. Begin with: gemel run FILE, then in a second terminal:
gemel status.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       t.w.Version,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			t.colour = colours(t.w.Out)
			return nil
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	f := root.PersistentFlags()
	f.StringVar(&t.given.Socket, "socket", "", "the daemon's socket (default RUN-DIR/api.sock; environment GEMEL_SOCKET)")
	f.StringVar(&t.given.Run, "run-dir", "", "run directory (default /run/gemel; a plain user: $XDG_RUNTIME_DIR/gemel; GEMEL_RUN_DIR)")
	f.StringVar(&t.given.Data, "data-dir", "", "data directory (default /var/lib/gemel; a plain user: $XDG_STATE_HOME/gemel; GEMEL_DATA_DIR)")
	f.BoolVar(&t.json, "json", false, "print JSON")
	root.AddGroup(
		&cobra.Group{ID: "daemon", Title: "The daemon:"},
		&cobra.Group{ID: "look", Title: "Looking:"},
		&cobra.Group{ID: "act", Title: "Acting:"},
		&cobra.Group{ID: "file", Title: "Manifests:"},
	)
	for _, c := range commands(t) {
		root.AddCommand(c)
	}
	return root
}

// commands lists every command, in the order of the help.
func commands(t *tool) []*cobra.Command {
	return []*cobra.Command{
		runCommand(t), monitorCommand(t), detachCommand(t), upgradeCommand(t), shutdownCommand(t),
		statusCommand(t), eventsCommand(t), alarmsCommand(t), whyCommand(t), logsCommand(t), topCommand(t),
		startCommand(t), stopCommand(t), restartCommand(t), lockCommand(t), unlockCommand(t), clearCommand(t),
		getCommand(t), setCommand(t),
		applyCommand(t), checkCommand(t), diffCommand(t), schemaCommand(t), importCommand(t),
		replayCommand(t), whoamiCommand(t), manCommand(t), catalogueCommand(t),
	}
}

// dial connects to the daemon.
func (t *tool) dial(ctx context.Context) (*rpc.Client, error) {
	p, err := places.Find(t.given)
	if err != nil {
		return nil, err
	}
	if t.client == nil {
		if t.client, err = rpc.Dial(p.Socket); err != nil {
			return nil, err
		}
	}
	return t.client, nil
}
