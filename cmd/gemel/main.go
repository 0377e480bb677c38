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
	"gemel/internal/places"
	"gemel/internal/port"
	"gemel/internal/roll"
)

// version is set by the linker (-X main.version=...).
var version = "0.1.0"

func main() {
	os.Exit(cli.Main(cli.World{
		Args: os.Args[1:], In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Version: version, Form: form,
		Run: half(50, daemon.Shadow), Store: half(50, store), Guard: half(20, guard), Part: half(50, daemon.Part),
		// What a burst of starts leaves for good lies between its garbage: the more garbage
		// there is at a time, the more memory those few objects keep from going back.
		Monitor:      half(30, monitor),
		Membership:   cli.Membership{Begin: roll.Begin, Join: roll.Join, Restore: restored, Serve: serve},
		ReadManifest: daemon.ReadManifest, Import: imported,
	}))
}

func options(o cli.RunOptions) (daemon.Options, error) {
	level := slog.LevelWarn
	if o.Verbose {
		level = slog.LevelDebug
	}
	id, err := daemon.Identify(o.Places)
	return daemon.Options{
		Places: o.Places, File: o.File, Name: o.Name, Version: version, Form: form, Verbose: o.Verbose, Identity: id,
		Log: slog.New(slog.NewTextHandler(io.Writer(os.Stderr), &slog.HandlerOptions{Level: level})),
	}, err
}

// half is a process of Gemel. Each is given back memory rather than speed, by what is
// garbage at a time.
func half(garbage int, run func(context.Context, daemon.Options) (int, error)) func(context.Context, cli.RunOptions) (int, error) {
	return func(ctx context.Context, o cli.RunOptions) (int, error) {
		debug.SetGCPercent(garbage)
		with, err := options(o)
		if err != nil {
			return 1, err
		}
		return run(ctx, with)
	}
}

func restored(ctx context.Context, o cli.RunOptions, s roll.Setup, off []string) (roll.Begun, error) {
	with, err := options(o)
	if err != nil {
		return roll.Begun{}, err
	}
	return daemon.Restore(ctx, with, s, off)
}

func serve(ctx context.Context, p places.Places) (bool, error) { return daemon.Enable(ctx, p, "/") }

func guard(ctx context.Context, o daemon.Options) (int, error) { return 0, daemon.Guard(ctx, o) }

func monitor(ctx context.Context, o daemon.Options) (int, error) {
	err := daemon.Monitor(ctx, o)
	var next *daemon.Replace
	if errors.As(err, &next) {
		return 0, next.Exec() // comes back only if it failed
	}
	return 0, err
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
