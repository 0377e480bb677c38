package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"gemel/internal/access"
	"gemel/internal/ha"
	"gemel/internal/journal"
	"gemel/internal/manifest"
	"gemel/internal/proc/output"
	"gemel/internal/rpc"
	"gemel/internal/status"
)

// newServer wires the API to the engine and returns the loop that serves it.
func newServer(o Options, h *hands, board *status.Board, feed *status.Feed, m *manifest.Manifest) (func(context.Context) error, error) {
	audit, err := access.OpenAudit(filepath.Join(o.Places.Data, "audit.log"))
	if err != nil {
		return nil, err
	}
	// Opened before anybody is told that we are ready: who connects now waits for us.
	if h.api, err = listen(o); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the API: %w", err), audit.Close())
	}
	dir := filepath.Join(o.Places.Data, "journal")
	backend := rpc.Backend{
		Board: board, Feed: feed,
		History: func(ctx context.Context, after uint64, since time.Time, each func(ha.Event) bool) error {
			return journal.Events(dir, after, since, func(e ha.Event) bool { return ctx.Err() == nil && each(e) })
		},
		Output: func(ctx context.Context, p ha.Process, from rpc.From, each func([]byte, string) error) error {
			tell := func(line, place string) error { return each(append([]byte(line), '\n'), place) }
			dir := filepath.Join(o.Places.Data, "log")
			if from.Follow {
				return output.Follow(ctx, dir, p, output.Place{Lines: max(from.Lines, 0), After: from.After}, tell)
			}
			return tail(dir, p, max(from.Lines, 0), func(line string) error { return tell(line, "") })
		},
		Core: core{h.engine, h.member}, Asks: newAsks(o, board), Life: life{h: h, cut: h.group.cancel},
		Look: h.look(board), Audit: audit.Add, Keep: takeBack(filepath.Join(o.Places.Data, "manifests"), o.Log), Version: o.Version, Form: o.Form,
	}
	backend.Rolls, backend.Keys = enrolment{h.member}, enrolment{h.member}
	if h.member != nil {
		backend.Cluster = wishing{h.member}.request
		backend.Plan = planning{h.member}.plan
		backend.Versions = h.member.shared
	}
	server := rpc.NewServer(backend, access.New(m.Node.Access, uint32(os.Geteuid())), o.Log)
	h.admit = latest(h.group, server.Admit)
	return func(ctx context.Context) error {
		defer audit.Close()
		return server.Serve(ctx, h.api)
	}, nil
}

// listen goes on with the socket that the program before this one left, or makes one.
func listen(o Options) (net.Listener, error) {
	if o.handed != nil {
		l, err := rpc.Take(o.Places.Socket, *o.handed)
		if err == nil {
			return l, nil
		}
		o.Log.Warn("the socket of the API is made anew", "error", err)
	}
	return rpc.Listen(o.Places.Socket)
}

// tail tells the last lines of a process's log.
func tail(dir string, p ha.Process, lines int, tell func(string) error) error {
	past, err := output.Tail(dir, p, lines)
	if err != nil {
		return err
	}
	for _, line := range past {
		if err := tell(line); err != nil {
			return err
		}
	}
	return nil
}
