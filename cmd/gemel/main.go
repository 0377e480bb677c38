// Command gemel keeps a machine's programs running. It is the daemon (gemel run)
// and the tool that asks it; the commands live in internal/cli.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"

	"gemel/internal/cli"
	"gemel/internal/config"
	"gemel/internal/daemon"
	"gemel/internal/port"
)

// version is set by the linker (-X main.version=...).
var version = "0.1.0"

func main() {
	os.Exit(cli.Main(cli.World{
		Args: os.Args[1:], In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Version: version,
		Run: run, Monitor: monitor, Guard: guard, ReadManifest: daemon.ReadManifest, Import: imported,
	}))
}

func options(o cli.RunOptions) daemon.Options {
	level := slog.LevelWarn
	if o.Verbose {
		level = slog.LevelDebug
	}
	return daemon.Options{
		Places: o.Places, File: o.File, Name: o.Name, Version: version, Verbose: o.Verbose,
		Log: slog.New(slog.NewTextHandler(io.Writer(os.Stderr), &slog.HandlerOptions{Level: level})),
	}
}

func run(ctx context.Context, o cli.RunOptions) (int, error) {
	// The shadow is small and boring: it gives memory back rather than speed.
	debug.SetGCPercent(50)
	return daemon.Shadow(ctx, options(o))
}

func monitor(ctx context.Context, o cli.RunOptions) (int, error) {
	// What a burst of starts leaves for good lies between its garbage: the more garbage
	// there is at a time, the more memory those few objects keep from going back.
	debug.SetGCPercent(30)
	err := daemon.Monitor(ctx, options(o))
	var next *daemon.Replace
	if errors.As(err, &next) {
		return 0, next.Exec() // comes back only if it failed
	}
	return 0, err
}

func guard(ctx context.Context, o cli.RunOptions) (int, error) {
	debug.SetGCPercent(20)
	return 0, daemon.Guard(ctx, options(o))
}

func imported(kind, file string, b []byte) (cli.Imported, error) {
	read := map[string]func(string, []byte) (port.Result, error){"pms": port.PMS, "supervisord": port.Supervisord}[kind]
	if read == nil {
		return cli.Imported{}, fmt.Errorf("cannot import %q: --from takes pms or supervisord", kind)
	}
	r, err := read(file, b)
	if err != nil {
		return cli.Imported{}, err
	}
	out, err := config.Encode(r.Manifest)
	if err != nil {
		return cli.Imported{}, fmt.Errorf("writing the manifest: %w", err)
	}
	notes := make([]cli.Note, 0, len(r.Notes))
	for _, n := range r.Notes {
		notes = append(notes, cli.Note{Line: n.Line, Text: n.Text})
	}
	return cli.Imported{Manifest: out, Notes: notes}, nil
}
