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
	"gemel/internal/roll"
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
	Form    string // how it is built: slim or whole; empty: not known
	// Run runs the shadow, Monitor the other half; both return the exit status.
	Run, Monitor func(ctx context.Context, o RunOptions) (int, error)
	// Store runs this node's member of its cluster's store.
	Store func(ctx context.Context, o RunOptions) (int, error)
	// Part runs the program of a part of a group that commands make.
	Part func(ctx context.Context, o RunOptions) (int, error)
	// Guard runs the process that holds the deadlines of groups when no shadow does.
	Guard func(ctx context.Context, o RunOptions) (int, error)
	Membership
	// ReadManifest reads a manifest for a monitor that has better things to keep in its memory.
	ReadManifest func(name string, in io.Reader, out io.Writer) error
	// Import turns the configuration of another system into a manifest.
	Import func(kind, file string, b []byte) (Imported, error)
}

// Membership is how a machine becomes part of a cluster.
type Membership struct {
	// Begin makes a cluster of this machine; Join makes it part of one.
	Begin func(ctx context.Context, s roll.Setup) (roll.Begun, error)
	Join  func(ctx context.Context, s roll.Setup, at []string, token string) (roll.Begun, error)
	// Restore makes the cluster anew, with this machine alone, from the backup o.File.
	Restore func(ctx context.Context, o RunOptions, s roll.Setup, off []string) (roll.Begun, error)
	// Serve has the service manager run Gemel from now on; false: there is none for that.
	Serve func(ctx context.Context, p places.Places) (bool, error)
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
	Line int    `json:"line"`
	Text string `json:"text"`
}

// Exit statuses of the tool; they are documented (gemel help exit-codes) and
// never change. A command that a signal ended has 128 and the signal's number.
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
	out    *screen
	given  places.Places
	json   bool
	client *rpc.Client
}

// Main runs the tool and returns its exit status.
func Main(w World) int {
	ctx, stop := interruptible()
	defer stop()
	t := &tool{w: w, out: newScreen(w.Out)}
	root := newRoot(t)
	root.SetArgs(w.Args)
	root.SetIn(w.In)
	root.SetOut(t.out)
	root.SetErr(w.Err)
	err := root.ExecuteContext(ctx)
	var st exitStatus
	var by signalled
	switch {
	case err == nil && t.out.err != nil:
		// What was asked for may be half written: nobody may take it for the whole.
		return t.fail(fmt.Errorf("writing the answer: %w", t.out.err))
	case err == nil:
		return ExitOK
	case errors.As(err, &st):
		return int(st)
	case errors.As(err, &by), ctx.Err() != nil && errors.As(context.Cause(ctx), &by):
		return 128 + int(by)
	}
	return t.fail(err)
}

// signalled is the end of a command by a signal.
type signalled syscall.Signal

func (s signalled) Error() string { return "ended by a signal: " + syscall.Signal(s).String() }

// interruptible returns a context that ends with Ctrl-C or SIGTERM, with the
// signal as its cause.
func interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case s := <-c:
			if n, ok := s.(syscall.Signal); ok {
				cancel(signalled(n))
			}
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(c)
		cancel(nil)
	}
}

// exitStatus is an error that was told already: only the status is left.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// newRoot makes the command that all others hang on.
func newRoot(t *tool) *cobra.Command {
	root := &cobra.Command{
		Use:   "gemel",
		Short: "keeps the programs of this machine running, with a reason for everything",
		Long: `gemel keeps a machine's programs running. "gemel run FILE" is the daemon; every
other command asks it. Begin with "gemel run FILE", then in a second terminal "gemel
status".`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       t.w.Version,
		Args:          cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(c, args[0])
			}
			return c.Help()
		},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return flagError(t, c, err) })
	root.SetUsageFunc(usage)
	root.SetHelpFunc(help)
	f := root.PersistentFlags()
	f.StringVar(&t.given.Socket, "socket", "", "the daemon's socket: `PATH` (default: api.sock in the run directory)")
	f.StringVar(&t.given.Run, "run-dir", "", "run directory: `DIR` (default: /run/gemel; see gemel help environment)")
	f.StringVar(&t.given.Data, "data-dir", "", "data directory: `DIR` (default: /var/lib/gemel; see gemel help environment)")
	f.BoolVar(&t.json, "json", false, "print JSON: one document, or one for each line of what goes on")
	root.AddGroup(
		&cobra.Group{ID: "look", Title: "Looking:"},
		&cobra.Group{ID: "act", Title: "Acting on processes, checks and the node:"},
		&cobra.Group{ID: "file", Title: "Manifests:"},
		&cobra.Group{ID: "cluster", Title: "The cluster:"},
		&cobra.Group{ID: "daemon", Title: "The daemon:"},
		&cobra.Group{ID: "more", Title: "More:"},
	)
	root.SetHelpCommandGroupID("more")
	root.SetCompletionCommandGroupID("more")
	root.AddCommand(commands(t)...)
	root.AddCommand(topics()...)
	own(root)
	return root
}

// commands lists every command.
func commands(t *tool) []*cobra.Command {
	return []*cobra.Command{
		runCommand(t), monitorCommand(t), storeCommand(t), partCommand(t), guardCommand(t), readCommand(t), detachCommand(t), upgradeCommand(t), shutdownCommand(t),
		statusCommand(t), eventsCommand(t), alarmsCommand(t), whyCommand(t), planCommand(t), logsCommand(t), topCommand(t),
		evidenceCommand(t), replayCommand(t), catalogueCommand(t), whoamiCommand(t), getCommand(t),
		startCommand(t), stopCommand(t), restartCommand(t), lockCommand(t), unlockCommand(t), clearCommand(t), setCommand(t),
		moveCommand(t), drainCommand(t), resumeCommand(t), confirmOffCommand(t), maintenanceCommand(t), brainCommand(t),
		initCommand(t), joinCommand(t), tokenCommand(t), leaveCommand(t), renewCommand(t), backupCommand(t), restoreCommand(t), certCommand(t),
		applyCommand(t), rollbackCommand(t), checkCommand(t), diffCommand(t), manifestCommand(t), schemaCommand(t), importCommand(t),
		manCommand(t), versionCommand(t),
	}
}

// dial connects to the daemon.
func (t *tool) dial() (*rpc.Client, error) {
	if t.client != nil {
		return t.client, nil
	}
	p, err := places.Find(t.given)
	if err != nil {
		return nil, err
	}
	if t.client, err = rpc.Dial(p.Socket); err != nil {
		return nil, err
	}
	t.client.Away = t.say
	return t.client, nil
}

// command writes a command line of the tool so that it reaches the same daemon
// as this run: with the flags that name it.
func (t *tool) command(line string) string {
	with := "gemel "
	for _, f := range [...]struct{ name, value string }{
		{"--socket", t.given.Socket}, {"--run-dir", t.given.Run}, {"--data-dir", t.given.Data},
	} {
		if f.value != "" {
			with += f.name + " " + quoted(f.value) + " "
		}
	}
	return replaceCommands(line, with)
}
