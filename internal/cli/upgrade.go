package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
	"gemel/internal/rpc"
)

// upgradeTime bounds the wait for both halves to run one version: a monitor that
// hangs is given up after ten seconds, a shadow as well.
const upgradeTime = time.Minute

// unknownTime is the same where the daemon ended before it had answered.
const unknownTime = 20 * time.Second

func upgradeCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "upgrade [BINARY]", GroupID: "daemon", Args: args(0, 1),
		Short: "replace the running daemon by another binary; no program is touched",
		Long: `Replaces the monitor, then the shadow, by exec in the same pids, and waits until both run
the same version again: the new one, or the one before if it came to nothing, which is an
error (exit 5) that says why. Without an argument the path that runs now is read again
(after a package update). A binary that does not run is refused before anything is done.`,
		Example: "  gemel upgrade\n  gemel upgrade ./bin/gemel",
		RunE: func(c *cobra.Command, args []string) error {
			q := &gemelv1.UpgradeRequest{}
			if len(args) == 1 {
				abs, err := filepath.Abs(args[0])
				if err != nil {
					return fmt.Errorf("finding %s: %w", args[0], err)
				}
				q.Binary = abs
			}
			r, how, err := upgrade(c.Context(), t, q)
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(object(r))
			}
			fmt.Fprintf(t.out, "upgraded %s\n", how)
			fmt.Fprintf(t.out, "  to take it back: %s, with the binary of %s\n", t.command("gemel upgrade BINARY"), r.GetFrom())
			return nil
		},
	}
}

// upgrade asks for it and waits for the event of its end. It listens before it
// asks, so that the event cannot be missed, and goes on over the time in which
// nobody answers.
func upgrade(parent context.Context, t *tool, q *gemelv1.UpgradeRequest) (r *gemelv1.UpgradeResponse, how string, err error) {
	client, err := t.dial()
	if err != nil {
		return nil, "", err
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(parent, upgradeTime)
	defer cancel()
	filter := &gemelv1.EventFilter{Codes: []uint32{uint32(ha.Upgraded), uint32(ha.UpgradeFailed)}}
	err = client.Follow(ctx, &gemelv1.WatchEventsRequest{Filter: filter}, func(m *gemelv1.WatchEventsResponse) error {
		e := m.GetEvent()
		switch {
		case m.GetLive() && r == nil:
			from := client.Daemon.GetVersion()
			var known *ha.Error
			if r, err = client.Upgrade(ctx, q); errors.As(rpc.Explain(err), &known) && known.Kind == ha.ErrUnavailable {
				// Whether it had begun is not known: then the event comes soon.
				r, err = &gemelv1.UpgradeResponse{From: from, To: "?"}, nil
				short := time.AfterFunc(unknownTime, cancel)
				context.AfterFunc(ctx, func() { short.Stop() })
			}
			return err
		case r == nil || e.GetSubject().GetKind() != gemelv1.Kind_KIND_NODE:
			return nil
		case e.GetCode() == uint32(ha.UpgradeFailed):
			return &ha.Error{Kind: ha.ErrRefused, Reason: "not-upgraded", Err: fmt.Errorf("not upgraded %s", e.GetDetail()),
				Hint: fmt.Sprintf("the programs were not touched; what happened: %s", t.command(fmt.Sprintf("gemel why %d", e.GetId())))}
		}
		how = e.GetDetail()
		return errSeen
	})
	if errors.Is(err, errSeen) {
		return r, how, nil
	}
	if r != nil && ctx.Err() != nil && parent.Err() == nil {
		err = &ha.Error{Kind: ha.ErrUnavailable, Reason: "upgrading", Err: fmt.Errorf("upgrading from %s to %s: no word of its end within %s", r.GetFrom(), r.GetTo(), ha.Span(time.Since(began))),
			Hint: "what there is: " + t.command("gemel status") + ", " + t.command("gemel events")}
	}
	return r, how, err
}
