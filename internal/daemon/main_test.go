package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"

	"gemel/internal/cli"
	"gemel/internal/daemon"
)

// playEnv makes the test binary play gemel.
const playEnv = "GEMEL_TEST_PLAY"

// journaldEnv is the path of the socket that the test binary takes for journald's.
const journaldEnv = "GEMEL_TEST_JOURNALD"

func TestMain(m *testing.M) {
	if os.Getenv(playEnv) != "" || len(os.Args) == 2 && os.Args[1] == "--version" {
		os.Exit(play())
	}
	os.Exit(m.Run())
}

// play is what cmd/gemel does.
func play() int {
	options := func(o cli.RunOptions) daemon.Options {
		return daemon.Options{Places: o.Places, File: o.File, Name: o.Name, Version: "0.0.1", Journald: os.Getenv(journaldEnv),
			Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))}
	}
	return cli.Main(cli.World{
		Args: os.Args[1:], In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Version: "0.0.1",
		Run: func(ctx context.Context, o cli.RunOptions) (int, error) { return daemon.Shadow(ctx, options(o)) },
		Monitor: func(ctx context.Context, o cli.RunOptions) (int, error) {
			err := daemon.Monitor(ctx, options(o))
			var next *daemon.Replace
			if errors.As(err, &next) {
				return 0, next.Exec()
			}
			return 0, err
		},
		ReadManifest: daemon.ReadManifest,
		Import:       func(string, string, []byte) (cli.Imported, error) { return cli.Imported{}, fmt.Errorf("not here") },
	})
}
